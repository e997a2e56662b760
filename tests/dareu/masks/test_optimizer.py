import io
import math
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dareu.masks import MaskedAdamW, count_moved_outside, random_mask

Parameters = dict[str, nn.Parameter]
Mask = dict[str, Tensor]


#: Of a mask whose selected entries are gathered, and of one under which all are computed.
DENSITIES = [0.4, 0.9]


def make_parameters(dtype: torch.dtype = torch.float32, density: float = 0.4) -> tuple[Parameters, Mask]:
    """Weights with negative zeros, one not contiguous, one wholly frozen, and a mask of that density."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"weight": (8, 5), "transposed": (6, 4), "bias": (9,), "scalar": (), "frozen": (5,)}
    parameters = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=generator)
        value[torch.rand(shape, generator=generator) < 0.2] = -0.0
        parameters[name] = nn.Parameter((value.t() if name == "transposed" else value).to(dtype))
    assert not parameters["transposed"].is_contiguous()
    mask = random_mask({name: p.shape for name, p in parameters.items()}, density, seed=1)
    mask["frozen"][:] = False
    mask["scalar"].fill_(True)
    return parameters, mask


def set_gradients(parameters: Parameters, seed: int, accumulate: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
        for _ in range(accumulate):
            parameter.grad += torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets every parameter have several pieces, the last one shorter."""
    monkeypatch.setattr("dareu.weights.entries._CPU_PIECE", 7)


def copies(parameters: Parameters) -> Mask:
    return {name: p.detach().clone() for name, p in parameters.items()}


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frozen_entries_stay_bit_identical(dtype: torch.dtype, density: float) -> None:
    for decay, clip, accumulate, resume, bad in product(
        [0.0, 0.5], [None, 0.5], [1, 3], [False, True], [None, math.nan, math.inf]
    ):
        parameters, mask = make_parameters(dtype, density)
        before = copies(parameters)
        optimizer = MaskedAdamW(parameters.items(), mask, lr=0.05, weight_decay=decay)
        for step in range(5):
            set_gradients(parameters, step, accumulate)
            if bad is not None:
                for name, parameter in parameters.items():
                    parameter.grad[~mask[name]] = bad
                if clip is not None:
                    optimizer.drop_frozen_gradients()
            if clip is not None:
                nn.utils.clip_grad_norm_(parameters.values(), clip)
            optimizer.step()
            if resume and step == 2:
                saved, optimizer = optimizer.state_dict(), MaskedAdamW(parameters.items(), mask)
                optimizer.load_state_dict(saved)
        assert count_moved_outside(before, parameters, mask) == 0
        moved = sum(int((before[name] != p).sum()) for name, p in parameters.items())
        assert moved > 0.9 * sum(int(m.sum()) for m in mask.values())
        assert all(torch.isfinite(p).all() for p in parameters.values())


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_gradients_of_frozen_entries_change_nothing(dtype: torch.dtype, density: float, bad: float) -> None:
    (clean, mask), (spoilt, _) = make_parameters(dtype, density), make_parameters(dtype, density)
    for step, drop in enumerate([False, True, False, True]):
        if step == 0:
            optimizers = [MaskedAdamW(p.items(), mask, lr=0.05, weight_decay=0.1) for p in (clean, spoilt)]
        for parameters, optimizer in zip((clean, spoilt), optimizers, strict=True):
            set_gradients(parameters, step)
            if parameters is spoilt:
                for name, parameter in parameters.items():
                    parameter.grad[~mask[name]] = bad
            if drop:
                optimizer.drop_frozen_gradients()
                nn.utils.clip_grad_norm_(parameters.values(), 0.5)
            optimizer.step()
    assert all(torch.equal(clean[name], spoilt[name]) for name in mask)


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("density", DENSITIES)
def test_selected_entries_are_those_of_dense_adamw(clip: float | None, weight_decay: float, density: float) -> None:
    masked, mask = make_parameters(density=density)
    dense, _ = make_parameters(density=density)
    start = copies(dense)
    settings = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": weight_decay}
    optimizer = MaskedAdamW(masked.items(), mask, **settings)
    reference = torch.optim.AdamW(dense.values(), **settings)
    for step in range(8):
        for parameters, stepper in ((masked, optimizer), (dense, reference)):
            set_gradients(parameters, step)
            if clip is not None:
                for name, parameter in parameters.items():
                    parameter.grad[~mask[name]] = 0.0
                nn.utils.clip_grad_norm_(parameters.values(), clip)
            stepper.step()
        for name, parameter in dense.items():
            parameter.data = torch.where(mask[name], parameter.data, start[name])
        for name in mask:
            torch.testing.assert_close(masked[name], dense[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("lr", [1e-2, 1e-5])
@pytest.mark.parametrize("density", DENSITIES)
def test_bfloat16_weights_are_the_float32_run_rounded(lr: float, density: float) -> None:
    (parameters, mask), (reference, _) = (make_parameters(torch.bfloat16, density) for _ in range(2))
    single = {name: nn.Parameter(p.detach().float()) for name, p in reference.items()}
    optimizer = MaskedAdamW(parameters.items(), mask, lr=lr)
    float32 = MaskedAdamW(single.items(), mask, lr=lr)
    start = copies(parameters)
    for step in range(40):
        set_gradients(parameters, step % 2)  # in one direction, so that small steps add up
        for name, parameter in single.items():
            parameter.grad = parameters[name].grad.float()
        optimizer.step()
        float32.step()
        for name, parameter in single.items():
            assert torch.equal(parameters[name], parameter.bfloat16())
    assert count_moved_outside(start, parameters, mask) == 0
    moved = sum(int((start[name] != p).sum()) for name, p in parameters.items())
    assert moved > 0.05 * sum(int(m.sum()) for m in mask.values())  # a step of 1e-5 alone would round away
    states = [state for state in optimizer.state.values() if state]
    assert {value.dtype for state in states for value in state.values()} == {torch.float32}
    assert all(state["master"].shape == state["exp_avg"].shape for state in states)


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_is_kept_for_selected_entries_or_for_all(density: float, dtype: torch.dtype) -> None:
    parameters, mask = make_parameters(dtype, density)
    mask["weight"] = torch.arange(40).view(8, 5) < 22  # at the border, which is 55 %
    optimizer = MaskedAdamW(parameters.items(), mask)
    set_gradients(parameters, 0)
    parameters["bias"].grad = None
    optimizer.step()
    assert {name for name, p in parameters.items() if p in optimizer.state} == {"weight", "transposed", "scalar"}
    sizes = {"weight": 22, "transposed": int(mask["transposed"].sum()) if density < 0.5 else 24, "scalar": 1}
    for name, size in sizes.items():
        state = optimizer.state[parameters[name]]
        assert state["exp_avg"].shape == state["exp_avg_sq"].shape == (size,)
    entries = sum(sizes.values())
    assert optimizer.memory() == {
        "moments": 3 * 4 + 8 * entries,
        "masters": 4 * entries if dtype == torch.bfloat16 else 0,
        "selection": 4 * (22 + (sizes["transposed"] if density < 0.5 else 0)) + (24 if density > 0.5 else 0) + 1,
    }


def test_a_mask_on_the_parameters_device_is_not_copied() -> None:
    parameters, mask = make_parameters()
    optimizer = MaskedAdamW(parameters.items(), mask)
    set_gradients(parameters, 0)
    optimizer.drop_frozen_gradients()
    pieces = list(optimizer._selections["weight"])
    assert pieces[1].mask.data_ptr() == mask["weight"].data_ptr() + 7
    assert pieces[1].positions.tolist() == mask["weight"].flatten()[7:14].nonzero().flatten().tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("density", DENSITIES)
def test_a_resumed_run_is_bit_identical(dtype: torch.dtype, density: float) -> None:
    def make(parameters: Parameters, mask: Mask) -> tuple[MaskedAdamW, torch.optim.lr_scheduler.LRScheduler]:
        groups = [
            {"params": [(n, p) for n, p in parameters.items() if n != "bias"], "weight_decay": 0.1},
            {"params": [("bias", parameters["bias"])], "lr": 0.02},
        ]
        optimizer = MaskedAdamW(groups, mask, lr=0.01)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))

    def run(parameters: Parameters, parts: tuple[MaskedAdamW, object], steps: range) -> None:
        optimizer, schedule = parts
        for step in steps:
            set_gradients(parameters, step)
            optimizer.step()
            schedule.step()

    whole, mask = make_parameters(dtype, density)
    run(whole, make(whole, mask), range(6))

    parameters, _ = make_parameters(dtype, density)
    parts = make(parameters, mask)
    run(parameters, parts, range(3))
    buffer = io.BytesIO()
    torch.save([part.state_dict() for part in parts], buffer)
    buffer.seek(0)
    resumed = make(parameters, mask)
    for part, saved in zip(resumed, torch.load(buffer, weights_only=True), strict=True):
        part.load_state_dict(saved)
    assert resumed[0].param_groups[0]["lr"] == 0.01 / 4
    states = [state for state in resumed[0].state.values() if state]
    assert len(states) == 4 and all(("master" in state) == (dtype == torch.bfloat16) for state in states)
    assert all(value.dtype == torch.float32 for state in states for value in state.values())
    if dtype == torch.bfloat16:  # rounded masters would have been no more than the weights
        assert any(not torch.equal(state["master"], state["master"].bfloat16().float()) for state in states)
    run(parameters, resumed, range(3, 6))
    assert all(torch.equal(parameters[name], whole[name]) for name in whole)


def test_loading_copies_the_saved_state() -> None:
    parameters, mask = make_parameters()
    optimizer = MaskedAdamW(parameters.items(), mask)
    set_gradients(parameters, 0)
    optimizer.step()
    saved = optimizer.state_dict()
    kept = saved["state"][0]["exp_avg"].clone()
    other = MaskedAdamW(parameters.items(), mask)
    other.load_state_dict(saved)
    other.step()
    assert torch.equal(saved["state"][0]["exp_avg"], kept)


def test_a_state_that_does_not_fit_is_refused_and_nothing_is_loaded() -> None:
    parameters, mask = make_parameters()
    optimizer = MaskedAdamW(parameters.items(), mask)
    set_gradients(parameters, 0)
    optimizer.step()
    saved = optimizer.state_dict()

    low, _ = make_parameters(torch.bfloat16)
    with pytest.raises(ValueError, match=r"parameter 'weight' is not one of .* and the dtype that it was saved with"):
        MaskedAdamW(low.items(), mask).load_state_dict(saved)
    changed = mask | {"bias": torch.ones(9, dtype=torch.bool)}
    other = MaskedAdamW(parameters.items(), changed)
    with pytest.raises(ValueError, match=r"parameter 'bias' is not one of the 9 entries .* with the mask"):
        other.load_state_dict(saved)
    assert not other.state

    reordered = MaskedAdamW(dict(reversed(parameters.items())).items(), mask)
    with pytest.raises(ValueError, match="other parameters, or of the same in another order"):
        reordered.load_state_dict(saved)

    dense = torch.optim.AdamW(parameters.items())
    dense.step()
    with pytest.raises(ValueError, match="parameter 'weight' is not one of"):
        optimizer.load_state_dict(dense.state_dict())


def test_a_parameter_replaced_in_place_is_trained_by_its_name() -> None:
    parameters, mask = make_parameters()
    optimizer = MaskedAdamW(parameters.items(), mask)
    new = {name: nn.Parameter(p.detach().clone()) for name, p in parameters.items()}
    before = copies(new)
    optimizer.param_groups[0]["params"][:] = new.values()
    set_gradients(new, 0)
    optimizer.step()
    assert count_moved_outside(before, new, mask) == 0
    assert all(((before[name] != p) == mask[name]).all() for name, p in new.items())

    optimizer.param_groups[0]["params"][0] = nn.Parameter(torch.ones(40))  # as a flattening wrapper would
    optimizer.param_groups[0]["params"][0].grad = torch.ones(40)
    with pytest.raises(ValueError, match=r"'weight' has shape \(8, 5\) but the parameter has \(40,\)"):
        optimizer.step()


def test_the_closure_is_called_with_gradients_and_its_loss_returned() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = MaskedAdamW([("w", parameter)], {"w": torch.tensor([True, False])}, lr=0.1, weight_decay=0)

    def closure() -> Tensor:
        loss = parameter.square().sum()
        loss.backward()
        return loss.detach()

    assert float(optimizer.step(closure)) == 5
    assert parameter.tolist() == pytest.approx([0.9, 2.0])


def test_parameters_that_the_mask_does_not_fit_are_refused() -> None:
    parameters, mask = make_parameters()
    lacking = {name: m for name, m in mask.items() if name != "bias"}
    with pytest.raises(ValueError, match="mask lacks parameter 'bias'"):
        MaskedAdamW(parameters.items(), lacking)
    with pytest.raises(ValueError, match=r"'bias' has shape \(3,\)"):
        MaskedAdamW(parameters.items(), mask | {"bias": torch.ones(3, dtype=torch.bool)})
    with pytest.raises(ValueError, match="looks masks up by name"):
        MaskedAdamW(parameters.values(), mask)

    parameters["bias"].requires_grad_(False)
    optimizer = MaskedAdamW(parameters.items(), lacking)
    with pytest.raises(ValueError, match="mask lacks parameter 'more'"):
        optimizer.add_param_group({"params": [("more", nn.Parameter(torch.ones(2)))]})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    "setting", [{"lr": -1.0}, {"lr": math.nan}, {"eps": -1.0}, {"weight_decay": -0.1}, {"betas": (0.9, 1.0)}]
)
def test_settings_out_of_range_are_refused(setting: dict[str, float]) -> None:
    parameters, mask = make_parameters()
    with pytest.raises(ValueError, match=next(iter(setting))):
        MaskedAdamW(parameters.items(), mask, **setting)


@pytest.mark.parametrize("borrowed", [False, True])
@pytest.mark.parametrize("density", DENSITIES)
def test_dropping_frozen_gradients_leaves_the_selected_ones(density: float, borrowed: bool) -> None:
    parameters, mask = make_parameters(density=density)
    optimizer = MaskedAdamW(parameters.items(), mask)
    set_gradients(parameters, 0)
    expected = {name: torch.where(mask[name], p.grad, 0.0) for name, p in parameters.items()}
    for name, parameter in parameters.items():
        parameter.grad[~mask[name]] = math.nan
    parameters["bias"].grad = None
    if not borrowed:  # as where the mask is on another device: positions alone
        for name, parameter in parameters.items():
            selected = optimizer._selected(name, parameter)
            selected._pieces = [p if p.positions is None else p._replace(mask=None) for p in selected]
    optimizer.drop_frozen_gradients()
    assert parameters["bias"].grad is None
    assert all(torch.equal(p.grad, expected[name]) for name, p in parameters.items() if name != "bias")


@pytest.fixture
def process_group() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sharded_parameters_are_trained_and_resumed_like_whole_ones(
    process_group: None, density: float, dtype: torch.dtype
) -> None:
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor, init_device_mesh

    mesh = init_device_mesh("cpu", (1,))
    whole, mask = make_parameters(dtype, density)
    names = ["weight", "bias", "frozen"]
    mask["weight"][:, 0] = False
    sharded = {name: nn.Parameter(distribute_tensor(whole[name].detach().clone(), mesh, [Shard(0)])) for name in names}
    optimizers = [MaskedAdamW([(n, ps[n]) for n in names], mask, lr=0.05) for ps in (whole, sharded)]
    for step in range(4):
        set_gradients(whole, step)
        for name in names:
            gradient = whole[name].grad.masked_fill(~mask[name], math.nan)
            sharded[name].grad = distribute_tensor(gradient, mesh, [Shard(0)])
        optimizers[1].drop_frozen_gradients()
        for optimizer in optimizers:
            optimizer.step()
        if step == 1:
            saved = optimizers[1].state_dict()
            for key, name in enumerate(names):
                state = saved["state"][key]  # also of the frozen one, which torch's checkpoints ask for
                assert isinstance(state["exp_avg"], DTensor) and state["exp_avg"].shape == mask[name].shape
                assert ((state["exp_avg"].full_tensor() != 0) == mask[name]).all()
            optimizers[1] = MaskedAdamW([(n, sharded[n]) for n in names], mask, lr=0.05)
            optimizers[1].load_state_dict(saved)
    for name in names:
        assert torch.equal(sharded[name].full_tensor(), whole[name])

    other = MaskedAdamW([(n, whole[n]) for n in names], mask)
    with pytest.raises(ValueError, match="parameter 'weight' is not one of"):
        other.load_state_dict(saved)


# TRL 1.16 still uses names that transformers 5 has renamed.
@pytest.mark.filterwarnings("ignore:`.*gradient_checkpointing` is deprecated:FutureWarning")
def test_trl_trains_the_selected_weights_alone(
    tmp_path: Path, tokenizer: object, tiny_llama: Callable[..., nn.Module]
) -> None:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    model = tiny_llama()
    mask = random_mask(model, 0.2, seed=0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}

    class MaskedTrainer(GRPOTrainer):
        def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
            if self.optimizer is None:
                named = (model or self.model).named_parameters()
                self.optimizer = MaskedAdamW(named, mask, lr=self.args.learning_rate, weight_decay=0.1)
            return self.optimizer

    def reward(completion_ids: list[list[int]], **columns: object) -> list[float]:
        return [float(ids[0] % 7) for ids in completion_ids]

    trainer = MaskedTrainer(
        model=model,
        reward_funcs=[reward],
        args=GRPOConfig(
            output_dir=str(tmp_path),
            max_steps=2,
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=4,
            learning_rate=1e-2,
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict({"prompt": ["Who wrote it?", "Where was she born?"]}),
        processing_class=tokenizer,
    )
    trainer.train()
    after = dict(trainer.model.named_parameters())
    assert count_moved_outside(before, after, mask) == 0
    frozen_only = {name: torch.zeros_like(m) for name, m in mask.items()}
    assert count_moved_outside(before, after, frozen_only) > 1000
