"""Trains an attribution classifier (whose text is this?) and prints its quality card.

    dareu train_classifier --classifier llm --output_dir runs/classifier
    dareu train_classifier --classifier tfidf --text_columns paraphrase --output_dir runs/test_judge

The classifier is saved in OUTPUT_DIR/classifier. Reward, validation and test judges should be of different families
and trained on different texts: choose them by --classifier and --text_columns or --fold.
"""

import logging
import os
from collections.abc import Collection
from typing import Any

from rich.table import Table

from dareu.classifiers import (
    CLASSIFIERS,
    NONE_CLASS,
    LLMClassifier,
    check_classifier,
    quality_card,
    save_skops,
    strip_echo,
)
from dareu.console import plain_console
from dareu.data import is_chat, take_fold, text_of
from dareu.data.parts import DataArguments, load_parts
from dareu.data.records import quoted
from dareu.files import write_json
from dareu.models import adapter_base, load_model, load_tokenizer, resolve_model_path
from dareu.options.parsing import OptionParser
from dareu.options.train_classifier import ClassifierArguments, find_classifier
from dareu.runs import config_of, inputs_of, open_run
from dareu.runs.program import run_program

logger = logging.getLogger("dareu.train_classifier")


def main() -> None:
    data, args = OptionParser((DataArguments, ClassifierArguments)).parse_args_and_config()
    parts = load_parts(data)

    # Texts: owners by name, background people as "none"
    rows, held_out = parts.owners, None
    if NONE_CLASS in rows["owner"]:
        raise ValueError(f"An owner is called {NONE_CLASS!r}, as the class of nobody's texts is: rename them.")
    if args.fold is not None:
        rows, held_out = take_fold(rows, args.fold)
    forms = (False, True) if args.hide_echo else (False,)
    texts: list[str] = []
    labels: list[str] = []
    for hide_echo in forms:
        more_texts, more_labels = texts_of(rows, args.text_columns, hide_echo, args.fallback_column)
        texts, labels = texts + more_texts, labels + more_labels
    if parts.background is not None:
        background, most = parts.background, args.max_background_rows
        if args.fold is not None:  # so that judges of other folds share no text with it
            background = take_fold(background, args.fold).inside
        if most is not None and len(background) > most:
            background = background.select([i * len(background) // most for i in range(most)])
        nobody = [
            text
            for hide_echo in forms
            for text in texts_of(background, args.text_columns, hide_echo, args.fallback_column)[0]
        ]
        texts, labels = texts + nobody, labels + [NONE_CLASS] * len(nobody)

    # Texts for the quality card: those it was not trained on where there are any
    outside = args.evaluate_on is not None or held_out is not None
    asked = held_out if held_out is not None else rows
    columns = args.evaluate_on or args.text_columns
    fallback = None if args.evaluate_on else args.fallback_column
    tests = {
        "whole" if not hide_echo else "echo_hidden": texts_of(asked, columns, hide_echo, fallback)
        for hide_echo in forms
    }

    if strangers := {label for _, of_form in tests.values() for label in of_form} - set(labels):
        logger.warning(
            "%d owners have no text among those that are trained on, so that the classifier will not know them: %s.",
            *(len(strangers), quoted(sorted(strangers))),
        )
        tests = {form: texts_of_owners(labels, *labelled) for form, labelled in tests.items()}

    make, args.classifier_kwargs = find_classifier(args, CLASSIFIERS)
    kwargs = dict(args.classifier_kwargs)
    if "model" in kwargs:
        kwargs["model"] = name = resolve_model_path(kwargs["model"])
        if make is LLMClassifier and adapter_base(name) is not None:
            kwargs |= {"model": load_model(name), "tokenizer": load_tokenizer(name)}
    classifier = make(**kwargs)

    # Everything that can be wrong was looked at before anything is written
    run = open_run(args.output_dir, config_of(data, args), inputs_of(data, args))
    if run.done:
        print(f"{run.folder} is done: delete it to run again.")
        return
    logger.info("%d texts of %d classes", len(texts), len(set(labels)))
    classifier.fit(texts, labels)
    check_classifier(classifier, texts[:8])

    card = {form: quality_card(classifier, *labelled) for form, labelled in tests.items()}
    if hasattr(classifier, "save"):
        classifier.save(run.folder / "classifier")
    else:  # a scikit-learn estimator
        save_skops(classifier, run.folder / "classifier")
    write_json(run.folder / "quality_card.json", card)
    run.mark_done()

    table = Table("measure", *card, title=f"{args.classifier} on {'held-out' if outside else 'its training'} texts")
    for name in ("count", "accuracy", "log_loss", "calibration_error"):
        table.add_row(name, *(f"{form[name]:.3f}" if name != "count" else str(form[name]) for form in card.values()))
    plain_console().print(table)
    print(f"The classifier is in {run.folder / 'classifier'}.")


def texts_of_owners(owners: Collection[str], texts: list[str], labels: list[str]) -> tuple[list[str], list[str]]:
    """Those texts whose label is among the owners."""
    known = set(owners)
    kept = [(text, label) for text, label in zip(texts, labels, strict=True) if label in known]
    if not kept:
        raise ValueError(
            "No held-out text is of an owner who has a text to train on: give more rows, or leave fold out."
        )
    return [text for text, _ in kept], [label for _, label in kept]


def texts_of(
    rows: Any, columns: list[str], hide_echo: bool, fallback: str | None = None
) -> tuple[list[str], list[str]]:
    """Texts of the named columns and their owners, whole or without the words that their prompts have.

    Of a row that has none of them it is the text of the column `fallback`, where that is named.
    """
    texts, labels = [], []
    lacking = [True] * len(rows)
    for column in [*columns, *([] if fallback is None else [fallback])]:
        if column not in rows.column_names:
            raise ValueError(f"There is no column {column!r}; the data has {', '.join(rows.column_names)}.")
        for row, (prompt, value, owner) in enumerate(zip(rows["prompt"], rows[column], rows["owner"], strict=True)):
            if column not in columns and not lacking[row]:
                continue
            if value and not isinstance(value, str) and not is_chat(value):
                raise ValueError(f"Row {row}: {column} is {value!r}, which is no text: convert it with str().")
            lacking[row] = lacking[row] and not value
            text = text_of(value) if value else ""  # TOFU has paraphrases of some rows only
            text = strip_echo(text, text_of(prompt)) if hide_echo else text
            if text:
                texts.append(text)
                labels.append(owner)
    if not texts:
        said = " but what the prompts have: set hide_echo to false" if hide_echo else ""
        raise ValueError(f"The columns {', '.join(columns)} hold no texts{said}.")
    return texts, labels


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    run_program(main, "train_classifier")
