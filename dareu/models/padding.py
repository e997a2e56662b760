"""Whether a model reads its rows alike however they are padded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from dareu.models.forward import evaluation_mode, sampled_terms

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def check_padding(model: PreTrainedModel | PeftModel) -> None:
    """Refuses a model whose word on a row depends on the longer row that it is batched with, as RWKV's does.

    Nothing is asked of a model whose weights are in pieces, as under ZeRO-3.

    Args:
        model: It is asked twice about a few tokens.

    Raises:
        ValueError: Log-probabilities of the shorter row's tokens differ by more than rounding.
    """
    parameters = list(model.parameters())
    if any(hasattr(parameter, "ds_id") for parameter in parameters):
        return
    config: Any = model.config
    ids = torch.arange(1, 17, device=parameters[0].device).view(2, 8) % config.get_text_config().vocab_size
    mask = torch.ones_like(ids)
    ids[0, :4] = mask[0, :4] = 0
    with evaluation_mode(model), torch.no_grad():
        beside = sampled_terms(model, ids, mask, 3, batch_size=2)["logps"][0]
        alone = sampled_terms(model, ids[:1, 4:], mask[:1, 4:], 3, batch_size=1)["logps"][0]
    rounding = 0.01 if {parameter.dtype for parameter in parameters} == {torch.float32} else 0.5
    if (found := float((beside - alone).abs().max())) > rounding:
        raise ValueError(
            f"The model ({config.model_type}) reads the padding: the same tokens are {found:.2g} nats more or less "
            "likely beside a longer row, so that nothing it is trained on or measured by would be right. Take a model "
            "of another architecture."
        )
