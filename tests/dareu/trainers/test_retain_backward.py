"""The retain term's backward comes before the policy's forward, and the gradients are those of the sum."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback

from dareu.data import CompletionCollator, encode_dataset
from dareu.methods.finetune_retain import finetune_retain
from dareu.methods.gradient_ascent import gradient_ascent
from dareu.models.forward import completion_logits
from dareu.trainers import UnlearnConfig, UnlearnTrainer


class Keep(TrainerCallback):
    """Copies the gradients of the first update."""

    def __init__(self) -> None:
        self.gradients: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, *_: Any, model: nn.Module, **__: Any) -> None:
        self.gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize(("forget_loss", "retain_loss"), [("ga", "kl"), ("ga", "nll"), ("none", "nll")])
def test_the_gradients_are_those_of_the_weighted_sum(
    forget_loss: str,
    retain_loss: str,
    accumulated: int,
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    unlearn_config: Callable[..., UnlearnConfig],
    forget_rows: Dataset,
    retain_rows: Dataset,
) -> None:
    model, keep = tiny_llama(), Keep()
    trainer = UnlearnTrainer(
        model,
        gradient_ascent if forget_loss == "ga" else finetune_retain,
        unlearn_config(
            max_steps=1,
            per_device_train_batch_size=2 // accumulated,
            gradient_accumulation_steps=accumulated,
            retain_batch_size=3,
            retain_loss=retain_loss,
            retain_coef=0.7,
            forget_coef=1.3 if forget_loss == "ga" else 1.0,
            max_grad_norm=1e9,
        ),
        forget_rows,
        retain_dataset=retain_rows,
        processing_class=tokenizer,
        callbacks=[keep],
    )
    original, expected = tiny_llama(), tiny_llama()
    with torch.no_grad():  # away from the original, where the divergence is flat
        for one in (model, expected):
            generator = torch.Generator().manual_seed(1)
            for parameter in one.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    trainer.train()

    collator, records = CompletionCollator(tokenizer), encode_dataset(retain_rows, tokenizer)
    loss = torch.zeros(())
    if forget_loss == "ga":
        scored = completion_logits(expected, collator(encode_dataset(forget_rows, tokenizer))).terms()
        loss = 1.3 * gradient_ascent(scored.row_sum(scored.logps()), scored.lengths())
    assert trainer._retain is not None
    for step in range(accumulated):
        batch = collator([records[row] for row in trainer._retain.rows(step)])
        ours, theirs = completion_logits(expected, batch), completion_logits(original, batch)
        logps, original_logps = ours.logits.log_softmax(-1), theirs.logits.detach().log_softmax(-1)
        if retain_loss == "kl":
            each = (original_logps.exp() * (original_logps - logps)).sum(-1)
        else:
            each = -logps.gather(-1, ours.tokens[:, None]).squeeze(-1)
        loss = loss + 0.7 / accumulated * (ours.row_sum(each) / ours.lengths()).mean()
    loss.backward()
    for name, parameter in expected.named_parameters():
        torch.testing.assert_close(keep.gradients[name], parameter.grad, atol=1e-6, rtol=1e-4, msg=name)
    assert trainer.state.log_history[0]["loss"] == pytest.approx(loss.item(), rel=1e-4)
