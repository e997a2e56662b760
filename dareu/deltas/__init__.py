"""What training changed: patches, task vectors, and merging models that were trained from one base."""

from dareu.deltas.merging import Merge, merge_models
from dareu.deltas.patches import Patch, apply_patch, make_patch
from dareu.deltas.task_vectors import MERGE_METHODS, MergeMethod, TaskVector, merge_vectors

__all__ = [
    "MERGE_METHODS",
    "Merge",
    "MergeMethod",
    "Patch",
    "TaskVector",
    "apply_patch",
    "make_patch",
    "merge_models",
    "merge_vectors",
]
