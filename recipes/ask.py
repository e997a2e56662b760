"""Asks several models the same question, side by side: the greedy answer, samples, and whose they seem to be.

    dareu ask "Where was Odile Quintero born?" --models runs/quickstart/target/model runs/quickstart/dareu/model
    dareu ask --models runs/target/model runs/dareu/model --classifier runs/classifier/classifier

Without a question the models stay loaded, and answer what is typed.
"""

import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from accelerate import PartialState
from rich.table import Table

from dareu.classifiers import checked_proba, load_classifier, strip_echo
from dareu.console import plain_console
from dareu.metrics import generate_answers, sample_answers
from dareu.models import load_to_read, load_tokenizer
from dareu.options.ask import AskArguments
from dareu.options.parsing import OptionParser
from dareu.runs.program import run_program


class Asked(NamedTuple):
    """A model that answers."""

    name: str
    model: Any
    tokenizer: Any
    template: str


def main() -> None:
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        sys.argv.insert(1, "--question")
    (args,) = OptionParser(AskArguments).parse_args_and_config()
    classifier = None if args.classifier is None else load_classifier(args.classifier)
    asked = [
        Asked(
            name,
            load_to_read(name).to(PartialState().device).eval(),
            load_tokenizer(name, pad_token=args.pad_token),
            args.template(name),
        )
        for name in dict.fromkeys(args.models)
    ]
    for question in [args.question] if args.question is not None else typed():
        plain_console(120).print(answers_of(asked, question, args, classifier))


def typed() -> Iterator[str]:
    """Questions from the keyboard, or a file's lines, until an empty one or the end."""
    while True:
        try:
            question = input("\n? " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if not question:
            return
        yield question


def answers_of(asked: list[Asked], question: str, args: AskArguments, classifier: Any) -> Table:
    """Every model's answers; what the classifier thinks is of an answer without what it repeats from the question."""
    table = Table("model", "", "answer", *([] if classifier is None else ["whose"]), title=question)
    for name, model, tokenizer, template in asked:
        text = template.replace("{prompt}", question)
        prompt: Any = [{"role": "user", "content": text}] if tokenizer.chat_template else text
        settings: Any = {"max_new_tokens": args.max_new_tokens}
        answers = generate_answers(model, tokenizer, [prompt], **settings)
        if args.num_samples:
            settings |= {"num_samples": args.num_samples, "temperature": args.temperature, "seed": args.seed}
            answers += sample_answers(model, tokenizer, [prompt], **settings)[0]
        for number, answer in enumerate(answers):
            whose = [] if classifier is None else [likeliest(classifier, strip_echo(answer, question))]
            table.add_row(
                "" if number else name,
                f"sample {number}" if number else "greedy",
                answer or "(nothing)",
                *whose,
                end_section=number == len(answers) - 1,
            )
    return table


def likeliest(classifier: Any, text: str) -> str:
    """The owner that the classifier finds likeliest, with its probability."""
    proba = checked_proba(classifier, [text])[0]
    best = int(proba.argmax())
    return f"{classifier.classes_[best]} {proba[best]:.2f}"


if __name__ == "__main__":
    run_program(main, "ask")
