"""The rule of the judges: each has one job."""

from __future__ import annotations

from pathlib import Path


def check_judges(**judges: str | None) -> None:
    """Refuses one classifier in two jobs: what trains, what stops and tunes, and what reports must be three.

    Args:
        judges: For each job, such as `test_judge`, the classifier that has it: a folder, or a plug-in's name; None
            where there is none.

    Raises:
        ValueError: Names the two jobs and the classifier.
    """
    seen: dict[Path, str] = {}
    for job, judge in judges.items():
        if not judge:
            continue
        path = Path(judge).resolve()
        if path in seen:
            raise ValueError(
                f"{judge} is named both as {seen[path]} and as {job}: the reward classifier, the validation judge and "
                "the test judge must be three, for each has one job."
            )
        seen[path] = job
