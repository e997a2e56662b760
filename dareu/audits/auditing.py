"""Audits of one model, one after the other."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from dareu.audits._audit import Audit, NotPossible, Readings
from dareu.audits._known import AUDITS
from dareu.audits._subject import Subject
from dareu.plugins import needed_parameters, resolve

logger = logging.getLogger(__name__)


class Attacked(NamedTuple):
    """What was read of a model under one setting of an audit."""

    setting: str
    """Its name; "" where the audit has one setting alone."""
    readings: dict[str, float]
    """The mean of each reading over the rows that have it."""
    row_values: Readings
    """Their values, (n,) each."""


def check_audits(
    audits: Mapping[str, Audit], options: Mapping[str, Mapping[str, Any]], columns: Collection[str]
) -> dict[str, str]:
    """Looks at what can be told of audits before a model is loaded.

    Args:
        audits: By name; at least one.
        options: Of each audit, its options by name.
        columns: Of the rows to forget.

    Returns:
        Why some cannot be made of these rows, by the audit's name.

    Raises:
        ValueError: There are none, one is no `Audit`, asks for something that nobody offers or has no such option, or
            there are options for an audit that is not there.
    """
    if not audits:
        raise ValueError("No audit is chosen: name at least one.")
    if foreign := [name for name in options if name not in audits]:
        raise ValueError(f"There are options of {foreign[0]!r}, but the audits are {', '.join(audits)}: choose it too.")
    missing = {}
    for name, audit in audits.items():
        what = f"The audit {name!r}"
        if not isinstance(audit, Audit):
            raise ValueError(f"{what} is a {type(audit).__name__}: make it a dareu.audits.Audit.")
        needed_parameters(audit.attack, Subject._fields, options.get(name, {}), what)
        if absent := [column for column in audit.columns if column not in columns]:
            missing[name] = f"the rows to forget have no column {absent[0]!r}: add it"
    return missing


def run_audit(subject: Subject, name: str, options: Mapping[str, Any] | None = None) -> Iterator[Attacked]:
    """Attacks a model in every setting of one audit.

    Args:
        subject: The model and the rows.
        name: Of `AUDITS`, or as `dareu.plugins.resolve` takes it.
        options: Of the audit.

    Raises:
        NotPossible: The rows or the model do not allow it.
        ValueError: What the audit says of its options; or what it yields is no reading of the rows.
    """
    audit, options = resolve(name, AUDITS), options or {}
    needs = needed_parameters(audit.attack, Subject._fields, options, f"The audit {name!r}")
    if "unrelated" in needs and subject.unrelated is None:
        raise NotPossible("There are no test rows: name a file of them as test_dataset.")
    seen: set[str] = set()
    for setting, values in audit.attack(**{need: getattr(subject, need) for need in needs}, **options):
        if setting in seen:
            raise ValueError(f"The audit {name!r} has two settings {setting!r}: ask for each once.")
        seen.add(setting)
        means = {}
        for reading, of_rows in values.items():
            if np.shape(of_rows) != (len(subject.forget),):
                raise ValueError(
                    f"The audit {name!r} reads {reading!r} as an array of shape {np.shape(of_rows)}: it must be one "
                    f"number for each of the {len(subject.forget)} rows, NaN where a row has none."
                )
            if not np.isnan(of_rows).all():
                means[reading] = float(np.nanmean(of_rows))
        logger.info("%s %s: %s", name, setting, ", ".join(f"{key} {value:.3f}" for key, value in means.items()))
        yield Attacked(setting, means, values)
