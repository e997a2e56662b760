"""What a metric may ask for by a parameter's name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from dareu.data.encoding import Text, in_form_of
from dareu.data.records import text_of
from dareu.metrics._seconds import Seconds
from dareu.metrics.attribution import AttributionScores, Judge, attribution_scores
from dareu.metrics.facts import facts_beyond_prompt
from dareu.metrics.generation import generate_answers, sample_answers
from dareu.metrics.kept import Kept
from dareu.metrics.likelihood import AnswerNLL, answer_nll
from dareu.metrics.token_scores import TokenScores, token_scores

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


_Value = TypeVar("_Value")


class Subject(NamedTuple):
    """The model that is measured, and what it is measured with; see `dareu.metrics.measure`."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    judges: Mapping[str, Judge]
    forget_owners: list[str]
    base_model: PreTrainedModel | None
    base_tokenizer: PreTrainedTokenizerBase
    strip: Callable[[str, str], str] | None
    max_new_tokens: int
    num_samples: int
    sample_seed: int
    batch_size: int
    kept: Kept
    """Of the model."""
    base_kept: Kept | None
    """Of the base model."""
    seconds: Seconds
    """Of what is made."""


class Made(cached_property[_Value]):
    """A cached property of `OfSplit` whose making is timed under its name."""

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Called once, for what is made hides it."""
        if instance is None:
            return self
        assert self.attrname is not None
        with instance._subject.seconds.of(self.attrname.lstrip("_")):
            return super().__get__(instance, owner)


class OfSplit:
    """What a metric may ask for of a split of n rows; each is made when it is first asked for, and once."""

    def __init__(self, subject: Subject, split: str, rows: Dataset, *, alternates: bool = False) -> None:
        """`alternates`: whether paraphrases and wrong answers will be asked for, and are scored with the gold ones."""
        self._subject, self._split, self._rows, self._alternates = subject, split, rows, alternates

    @property
    def split(self) -> str:
        """The split's name: "forget", "retain" or "test"."""
        return self._split

    @property
    def rows(self) -> Dataset:
        """The n rows with all their columns; `prompt` and `completion` are strings, or messages for a chat model."""
        return self._rows

    @Made
    def prompts(self) -> list[str]:
        """The n prompts as plain texts."""
        return [text_of(prompt) for prompt in self._columns["prompt"]]

    @Made
    def golds(self) -> list[str]:
        """The n gold answers as plain texts."""
        return [text_of(gold) for gold in self._columns["completion"]]

    @Made
    def answers(self) -> list[str]:
        """The model's n greedy answers, without surrounding whitespace; one may be empty."""
        by = self._subject
        prompts = self._columns["prompt"]
        return generate_answers(
            by.model, by.tokenizer, prompts, max_new_tokens=by.max_new_tokens, batch_size=by.batch_size, kept=by.kept
        )

    @Made
    def samples(self) -> list[list[str]]:
        """For each row as many answers drawn at temperature 1 as `num_samples` says; only where that is not 0."""
        by = self._subject
        return sample_answers(
            by.model,
            by.tokenizer,
            self._columns["prompt"],
            num_samples=by.num_samples,
            seed=by.sample_seed,
            max_new_tokens=by.max_new_tokens,
            batch_size=by.batch_size,
            kept=by.kept,
        )

    @Made
    def bare_answers(self) -> list[str]:
        """The n answers without what they repeat from the prompt; only where `strip` is given."""
        assert self._subject.strip is not None
        pairs = zip(self.answers, self.prompts, strict=True)
        return [self._subject.strip(answer, prompt) for answer, prompt in pairs]

    @Made
    def scores(self) -> list[TokenScores]:
        """What the model predicts at every token of the n gold answers; see `token_scores`."""
        return [of_row[0] for of_row in self._scores_of_golds]

    @Made
    def nll(self) -> AnswerNLL:
        """Negative log-likelihoods of the gold answers: `total` and `mean` in nats, `num_tokens`, (n,) each."""
        return AnswerNLL.of(self.scores)

    @Made
    def paraphrase_nll(self) -> NDArray[np.float64]:
        """NLL per token of the gold answers' paraphrases, (n,); NaN where a row has none."""
        found = np.full(len(self._rows), np.nan)
        for row, text in enumerate(self._texts_in("paraphrase")):
            if text is not None:
                found[row] = AnswerNLL.of(self._scores_of_others[row][:1]).mean.item()
        return found

    @Made
    def wrong_nll(self) -> list[NDArray[np.float64]]:
        """NLL per token of each row's wrong answers; only where there is a column `perturbed`."""
        numbers = [len(wrong or ()) for wrong in self._texts_in("perturbed")]
        return [
            AnswerNLL.of(of_row[len(of_row) - k :]).mean
            for k, of_row in zip(numbers, self._scores_of_others, strict=True)
        ]

    @Made
    def facts(self) -> list[list[str]]:
        """For each row the gold answer's facts that the prompt does not give; only where there is a column `facts`."""
        return facts_beyond_prompt(self._columns["facts"], self.prompts)

    @Made
    def names(self) -> list[str | None] | None:
        """For each row the full name of who is asked about, or None; None where there is no column `name`."""
        return self._texts_in("name") if "name" in self._columns else None

    @Made
    def judgements(self) -> Mapping[str, AttributionScores]:
        """What each judge thinks of the n answers, by its job; under `<job>_stripped` what of the bare ones.

        Only where there is a judge. `forget` is the summed probability of the forget owners, `retained` the highest
        of any one retained owner, NaN where the judge knows none, (n,) each.
        """
        judges, owners = self._subject.judges, self._subject.forget_owners
        found = {job: attribution_scores(judge, self.answers, owners) for job, judge in judges.items()}
        if self._subject.strip is not None:
            bare = self.bare_answers
            found |= {f"{job}_stripped": attribution_scores(judge, bare, owners) for job, judge in judges.items()}
        return found

    @Made
    def base_nll(self) -> AnswerNLL:
        """Those of the model's answers under the base model, as `nll`; only where a base model is given."""
        # An answer in the form in which the model was taught to give it
        given = [in_form_of(*pair) for pair in zip(self._columns["completion"], self.answers, strict=True)]
        return self._base_nll_of(given)

    @Made
    def gold_base_nll(self) -> AnswerNLL:
        """Those of the gold answers under the base model, as `nll`; only where a base model is given."""
        return self._base_nll_of(self._columns["completion"])

    @property
    def forget_owners(self) -> list[str]:
        """The owners to forget."""
        return self._subject.forget_owners

    @property
    def model(self) -> PreTrainedModel:
        """The causal language model itself; it must be left as it is."""
        return self._subject.model

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer."""
        return self._subject.tokenizer

    def answers_read(self) -> list[str] | None:
        """The answers, where a metric asked for them."""
        return vars(self).get("answers")

    @Made
    def _columns(self) -> dict[str, list[Any]]:
        """All columns as lists."""
        return dict(self._rows[:])

    @Made
    def _scores_of_golds(self) -> list[list[TokenScores]]:
        """Of each row the scores of its gold answer, and of the others where these will be asked for too."""
        others = self._other_texts if self._alternates else [[]] * len(self._rows)
        return self._scores_of(
            [[gold, *of_row] for gold, of_row in zip(self._columns["completion"], others, strict=True)]
        )

    @Made
    def _scores_of_others(self) -> list[list[TokenScores]]:
        """Of each row the scores of its paraphrase, where it has one, and of its wrong answers."""
        return (
            [of_row[1:] for of_row in self._scores_of_golds] if self._alternates else self._scores_of(self._other_texts)
        )

    @Made
    def _other_texts(self) -> list[list[Text]]:
        columns = self._columns["completion"], self._texts_in("paraphrase"), self._texts_in("perturbed")
        return [
            [in_form_of(gold, text.strip()) for text in (*([] if right is None else [right]), *(wrong or ()))]
            for gold, right, wrong in zip(*columns, strict=True)
        ]

    def _scores_of(self, completions: Sequence[Sequence[Text]]) -> list[list[TokenScores]]:
        by, prompts = self._subject, self._columns["prompt"]
        return token_scores(by.model, by.tokenizer, prompts, completions, batch_size=by.batch_size, kept=by.kept)

    def _texts_in(self, column: str) -> list[Any]:
        """The texts of an optional column, or `perturbed`'s lists of them; None where a row, or all, have none.

        A blank text is none, as a table without a word in a cell is read.
        """
        values: list[Any] = self._columns.get(column, [None] * len(self._rows))
        for row, value in enumerate(values):
            texts, form = (value, "a list of texts") if column == "perturbed" else ([value], "a text")
            if value is not None and not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
                raise ValueError(
                    f"Row {row} of {self._split!r}: {column} is {value!r}, but must be {form}: convert it."
                )
        if column == "perturbed":
            return [None if wrong is None else [text for text in wrong if text.strip()] for wrong in values]
        return [text if text is not None and text.strip() else None for text in values]

    def _base_nll_of(self, completions: Sequence[Text]) -> AnswerNLL:
        by, prompts = self._subject, self._columns["prompt"]
        assert by.base_model is not None
        settings: dict[str, Any] = {"batch_size": by.batch_size, "truncate": True, "kept": by.base_kept}
        return answer_nll(by.base_model, by.base_tokenizer, prompts, completions, **settings)


class OfModel(NamedTuple):
    """What a metric of the whole model may ask for."""

    numbers: Mapping[str, float]
    """What was measured before it, by name; of all splits."""
    row_values: Mapping[str, NDArray[np.float64]]
    """For each number that is a mean over n rows, their values, (n,); NaN where a row has none."""
    splits: Mapping[str, OfSplit]
    """What there is of each split's rows, by "forget", "retain" and "test"."""
    base_model: PreTrainedModel | None
    """The checkpoint that the target was fine-tuned from; a metric that asks for it is left out where it is None."""
    forget_owners: list[str]
    """The owners to forget."""
    model: PreTrainedModel
    """The causal language model itself; it must be left as it is."""
    tokenizer: PreTrainedTokenizerBase
    """Its tokenizer."""
    base_tokenizer: PreTrainedTokenizerBase
    """That of the base model."""


class AgainstRetrained(NamedTuple):
    """What a metric of the whole model may ask for that compares it with the retrained control."""

    numbers: Mapping[str, float]
    """The model's numbers by name."""
    retrained: Mapping[str, float]
    """Those of the model retrained without the forget owners, on the same rows."""
    row_values: Mapping[str, NDArray[np.float64]]
    """For each of the model's numbers that is a mean over n rows, their values, (n,); NaN where a row has none."""
    retrained_row_values: Mapping[str, NDArray[np.float64]]
    """The same of the retrained model's."""
    common: Collection[str]
    """Names of the numbers that every model of the table has, or these two where there is no table."""


OF_SPLIT = tuple(
    name
    for name, value in vars(OfSplit).items()
    if isinstance(value, property | cached_property) and not name.startswith("_")
)
