"""A name for weights that says what they are."""

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dareu.weights.sharding import reshard, whole


def fingerprint(weights: nn.Module | Mapping[str, Tensor]) -> str:
    """Hashes the names, dtypes, shapes and bytes of weights.

    The same weights have the same fingerprint on any device, in any order, training or not. The parameters of
    a model count once each, tied ones under their first name. 16-bit floats count as the float32 numbers that
    they are, so that a bfloat16 checkpoint may be loaded in either dtype. Sharded weights are gathered, a tensor at a
    time: every process must call this then.

    Args:
        weights: A model, or parameter name to tensor.

    Returns:
        32 hexadecimal digits.
    """
    named = named_weights(weights)
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(named):
        tensor = whole(named[name].detach())
        if tensor.dtype in (torch.bfloat16, torch.float16):
            tensor = tensor.float()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def named_weights(weights: nn.Module | Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The parameters of a model by name, tied ones once; a mapping is returned as it is."""
    if not isinstance(weights, nn.Module):
        return weights
    reshard(weights)
    return dict(weights.named_parameters())
