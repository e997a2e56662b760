"""AdamW that trains the selected entries of a mask, and leaves every other bit of the weights alone."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim.adamw import adamw

NamedParameters = Iterable[tuple[str, Tensor]]


class MaskedAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov & Hutter, ICLR 2019) on the entries that a mask selects.

    The moments exist for the selected entries only, in float32 (float64 for float64 weights) whatever the
    weights' dtype is, and the update is computed in that dtype. Weights of less precision (bfloat16, float16),
    in which small updates round away, have a float32 master of each selected entry too: what is trained is the
    master, and the weight is the master rounded. Every other entry stays identical **bit for bit**: under
    weight decay, clipping, accumulation, and even where its gradient is NaN. On the selected entries the result
    is that of a dense `torch.optim.AdamW` whose frozen entries are put back after each step (float32: 1e-6, for
    the fused kernel rounds differently).

    Masks are looked up by parameter name at each step, so that parameters may be replaced in place
    (``group["params"][i] = ...``) after the optimizer was made, and need no communication between processes:
    with DDP, every process holds the same mask and the same gradients. The memory is 12 bytes for a selected
    entry (two moments and an index), 16 where it has a master, beside the mask itself.

    Gradients are clipped on the norm of all entries unless the frozen ones are dropped before, see
    `drop_frozen_gradients`.

    Args:
        named_parameters: ``model.named_parameters()``, or groups ``{"params": [(name, parameter), ...],
            ...}`` with options of their own.
        mask: Parameter name to bool tensor of the parameter's shape, on any device; a `WeightMask` or a plain
            mapping. A parameter without a selected entry is skipped.
        lr: Learning rate.
        betas: Decay rates of the two moments.
        eps: Added to the root of the second moment.
        weight_decay: Decoupled weight decay, applied to the selected entries.

    Raises:
        ValueError: If a setting is out of range, a group has no names, a trainable parameter is not in the
            mask or has another shape there, or a parameter is sharded (a DTensor).
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
        # Not in `state`, whose tensors load_state_dict casts to the parameter's dtype.
        self._indices: dict[str, Tensor] = {}
        super().__init__(named_parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of named parameters; see the class for what is refused."""
        super().add_param_group(param_group)
        try:
            for name, parameter in _named(self.param_groups[-1]):
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
        """Update the selected entries of every parameter that has a gradient.

        Args:
            closure: Computes the loss anew, with gradients.

        Returns:
            The closure's loss, if there is one.

        Raises:
            ValueError: If a parameter was replaced by one that the mask does not fit, or by a sharded one.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for name, parameter in _named(group):
                if parameter.grad is not None:
                    self._update(name, parameter, parameter.grad, group)
        return loss

    def _update(self, name: str, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        """One AdamW step on the selected entries: gather, update, scatter."""
        index = self._index(name, parameter)
        if not len(index):
            return
        dtype = _state_dtype(parameter)
        # A copy where the parameter is not contiguous, written back below.
        flat = parameter.reshape(-1)
        state = self.state[parameter]
        # A master, where the weight is less precise than its update.
        values = state.get("master")
        if values is None:
            values = flat.index_select(0, index).to(dtype)
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"] = torch.zeros_like(values)
            state["exp_avg_sq"] = torch.zeros_like(values)
        if dtype != parameter.dtype:
            state["master"] = values
        beta1, beta2 = group["betas"]
        adamw(
            [values],
            [grad.reshape(-1).index_select(0, index).to(dtype)],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [state["step"]],
            fused=parameter.device.type in ("cpu", "cuda"),
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        flat.index_copy_(0, index.long(), values.to(flat.dtype))
        if not parameter.is_contiguous():
            parameter.copy_(flat.view_as(parameter))

    def _index(self, name: str, parameter: Tensor) -> Tensor:
        """Positions of the selected entries in the flat parameter, on its device."""
        mask = _mask_of(name, parameter, self._mask)
        index = self._indices.get(name)
        if index is None or index.device != parameter.device:
            positions = mask.reshape(-1).nonzero().squeeze(1)
            small = mask.numel() <= torch.iinfo(torch.int32).max
            index = positions.to(parameter.device, torch.int32 if small else torch.int64)
            self._indices[name] = index
        return index

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave, so that training goes on as if it had not stopped.

        Args:
            state_dict: The state of a `MaskedAdamW` over the same parameters with the same mask.

        Raises:
            ValueError: If names, their order, or the number of selected entries differ; nothing is loaded
                then.
        """
        saved_of: dict[Tensor, dict[str, Tensor]] = {}
        for group, saved_group in zip(self.param_groups, state_dict["param_groups"], strict=False):
            if saved_group.get("param_names", group["param_names"]) != group["param_names"]:
                raise ValueError(
                    "The saved optimizer state is of other parameters, or of the same in another order; "
                    "resume with the model and the groups that it was saved with."
                )
            for key, (name, parameter) in zip(saved_group["params"], _named(group), strict=False):
                if saved := state_dict["state"].get(key):
                    count = int(self._mask[name].sum()) if name in self._mask else 0
                    entries = [saved.get("exp_avg"), saved.get("exp_avg_sq")]
                    if _state_dtype(parameter) != parameter.dtype:
                        entries.append(saved.get("master"))
                    if any(entry is None or entry.shape != (count,) for entry in entries):
                        raise ValueError(
                            f"The saved optimizer state of parameter {name!r} is not one of the {count} "
                            "entries that the mask selects; resume with the mask and the dtype that it was saved with."
                        )
                    saved_of[parameter] = saved
        super().load_state_dict(state_dict)
        # torch has cast moments and masters to the parameter's dtype, which loses bits where that is bfloat16.
        for parameter, saved in saved_of.items():
            for key, value in saved.items():
                dtype = torch.float32 if key == "step" else _state_dtype(parameter)
                self.state[parameter][key] = value.detach().to(parameter.device, dtype, copy=True)


def drop_frozen_gradients(named_parameters: NamedParameters, mask: Mapping[str, Tensor]) -> None:
    """Zero the gradient of every entry outside the mask, in place, also where it is NaN or infinite.

    Call it before the norm of the gradients is taken: the norm is then that of the selected entries, the clip
    budget is theirs alone, and one frozen NaN does not poison it. It is no replacement for `MaskedAdamW`, for
    weight decay and momentum move entries whose gradient is zero.

    Args:
        named_parameters: ``model.named_parameters()``; parameters without a gradient are passed over.
        mask: Parameter name to bool tensor; masks on the parameters' device spare a copy on each call.

    Raises:
        ValueError: If a parameter with a gradient is not in the mask, has another shape there, or is sharded.
    """
    for name, parameter in named_parameters:
        if parameter.grad is not None:
            selected = _mask_of(name, parameter, mask)
            parameter.grad.masked_fill_(~selected.to(parameter.grad.device), 0.0)


def _named(group: dict[str, Any]) -> Iterable[tuple[str, Tensor]]:
    if "param_names" not in group:
        raise ValueError("The optimizer looks masks up by name; give it model.named_parameters(), not parameters.")
    return zip(group["param_names"], group["params"], strict=True)


def _mask_of(name: str, parameter: Tensor, mask: Mapping[str, Tensor]) -> Tensor:
    """The mask of a parameter, checked to fit it."""
    from torch.distributed.tensor import DTensor

    if isinstance(parameter, DTensor):
        raise ValueError(
            f"Parameter {name!r} is sharded, which masked training does not support; use DDP or one process."
        )
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
