"""Tasks of the language model evaluation harness, which is called and not copied."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dareu.metrics._intervals import Estimate
from dareu.metrics._metric import Metric
from dareu.models.forward import evaluation_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def _numbers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[str] = (),
    num_fewshot: int | None = None,
    limit: int | None = None,
    batch_size: int = 16,
    include_path: str | None = None,
) -> dict[str, Estimate | float]:
    """`tasks`: their names, as of `lm_eval`; `limit`: rows of each; `include_path`: a folder with tasks of your own.

    Gives `lm_eval_<task>_<metric>`, with 1.96 standard errors as its interval where the harness gives one.
    """
    if not tasks:
        raise ValueError("The metric 'lm_eval' needs tasks: give metric_kwargs as {lm_eval: {tasks: [mmlu]}}.")
    try:
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ValueError(f"The metric 'lm_eval' needs the harness ({error}): pip install 'dareu[lm-eval]'.") from error
    # The harness seeds the global generators, by which a training that it interrupts draws
    states = random.getstate(), np.random.get_state()
    with evaluation_mode(model), torch.random.fork_rng():
        evaluated: Any = lm_eval.simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size),
            tasks=[tasks] if isinstance(tasks, str) else list(tasks),
            num_fewshot=num_fewshot,
            limit=limit,
            task_manager=TaskManager(include_path=include_path),
        )
    random.setstate(states[0])
    np.random.set_state(states[1])
    numbers: dict[str, Estimate | float] = {}
    for task, values in evaluated["results"].items():
        for told, value in values.items():
            metric, _, kind = told.partition(",")
            if not isinstance(value, int | float) or metric.endswith("_stderr") or not kind:
                continue
            spread = values.get(f"{metric}_stderr,{kind}")
            name = re.sub(r"\W+", "_", f"lm_eval_{task}_{metric}{'' if kind == 'none' else '_' + kind}").lower()
            known = isinstance(spread, int | float)
            numbers[name] = Estimate(value, value - 1.96 * spread, value + 1.96 * spread) if known else float(value)
    return numbers


LM_EVAL = Metric(_numbers, splits=(), costly=True)
