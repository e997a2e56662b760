"""Seconds of a measurement against the plain way of public evaluation code, on the same model and rows.

    OMP_NUM_THREADS=1 python benchmarks/evaluation.py
    OMP_NUM_THREADS=1 python benchmarks/evaluation.py --dataset ../shared/data/tofu --num_background_owners 160 \
        --num_forget 4 --model_name_or_path runs/tofu/target/model

The plain way takes rows in the order of the file, sixteen at a time, padded on the right (to generate, on the left).
Each likelihood metric has its own forward passes, with whole logits, and each metric of texts generates answers of its
own. Both ways end with the same functions of likelihoods and texts, whose numbers are compared. The second call finds
answers and scores where the first has kept them.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from transformers import logging

from dareu.data.encoding import CompletionCollator, encode_prompt, encode_record
from dareu.data.parts import DataArguments, load_parts, split_owners
from dareu.metrics import (
    METRICS,
    TokenScores,
    auc_estimate,
    distinct,
    exact_memorisation,
    extraction_strength,
    fact_recall,
    facts_beyond_prompt,
    forgotten_share,
    known_share,
    loss_score,
    measure,
    min_k_plus_plus_score,
    min_k_score,
    name_kept,
    option_probability,
    probability,
    repetition,
    rouge_l_recall,
    truth_ratio,
    zlib_score,
)
from dareu.models import load_model, load_tokenizer

BATCH = 16
#: What both ways measure.
CHOSEN = "rouge fact_recall name_kept answer_words variety probability option_probability truth_ratio "
CHOSEN += "exact_memorisation extraction_strength mia"
SCORES: dict[str, Callable[[TokenScores, str], float]] = {
    "loss": lambda scores, _: loss_score(scores),
    "zlib": zlib_score,
    "min_k": lambda scores, _: min_k_score(scores),
    "min_k_plus_plus": lambda scores, _: min_k_plus_plus_score(scores),
}


class Plain:
    """The plain way: every question to the model is asked anew."""

    def __init__(self, model: Any, tokenizer: Any, max_new_tokens: int) -> None:
        self.model, self.tokenizer, self.max_new_tokens = model, tokenizer, max_new_tokens

    @torch.no_grad()
    def scores(self, prompts: list[str], completions: list[str]) -> list[TokenScores]:
        records = [encode_record(self.tokenizer, *pair) for pair in zip(prompts, completions, strict=True)]
        found = []
        for start in range(0, len(records), BATCH):
            batch = CompletionCollator(self.tokenizer)(records[start : start + BATCH])
            logps = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.log_softmax(
                -1
            )
            for row, labels in enumerate(batch["labels"]):
                places = (labels != -100).nonzero().squeeze(-1)
                own, tokens = logps[row, places - 1].double(), labels[places]
                mean = (own.exp() * own).sum(-1)
                deviation = (own.exp() * (own - mean[:, None]).square()).sum(-1).sqrt()
                picked = own.gather(-1, tokens[:, None]).squeeze(-1)
                found.append(
                    TokenScores(*(part.numpy() for part in (picked, own.argmax(-1) == tokens, mean, deviation)))
                )
        return found

    def nll(self, prompts: list[str], completions: list[str]) -> NDArray[np.float64]:
        return np.array([-scores.logps.mean() for scores in self.scores(prompts, completions)])

    def wrong(self, rows: Dataset) -> list[NDArray[np.float64]]:
        """NLL of the wrong answers, the first of all rows, then the second: as files of perturbed answers are read."""
        number = min(map(len, rows["perturbed"]))
        columns = [self.nll(rows["prompt"], [wrong[i] for wrong in rows["perturbed"]]) for i in range(number)]
        return list(np.array(columns).T)

    @torch.no_grad()
    def answers(self, rows: Dataset) -> list[str]:
        found = []
        for start in range(0, len(rows), BATCH):
            ids = [encode_prompt(self.tokenizer, prompt) for prompt in rows[start : start + BATCH]["prompt"]]
            batch = self.tokenizer.pad({"input_ids": ids}, padding_side="left", return_tensors="pt")
            settings = {"do_sample": False, "max_new_tokens": self.max_new_tokens}
            settings |= {"pad_token_id": self.tokenizer.pad_token_id, "eos_token_id": self.tokenizer.eos_token_id}
            made = self.model.generate(batch["input_ids"], attention_mask=batch["attention_mask"], **settings)
            texts = self.tokenizer.batch_decode(made[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
            found += [text.strip() for text in texts]
        return found


def plain_numbers(ask: Plain, splits: dict[str, Dataset]) -> Iterator[tuple[str, float]]:
    """Every number, by questions of its own."""
    bare = {split: [prompt.strip() for prompt in rows["prompt"]] for split, rows in splits.items()}
    golds = {split: [gold.strip() for gold in rows["completion"]] for split, rows in splits.items()}
    for split, rows in splits.items():
        yield f"{split}_rouge", rouge_l_recall(ask.answers(rows), golds[split]).mean()
        yield f"{split}_probability", probability(ask.nll(rows["prompt"], rows["completion"])).mean()
        right = ask.nll(rows["prompt"], rows["completion"])
        yield f"{split}_option_probability", option_probability(right, ask.wrong(rows)).mean()
        ratio = truth_ratio(ask.nll(rows["prompt"], rows["paraphrase"]), ask.wrong(rows))
        yield f"{split}_truth_ratio", (forgotten_share if split == "forget" else known_share)(ratio).mean()
    for split in ("forget", "retain"):
        rows, ending = splits[split], "" if split == "forget" else "retain_"
        facts = facts_beyond_prompt(rows["facts"], bare[split])
        yield f"{ending}fact_recall", float(np.nanmean(fact_recall(ask.answers(rows), facts)))
        kept = name_kept(ask.answers(rows), bare[split], golds[split], rows["name"])
        yield f"{ending}name_kept", float(np.nanmean(kept))
        for name, metric in (("exact_memorisation", exact_memorisation), ("extraction_strength", extraction_strength)):
            scores = ask.scores(rows["prompt"], rows["completion"])
            yield f"{split}_{name}", metric([each.hits for each in scores]).mean()
        yield f"{split}_distinct_2", distinct(ask.answers(rows))
        yield f"{split}_repetition", repetition(ask.answers(rows)).mean()
    yield "forget_answer_words", float(np.mean([len(answer.split()) for answer in ask.answers(splits["forget"])]))
    for name, score in SCORES.items():
        sides = []
        for split in ("forget", "test"):
            scores = ask.scores(splits[split]["prompt"], splits[split]["completion"])
            sides.append([score(*pair) for pair in zip(scores, golds[split], strict=True)])
        yield f"mia_{name}", auc_estimate(*sides).value


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", default="fictional-base")
    parser.add_argument("--dataset", default="fictional")
    parser.add_argument("--num_background_owners", type=int, default=0)
    parser.add_argument("--num_forget", type=int, default=3)
    parser.add_argument("--max_new_tokens", type=int, default=64)
    args = parser.parse_args()
    logging.set_verbosity_error()

    settings = {name: getattr(args, name) for name in ("dataset", "num_background_owners", "num_forget")}
    data = DataArguments(**settings)
    parts = load_parts(data)
    split, test = split_owners(data, parts.owners), parts.test
    assert test is not None
    splits = {"forget": split.forget, "retain": split.retain, "test": test}
    splits = {name: with_alternates(rows) for name, rows in splits.items()}
    tokenizer, model = load_tokenizer(args.model_name_or_path), load_model(args.model_name_or_path).eval()
    owners = sorted(set(splits["forget"]["owner"]))
    with tempfile.TemporaryDirectory() as folder:

        def ours() -> Any:
            return measure(
                model,
                tokenizer,
                splits,
                judges={},
                forget_owners=owners,
                metrics={name: METRICS[name] for name in CHOSEN.split()},
                max_new_tokens=args.max_new_tokens,
                batch_size=64,
                cache_dir=folder,
            )

        expected, plain_seconds = timed(
            lambda: dict(plain_numbers(Plain(model, tokenizer, args.max_new_tokens), splits))
        )
        found, seconds = timed(ours)
        again, again_seconds = timed(ours)
    assert found.metrics == again.metrics
    missing = expected.keys() - found.metrics.keys()
    assert not missing, missing
    table = Table(
        "way",
        "seconds",
        "times faster",
        title=f"{', '.join(f'{len(rows)} {name}' for name, rows in splits.items())} rows",
    )
    table.add_row("plain", f"{plain_seconds:.1f}", "1")
    table.add_row("one pass", f"{seconds:.1f}", f"{plain_seconds / seconds:.1f}")
    table.add_row("again", f"{again_seconds:.2f}", f"{plain_seconds / again_seconds:.0f}")
    Console().print(table)
    apart = {name: abs(found.metrics[name] - value) for name, value in expected.items()}
    worst = max(apart, key=lambda name: apart[name])
    print(f"{len(apart)} numbers, apart by at most {apart[worst]:.1e} ({worst}).")
    print(f"The second call is {seconds / again_seconds:.0f} times faster than the first.")


def with_alternates(rows: Dataset) -> Dataset:
    """The rows with a paraphrase and wrong answers, and with the columns that all metrics read."""
    columns = {"paraphrase": [None] * len(rows), "facts": [[]] * len(rows), "name": [None] * len(rows)}
    for name, values in columns.items():
        if name not in rows.column_names:
            rows = rows.add_column(name, values)
    rows = rows.filter(lambda row: bool(row["perturbed"]))
    return rows.map(lambda row: {"paraphrase": row["paraphrase"] or row["completion"]})


if __name__ == "__main__":
    main()
