"""A plug-in for dareu, of every kind one: install this folder with pip, and name them `dareu_example_plugin:NAME`."""

from dareu_example_plugin.audits import INSISTING
from dareu_example_plugin.classifiers import LengthClassifier
from dareu_example_plugin.data import correspondents
from dareu_example_plugin.estimators import leave_one_out, monte_carlo
from dareu_example_plugin.metrics import BREVITY
from dareu_example_plugin.rewards import BrevityReward, likeness
from dareu_example_plugin.scores import outlying

__all__ = [
    "BREVITY",
    "INSISTING",
    "BrevityReward",
    "LengthClassifier",
    "correspondents",
    "leave_one_out",
    "likeness",
    "monte_carlo",
    "outlying",
]
