"""Trackers that a training reports to, such as TensorBoard; one that is not there is refused before any training."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

#: Options that say what is told to whom, and leave what is computed as it is.
TRACKING = ("report_to", "run_name", "project", "log_completions", "log_unique_prompts", "num_completions_to_print")
#: The modules of trackers that are not called as their module is; any of them will do.
_MODULES = {"azure_ml": ("azureml",), "flyte": ("flytekit",), "tensorboard": ("tensorboard", "tensorboardX")}


def check_trackers(names: Sequence[str]) -> None:
    """Refuses trackers that nobody knows, and those that are not installed.

    Args:
        names: What `report_to` names.

    Raises:
        ValueError: There is one; the Trainer would end with a traceback once the models are loaded.
    """
    if not names:
        return
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise ValueError(f"report_to names {name!r}, which is no tracker: give none, all, or some of {known}.")
        modules = _MODULES.get(name, (name,))
        if name != "kubeflow" and not any(find_spec(module) for module in modules):  # that one is an address
            raise ValueError(
                f"report_to names {name}, whose package {modules[0]} is not installed: install it, or leave it out."
            )
