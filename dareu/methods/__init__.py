"""The unlearning methods by name, an open dict, with one file a method."""

from dareu.methods._method import Method
from dareu.methods.altpo import ALTPO
from dareu.methods.dareu import DAREU
from dareu.methods.dpo import DPO
from dareu.methods.finetune_retain import FINETUNE_RETAIN
from dareu.methods.gradient_ascent import GA, GRADDIFF, KL_MIN
from dareu.methods.idk import IDK
from dareu.methods.npo import NPO
from dareu.methods.rmu import RMU
from dareu.methods.satimp import SATIMP
from dareu.methods.scrub import SCRUB
from dareu.methods.simnpo import SIMNPO
from dareu.methods.task_vector import TASK_VECTOR
from dareu.methods.undial import UNDIAL
from dareu.methods.wga import WGA
from dareu.plugins import resolve

__all__ = ["METHODS", "Method", "find_method"]

#: The methods by name, an open dict.
METHODS: dict[str, Method] = {
    "altpo": ALTPO,
    "dareu": DAREU,
    "dpo": DPO,
    "finetune_retain": FINETUNE_RETAIN,
    "ga": GA,
    "graddiff": GRADDIFF,
    "idk": IDK,
    "kl_min": KL_MIN,
    "npo": NPO,
    "rmu": RMU,
    "satimp": SATIMP,
    "scrub": SCRUB,
    "simnpo": SIMNPO,
    "task_vector": TASK_VECTOR,
    "undial": UNDIAL,
    "wga": WGA,
}


def find_method(name: str) -> Method:
    """The method that a name stands for.

    Raises:
        ValueError: There is none, or what the name stands for is no `Method`.
    """
    method = resolve(name, METHODS)
    if not isinstance(method, Method):
        raise ValueError(f"The method {name!r} is a {type(method).__name__}: name a dareu.methods.Method.")
    return method
