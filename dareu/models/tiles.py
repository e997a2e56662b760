"""What losses take of distributions over the vocabulary, a tile of tokens at a time.

An array of tokens × vocabulary is most of the memory of a loss on a real vocabulary. Here the hidden states wait, and
logits are made for some tokens at once, reduced to numbers a token, turned into their gradient in place and dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

#: Logits of a tile: so few that three float32 arrays of them are 100 MB, and so many that products are efficient.
TILE_ELEMENTS = 2**23
#: The largest coefficient of a float16 tile, in which small slopes do not round to 0 and large sums stay finite.
_FLOAT16_PEAK = 128.0

#: What can be asked of a distribution π in a token's place, y the token and t a teacher's distribution there:
#: log π(y); the entropy of π; KL(t ‖ π); and where q is t without y, its rest scaled to 1: −Σ q log π, and
#: log t(y) − log(1 − t(y)).
TERMS = ("logps", "entropy", "kl", "others_nll", "ref_odds")
#: Those that compare π with a teacher. The last one is of the teacher alone and has no gradient.
OF_TEACHER = TERMS[2:]


class Predictions(NamedTuple):
    """Distributions over a vocabulary V in the places of n tokens."""

    inputs: Tensor
    """(n, H) hidden states, as the head takes them; without a weight, the logits themselves, (n, V)."""
    weight: Tensor | None = None
    """(V, H) of the head."""
    bias: Tensor | None = None
    """(V,) of the head."""
    scale: float = 1.0
    """Multiplies what the head gives."""
    cap: float | None = None
    """Then bounds it, as cap · tanh(· / cap)."""
    temperature: float = 1.0
    """Divides the logits."""

    @property
    def vocab_size(self) -> int:
        """V."""
        return len(self.weight) if self.weight is not None else self.inputs.shape[1]

    def logits(self, rows: slice) -> Tensor:
        """Of some of the tokens: float32 (at least), a tensor of its own.

        A product is in the precision of autocast where that is on, as the model's own would be.
        """
        if self.weight is None:
            logits = self.inputs[rows].to(_at_least_float32(self.inputs), copy=True)
        else:
            logits = linear(self.inputs[rows], self.weight, self.bias)
            logits = logits.to(_at_least_float32(logits))
        logits = self.transformed(logits)
        return logits if self.temperature == 1 else logits.div_(self.temperature)

    def transformed(self, logits: Tensor) -> Tensor:
        """What the model makes of its head's output, in place."""
        if self.scale != 1:
            logits.mul_(self.scale)
        if self.cap is not None:
            logits.div_(self.cap).tanh_().mul_(self.cap)
        return logits

    def ready(self) -> Predictions:
        """The same for many tiles: what autocast would cast for each of them is cast once."""
        if self.weight is None or not torch.is_autocast_enabled(self.inputs.device.type):
            return self
        dtype = torch.get_autocast_dtype(self.inputs.device.type)
        bias = None if self.bias is None else self.bias.to(dtype)
        return self._replace(inputs=self.inputs.to(dtype), weight=self.weight.to(dtype), bias=bias)

    def kept(self, *, stays: bool) -> Predictions:
        """The same for later, when the weight may be another, in as few bytes as that takes.

        Args:
            stays: Whether a weight that is not trained is the same until then.
        """
        if self.weight is None or (stays and not self.weight.requires_grad):
            return self
        ready = self.ready()
        assert ready.weight is not None
        if ready.weight[0].nbytes > _at_least_float32(self.inputs).itemsize * len(self.inputs):
            return Predictions(self._replace(temperature=1.0).logits(slice(None)), temperature=self.temperature)
        return ready._copied()

    def with_head_kept(self) -> Predictions:
        """The same for many more hidden states later, when a weight that is trained may be another."""
        return self if self.weight is None or not self.weight.requires_grad else self.ready()._copied()

    def _copied(self) -> Predictions:
        assert self.weight is not None
        bias = None if self.bias is None else self.bias.detach().clone()
        return self._replace(weight=self.weight.detach().clone(), bias=bias)


def token_terms(
    names: Sequence[str], predictions: Predictions, tokens: Tensor, teacher: Predictions | None = None
) -> Tensor:
    """Terms of each token, differentiable: the backward makes the logits again.

    Args:
        names: m of `TERMS`; not `kl` and one of the last two at once, nor the entropy and what needs a teacher.
        predictions: π. Gradients flow to its inputs, weight and bias.
        tokens: int64 (n,).
        teacher: For `OF_TEACHER`; constant.

    Returns:
        float32 (at least) (1, m, n).
    """
    parts = (predictions.inputs, predictions.weight, predictions.bias)
    result: Tensor = _TokenTerms.apply(*parts, tuple(names), predictions, tokens, teacher)  # type: ignore[no-untyped-call]
    return result


def weighted_term(
    name: str, weights: Tensor, predictions: Predictions, tokens: Tensor, teacher: Predictions | None = None
) -> Tensor:
    """Σ weights · term over tokens, whose gradient is taken in the same pass, since nothing it needs comes later.

    Until the backward it keeps gradients of the hidden states and of the head, and no logits.

    Args:
        name: One of `TERMS`.
        weights: float32 (n,), constant.
        predictions: As for `token_terms`, as are the others.
        tokens: int64 (n,).
        teacher: For `OF_TEACHER`.

    Returns:
        float32 (at least) (1, 1, 1).
    """
    parts = (predictions.inputs, predictions.weight, predictions.bias)
    wanted = torch.is_grad_enabled()
    result: Tensor = _WeightedTerm.apply(*parts, name, weights, predictions, tokens, teacher, wanted)  # type: ignore[no-untyped-call]
    return result


class _TokenTerms(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        names: tuple[str, ...],
        predictions: Predictions,
        tokens: Tensor,
        teacher: Predictions | None,
    ) -> Tensor:
        ctx.save_for_backward(inputs, weight, bias)
        ctx.names, ctx.tokens, ctx.teacher = names, tokens, teacher
        ctx.others = predictions[3:]
        device = inputs.device.type
        ctx.autocast = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        return _sweep(names, predictions, tokens, teacher, None, (False,) * 3)[0][None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        inputs, weight, bias = ctx.saved_tensors
        enabled, dtype = ctx.autocast
        with torch.autocast(inputs.device.type, dtype, enabled=enabled):
            predictions = Predictions(inputs, weight, bias, *ctx.others)
            _, *found = _sweep(
                ctx.names, predictions, ctx.tokens, ctx.teacher, gradients[0][0], ctx.needs_input_grad[:3]
            )
        return *found, None, None, None, None


class _WeightedTerm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        name: str,
        weights: Tensor,
        predictions: Predictions,
        tokens: Tensor,
        teacher: Predictions | None,
        wanted: bool,
    ) -> Tensor:
        needs = ctx.needs_input_grad[:3] if wanted else (False,) * 3
        ctx.scale = weights.new_ones(())
        head = predictions.ready().weight
        if head is not None and head.dtype == torch.float16 and inputs.dtype != torch.float16:
            # A mean's small slopes would round to 0 before the loss is scaled
            ctx.scale = _FLOAT16_PEAK / weights.abs().amax().clamp(min=torch.finfo(torch.float32).tiny)
        terms, *found = _sweep((name,), predictions, tokens, teacher, ctx.scale * weights[None], needs)
        ctx.save_for_backward(*found)
        return (terms * weights).sum().reshape(1, 1, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        gradient = gradients[0].reshape(()) / ctx.scale
        # In place, since the head's gradient is as large as the head; a second backward is refused for it.
        scaled = [None if part is None else part.mul_(gradient.to(part)) for part in ctx.saved_tensors]
        return *scaled, *(None,) * 6


def _sweep(
    names: Sequence[str],
    predictions: Predictions,
    tokens: Tensor,
    teacher: Predictions | None,
    coefficients: Tensor | None,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """The terms (m, n), and of Σ coefficients · terms the gradients by inputs, weight and bias that are needed."""
    assert teacher is None or len(teacher.inputs) == len(tokens)
    ours, theirs = predictions.ready(), None if teacher is None else teacher.ready()
    inputs, weight, bias = predictions[:3]
    by_inputs = torch.empty_like(inputs) if needs[0] else None
    by_weight = None if weight is None or not needs[1] else torch.zeros_like(weight, dtype=_at_least_float32(weight))
    by_bias = None if bias is None or not needs[2] else torch.zeros_like(bias, dtype=_at_least_float32(bias))
    step = max(1, TILE_ELEMENTS // predictions.vocab_size)
    values = []
    for rows in (slice(start, start + step) for start in range(0, len(tokens), step)):
        logits = ours.logits(rows)
        slope = _slope(ours, logits) if any(needs) else None
        part = None if coefficients is None else coefficients[:, rows]
        found, gradient = _tile(names, logits, tokens[rows], None if theirs is None else theirs.logits(rows), part)
        values.append(found)
        if not any(needs):
            continue
        assert gradient is not None
        if slope is not None:
            gradient.mul_(slope)
        _add_gradients(ours, gradient, rows, by_inputs, by_weight, by_bias)
    terms = torch.cat(values, 1) if values else inputs.new_zeros(len(names), 0, dtype=_at_least_float32(inputs))
    return (
        terms,
        by_inputs,
        None if by_weight is None or weight is None else by_weight.to(weight.dtype),
        None if by_bias is None or bias is None else by_bias.to(bias.dtype),
    )


def _add_gradients(
    head: Predictions,
    gradient: Tensor,
    rows: slice,
    by_inputs: Tensor | None,
    by_weight: Tensor | None,
    by_bias: Tensor | None,
) -> None:
    """Carries a tile's gradient by logits (k, V) back through the head."""
    if by_bias is not None:
        by_bias += gradient.sum(0)
    if head.weight is None:
        if by_inputs is not None:
            by_inputs[rows] = gradient
        return
    gradient = gradient.to(head.weight.dtype)
    with torch.autocast(gradient.device.type, enabled=False):
        if by_inputs is not None:
            by_inputs[rows] = gradient @ head.weight
        if by_weight is not None and by_weight.dtype == gradient.dtype:
            by_weight.addmm_(gradient.T, head.inputs[rows])
        elif by_weight is not None and gradient.is_cuda:  # products that are not rounded before they are summed
            torch.addmm(by_weight, gradient.T, head.inputs[rows], out_dtype=torch.float32, out=by_weight)
        elif by_weight is not None:
            by_weight += gradient.T @ head.inputs[rows]


def _tile(
    names: Sequence[str], logits: Tensor, tokens: Tensor, teacher: Tensor | None, coefficients: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Terms (m, k) of a tile, and the gradient of Σ coefficients · terms by its logits; both arrays are used up."""
    assert teacher is None or "entropy" not in names, "one pass gives the entropy or what compares with a teacher"
    column = tokens[:, None]
    logits.sub_(logits.amax(-1, keepdim=True))
    picked = logits.gather(-1, column).squeeze(-1)
    found: dict[str, Tensor] = {}
    weights: Tensor | None = None  # of the teacher's part, not yet scaled to 1
    total = dot = None
    if teacher is not None:
        if "kl" not in names:
            odds = teacher.gather(-1, column).squeeze(-1)
            teacher.scatter_(-1, column, -torch.inf)
        top = teacher.amax(-1, keepdim=True)
        teacher.sub_(top)
        weights = teacher.exp()
        total = weights.sum(-1)
        if "kl" in names:
            dot = teacher.sub_(logits).mul_(weights).sum(-1) / total - total.log()
        else:
            found["ref_odds"] = odds - top.squeeze(-1) - total.log()
            dot = -torch.mul(logits, weights, out=teacher).sum(-1) / total
    shifted = logits
    if "entropy" in names:
        logits = logits.exp()
    else:
        logits.exp_()
    own_total = logits.sum(-1)
    found["logps"] = picked - own_total.log()
    if dot is not None:
        found["kl" if "kl" in names else "others_nll"] = dot + own_total.log()
    if "entropy" in names:
        mean = torch.linalg.vecdot(shifted, logits) / own_total
        found["entropy"] = own_total.log() - mean
    terms = torch.stack([found[name] for name in names])
    if coefficients is None:
        return terms, None
    given = dict(zip(names, coefficients, strict=True))
    of_token = given.get("logps", torch.zeros_like(own_total))
    of_rest = given.get("kl", given.get("others_nll", torch.zeros_like(own_total)))
    if "entropy" in names and (of_entropy := given["entropy"]).any():
        slopes = shifted.sub_(mean[:, None]).mul_(-of_entropy[:, None]).sub_(of_token[:, None])
        logits.mul_(slopes.div_(own_total[:, None]))
    else:
        logits.mul_(((of_rest - of_token) / own_total)[:, None])
    if weights is not None:
        assert total is not None
        logits.sub_(weights.mul_((of_rest / total)[:, None]))  # rounded alike: exactly 0 at the teacher
    return terms, logits.scatter_add_(-1, column, of_token[:, None].to(logits.dtype))


def _slope(head: Predictions, logits: Tensor) -> Tensor | float | None:
    """The derivative of logits by what the head gives."""
    factor = head.scale / head.temperature
    if head.cap is None:
        return None if factor == 1 else factor
    return (logits * (head.temperature / head.cap)).square_().neg_().add_(1).mul_(factor)


def _at_least_float32(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
