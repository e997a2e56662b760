"""Weights as tensors and as files: reading and writing, fingerprints, selected entries, sharding."""

from dareu.weights.fingerprint import fingerprint, named_weights
from dareu.weights.saved import CheckpointWeights

__all__ = ["CheckpointWeights", "fingerprint", "named_weights"]
