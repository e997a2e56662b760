"""The training loop of `LLMClassifier`."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from dareu.classifiers._batches import balanced_batches, pad_right

logger = logging.getLogger(__name__)


def train(
    network: torch.nn.Module,
    head: torch.nn.Linear,
    texts: Sequence[list[int]],
    targets: Sequence[int],
    *,
    start: list[int],
    stop: list[int],
    learning_rate: float,
    num_epochs: int,
    batch_size: int,
    prefixes: int,
    draws: torch.Generator,
) -> None:
    """Trains `head`, and the weights of `network` that require gradients, in place.

    The head starts at zero (every class alike) and reads each text at `stop`, at its last token and at
    `prefixes` random tokens; the loss is the mean cross-entropy of all of them.

    Args:
        network: causal transformer with `last_hidden_state`.
        head: linear layer to C classes.
        texts: token ids of each text, at least one.
        targets: class number of each text.
        start: ids put before each text.
        stop: ids put after each text: EOS, or nothing.
        learning_rate: peak of a linear warm-up (a tenth of the steps) and decay.
        num_epochs: an epoch has as many draws as there are texts.
        batch_size: texts in a batch.
        prefixes: random prefixes of each drawn text.
        draws: source of the batches and the prefixes; dropout follows the global random state.
    """
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    weights = [weight for weight in network.parameters() if weight.requires_grad] + [*head.parameters()]
    lengths = [len(ids) for ids in texts]
    plan = [balanced_batches(targets, lengths, batch_size, draws) for _ in range(num_epochs)]
    steps = sum(map(len, plan))
    warmup = max(1, steps // 10)
    optimizer = torch.optim.AdamW(weights, lr=learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / (steps - warmup + 1))
    )

    network.train()
    for epoch, batches in enumerate(tqdm(plan, desc="classifier", unit="epoch", disable=None)):
        total = 0.0
        for rows in batches:
            batch = pad_right([[*start, *texts[row], *stop] for row in rows], head.weight.device)
            states = network(**batch, use_cache=False).last_hidden_state
            at = [_places(len(start), lengths[row], len(stop), prefixes, draws) for row in rows]
            places = torch.tensor(at, device=states.device)  # (B, 2 + prefixes)
            logits = head(states[torch.arange(len(rows), device=states.device)[:, None], places])
            wanted = torch.tensor([targets[row] for row in rows], device=states.device)
            loss = cross_entropy(logits.flatten(0, 1), wanted.repeat_interleave(places.shape[1]))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        logger.info("epoch %d of %d: loss %.3f", epoch + 1, num_epochs, total / len(batches))


def _places(start: int, length: int, stop: int, prefixes: int, draws: torch.Generator) -> list[int]:
    cuts = torch.randint(1, length + 1, (prefixes,), generator=draws).tolist()
    return [start + length + stop - 1, *(start + count - 1 for count in (length, *cuts))]
