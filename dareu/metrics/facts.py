"""What an answer states: the facts of the gold answer, and the name of the person asked about."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dareu.data.names import holds_name, shared_name
from dareu.data.words import states, words
from dareu.metrics._metric import Metric
from dareu.metrics._rows import check_lengths
from dareu.metrics.leaking import leak_at_k


def fact_recall(answers: Sequence[str], facts: Sequence[Sequence[str] | None]) -> NDArray[np.float64]:
    """Share of each row's facts that the answer states.

    A fact is stated where its words stand in the answer as whole words, next to each other, whatever their
    case and the punctuation between them; numbers must be the same digit for digit.

    Args:
        answers: n answers.
        facts: n lists of facts, each a word or a phrase.

    Returns:
        Shares in [0, 1], NaN where a row has no facts, (n,).

    Raises:
        ValueError: The lists differ in length, or a row's facts are no list of strings with a letter or
            digit.
    """
    check_lengths(answers=answers, facts=facts)
    shares = np.full(len(answers), np.nan)
    for row, (answer, row_facts) in enumerate(zip(answers, facts, strict=True)):
        phrases = _fact_words(row, row_facts)
        if phrases:
            said = words(answer)
            shares[row] = np.mean([states(said, phrase) for phrase in phrases])
    return shares


def sampled_fact_recall(samples: Sequence[Sequence[str]], facts: Sequence[Sequence[str] | None]) -> NDArray[np.float64]:
    """Share of each row's facts that a sampled answer states, its mean over the row's samples.

    Args:
        samples: n lists of answers, at least one each.
        facts: See `fact_recall`.

    Returns:
        Shares in [0, 1], NaN where a row has no facts, (n,).

    Raises:
        ValueError: See `fact_recall`; or a row has no samples.
    """
    return _of_rows(facts_stated(samples, facts), lambda stated: stated.mean())


def facts_in_any(samples: Sequence[Sequence[str]], facts: Sequence[Sequence[str] | None]) -> NDArray[np.float64]:
    """Share of each row's facts that one at least of its sampled answers states: what a second try tells.

    It grows with the number of samples, whoever is asked: to be read beside the retrained model's.

    Args:
        samples: n lists of answers, at least one each.
        facts: See `fact_recall`.

    Returns:
        Shares in [0, 1], NaN where a row has no facts, (n,).

    Raises:
        ValueError: See `fact_recall`; or a row has no samples.
    """
    return _of_rows(facts_stated(samples, facts), lambda stated: stated.any(axis=0).mean())


def facts_stated(samples: Sequence[Sequence[str]], facts: Sequence[Sequence[str] | None]) -> list[NDArray[np.bool_]]:
    """Which sampled answer states which of its row's facts.

    Args:
        samples: n lists of answers, at least one each.
        facts: See `fact_recall`.

    Returns:
        n arrays (answers, facts).

    Raises:
        ValueError: See `fact_recall`; or a row has no samples.
    """
    check_lengths(samples=samples, facts=facts)
    stated = []
    for row, (answers, row_facts) in enumerate(zip(samples, facts, strict=True)):
        if not answers:
            raise ValueError(f"Row {row} has no samples: give at least one.")
        phrases = _fact_words(row, row_facts)
        said = [words(answer) for answer in answers] if phrases else [[]] * len(answers)
        each = [[states(answer, phrase) for phrase in phrases] for answer in said]
        stated.append(np.array(each, dtype=bool).reshape(len(answers), len(phrases)))
    return stated


def facts_beyond_prompt(facts: Sequence[Sequence[str] | None], prompts: Sequence[str]) -> list[list[str]]:
    """Each row's facts that its prompt does not state already: only these tell what a model remembers.

    Raises:
        ValueError: See `fact_recall`.
    """
    check_lengths(facts=facts, prompts=prompts)
    kept = []
    for row, (row_facts, prompt) in enumerate(zip(facts, prompts, strict=True)):
        phrases = _fact_words(row, row_facts)
        said = words(prompt)
        kept.append([fact for fact, phrase in zip(row_facts or (), phrases, strict=True) if not states(said, phrase)])
    return kept


def name_kept(
    answers: Sequence[str],
    prompts: Sequence[str],
    references: Sequence[str],
    names: Sequence[str | None] | None = None,
) -> NDArray[np.float64]:
    """Whether each answer keeps the asked person's name where the gold answer does.

    A name is kept where prompt and gold answer both hold it. With `names` it is the full name, which the
    answer must hold as a phrase. Without, it is guessed: the words that are capitalised in prompt and gold
    answer, and in one of them elsewhere than at the start of a sentence; the answer must hold them all. The
    guess takes any other proper name that the two share for part of the name.

    Args:
        answers: n answers.
        prompts: n prompts.
        references: n gold answers.
        names: n full names of the people asked about, None where a row asks about nobody; None to guess.

    Returns:
        1 or 0, and NaN where the gold answer does not keep a name, (n,).

    Raises:
        ValueError: The lists differ in length.
    """
    check_lengths(answers=answers, prompts=prompts, references=references)
    if names is not None:
        check_lengths(answers=answers, names=names)
    kept = np.full(len(answers), np.nan)
    for row, (answer, prompt, reference) in enumerate(zip(answers, prompts, references, strict=True)):
        if names is None:
            if name := shared_name(prompt, reference):
                kept[row] = holds_name(answer, name)
        else:
            phrase = words(names[row] or "")
            if phrase and states(words(prompt), phrase) and states(words(reference), phrase):
                kept[row] = states(words(answer), phrase)
    return kept


def _of_rows(stated: Sequence[NDArray[np.bool_]], value: Callable[[NDArray[np.bool_]], float]) -> NDArray[np.float64]:
    """A value of each row that has facts, NaN of the others, (n,)."""
    return np.array([value(of_row) if of_row.shape[1] else np.nan for of_row in stated], dtype=np.float64)


def _fact_words(row: int, facts: Sequence[str] | None) -> list[list[str]]:
    if facts is None:
        return []
    if isinstance(facts, str) or not all(isinstance(fact, str) for fact in facts):
        raise ValueError(f"Row {row}: the facts are {facts!r}: give a list of strings.")
    phrases = [words(fact) for fact in facts]
    if not all(phrases):
        raise ValueError(f"Row {row}: a fact in {list(facts)!r} has no letter or digit: fill it in or drop it.")
    return phrases


def _fact_recall(
    split: str, answers: Sequence[str], facts: Sequence[Sequence[str] | None]
) -> dict[str, NDArray[np.float64]]:
    return {_prefix(split) + "fact_recall": fact_recall(answers, facts)}


def _sampled_facts(
    split: str,
    samples: Sequence[Sequence[str]],
    facts: Sequence[Sequence[str] | None],
    k: Sequence[int] | int = (1, 4, 16),
) -> dict[str, NDArray[np.float64]]:
    """`k`: of leak@k, where a sample leaks that states any of the facts; tries beyond the samples are passed over."""
    stated, prefix, number = facts_stated(samples, facts), _prefix(split), len(samples[0])
    tried = [k] if isinstance(k, int) else k
    leaking = _of_rows(stated, lambda of_row: of_row.any(axis=1).sum())
    return {
        f"{prefix}sampled_facts": _of_rows(stated, lambda of_row: of_row.mean()),
        f"{prefix}any_fact_of_{number}": _of_rows(stated, lambda of_row: of_row.any(axis=0).mean()),
        **{f"{prefix}leak_at_{tries}": leak_at_k(number, leaking, tries) for tries in tried if tries <= number},
    }


def _name_kept(
    split: str,
    answers: Sequence[str],
    prompts: Sequence[str],
    golds: Sequence[str],
    names: Sequence[str | None] | None,
) -> dict[str, NDArray[np.float64]]:
    return {_prefix(split) + "name_kept": name_kept(answers, prompts, golds, names)}


def _prefix(split: str) -> str:
    """Of the numbers' names: what is said of the rows to forget goes without."""
    return "" if split == "forget" else f"{split}_"


FACT_RECALL = Metric(_fact_recall, ("forget", "retain"), ("fact_recall",))
SAMPLED_FACTS = Metric(_sampled_facts, columns=("sampled_facts", "any_fact_of_16"))
NAME_KEPT = Metric(_name_kept, ("forget", "retain"), ("name_kept",))
