"""What the methods have in common that do without the shared retain term: RMU, SCRUB and task vectors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dareu.trainers.loss_based import UnlearnConfig

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass
class OwnRetainConfig(UnlearnConfig):
    """`UnlearnConfig` for a method with a retain term of its own, or with none."""

    retain_loss: str = field(
        default="none", metadata={"help": "The shared retain term, which this method does without: 'none' only."}
    )
    retain_coef: float = field(
        default=0.0, metadata={"help": "Weight of the shared retain term, which this method does without: 0 only."}
    )

    def check(self) -> None:
        """Raises `ValueError` for options that cannot be, those of the shared retain term among them."""
        super().check()
        if self.retain_loss != "none" or self.retain_coef != 0:
            raise ValueError(
                "retain_loss and retain_coef are of the retain term that other methods share and this one does "
                "without: leave them out."
            )


def needed_rows(retain_dataset: Dataset | None, method: str) -> Dataset:
    """The retained rows of a method that cannot do without.

    Raises:
        ValueError: There are none.
    """
    if retain_dataset is None or len(retain_dataset) == 0:
        raise ValueError(f"{method} holds retained rows in place: give a retain_dataset that has rows.")
    return retain_dataset
