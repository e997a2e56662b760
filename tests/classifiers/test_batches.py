"""Batches hold every class alike."""

from collections import Counter

import pytest
import torch

from dareu.classifiers._batches import balanced_batches, pad_right


@pytest.mark.parametrize("batch_size", [1, 4, 5, 16, 1000])
def test_classes_differ_by_at_most_one_in_every_batch(batch_size: int) -> None:
    sizes = [2, 30, 9, 12, 1]
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    lengths = [(7 * row) % 40 + 1 for row in range(len(labels))]
    batches = balanced_batches(labels, lengths, batch_size, torch.Generator().manual_seed(0))
    assert sorted(map(len, batches))[1:] == [batch_size] * (len(batches) - 1)
    for batch in batches:
        counts = Counter(labels[row] for row in batch)
        assert max(counts.values()) - min(counts[label] for label in range(len(sizes))) <= 1
    drawn = Counter(labels[row] for batch in batches for row in batch)
    assert set(drawn.values()) == {11}  # 54 rows in 5 classes
    repeats = Counter(row for batch in batches for row in batch)
    for label, size in enumerate(sizes):
        times = {repeats[row] for row in range(len(labels)) if labels[row] == label}
        assert times <= {11 // size, -(-11 // size)}


def test_equal_classes_show_each_row_once_and_pad_little() -> None:
    labels = [0, 1, 2, 3] * 20
    lengths = torch.randint(1, 50, (80,), generator=torch.Generator().manual_seed(1)).tolist()
    batches = balanced_batches(labels, lengths, 8, torch.Generator().manual_seed(0))
    assert sorted(row for batch in batches for row in batch) == list(range(80))
    padded = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
    assert padded < 1.4 * sum(lengths)


def test_the_generator_alone_decides() -> None:
    def draw(seed: int) -> list[list[int]]:
        return balanced_batches([0, 1] * 10, [1] * 20, 4, torch.Generator().manual_seed(seed))

    state = torch.get_rng_state()
    assert draw(0) == draw(0) != draw(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_pad_right() -> None:
    batch = pad_right([[5, 6, 7], [8]], torch.device("cpu"))
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
