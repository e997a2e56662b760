"""The critic of PPO: a value head on the policy's last hidden state, with an optimizer of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dareu.files import atomic_file

_FILE = "critic.safetensors"


class Critic:
    """V(state before a token), linear in the hidden state that predicts the token.

    The head is no part of the model: it is saved in checkpoints and never exported, no mask selects it, and no
    wrapper of the model sees it, so that its gradients are averaged over processes in `step`. It begins at 0.

    Args:
        model: The policy, adapters included, before it is wrapped.
        identity: Names the model before unlearning, such as its fingerprint; a saved head says whose it is.
        learning_rate: Of the head's AdamW, constant.
        detach: Train the head alone. Without it the value loss moves the policy's weights too.

    Raises:
        ValueError: The model has no decoder whose hidden states could be read.
    """

    def __init__(self, model: nn.Module, *, identity: str, learning_rate: float, detach: bool) -> None:
        self.identity = identity
        self.detach = detach
        decoder = _decoder(model)
        head: Any = model.get_output_embeddings()  # type: ignore[operator]  # of a PeftModel, its base's
        size = head.weight.shape[-1]
        self.head = nn.Linear(size, 1, dtype=torch.float32)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.optimizer = torch.optim.AdamW(self.head.parameters(), lr=learning_rate, weight_decay=0.0)
        self._seen: list[Tensor] | None = None
        self._read: Tensor | None = None
        decoder.register_forward_hook(self._record, with_kwargs=True)

    def _record(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if self._seen is None:
            return
        read = kwargs.get("input_ids", args[0] if args else None)
        if self._seen and read is not None and read is self._read:
            self._seen.pop()  # once more, as where the model does something of its own to its logits
        self._seen.append(output[0])
        self._read = read

    @contextmanager
    def watch(self) -> Iterator[list[Tensor]]:
        """The last hidden states (b, P + T, H) of every forward of the policy within the block, in order."""
        self._seen = []
        try:
            yield self._seen
        finally:
            self._seen = self._read = None

    def values(self, hidden: list[Tensor], num_tokens: int) -> Tensor:
        """Values of the states before the last `num_tokens` tokens: float32 (B, T)."""
        states = torch.cat([part[:, -num_tokens - 1 : -1] for part in hidden]).float()
        if self.head.weight.device != states.device:
            self._to(states.device)
        values: Tensor = self.head(states.detach() if self.detach else states).squeeze(-1)
        return values

    def step(self, accelerator: Any) -> None:
        """Averages the gradients over processes and updates the head."""
        for parameter in self.head.parameters():
            if parameter.grad is not None:
                parameter.grad = accelerator.reduce(parameter.grad, reduction="mean")
        self.optimizer.step()
        self.optimizer.zero_grad()

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes head and optimizer state into a checkpoint folder."""
        tensors = {name: parameter.detach() for name, parameter in self.head.named_parameters()}
        for name, parameter in self.head.named_parameters():
            tensors |= {f"{name}.{key}": value for key, value in self.optimizer.state[parameter].items()}
        with atomic_file(Path(folder) / _FILE) as temporary:
            save_file(
                {name: tensor.cpu().contiguous() for name, tensor in tensors.items()},
                temporary,
                metadata={"critic": json.dumps({"identity": self.identity})},
            )

    def load(self, folder: str | os.PathLike[str]) -> None:
        """Reads what `save` wrote.

        Raises:
            ValueError: There is no head in the folder, its file is damaged, or it was trained on another model.
        """
        path = Path(folder) / _FILE
        if not path.is_file():
            raise ValueError(f"The checkpoint {folder} holds no value head: resume a run with a critic.")
        try:
            with safe_open(path, framework="pt") as file:
                identity = json.loads((file.metadata() or {})["critic"])["identity"]
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is no whole value head ({error}): resume an earlier checkpoint.") from error
        if identity != self.identity or tensors["weight"].shape != self.head.weight.shape:
            raise ValueError(
                f"The value head in {folder} was trained on another model: resume with the model the run began with."
            )
        self.head.load_state_dict({name: tensors[name] for name, _ in self.head.named_parameters()})
        for name, parameter in self.head.named_parameters():
            state = {
                key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")
            }
            self.optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in state.items()
            }

    def _to(self, device: torch.device) -> None:
        """Follows the policy to its device, optimizer state included."""
        self.head.to(device)
        for state in self.optimizer.state.values():
            state.update({key: value if key == "step" else value.to(device) for key, value in state.items()})


def _decoder(model: nn.Module) -> nn.Module:
    """What gives the last hidden state: the model without its language-model head."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    decoder = base.get_decoder() if hasattr(base, "get_decoder") else None
    if decoder is None or decoder is base:
        raise ValueError(
            f"{type(base).__name__} has no decoder to put a value head on: use an advantage_estimator that asks for no "
            "values, such as 'group'."
        )
    assert isinstance(decoder, nn.Module)
    return decoder
