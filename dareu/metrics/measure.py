"""Numbers about one model, from one pass of answers over each split."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dareu.data.records import check_records
from dareu.metrics._checks import NEED_BASE, SPLITS, Numbers, absence, check_metrics, compares, computed, refuse_missing
from dareu.metrics._known import METRICS
from dareu.metrics._metric import Metric
from dareu.metrics._offered import OfModel, OfSplit, Subject
from dareu.metrics._seconds import Seconds
from dareu.metrics.attribution import Judge, forget_columns
from dareu.metrics.kept import Kept

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

JOBS = ("reward", "validation", "test")

#: What may not be given, and what to do about it.
_REMEDIES = {
    "judgements": "there is no judge: give one",
    **dict.fromkeys(NEED_BASE, "there is no base model: give the checkpoint before fine-tuning"),
    "bare_answers": "there is no function that strips an answer: give one",
    "samples": "num_samples is 0: give a number of at least 1",
}
_NO_TEST_ROWS = "there are no test rows: name a file of them as test_dataset"


class _NoTestRows(ValueError):
    """A metric reads the test rows, and there are none."""


class _Offers(dict[str, OfSplit]):
    """What there is of each split's rows, of which the test rows may be none."""

    def __missing__(self, split: str) -> OfSplit:
        raise _NoTestRows(_NO_TEST_ROWS) if split == "test" else KeyError(split)


class Measurement(NamedTuple):
    """What was measured of one model."""

    metrics: dict[str, float]
    """Finite numbers by name."""
    answers: dict[str, list[str]]
    """The greedy answers to the rows, in order, of each split whose answers a metric asked for."""
    row_values: dict[str, NDArray[np.float64]]
    """For each number that is a mean over a split's n rows, their values, (n,); NaN where a row has none."""
    split_of: dict[str, str]
    """The split of each of these."""
    intervals: dict[str, tuple[float, float]]
    """Of the numbers that are taken over rows, the 95 % interval of a bootstrap over these: the rows count as drawn
    independently of each other, though rows of one owner seldom are."""
    left_out: dict[str, str]
    """Metrics, and numbers of metrics, that could not be computed; with each the reason."""
    seconds: dict[str, float]
    """Where the time went: of each metric what it took itself, intervals included, and of each thing that metrics share
    (`answers`, `scores_of_golds`, `judgements` …) its making."""


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    splits: Mapping[str, Dataset],
    *,
    judges: Mapping[str, Judge],
    forget_owners: Sequence[str],
    base_model: PreTrainedModel | None = None,
    base_tokenizer: PreTrainedTokenizerBase | None = None,
    strip: Callable[[str, str], str] | None = None,
    metrics: Mapping[str, Metric] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    max_new_tokens: int = 200,
    num_samples: int = 16,
    sample_seed: int = 0,
    batch_size: int = 32,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Measurement:
    """Measures a model on the rows to forget, rows to retain, and rows that no model was trained on.

    The metrics of `METRICS` give these numbers, means over rows:

    | metric | number | what |
    |---|---|---|
    | `rouge` | `<split>_rouge` | ROUGE-L recall of the greedy answer, on each split |
    | `probability` | `<split>_probability` | exp(-NLL per token) of the gold answer, on each split |
    | `fact_recall` | `fact_recall`, `retain_fact_recall` | share of its new facts that the answer states |
    | `sampled_facts` | `sampled_facts` | the same share of sampled answers, at temperature 1 |
    | | `any_fact_of_16` | share of its new facts that one at least of 16 sampled answers states |
    | `name_kept` | `name_kept`, `retain_name_kept` | share of answers that keep the asked name |
    | `attribution` | `forget_attribution` | probability of the forget owners by the judge "reward" |
    | | `forget_attribution_validation` | the same by the judge "validation" |
    | | `forget_attribution_heldout` | the same by the judge "test" |
    | | `misattribution` | highest probability of a retained owner by the judge "test" |
    | | the four with `_stripped` | the same of what `strip` leaves of the answer |
    | `answer_words` | `forget_answer_words` | words of the answer, or characters where a script puts no blanks |
    | `fluency` | `forget_base_nll` | NLL per token of the answer under the base model: low is fluent |
    | | `gibberish_beside_gold` | share of answers whose NLL is above the 95th percentile of the gold answers' |

    New facts are those that the prompt does not give. A number that does not apply to any row is left out: no row has
    facts or a name, or the judge knows no retained owner. Answers are generated once, likelihoods computed once, and
    neither where no metric asks for them. What compares with the retrained control, `retraining_gap`, `gibberish` and
    `tow`, is left to `against_retrained`.

    Args:
        model: The causal language model to measure; it stays in the mode it is in.
        tokenizer: The tokenizer of `model`.
        splits: Record datasets `forget`, `retain` and `test`; optional columns `facts` and `name`. There may be no
            `test`: what is made of it is left out.
        judges: Classifiers by job, any of "reward", "validation" and "test".
        forget_owners: Owners to forget, which every judge must know.
        base_model: The checkpoint that the target was fine-tuned from.
        base_tokenizer: Its tokenizer; default: `tokenizer`.
        strip: `strip(answer, prompt)` = the answer without what it repeats from the prompt.
        metrics: By name, all of which must be possible to compute; default: those of `METRICS` that are.
        options: Of each metric, its options by name.
        max_new_tokens: Most tokens of an answer.
        num_samples: Sampled answers of each row, by which `any_fact_of_<num_samples>` is named; 0: none.
        sample_seed: Of these; see `sample_answers`.
        batch_size: Rows at once.
        cache_dir: A folder in which answers and scores of rows are kept by the content of weights, rows and settings,
            and found again: a second call asks no model, and a changed row only what is new of it. None: none is kept.

    Raises:
        ValueError: A split or judge is missing, unknown or malformed, a forget owner is unknown to a judge, a metric
            cannot be computed (see `check_metrics`), gives something else than finite numbers or a number that
            another gives, or a row does not fit the model; all but the last two before anything is generated.
    """
    _check(splits, judges, forget_owners)
    chosen, options = METRICS if metrics is None else metrics, options or {}
    needs = check_metrics(chosen, options)
    if all(map(compares, needs.values())):
        raise ValueError(f"The metrics are {', '.join(chosen)} alone, made of other metrics' numbers: give those too.")
    given = {"judgements": bool(judges), "bare_answers": strip is not None, "samples": num_samples != 0}
    given |= dict.fromkeys(NEED_BASE, base_model is not None)
    common = {need: remedy for need, remedy in _REMEDIES.items() if not given[need]}
    missing = {split: common | _missing_columns(split, rows) for split, rows in splits.items()}
    if metrics is None:
        chosen = {name: metric for name, metric in chosen.items() if not metric.costly}
    else:
        for name, metric in chosen.items():
            if metric.splits == ("test",) and "test" not in splits:
                raise ValueError(f"The metric {name!r} asks for test rows, but {_NO_TEST_ROWS}.")
            for there in [missing[split] for split in metric.splits if split in splits] or [common]:
                refuse_missing(name, needs[name], there)

    owners, seconds, base_tokenizer = list(forget_owners), Seconds(), base_tokenizer or tokenizer
    subject = Subject(
        model,
        tokenizer,
        judges,
        owners,
        base_model,
        base_tokenizer,
        strip,
        max_new_tokens,
        num_samples,
        sample_seed,
        batch_size,
        Kept(cache_dir, model, tokenizer),
        None if base_model is None else Kept(cache_dir, base_model, base_tokenizer),
        seconds,
    )
    offers = _Offers()
    for split, rows in splits.items():
        asked = {need for name, metric in chosen.items() if split in metric.splits for need in needs[name]}
        offers[split] = OfSplit(subject, split, rows, alternates=bool(asked & {"paraphrase_nll", "wrong_nll"}))
    numbers = Numbers()
    left_out: dict[str, str] = {}
    for name, metric in chosen.items():
        if metric.splits == ("test",) and "test" not in splits:
            left_out[name] = _NO_TEST_ROWS
        for split in (split for split in metric.splits if split in splits):
            if (reason := absence(needs[name], missing[split])) is None:
                with seconds.of(name):
                    found = computed(metric, needs[name], offers[split], options.get(name, {}))
                    numbers.add(name, found, split, len(splits[split]))
            else:
                left_out.setdefault(name, reason)
    for name, metric in chosen.items():
        if metric.splits or compares(needs[name]):
            continue
        if (reason := absence(needs[name], common)) is None:
            told = dict(numbers.found), dict(numbers.row_values), offers
            whole = OfModel(*told, base_model, owners, model, tokenizer, base_tokenizer)
            try:
                with seconds.of(name):
                    numbers.add(name, computed(metric, needs[name], whole, options.get(name, {})))
            except _NoTestRows as error:
                if metrics is not None:
                    raise ValueError(f"The metric {name!r} asks for test rows, but {error}.") from None
                left_out[name] = str(error)
        else:
            left_out[name] = reason
    left_out |= dict.fromkeys(numbers.without_rows, "no row has what it is made of")
    answers = {split: offer.answers_read() for split, offer in offers.items()}
    read = {split: texts for split, texts in answers.items() if texts is not None}
    found_of_rows = numbers.row_values, numbers.split_of, numbers.intervals
    return Measurement(numbers.found, read, *found_of_rows, left_out, seconds.found)


def _check(splits: Mapping[str, Dataset], judges: Mapping[str, Judge], forget_owners: Sequence[str]) -> None:
    if set(splits) | {"test"} != set(SPLITS):
        raise ValueError(f"The splits are {', '.join(splits) or 'none'}: give {', '.join(SPLITS)}, no others.")
    unknown = [name for name in judges if name not in JOBS]
    if unknown:
        raise ValueError(f"The judge {unknown[0]!r} has no metric: give judges named {', '.join(JOBS)} only.")
    for split, rows in splits.items():
        if not len(rows):
            raise ValueError(f"The split {split!r} has no rows: give it at least one.")
        try:
            check_records(rows)
        except ValueError as error:
            raise ValueError(f"The split {split!r}: {error}") from error
    for judge in judges.values():
        forget_columns(judge, forget_owners)


def _missing_columns(split: str, rows: Dataset) -> dict[str, str]:
    needed = {"facts": "facts", "wrong_nll": "perturbed"}
    return {
        need: f"the rows of the split {split!r} have no column {column!r}: add it"
        for need, column in needed.items()
        if column not in rows.column_names
    }
