"""π_N, the model before unlearning, without a second copy in memory where that is possible."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from dareu.models.forward import evaluation_mode
from dareu.trainers.processes import frozen_copy
from dareu.weights.entries import flat_part, local_part, part_like
from dareu.weights.sharding import reshard

#: Gives, as a context, the module that computes π_N. Leave the context before the student's forward begins.
Original = Callable[[], AbstractContextManager[nn.Module]]


def original_policy(
    model: nn.Module,
    mask: Mapping[str, Tensor] | None = None,
    *,
    fresh_adapter: bool,
    place: Callable[[nn.Module], nn.Module] | None = None,
) -> Original:
    """Chooses how π_N is kept for a model that is about to be trained.

    A fresh adapter is switched off; under a mask the original values of the selected entries are kept and swapped
    in; anything else is copied whole, an adapter that is itself the target included.

    Args:
        model: The model in the state that shall be remembered.
        mask: Names to bool tensors; entries outside it never change.
        fresh_adapter: Whether `model` is a `PeftModel` whose adapter has just been added and changes nothing yet.
        place: Brings a copy to where it computes, sharded where the model is; called once, when π_N is first asked
            for. By default the copy goes to the model's device.
    """
    if fresh_adapter:
        assert isinstance(model, PeftModel)
        return lambda: _adapter_off(model)
    if mask is not None:
        return _OriginalEntries(model, mask)
    return _FrozenCopy(frozen_copy(model), place or (lambda frozen: frozen.to(next(model.parameters()).device)))


@contextmanager
def _adapter_off(model: PeftModel) -> Iterator[nn.Module]:
    learning = [(parameter, parameter.requires_grad) for parameter in model.parameters()]

    def restore() -> None:
        for parameter, learns in learning:
            parameter.requires_grad_(learns)

    try:
        with evaluation_mode(model), torch.no_grad(), model.disable_adapter():
            restore()  # switching off froze them, and FSDP2 looks at that when its first forward comes
            yield model
    finally:
        restore()  # switching on lets all of the adapter learn, also what was frozen


class _FrozenCopy:
    """A copy of the whole model, brought to its place when it is first asked for, since nothing is placed before."""

    def __init__(self, frozen: nn.Module, place: Callable[[nn.Module], nn.Module]) -> None:
        self.frozen = frozen
        self._place: Callable[[nn.Module], nn.Module] | None = place

    @contextmanager
    def __call__(self) -> Iterator[nn.Module]:
        if self._place is not None:
            self.frozen, self._place = self._place(self.frozen), None
        with torch.no_grad():  # it is always in evaluation mode
            yield self.frozen


class _OriginalEntries:
    """Swaps the original values of the selected entries in, and the trained ones back.

    Every process keeps those of the whole model until the weights are sharded, then those of its own part.
    """

    def __init__(self, model: nn.Module, mask: Mapping[str, Tensor]) -> None:
        self.model = model
        self.index = {
            name: mask[name].flatten().nonzero().squeeze(1).to(parameter.device)
            for name, parameter in model.named_parameters()
            if name in mask
        }
        self._sharded = False
        self.original = self._entries()

    def _entries(self) -> dict[str, Tensor]:
        """Copies of the selected entries as they are now."""
        entries = {}
        for name, index in self.index.items():
            with flat_part(self.model.get_parameter(name).detach()) as weight:
                if index.device != weight.device:  # the Trainer has moved the model since
                    index = self.index[name] = index.to(weight.device)
                entries[name] = weight[index]
        return entries

    def _write(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            with flat_part(self.model.get_parameter(name).detach()) as weight:
                weight.index_copy_(0, self.index[name], value.to(weight.device, weight.dtype))

    def _reshard(self) -> None:
        """Lets the model's parameters be the sharded ones, and keeps only their own part's values from then on."""
        reshard(self.model)
        if isinstance(next(self.model.parameters()), DTensor) and not self._sharded:
            self._sharded = True
            for name in self.index:
                self._keep_own_part(name)

    def _keep_own_part(self, name: str) -> None:
        parameter, index, original = self.model.get_parameter(name), self.index[name], self.original[name]
        device = local_part(parameter).device
        place = torch.full((parameter.numel(),), -1, device=device)
        place[index.to(device)] = torch.arange(len(index), device=device)
        place = part_like(parameter, place.view(parameter.shape)).reshape(-1)
        self.index[name] = (place >= 0).nonzero().squeeze(1)
        self.original[name] = original.to(device)[place[self.index[name]]]

    @contextmanager
    def __call__(self) -> Iterator[nn.Module]:
        self._reshard()
        trained = self._entries()
        self._write(self.original)
        try:
            with evaluation_mode(self.model), torch.no_grad():
                yield self.model
        finally:
            self._reshard()
            self._write(trained)
