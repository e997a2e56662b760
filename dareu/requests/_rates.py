"""Learning rates to try, by the size of a model."""

from __future__ import annotations

from dareu.methods import Method

#: From one trial to the next.
_STEP = 2.0
#: The rate at a million parameters and the power of their number that it falls with, of methods that learn from rewards
#: and of those that descend a loss: lines through the rates of recipes/configs, of models of 1 million to 1 billion.
_BY_REWARD, _BY_LOSS = (2e-3, -0.6), (1e-4, -0.25)
#: An adapter's, beside that of all weights.
_LORA = 10.0


def rates_to_try(method: Method, num_parameters: int, *, lora: bool) -> list[float]:
    """Three learning rates around the usual one, the lowest first, to two digits.

    Args:
        method: Of the training.
        num_parameters: Of the model, ≥ 1.
        lora: Whether an adapter is trained.
    """
    at_a_million, power = _BY_REWARD if method.loss is None else _BY_LOSS
    usual = at_a_million * max(1.0, num_parameters / 1e6) ** power * (_LORA if lora else 1.0)
    return [float(f"{usual * factor:.2g}") for factor in (1 / _STEP, 1.0, _STEP)]
