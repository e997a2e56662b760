"""Every metric of one model, from one pass of answers over each split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dareu.data.encoding import Text
from dareu.data.records import check_records, text_of
from dareu.metrics.attribution import Judge, attribution_scores, forget_columns
from dareu.metrics.facts import fact_recall, facts_beyond_prompt, name_kept
from dareu.metrics.generation import generate_answers
from dareu.metrics.likelihood import answer_nll, probability
from dareu.metrics.rouge import rouge_l_recall

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SPLITS = ("forget", "retain", "test")
JUDGES = ("reward", "validation", "test")


class Measurement(NamedTuple):
    """What was measured of one model."""

    metrics: dict[str, float]
    """Finite numbers by name."""
    answers: dict[str, list[str]]
    """The greedy answers to each split's rows, in order."""


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    splits: Mapping[str, Dataset],
    *,
    judges: Mapping[str, Judge],
    forget_owners: Sequence[str],
    base_model: PreTrainedModel | None = None,
    strip: Callable[[str, str], str] | None = None,
    max_new_tokens: int = 200,
    batch_size: int = 32,
) -> Measurement:
    """Measure a model on the rows to forget, rows to retain, and rows that no model was trained on.

    | metric | on | what |
    |---|---|---|
    | `<split>_rouge` | each split | ROUGE-L recall of the greedy answer |
    | `<split>_probability` | each split | exp(-NLL per token) of the gold answer |
    | `fact_recall`, `retain_fact_recall` | forget, retain | share of its new facts that the answer states |
    | `name_kept`, `retain_name_kept` | forget, retain | share of answers that keep the asked name |
    | `forget_attribution` | forget | probability of the forget owners by the judge "reward" |
    | `forget_attribution_validation` | forget | the same by the judge "validation" |
    | `forget_attribution_heldout` | forget | the same by the judge "test" |
    | `misattribution` | forget | highest probability of a retained owner by the judge "test" |
    | the last four with `_stripped` | forget | the same of what `strip` leaves of the answer |
    | `forget_answer_words` | forget | words of the answer |
    | `forget_base_nll` | forget | NLL per token of the model's answer under the base model: low is fluent |

    New facts are those that the prompt does not give. All are means over rows. A metric that does not apply
    is left out: no row has facts or a name, the judge, the base model or `strip` is not given, or the judge
    knows no retained owner.

    Args:
        model: The causal language model to measure; it stays in the mode it is in.
        tokenizer: The tokenizer of `model` and of `base_model`.
        splits: Record datasets `forget`, `retain`, `test`; optional columns `facts` and `name`.
        judges: Classifiers by job, any of "reward", "validation" and "test".
        forget_owners: Owners to forget, which every judge must know.
        base_model: The checkpoint that the target was fine-tuned from.
        strip: `strip(answer, prompt)` = the answer without what it repeats from the prompt.
        max_new_tokens: Most tokens of an answer.
        batch_size: Rows at once.

    Raises:
        ValueError: A split or judge is missing, unknown or malformed, a forget owner is unknown to a judge,
            or a row does not fit the model; all but the last before anything is generated.
    """
    _check(splits, judges, forget_owners)
    prompts = {split: list(splits[split]["prompt"]) for split in SPLITS}
    golds = {split: list(splits[split]["completion"]) for split in SPLITS}
    answers = {
        split: generate_answers(model, tokenizer, prompts[split], max_new_tokens=max_new_tokens, batch_size=batch_size)
        for split in SPLITS
    }
    rows: dict[str, NDArray[np.float64]] = {}
    for split in SPLITS:
        rows[f"{split}_rouge"] = rouge_l_recall(answers[split], [text_of(gold) for gold in golds[split]])
    for split in SPLITS:
        nll = answer_nll(model, tokenizer, prompts[split], golds[split], batch_size=batch_size)
        rows[f"{split}_probability"] = probability(nll.mean)
    for split, prefix in (("forget", ""), ("retain", "retain_")):
        kept = _fact_and_name_metrics(splits[split], answers[split])
        rows |= {prefix + name: values for name, values in kept.items()}
    rows |= _judge_metrics(judges, answers["forget"], forget_owners)
    if strip is not None:
        asked = [text_of(prompt) for prompt in prompts["forget"]]
        bare = [strip(answer, prompt) for answer, prompt in zip(answers["forget"], asked, strict=True)]
        stripped = _judge_metrics(judges, bare, forget_owners)
        rows |= {f"{name}_stripped": values for name, values in stripped.items()}
    rows["forget_answer_words"] = np.array([len(answer.split()) for answer in answers["forget"]], dtype=np.float64)
    if base_model is not None:
        given = [_in_form_of(gold, answer) for gold, answer in zip(golds["forget"], answers["forget"], strict=True)]
        nll = answer_nll(base_model, tokenizer, prompts["forget"], given, batch_size=batch_size, truncate=True)
        rows["forget_base_nll"] = nll.mean
    return Measurement(
        {name: float(np.nanmean(values)) for name, values in rows.items() if not np.isnan(values).all()},
        answers,
    )


def _check(splits: Mapping[str, Dataset], judges: Mapping[str, Judge], forget_owners: Sequence[str]) -> None:
    if set(splits) != set(SPLITS):
        raise ValueError(f"The splits are {', '.join(splits) or 'none'}: give {', '.join(SPLITS)}, no others.")
    unknown = [name for name in judges if name not in JUDGES]
    if unknown:
        raise ValueError(f"The judge {unknown[0]!r} has no metric: give judges named {', '.join(JUDGES)} only.")
    for split in SPLITS:
        if not len(splits[split]):
            raise ValueError(f"The split {split!r} has no rows: give it at least one.")
        try:
            check_records(splits[split])
        except ValueError as error:
            raise ValueError(f"The split {split!r}: {error}") from error
    for judge in judges.values():
        forget_columns(judge, forget_owners)


def _fact_and_name_metrics(dataset: Dataset, answers: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    prompts = [text_of(prompt) for prompt in dataset["prompt"]]
    golds = [text_of(gold) for gold in dataset["completion"]]
    metrics = {}
    if "facts" in dataset.column_names:
        facts = facts_beyond_prompt(list(dataset["facts"]), prompts)
        metrics["fact_recall"] = fact_recall(answers, facts)
    names = list(dataset["name"]) if "name" in dataset.column_names else None
    metrics["name_kept"] = name_kept(answers, prompts, golds, names)
    return metrics


def _judge_metrics(
    judges: Mapping[str, Judge], texts: Sequence[str], forget_owners: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    metrics = {}
    if "reward" in judges:
        metrics["forget_attribution"] = attribution_scores(judges["reward"], texts, forget_owners).forget
    if "validation" in judges:
        scores = attribution_scores(judges["validation"], texts, forget_owners)
        metrics["forget_attribution_validation"] = scores.forget
    if "test" in judges:
        scores = attribution_scores(judges["test"], texts, forget_owners)
        metrics["forget_attribution_heldout"] = scores.forget
        metrics["misattribution"] = scores.retained
    return metrics


def _in_form_of(gold: Text, answer: str) -> Text:
    """The answer in the gold one's form: one message, or a string that opens with the same space."""
    if not isinstance(gold, str):
        return [{"role": "assistant", "content": answer}]
    return gold[: len(gold) - len(gold.lstrip())] + answer
