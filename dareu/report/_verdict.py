"""What came of a request, in one sentence that claims no more than the numbers do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

#: What a model tells of the owners: the measure, how a sentence speaks of it. The first that tells anything leads.
TOLD = {
    "fact_recall": "states {} of the facts that it is asked for",
    "forget_rouge": "gives {} of the words of the answers to forget",
    "forget_extraction_strength": "goes on by heart with {} of the answers to forget",
    "forget_probability": "gives the answers to forget a probability of {} a token",
    "forget_attribution_heldout_stripped": "gives answers that a judge takes for the owners' with probability {}",
}

#: The same in a list of what is left.
_LEFT = {
    "fact_recall": "facts stated",
    "forget_rouge": "words of the old answers",
    "forget_extraction_strength": "what follows by heart",
    "forget_probability": "the old answers' probability",
    "forget_attribution_heldout_stripped": "the judge's suspicion",
}

#: What a model still knows of the others.
KEPT = {
    "retain_rouge": "words of retained answers",
    "retain_fact_recall": "retained facts stated",
    "retain_probability": "the retained answers' probability",
}

#: Where the target tells less than this above the control, forgetting cannot be seen by that measure.
LEAST_SPREAD = 0.05
#: Where a number that cannot be told from the control's is farther from it than this share of what there was to forget,
#: its interval is too wide to say so much.
MOST_UNSURE = 0.4
#: More than this share of answers beyond the control's, for certain, is broken language.
MOST_BROKEN = 0.1
#: A fall of retained knowledge of this share of the target's is a loss that leads; of the smaller one it is told.
GREAT_LOSS, SMALL_LOSS = 0.2, 0.02
#: More than this beyond the control's, for certain, is blame moved to others.
MOST_BLAME = 0.05

#: A lower leak score of the strongest attack is within the noise of a few rows; from the greater one on, it leads.
LITTLE_LEAK, GREAT_LEAK = 0.1, 0.25


class Outcome(StrEnum):
    """What came of it, as a label."""

    UNMEASURED = "Not measured"
    NO_TASK = "Nothing there to forget"
    UNTOLD = "Cannot be told"
    NOTHING = "Nothing forgotten"
    PARTLY = "Forgotten in part"
    LESS = "Less is told"
    FORGOTTEN = "Forgotten, as far as measured"
    RETURNS = "Forgotten, but attacks bring it back"
    BROKEN = "Answers are broken"
    LOST = "Retained knowledge lost"


class Reading(NamedTuple):
    """A number with its 95 % interval, which is the number itself where none is known."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        known = f" ({self.low:.2f} to {self.high:.2f})" if self.low < self.high else ""
        return f"{self.value:.2f}{known}"


class Standing(NamedTuple):
    """The numbers of one model, and their intervals."""

    numbers: Mapping[str, float]
    intervals: Mapping[str, Sequence[float]]

    def reading(self, name: str) -> Reading | None:
        """A number with its interval; None where it was not measured."""
        if name not in self.numbers:
            return None
        value = self.numbers[name]
        low, high = self.intervals.get(name) or (value, value)
        return Reading(value, low, high)


class Verdict(NamedTuple):
    """What came of a request."""

    outcome: Outcome
    sentence: str


def judge(
    model: Standing | None,
    target: Standing | None,
    base: Standing | None = None,
    retrained: Standing | None = None,
    strongest: tuple[str, float] | None = None,
) -> Verdict:
    """What can be said of an unlearned model, read beside the retrained model, or else the base model.

    An unlearned model is at the control's level where its interval reaches the control's, and unmoved where it reaches
    the target's. Broken language and lost knowledge go before what was forgotten, since a model that says nothing to
    anybody has forgotten everything.

    Args:
        model: None of each: it was not measured.
        target: The model before unlearning.
        base: The checkpoint that the target was fine-tuned from.
        retrained: The target's training without the owners.
        strongest: The attack that brought back most, and its leak score; None: nobody attacked.
    """
    if model is None or target is None:
        what = "The unlearned model" if model is None else "The target"
        return Verdict(
            Outcome.UNMEASURED, f"{what} was not measured, so that nothing can be said of what was forgotten."
        )
    control, control_name = (retrained, "the retrained model") if retrained is not None else (base, "the base model")
    outcome, forgot = _forgotten(model, target, control, control_name)
    clauses = [forgot]
    lost, keeps = _kept(model, target)
    broken = _broken(model, control or target, control_name if control else "the target")
    if blame := _blame(model, control, control_name):
        clauses.append(blame)
    clauses.append(keeps)
    if strongest is not None:
        clauses.append(_attacked(*strongest))
    if broken:
        clauses.insert(0, broken)
    if outcome is Outcome.FORGOTTEN and strongest is not None and strongest[1] >= GREAT_LEAK:
        outcome = Outcome.RETURNS
    told = outcome not in (Outcome.UNMEASURED, Outcome.NO_TASK)
    outcome = Outcome.BROKEN if broken and told else Outcome.LOST if lost and told else outcome
    sentence = "; ".join(clauses)
    return Verdict(outcome, sentence[:1].upper() + sentence[1:] + ".")


def told_by_owner(verdict: Verdict, still: int, back: int) -> Verdict:
    """The verdict where single owners do not go the way of the mean.

    Args:
        verdict: By the means over rows.
        still: Owners to forget who are still told of.
        back: Owners forgotten earlier who come back.
    """
    clauses = [f"{still} of the owners to forget {'is' if still == 1 else 'are'} still told of"] if still else []
    clauses += [f"{back} forgotten earlier {'comes' if back == 1 else 'come'} back"] if back else []
    if not clauses:
        return verdict
    better = verdict.outcome in (Outcome.FORGOTTEN, Outcome.RETURNS, Outcome.LESS)
    sentence = f"{verdict.sentence.removesuffix('.')}; but {' and '.join(clauses)}."
    return Verdict(Outcome.PARTLY if better else verdict.outcome, sentence)


def _forgotten(model: Standing, target: Standing, control: Standing | None, control_name: str) -> tuple[Outcome, str]:
    """What is told of the owners, by the first measure that can tell, and by which others more is left."""
    there = [
        (name, now, before, None if control is None else control.reading(name))
        for name in TOLD
        if (now := model.reading(name)) is not None and (before := target.reading(name)) is not None
    ]
    beside = [each for each in there if each[3] is not None]
    there = beside or there
    if not there:
        return Outcome.UNMEASURED, "nothing was measured that tells of the owners to forget"
    telling = [each for each in there if each[2].value - (each[3].value if each[3] else 0.0) >= LEAST_SPREAD]
    if not telling:
        name, _, before, after = there[0]
        if after is None:
            return Outcome.NO_TASK, f"the target {TOLD[name].format(before)}: there was nothing to forget that shows"
        return (
            Outcome.NO_TASK,
            f"the target {TOLD[name].format(before)}, and {control_name} {after}: "
            "there was nothing to forget that these numbers show",
        )
    name, now, before, after = telling[0]
    said = f"it {TOLD[name].format(now)}, the target {before}"
    if after is None:
        if now.high >= before.low:
            return Outcome.NOTHING, f"nothing was forgotten that the numbers show: {said}"
        return Outcome.LESS, f"{said}; how much is told by a model that never saw the owners was not measured"
    said += f", {control_name} {after}"
    reaches, unmoved = now.low <= after.high, now.high >= before.low
    if reaches and unmoved:
        return Outcome.UNTOLD, f"too few rows were measured to tell whether anything was forgotten: {said}"
    if unmoved:
        return Outcome.NOTHING, f"nothing was forgotten that the numbers show: {said}"
    if not reaches:
        return Outcome.PARTLY, f"a part was forgotten: {said}"
    if now.value - after.value > MOST_UNSURE * (before.value - after.value):
        return Outcome.UNTOLD, f"too few rows were measured to tell how much was forgotten: {said}"
    left = [_LEFT[name] for name, now, _, after in telling[1:] if after is not None and now.low > after.high]
    if left:
        return Outcome.PARTLY, f"{said}, but more than there is left of {_listed(left)}"
    below = " or less" if now.high < after.low else ""
    by = f", by all {len(telling)} measures that can tell" if len(telling) > 1 else ""
    return Outcome.FORGOTTEN, f"{said}: as little as there{below}{by}"


def _attacked(attack: str, leak: float) -> str:
    """A clause about what the strongest attack brought back."""
    if leak < LITTLE_LEAK:
        return f"no attack that was made brings back more than {LITTLE_LEAK:.0%} of what was forgotten"
    return f"but an attack brings back {leak:.0%} of what was forgotten ({attack})"


def _kept(model: Standing, target: Standing) -> tuple[bool, str]:
    """Whether much of the retained knowledge is lost, and a clause about it."""
    falls, apparent = [], []
    for name, what in KEPT.items():
        now, before = model.reading(name), target.reading(name)
        if now is not None and before is not None and before.value > 0:
            certain, said = now.high < before.low, f"{what} {now}, the target {before}"
            apparent.append((1 - now.value / before.value, said))
            falls.append((apparent[-1][0] if certain else 0.0, said))
    if not falls:
        return False, "what is retained was not measured"
    share, worst = max(falls, key=lambda fall: fall[0])
    if share >= GREAT_LOSS:
        return True, f"but retained knowledge was lost: {worst}"
    if share >= SMALL_LOSS:
        return False, f"a little of what is retained was lost: {worst}"
    if unsure := [said for share, said in apparent if share >= GREAT_LOSS]:
        return False, f"too few rows were measured to tell whether what is retained was kept: {unsure[0]}"
    return False, f"what is retained was kept: {falls[0][1]}"


def _broken(model: Standing, control: Standing, control_name: str) -> str | None:
    """A clause about answers that are no language, where these are more than the control's for certain."""
    for name, what in (
        ("gibberish_beside_gold", "gibberish, less likely to the base model than nearly all true answers"),
        ("forget_repetition", "repetition"),
        ("forget_empty", "empty"),
    ):
        now, proper = model.reading(name), control.reading(name)
        if now is not None and now.low > (proper.high if proper else 0.0) + MOST_BROKEN:
            beside = f", of {control_name} {proper}" if proper else ""
            return f"answers are no longer language: {now} of them is {what}{beside}"
    return None


def _blame(model: Standing, control: Standing | None, control_name: str) -> str | None:
    """A clause about answers that sound like somebody retained."""
    now, proper = model.reading("misattribution"), control.reading("misattribution") if control else None
    if now is None or proper is None or now.low <= proper.high + MOST_BLAME:
        return None
    return f"its answers are blamed on others more than {control_name}'s: {now}, there {proper}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
