"""WAGLE weight scores: how much each weight matters to the forget records against the retained ones."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Batch = Mapping[str, Tensor]


class WagleScores(dict[str, Tensor]):
    """Parameter name to its signed float32 scores, with the gamma that they were made with.

    Attributes:
        gamma: The gamma of the equation; the resolved number where ``"auto"`` was asked for.
    """

    def __init__(self, scores: Mapping[str, Tensor], gamma: float) -> None:
        super().__init__(scores)
        self.gamma = gamma


def wagle_scores(
    model: nn.Module,
    forget_batches: Iterable[Batch],
    retain_batches: Iterable[Batch],
    *,
    gamma: float | Literal["auto"] = "auto",
) -> WagleScores:
    r"""Score every weight by WAGLE's attribution (Jia et al., NeurIPS 2024, arXiv 2410.17509).

    .. math:: S_i = \theta_i g_{f,i} - \tfrac{1}{\gamma} g_{r,i} g_{f,i}

    The gradients ``g_f`` and ``g_r`` are means over records of the gradient of the record's mean loss over
    its completion tokens, so scores do not depend on how records are batched (1e-5 in float32). They are
    summed in float32 whatever the model's dtype is. The paper sets gamma against **sums** over the samples:
    its values (1e-6 for TOFU) do not carry over to these means.

    Every parameter is scored once, tied weights under their first name, and also those that do not require a
    gradient. Memory: the model, its gradients, and two float32 copies of the parameters' size.

    Args:
        model: A causal language model called with ``input_ids``, ``attention_mask`` and ``use_cache=False``
            (and ``position_ids`` for left-padded batches) that returns an object with ``logits`` (B, T, V).
            It is run in evaluation mode and left as it was, without gradients.
        forget_batches: Batches of the records to forget, each with int64 tensors ``input_ids``,
            ``attention_mask`` and ``labels`` of shape (B, T); labels are -100 outside the completion.
        retain_batches: The same for records to retain.
        gamma: What stands for the Hessian of the retain loss, in [0, inf]. The limits are exact in ranking:
            ``0`` gives ``-g_r * g_f`` and ``inf`` gives ``theta * g_f``. ``"auto"`` balances the two terms:
            ``norm(g_r * g_f) / norm(theta * g_f)``.

    Returns:
        Parameter name to float32 scores of the parameter's shape and device, in the model's order.

    Raises:
        ValueError: If ``gamma`` is out of range, a side has no batch, a record has no completion token, a
            parameter is not of floating point, a gradient or score is not finite, or ``"auto"`` finds nothing
            to balance.
    """
    if gamma != "auto" and (isinstance(gamma, str) or not gamma >= 0):
        raise ValueError(f"gamma is {gamma!r}; give a number in [0, inf] or 'auto'.")

    with _scoring(model):
        forget = _mean_gradients(model, forget_batches, "forget")
        retain = _mean_gradients(model, retain_batches, "retain")
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    value = _balancing_gamma(parameters, forget, retain) if gamma == "auto" else float(gamma)

    for name, theta in parameters.items():
        # The scores replace the forget gradients, and a retain gradient goes once it was used.
        score, retained = forget[name], retain.pop(name)
        if value == 0:
            score.mul_(-retained)
        elif value == math.inf:
            score.mul_(theta)
        else:
            score.mul_(retained.mul_(-1 / value).add_(theta))
        if not torch.isfinite(score).all():
            raise ValueError(
                f"gamma={value} gives scores beyond float32 in parameter {name!r}; "
                "use a larger gamma, or 0 for its limit."
            )
    return WagleScores(forget, value)


@contextmanager
def _scoring(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, a gradient for every parameter; puts both back and drops the gradients."""
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            raise ValueError(
                f"Parameter {name!r} has dtype {parameter.dtype}, which takes no gradient; "
                "load the model without quantisation to score its weights."
            )
    training = {module: module.training for module in model.modules()}
    requires_grad = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.eval()
    model.requires_grad_(True)
    model.zero_grad(set_to_none=True)
    try:
        with torch.enable_grad():
            yield
    finally:
        model.zero_grad(set_to_none=True)
        for module, mode in training.items():
            module.training = mode
        for parameter, required in requires_grad.items():
            parameter.requires_grad_(required)


def _mean_gradients(model: nn.Module, batches: Iterable[Batch], side: str) -> dict[str, Tensor]:
    """Mean over records of each record's gradient, float32, checked to be finite."""
    parameters = dict(model.named_parameters())
    sums = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}
    records = 0
    for batch in batches:
        _sum_of_record_losses(model, batch, side).backward()
        records += len(batch["input_ids"])
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                sums[name].add_(parameter.grad)
                parameter.grad = None
    if not records:
        raise ValueError(f"There is no {side} batch to score the weights with; give at least one {side} record.")
    for name, total in sums.items():
        if not torch.isfinite(total).all():
            raise ValueError(
                f"The {side} gradient of parameter {name!r} is not finite; "
                "check the model's weights, or load it in float32."
            )
        total.div_(records)
    return sums


def _sum_of_record_losses(model: nn.Module, batch: Batch, side: str) -> Tensor:
    """Sum over the records of a batch of each record's mean loss over its completion tokens."""
    device = next(model.parameters()).device
    attention_mask = batch["attention_mask"].to(device)
    inputs = {"input_ids": batch["input_ids"].to(device), "attention_mask": attention_mask}
    if not attention_mask[:, 0].all():
        # Left padding: without these, models with absolute positions would see the record shifted.
        inputs["position_ids"] = (attention_mask.cumsum(-1) - 1).clamp(min=0)
    targets = batch["labels"].to(device)[:, 1:]
    scored = targets != -100
    lengths = scored.sum(dim=1, keepdim=True)
    if not lengths.all():
        raise ValueError(
            f"A {side} record has no completion token to score (its labels are all -100); "
            "leave it out, or raise the length at which records are cut."
        )
    logits = model(**inputs, use_cache=False).logits[:, :-1]
    losses = F.cross_entropy(logits[scored].float(), targets[scored], reduction="none")
    return (losses / lengths.expand_as(targets)[scored]).sum()


def _balancing_gamma(
    parameters: Mapping[str, Tensor], forget: Mapping[str, Tensor], retain: Mapping[str, Tensor]
) -> float:
    """The gamma at which both terms of the score have the same norm."""
    weight = math.hypot(*(_product_norm(theta, forget[name]) for name, theta in parameters.items()))
    interference = math.hypot(*(_product_norm(retain[name], forget[name]) for name in parameters))
    if weight == 0 or interference == 0:
        raise ValueError(
            "gamma='auto' finds nothing to balance, for the forget gradient times the "
            f"{'weights' if weight == 0 else 'retain gradient'} is zero everywhere; give gamma as a number."
        )
    return interference / weight


def _product_norm(a: Tensor, b: Tensor) -> float:
    return float(torch.linalg.vector_norm(a * b, dtype=torch.float64))
