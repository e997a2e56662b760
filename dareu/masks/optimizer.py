"""AdamW that trains the selected entries of a mask, and leaves every other bit of the weights alone."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, overload

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim.adamw import adamw

from dareu.weights.entries import SelectedEntries, flat_part

NamedParameters = Iterable[tuple[str, Tensor]]


class MaskedAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov & Hutter, ICLR 2019) on the entries that a mask selects.

    The update is computed by torch's fused kernel in float32 (float64 for float64 weights) whatever the weights'
    dtype is. Weights of less precision (bfloat16, float16), in which small updates round away, have a float32 master
    of each selected entry too: what is trained is the master, and the weight is the master rounded. Every other entry
    stays identical **bit for bit**: under weight decay, clipping, accumulation, and even where its gradient is NaN. On
    the selected entries the result is that of a dense `torch.optim.AdamW` whose frozen entries are put back after each
    step (float32: 1e-6, for the fused kernel rounds differently).

    A parameter of which up to 55 % are selected has moments for the selected entries alone: 12 bytes for each of them
    (two moments and a position), 16 with a master. Above that all entries have moments, of which only the selected ones
    mean anything: 8 bytes an entry and 1 for the mask, 12 and 1 with masters. The mask that was given is kept beside.

    Masks are looked up by parameter name, so that parameters may be replaced in place (`group["params"][i] = ...`)
    after the optimizer was made, as FSDP2 does, and need no communication between processes, each of which holds the
    whole mask. Of a parameter that is sharded (a DTensor) the process's own part is trained. In `state_dict` the state
    of such a parameter is a DTensor of its shape, 0 outside the mask, so that checkpoints of
    `torch.distributed.checkpoint` are whole, sharded ones as well as full ones.

    Gradients are clipped on the norm of all entries unless `drop_frozen_gradients` was called before.

    Args:
        named_parameters: `model.named_parameters()`, or groups `{"params": [(name, parameter), ...],
            ...}` with options of their own.
        mask: Parameter name to bool tensor of the parameter's shape, on any device; a `WeightMask` or a plain
            mapping. A parameter without a selected entry is skipped.
        lr: Learning rate.
        betas: Decay rates of the two moments.
        eps: Added to the root of the second moment.
        weight_decay: Decoupled weight decay, applied to the selected entries.

    Raises:
        ValueError: If a setting is out of range, a group has no names, a trainable parameter is not in the
            mask or has another shape there.
    """

    def __init__(
        self,
        named_parameters: NamedParameters | Iterable[dict[str, Any]],
        mask: Mapping[str, Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        for name, value in {"lr": lr, "eps": eps, "weight_decay": weight_decay}.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value}; give a number of at least 0.")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas are {betas}; give two numbers in [0, 1).")
        self._mask = mask
        self._selections: dict[str, SelectedEntries] = {}
        super().__init__(named_parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group of named parameters; see the class for what is refused."""
        super().add_param_group(param_group)
        try:
            for name, parameter in self._named(self.param_groups[-1]):
                if parameter.requires_grad:
                    _mask_of(name, parameter, self._mask)
        except ValueError:
            self.param_groups.pop()
            raise

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Updates the selected entries of every parameter that has a gradient.

        Args:
            closure: Computes the loss anew, with gradients.

        Returns:
            The closure's loss, if there is one.

        Raises:
            ValueError: If a parameter was replaced by one that the mask does not fit.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for name, parameter in self._named(group):
                if parameter.grad is not None:
                    self._update(name, parameter, parameter.grad, group)
        return loss

    def _named(self, group: dict[str, Any]) -> Iterable[tuple[str, Tensor]]:
        """The parameters of a group, by the names under which their masks are."""
        if "param_names" not in group:
            raise ValueError("The optimizer looks masks up by name; give it model.named_parameters(), not parameters.")
        return zip(group["param_names"], group["params"], strict=True)

    def _update(self, name: str, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        """One AdamW step on the selected entries, piece by piece: gather, update, scatter."""
        selected = self._selected(name, parameter)
        # Every process needs a state of what is sharded, also one whose part has no selected entry.
        if not selected.count and not isinstance(parameter, DTensor):
            return
        state = self.state[parameter]
        if not state:
            self._begin(state, parameter, selected)
        master, (beta1, beta2) = state.get("master"), group["betas"]
        with flat_part(grad) as gradients, flat_part(parameter) as weights:
            for piece in selected:
                if piece.state.start == piece.state.stop:
                    continue
                values = piece.copy(weights) if master is None else master[piece.state]
                adamw(
                    [values],
                    [piece.take(gradients).to(values.dtype)],
                    [state["exp_avg"][piece.state]],
                    [state["exp_avg_sq"][piece.state]],
                    [],
                    [state["step"].clone()],
                    fused=values.device.type in ("cpu", "cuda"),
                    amsgrad=False,
                    beta1=beta1,
                    beta2=beta2,
                    lr=group["lr"],
                    weight_decay=group["weight_decay"],
                    eps=group["eps"],
                    maximize=False,
                )
                piece.put(weights, values)
        state["step"] += 1

    def _begin(self, state: dict[str, Tensor], parameter: Tensor, selected: SelectedEntries) -> None:
        dtype, device = _state_dtype(parameter), selected.device
        state["step"] = torch.zeros((), dtype=torch.float32, device=device)
        state["exp_avg"] = torch.zeros(selected.size, dtype=dtype, device=device)
        state["exp_avg_sq"] = torch.zeros(selected.size, dtype=dtype, device=device)
        if dtype != parameter.dtype:
            state["master"] = selected.gather(parameter, dtype)

    def _selected(self, name: str, parameter: Tensor) -> SelectedEntries:
        """What the mask selects of a parameter, or of this process's part of it, on its device."""
        mask, found = _mask_of(name, parameter, self._mask), self._selections.get(name)
        if found is None or not found.fits(parameter):
            found = self._selections[name] = SelectedEntries(mask, parameter)
        return found

    @torch.no_grad()
    def drop_frozen_gradients(self) -> None:
        """Zeroes the gradient of every entry outside the mask, in place, also where it is NaN or infinite.

        Call it before the norm of the gradients is taken: the norm is then that of the selected entries, the clip
        budget is theirs alone, and one frozen NaN does not poison it. Nothing is copied between devices, but for the
        mask at the first call. It is no replacement for `step`, for weight decay and momentum of another optimizer
        move entries whose gradient is zero.

        Raises:
            ValueError: If a parameter was replaced by one that the mask does not fit.
        """
        for group in self.param_groups:
            for name, parameter in self._named(group):
                if parameter.grad is not None:
                    with flat_part(parameter.grad) as gradients:
                        for piece in self._selected(name, parameter):
                            piece.clear_others(gradients)

    def memory(self) -> dict[str, int]:
        """Bytes that are kept on this process: `moments`, `masters`, and the `selection`.

        The mask that was given is not counted, but for tensors above 55 % density that are on its device.
        """
        states = [state for state in self.state.values() if state]
        return {
            "moments": sum(v.nbytes for state in states for key, v in state.items() if key != "master"),
            "masters": sum(state["master"].nbytes for state in states if "master" in state),
            "selection": sum(selected.nbytes for selected in self._selections.values()),
        }

    @torch.no_grad()
    def state_dict(self) -> dict[str, Any]:
        """The state, for `load_state_dict`.

        The state of a sharded parameter is spread over DTensors like the parameter, in which torch's checkpoints know
        each process's part.
        """
        state_dict: dict[str, Any] = super().state_dict()
        for saved_group, group in zip(state_dict["param_groups"], self.param_groups, strict=True):
            for key, (name, parameter) in zip(saved_group["params"], self._named(group), strict=True):
                if isinstance(parameter, DTensor) and (saved := state_dict["state"].get(key)):
                    selected = self._selected(name, parameter)
                    state_dict["state"][key] = {
                        kind: value if kind == "step" else selected.spread(value, parameter)
                        for kind, value in saved.items()
                    }
        return state_dict

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads what `state_dict` gave, so that training goes on as if it had not stopped.

        Args:
            state_dict: The state of a `MaskedAdamW` over the same parameters with the same mask.

        Raises:
            ValueError: If names, their order, or the number of selected entries differ; nothing is loaded
                then.
        """
        loaded: dict[Tensor, dict[str, Tensor]] = {}
        for group, saved_group in zip(self.param_groups, state_dict["param_groups"], strict=False):
            if saved_group.get("param_names", group.get("param_names")) != group.get("param_names"):
                raise ValueError(
                    "The saved optimizer state is of other parameters, or of the same in another order; "
                    "resume with the model and the groups that it was saved with."
                )
            for key, (name, parameter) in zip(saved_group["params"], self._named(group), strict=False):
                if saved := state_dict["state"].get(key):
                    loaded[parameter] = self._loaded(name, parameter, saved)
        # Without the state, which torch would cast to the parameters' dtype.
        super().load_state_dict({**state_dict, "state": {}})
        for parameter, state in loaded.items():
            self.state[parameter] = state

    def _loaded(self, name: str, parameter: Tensor, saved: dict[str, Tensor]) -> dict[str, Tensor]:
        """A copy of the saved state of a parameter as it is kept here."""
        selected, dtype = self._selected(name, parameter), _state_dtype(parameter)
        sharded = isinstance(parameter, DTensor)
        kinds = ["exp_avg", "exp_avg_sq", *(["master"] if dtype != parameter.dtype else [])]
        expected = parameter.shape if sharded else (selected.size,)
        if "step" not in saved or any(kind not in saved or saved[kind].shape != expected for kind in kinds):
            raise ValueError(
                f"The saved optimizer state of parameter {name!r} is not one of the {selected.count} "
                "entries that the mask selects; resume with the mask and the dtype that it was saved with."
            )
        state = {"step": saved["step"].detach().to(selected.device, torch.float32, copy=True)}
        for kind in kinds:
            if sharded:
                state[kind] = selected.gather(saved[kind].detach(), dtype)
            else:
                state[kind] = saved[kind].detach().to(selected.device, dtype, copy=True)
        return state


def _mask_of(name: str, parameter: Tensor, mask: Mapping[str, Tensor]) -> Tensor:
    """The mask of a parameter, checked to fit it."""
    if name not in mask:
        raise ValueError(
            f"The mask lacks parameter {name!r}; use the mask made for this model, or set the parameter's "
            "requires_grad to False."
        )
    selected = mask[name]
    if selected.shape != parameter.shape:
        raise ValueError(
            f"The mask of parameter {name!r} has shape {tuple(selected.shape)} but the parameter has "
            f"{tuple(parameter.shape)}; use the mask made for this model."
        )
    return selected


def _state_dtype(parameter: Tensor) -> torch.dtype:
    return torch.promote_types(parameter.dtype, torch.float32)
