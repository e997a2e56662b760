"""Which parameters take part, by patterns over the names of modules and parameters."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from dareu.weights.sharding import reshard


def chosen_parameters(
    model: nn.Module, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> dict[str, nn.Parameter]:
    """The parameters that patterns choose, by name, tied ones once under their first name.

    A pattern is a shell pattern (`*`, `?`, `[0-9]`; `*` crosses dots) and is matched against the whole name of
    the parameter or of any module around it: `model.layers.0`, `*.mlp` and `*norm.weight` all choose.

    Args:
        model: The model.
        include: Patterns of what is taken; everything where there is none.
        exclude: Patterns of what is left out of that.

    Raises:
        ValueError: If a pattern fits no name, or nothing is left.
    """
    reshard(model)
    parameters = dict(model.named_parameters())
    # Every name that may stand for the parameter: its own and those of the modules around it.
    names = {name: [name[:end] for end, c in enumerate(name + ".") if c == "."] for name in parameters}
    for option, patterns in (("include", include), ("exclude", exclude)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for candidates in names.values() for name in candidates):
                raise ValueError(
                    f"{option} has the pattern {pattern!r}, which fits no module or parameter of the model, "
                    f"such as {next(iter(parameters), 'none')!r}; correct it."
                )

    def fits(name: str, patterns: Sequence[str]) -> bool:
        return any(fnmatchcase(candidate, pattern) for candidate in names[name] for pattern in patterns)

    chosen = {
        name: parameter
        for name, parameter in parameters.items()
        if (not include or fits(name, include)) and not fits(name, exclude)
    }
    if not chosen:
        raise ValueError(
            f"include={list(include)} and exclude={list(exclude)} leave no parameter to score; exclude less."
        )
    return chosen
