"""The scores by name, an open dict, and the one door to all of them."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from dareu.masks._wagle import wagle_scores
from dareu.masks._wanda import wanda_scores
from dareu.masks.controls import (
    gradient_product_scores,
    gradient_scores,
    magnitude_scores,
    random_scores,
    snip_scores,
)
from dareu.masks.gradients import AccumulateOn, Batch, check_floating_point
from dareu.masks.patterns import chosen_parameters
from dareu.masks.weight_scores import WeightScores
from dareu.plugins import needed_parameters, plugin_name, resolve
from dareu.weights.sharding import first_not_finite, mesh_of


class Score(NamedTuple):
    """What ranks weights."""

    compute: Callable[..., Mapping[str, Tensor]]
    """Its parameters without defaults are names of `OFFERED`, the others its own options. It returns scores of the
    parameter's shape for every one of the parameters, by name; a `WeightScores` where there is a gamma."""
    shards: bool = True
    """Whether weights may be sharded over processes."""


#: The scores of weights by name, an open dict.
SCORES: dict[str, Score] = {
    "wagle": Score(wagle_scores),
    "random": Score(random_scores),
    "magnitude": Score(magnitude_scores),
    "wanda": Score(wanda_scores, shards=False),
    "snip": Score(snip_scores),
    "gradient_product": Score(gradient_product_scores),
    "gradient": Score(gradient_scores),
}

#: What a score may ask for: `parameters` are those to score, by name; the others as `score_weights` takes them.
OFFERED = (
    *("model", "parameters", "forget_batches", "retain_batches", "gamma", "seed"),
    *("accumulate_on", "folder"),
)


def find_score(score: str, options: Mapping[str, Any] = MappingProxyType({})) -> Score:
    """The score of a name, once it is known that it asks for what there is and that the options are its own.

    Args:
        score: See `score_weights`.
        options: See `score_weights`.

    Raises:
        ValueError: There is no such score, it asks for something else than `OFFERED`, or has no such option.
    """
    found = resolve(score, SCORES)
    entry = found if isinstance(found, Score) else Score(found)
    needed_parameters(entry.compute, OFFERED, options, f"The score {score!r}")
    return entry


def score_weights(
    model: nn.Module,
    score: str,
    forget_batches: Iterable[Batch] = (),
    retain_batches: Iterable[Batch] = (),
    *,
    gamma: float | Literal["auto"] = "auto",
    seed: int = 0,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    accumulate_on: AccumulateOn = "memory",
    folder: str | os.PathLike[str] | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> WeightScores:
    r"""Scores the weights of a model by WAGLE, by one of its controls, or by a score of your own.

    ==================  =============================================================  ======================
    score               of a weight                                                    needs
    ==================  =============================================================  ======================
    wagle               `wagle_scores`                                                 forget, retain, gamma
    random              a random number of its own                                     seed
    magnitude           :math:`|\theta|`                                               nothing
    wanda               place of :math:`|\theta_{ij}| \lVert x_j \rVert` in its row    forget
    snip                :math:`|\theta g_f|`, WAGLE at gamma = inf                     forget
    gradient_product    :math:`|g_r g_f|`, WAGLE at gamma = 0                          forget, retain
    gradient            :math:`|g_f|`                                                  forget
    ==================  =============================================================  ======================

    Scores carry their signs; selection ranks absolute values. Random and magnitude take no memory: the numbers are
    drawn when they are read, and the weights are read where they stand (so score before training). SNIP is by Lee et
    al. (arXiv 1810.02340), Wanda by Sun et al. (arXiv 2306.11695): see `wanda_scores` for the weights it leaves open.
    Several processes score together as `wagle_scores` says, but for Wanda, which takes whole weights.

    Args:
        model: The model, as `wagle_scores` takes it.
        score: A name of the table, or a `Score` or its function of your own, as `pkg.mod:Name` or
            `path/to/file.py:Name`.
        forget_batches: Batches of the records to forget, as `wagle_scores` takes them.
        retain_batches: Batches of the records to retain.
        gamma: Of `"wagle"` alone.
        seed: Of `"random"` alone; a weight's number depends on it and on the parameter's name and shape only.
        include: Patterns of the modules and parameters to score, as in `chosen_parameters`; default: all.
        exclude: Patterns of those to leave out.
        accumulate_on: Where sums of gradients stand, as in `wagle_scores`.
        folder: Folder of the sums of `"disk"`; None: the system's temporary folder.
        options: The score's own options, by name.

    Returns:
        Parameter name to scores of the parameter's shape, in the model's order, with the score's name (of a plug-in its
        last part).

    Raises:
        ValueError: If `score` is unknown, asks for what is not in `OFFERED` or has no such option, a pattern fits
            nothing, weights are sharded and it takes whole ones, batches that it needs are missing, a plug-in returns
            no finite score for every weight, or as `wagle_scores` says.
    """
    entry, what = find_score(score, options), f"The score {score!r}"
    parameters = chosen_parameters(model, include, exclude)
    check_floating_point(parameters)
    if not entry.shards and mesh_of(parameters) is not None:
        raise ValueError(f"{what} takes whole weights: score them before the model is sharded.")
    offered = {
        "model": model,
        "parameters": parameters,
        "forget_batches": forget_batches,
        "retain_batches": retain_batches,
        "gamma": gamma,
        "seed": seed,
        "accumulate_on": accumulate_on,
        "folder": folder,
    }
    needs = needed_parameters(entry.compute, offered, options, what)
    found = entry.compute(**{need: offered[need] for need in needs}, **options)
    scores, resolved = (found.scores, found.gamma) if isinstance(found, WeightScores) else (found, None)
    if score not in SCORES:
        scores = _checked(scores, parameters, what)
    return WeightScores(scores, plugin_name(score), resolved)


def _checked(found: Any, parameters: Mapping[str, nn.Parameter], what: str) -> Mapping[str, Tensor]:
    """What a plug-in returned, in the parameters' order, once it is known to be a finite score for every weight."""
    if not isinstance(found, Mapping):
        raise ValueError(f"{what} returns {type(found).__name__}: return a mapping from parameter name to scores.")
    if foreign := [name for name in found if name not in parameters]:
        raise ValueError(f"{what} scores {foreign[0]!r}, which is not among the parameters to score: leave it out.")
    if missing := [name for name in parameters if name not in found]:
        raise ValueError(f"{what} gives parameter {missing[0]!r} no scores: score every parameter that it is given.")
    for name, parameter in parameters.items():
        scores = found[name]
        if not isinstance(scores, Tensor) or not scores.is_floating_point():
            kind = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(f"{what} gives parameter {name!r} scores of {kind}: give a tensor of floats.")
        if scores.shape != parameter.shape:
            raise ValueError(
                f"{what} gives parameter {name!r} scores of shape {tuple(scores.shape)}: give {tuple(parameter.shape)}."
            )
    if (bad := first_not_finite(found)) is not None:
        raise ValueError(f"{what} gives parameter {bad!r} scores that are not all finite: give finite numbers.")
    return found if list(found) == list(parameters) else {name: found[name] for name in parameters}
