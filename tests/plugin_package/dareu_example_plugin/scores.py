"""A score for masks: weights that lie far from the others of their tensor."""

from collections.abc import Mapping

from torch import Tensor


def outlying(parameters: Mapping[str, Tensor], *, power: float = 1.0) -> dict[str, Tensor]:
    """The distance of each weight from its tensor's mean, to a power; scores of the parameters' shapes."""
    return {name: (weight.detach() - weight.detach().mean()).abs() ** power for name, weight in parameters.items()}
