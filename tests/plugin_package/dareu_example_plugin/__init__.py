"""A plug-in for dareu, of every kind one: install this folder with pip, and name them `dareu_example_plugin:NAME`."""

from dareu_example_plugin.classifiers import LengthClassifier
from dareu_example_plugin.rewards import BrevityReward, likeness

__all__ = ["BrevityReward", "LengthClassifier", "likeness"]
