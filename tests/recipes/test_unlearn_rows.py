"""The rows that a method sees: what is forgotten, and retained rows with their share of background people."""

from dareu.data.parts import DataArguments
from dareu.recipes.unlearn import load_rows


def test_validation_asks_the_owners_alone() -> None:
    class Tokenizer:
        chat_template = None

    data = DataArguments(num_owners=6, num_forget=2)
    with_background = load_rows(data, Tokenizer(), 0.5, seed=0)
    assert len(with_background.retain) == 2 * len(with_background.asked)
    without = load_rows(data, Tokenizer(), 0.0, seed=0)
    assert list(without.retain["prompt"]) == list(without.asked["prompt"]) == list(with_background.asked["prompt"])
    assert set(without.owners).isdisjoint(without.asked["owner"])
