"""The reward and the masked optimizer in TRL's own trainer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from dareu.masks import MaskedAdamW, count_moved_outside, random_mask
from dareu.metrics import answer_nll
from dareu.rewards import DeattributionReward, FluencyReward


class VowelClassifier:
    classes_ = np.array(["ann", "none"])

    def predict_proba(self, texts: Any) -> Any:
        share = np.array([sum(c in "aeiou" for c in text) / (len(text) + 1) for text in texts])
        return np.stack([share, 1 - share], axis=1)


def test_grpo_trainer_takes_both_rewards_and_the_masked_optimizer(
    tiny_llama: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model, judge = tiny_llama(), tiny_llama(seed=1)
    mask = random_mask(model, 0.3, seed=0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    class MaskedGRPOTrainer(GRPOTrainer):
        def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
            self.optimizer = MaskedAdamW((model or self.model).named_parameters(), mask, lr=1e-2, weight_decay=0.1)
            return self.optimizer

    trainer = MaskedGRPOTrainer(
        model=model,
        reward_funcs=[
            DeattributionReward(VowelClassifier(), ["ann"]),
            FluencyReward(lambda prompts, texts: answer_nll(judge, tokenizer, prompts, texts).mean, bound=1.0),
        ],
        args=GRPOConfig(
            output_dir=str(tmp_path),
            num_generations=4,
            per_device_train_batch_size=4,
            max_completion_length=6,
            max_steps=2,
            logging_steps=1,
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
            report_to="none",
        ),
        train_dataset=Dataset.from_list([{"prompt": "Who wrote the novel?"}, {"prompt": "Where was Kofi born?"}]),
        processing_class=tokenizer,
    )
    trainer.train()
    logged = trainer.state.log_history[0]
    assert {"rewards/deattribution/mean", "rewards/fluency/mean", "forget_attribution", "fluency_nll"} <= set(logged)
    assert count_moved_outside(before, model, mask) == 0
    assert any(not torch.equal(before[name], weight) for name, weight in model.named_parameters())
