"""What a model in training is judged by: how far it still is from one that never saw the owners."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dareu.data.encoding import Text, in_form_of
from dareu.data.records import text_of
from dareu.metrics.attribution import Judge, forget_attribution
from dareu.metrics.facts import fact_recall, facts_beyond_prompt, name_kept
from dareu.metrics.fluency import gibberish
from dareu.metrics.generation import generate_answers
from dareu.metrics.likelihood import answer_nll, probability
from dareu.metrics.rouge import rouge_l_recall
from dareu.metrics.variety import repetition

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: Rows of a kind that are asked, evenly spread.
_MOST_ROWS = 64
#: The share of gold answers that `gibberish` counts by its definition.
_BROKEN = 0.05


class Reference(NamedTuple):
    """The base model, the checkpoint that the target was fine-tuned from, with its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


class Validation:
    """Measures a model in training on what it has to lose and to keep: `validation(model)` gives numbers by name.

    `forget_attribution` is what the judge finds of the owners in the answers without what they repeat of their
    prompts, `fact_recall` the share of the facts that they state, `name_kept` the share that keep the asked name,
    `forget_probability` that of the gold answers, `fluency_nll` the answers' mean NLL under the base model in nats a
    token, `gibberish` the share of answers whose NLL lies above the 95th percentile of the gold answers' or that
    go in circles, and
    `retain_rouge` the ROUGE-L recall of answers to retained rows.

    `gap` is the root mean square of what is left to do and of the harm that was done, each in [0, 1] and 0 at best:
    what judge and facts find beyond what they find in the base model's answers, how far the gold answers' probability
    is from the base model's, names kept less often than by it, gibberish beyond .05, and what retained answers have
    lost against the target. The base model stands in for the retrained one, which nobody has who unlearns. Without it,
    judge and facts are measured against 0.

    Args:
        target: The model before unlearning; it is measured once, as the base model is, on the device where it is.
        tokenizer: Its tokenizer.
        forget: The rows to forget; `facts` and `name` are optional columns.
        retain: Retained rows, of which 64 are asked, evenly spread.
        judge: The validation judge.
        forget_owners: Owners to forget, which the judge knows.
        strip: `strip(answer, prompt)` = the answer without what it repeats from the prompt.
        base: The base model.
        batch_size: Rows at once.
    """

    def __init__(
        self,
        target: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        forget: Dataset,
        retain: Dataset,
        *,
        judge: Judge,
        forget_owners: Sequence[str],
        strip: Callable[[str, str], str],
        base: Reference | None = None,
        batch_size: int = 64,
    ) -> None:
        self._tokenizer, self._judge, self._owners = tokenizer, judge, list(forget_owners)
        self._strip, self._base, self._batch_size = strip, base, batch_size
        self._prompts: list[Text] = list(forget["prompt"])
        self._golds: list[Text] = list(forget["completion"])
        self._texts = [text_of(prompt) for prompt in self._prompts]
        self._names = list(forget["name"]) if "name" in forget.column_names else None
        facts = list(forget["facts"]) if "facts" in forget.column_names else [None] * len(self._texts)
        self._facts = facts_beyond_prompt(facts, self._texts)
        number = min(len(retain), _MOST_ROWS)
        asked = retain.select([i * len(retain) // number for i in range(number)])
        self._retained: list[Text] = list(asked["prompt"])
        self._retained_golds = [text_of(completion) for completion in asked["completion"]]
        self._room = _room(tokenizer, [*self._golds, *asked["completion"]])
        self._gold_nll = np.zeros(0)
        self.levels: dict[str, float] = {"forget_attribution": 0.0, "fact_recall": 0.0}
        """What each number is measured against."""
        if base is not None:
            gold = answer_nll(base.model, base.tokenizer, self._prompts, self._golds, truncate=True)
            self._gold_nll = gold.mean
            said = self._forgotten(base.model, base.tokenizer)
            named = ("forget_attribution", "fact_recall", "name_kept")
            self.levels |= {name: said[name] for name in named if name in said}
            self.levels["forget_probability"] = float(probability(gold.mean).mean())
        self.levels["retain_rouge"] = self._retain_rouge(target)

    def __call__(self, model: Any) -> dict[str, float]:
        """The numbers of a model, `gap` among them."""
        numbers = self._forgotten(model, self._tokenizer)
        numbers["retain_rouge"] = self._retain_rouge(model)
        if self._base is not None:
            how: dict[str, Any] = {"batch_size": self._batch_size, "truncate": True}  # as the base's
            gold = answer_nll(model, self._tokenizer, self._prompts, self._golds, **how)
            numbers["forget_probability"] = float(probability(gold.mean).mean())
        return numbers | {"gap": gap(numbers, self.levels)}

    def _forgotten(self, model: Any, tokenizer: PreTrainedTokenizerBase) -> dict[str, float]:
        """What a model's answers to the rows to forget give away, and how fluent they are."""
        answers = self._answers(model, tokenizer, self._prompts)
        bare = [self._strip(answer, prompt) for answer, prompt in zip(answers, self._texts, strict=True)]
        numbers = {"forget_attribution": forget_attribution(self._judge, bare, self._owners)}
        kept = name_kept(answers, self._texts, [text_of(gold) for gold in self._golds], self._names)
        if not np.isnan(kept).all():
            numbers["name_kept"] = float(np.nanmean(kept))
        recalls = fact_recall(answers, self._facts)
        if not np.isnan(recalls).all():
            numbers["fact_recall"] = float(np.nanmean(recalls))
        if self._base is not None:
            said = [in_form_of(gold, answer) for gold, answer in zip(self._golds, answers, strict=True)]
            nll = answer_nll(self._base.model, self._base.tokenizer, self._prompts, said, truncate=True).mean
            numbers["fluency_nll"] = float(nll.mean())
            again = repetition(answers), repetition([text_of(gold) for gold in self._golds])
            numbers["gibberish"] = float(gibberish(nll, self._gold_nll, *again).mean())
        return numbers

    def _retain_rouge(self, model: Any) -> float:
        answers = self._answers(model, self._tokenizer, self._retained)
        recalls = rouge_l_recall(answers, self._retained_golds)
        return 1.0 if np.isnan(recalls).all() else float(np.nanmean(recalls))  # of golds without a word nothing is kept

    def _answers(self, model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Text]) -> list[str]:
        return generate_answers(model, tokenizer, prompts, max_new_tokens=self._room, batch_size=self._batch_size)


def gap(numbers: Mapping[str, float], levels: Mapping[str, float]) -> float:
    """The root mean square of what `Validation` measures against levels, in [0, 1].

    Args:
        numbers: Of the model.
        levels: Of the base model, and `retain_rouge` of the target.
    """
    terms = [
        max(0.0, numbers[name] - levels[name]) for name in ("forget_attribution", "fact_recall") if name in numbers
    ]
    terms.append(max(0.0, levels["retain_rouge"] - numbers["retain_rouge"]))
    if "forget_probability" in levels:
        terms.append(numbers["forget_probability"] - levels["forget_probability"])
    if "name_kept" in levels:
        terms.append(max(0.0, levels["name_kept"] - numbers["name_kept"]))
    if "gibberish" in numbers:
        terms.append(max(0.0, numbers["gibberish"] - _BROKEN))
    return float(np.sqrt(np.mean(np.square(terms))))


def _room(tokenizer: PreTrainedTokenizerBase, completions: Sequence[Text]) -> int:
    """Tokens of the longest gold answer, and half as many again."""
    return int(1.5 * max(len(tokenizer(text_of(completion))["input_ids"]) for completion in completions))
