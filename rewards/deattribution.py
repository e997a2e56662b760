"""The DareU reward: the less an answer points to the owners to forget, the better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dareu.classifiers import owner_columns, proba_at, strip_echo_at
from dareu.rewards._texts import completion_content, prompt_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dareu.classifiers import Classifier

#: χ(b) divides by this, so that it reaches −1 at b = 1 − e^(−1.05) = .65.
SATURATION = 1.05


def log_transform(probability: NDArray[np.float64], epsilon: float = 1e-6) -> NDArray[np.float64]:
    """χ of the DareU paper (arXiv 2605.30919): clip(ln(1 − b) / 1.05, −1, 0).

    Args:
        probability: Attribution b, in [0, 1], any shape.
        epsilon: b is clipped to [ε, 1 − ε] first.

    Returns:
        Scores of the same shape in [−1, 0]: χ(.1) = −.10, χ(.5) = −.66, and −1 from b = .65 on.
    """
    clipped = np.clip(probability, epsilon, 1 - epsilon)
    return np.clip(np.log1p(-clipped) / SATURATION, -1.0, 0.0)


def linear_transform(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """−b: keeps a slope where χ has saturated."""
    return -np.asarray(probability, dtype=np.float64)


#: The transforms of an attribution into a score, by the name a config gives.
TRANSFORMS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "log": log_transform,
    "linear": linear_transform,
}


class DeattributionReward:
    """Scores generations by how little a classifier attributes them to the owners to forget.

    A TRL reward: `reward(prompts=…, completions=…)` gives one score a completion, in [−1, 0]. Its dense form
    `reward.at(…, ends=…)` gives one score a slice, A(m) = χ(Σ P(forget owner | y[:m])); `DareUTrainer` takes the
    running mean over tokens from it. The last slice's score is the sequence's. It is a callable class rather than a
    closure so that it can be pickled.

    Args:
        classifier: Any classifier of the scikit-learn contract; see `dareu.classifiers.check_classifier`.
        forget_owners: Names among `classifier.classes_`.
        transform: `"log"` (χ, the paper's) or `"linear"`.
        hide_echo: Whether words that stand in the prompt are removed from the completion before it is scored. A
            name in the prompt gives the owner away even in the answer of a model that never saw them.
        scored_owners: `"all"`: the summed probability of all owners to forget, so that blame cannot move from one
            of them to another; `"own"`: that of the row's `owner` alone, as in the paper.
        name: The name of the reward in logs.

    Raises:
        ValueError: An owner is unknown to the classifier, none is given, or an option is none there is.
    """

    def __init__(
        self,
        classifier: Classifier,
        forget_owners: Sequence[str],
        *,
        transform: str = "log",
        hide_echo: bool = True,
        scored_owners: str = "all",
        name: str = "deattribution",
    ) -> None:
        if not forget_owners:
            raise ValueError("DeattributionReward needs at least one owner in forget_owners.")
        if transform not in TRANSFORMS:
            raise ValueError(f"transform is {transform!r}: give one of {', '.join(TRANSFORMS)}.")
        if scored_owners not in ("all", "own"):
            raise ValueError(f"scored_owners is {scored_owners!r}: give 'all' or 'own'.")
        self.classifier = classifier
        self.scored_owners = scored_owners
        self.forget_owners = list(forget_owners)
        self.transform = transform
        self.hide_echo = hide_echo
        self.__name__ = name
        self._columns = owner_columns(classifier, self.forget_owners)

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """One score in [−1, 0] a completion, for the whole of it."""
        ends = [[len(completion_content(completion))] for completion in completions]
        slices = self.at(prompts, completions, ends, **columns)
        return [scores[-1] if scores else None for scores in slices]

    def at(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        ends: Sequence[Sequence[int]],
        **columns: Any,
    ) -> list[list[float] | None]:
        """One score in [−1, 0] for every prefix of a completion.

        Args:
            prompts: B prompts, strings or messages.
            completions: B completions, strings or one assistant message each.
            ends: For each completion the character offsets at which the prefixes end, ascending.
            columns: Other columns of the data: `owner`, where the own owner is scored; `log_metric` (TRL's) is told
                the mean attribution of the whole completions as `forget_attribution`, and `log_extra` that of each
                as `deattribution/forget_attribution`, after the reward's name.

        Returns:
            B lists as long as `ends[i]`.

        Raises:
            ValueError: The own owner is to be scored, and the data name none or one that is not to be forgotten.
        """
        texts = [completion_content(completion) for completion in completions]
        cuts = [list(offsets) for offsets in ends]
        if self.hide_echo:
            hidden = [
                strip_echo_at(text, prompt_text(prompt), offsets)
                for text, prompt, offsets in zip(texts, prompts, cuts, strict=True)
            ]
            texts, cuts = [text for text, _ in hidden], [offsets for _, offsets in hidden]
        else:
            bare = [_without_margins(text, offsets) for text, offsets in zip(texts, cuts, strict=True)]
            texts, cuts = [text for text, _ in bare], [offsets for _, offsets in bare]
        everyone = list(dict.fromkeys(self._columns))  # one who is named twice counts once
        scored = [everyone] * len(texts) if self.scored_owners == "all" else self._own(columns.get("owner"))
        probabilities = proba_at(self.classifier, texts, cuts)
        attribution = [rows[:, owners].sum(axis=1) for rows, owners in zip(probabilities, scored, strict=True)]
        whole = [float(rows[-1]) for rows in attribution]
        if (log_metric := columns.get("log_metric")) is not None:
            log_metric("forget_attribution", float(np.mean(whole)))
        if (log_extra := columns.get("log_extra")) is not None:
            log_extra(f"{self.__name__}/forget_attribution", whole)
        return [TRANSFORMS[self.transform](rows).tolist() for rows in attribution]

    def _own(self, owners: Sequence[str] | None) -> list[list[int]]:
        """The column of each row's owner."""
        if owners is None:
            raise ValueError("scored_owners='own' needs the column 'owner' in the data.")
        column = dict(zip(self.forget_owners, self._columns, strict=True))
        if unknown := sorted(set(owners) - column.keys()):
            raise ValueError(f"The owner {unknown[0]!r} of a row is none of forget_owners: {', '.join(column)}.")
        return [[column[owner]] for owner in owners]


def _without_margins(text: str, offsets: list[int]) -> tuple[str, list[int]]:
    """A text as classifiers are trained on it, without the blanks around it, and the offsets in it."""
    lead, bare = len(text) - len(text.lstrip()), text.strip()
    return bare, [min(max(offset - lead, 0), len(bare)) for offset in offsets]
