import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from dareu.masks import SCORES, RandomScores, chosen_parameters, score_weights, select_top, weight_masks


def make_batches(count: int, size: int, seed: int, side: str = "right") -> list[dict[str, Tensor]]:
    """Records of 5 to 8 tokens, the first two a prompt, padded with 0."""
    generator = torch.Generator().manual_seed(seed)
    records = [torch.randint(3, 50, (5 + n % 4,), generator=generator).tolist() for n in range(count)]
    result = []
    for start in range(0, count, size):
        rows = records[start : start + size]
        width = max(map(len, rows))
        batch: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
        for ids in rows:
            labels, ones = [-100, -100, *ids[2:]], [1] * len(ids)
            for key, values, filler in (("input_ids", ids, 0), ("attention_mask", ones, 0), ("labels", labels, -100)):
                padding = [filler] * (width - len(ids))
                batch[key].append(values + padding if side == "right" else padding + values)
        result.append({key: torch.tensor(values) for key, values in batch.items()})
    return result


@pytest.fixture(scope="module")
def llama(tiny_llama: Callable[..., nn.Module]) -> nn.Module:
    return tiny_llama(hidden_size=16, intermediate_size=24, tie_word_embeddings=True)


@pytest.fixture(scope="module")
def gpt2() -> nn.Module:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=40, n_embd=16, n_layer=1, n_head=2))
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.2, generator=generator)
    return model.eval()


def mean_gradients(model: nn.Module, batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """In float64, from transformers' own loss of one record at a time."""
    exact = copy.deepcopy(model).double()
    count = 0
    for batch in batches:
        for ids, attended, labels in zip(*(batch[k] for k in ("input_ids", "attention_mask", "labels")), strict=True):
            keep = attended.bool()
            exact(input_ids=ids[keep][None], labels=labels[keep][None]).loss.backward()
            count += 1
    return {name: parameter.grad / count for name, parameter in exact.named_parameters()}


def assert_close(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(actual) == list(expected)
    for name, wanted in expected.items():
        assert (actual[name].double() - wanted).abs().max() <= 1e-5 * wanted.abs().max(), name


def test_gradient_controls_are_their_products_in_float64(llama: nn.Module) -> None:
    forget, retain = make_batches(5, 2, seed=1), make_batches(6, 4, seed=2)
    g_f, g_r = mean_gradients(llama, forget), mean_gradients(llama, retain)
    theta = {name: parameter.detach().double() for name, parameter in llama.named_parameters()}
    assert_close(score_weights(llama, "gradient", forget), g_f)
    assert_close(score_weights(llama, "snip", forget), {name: theta[name] * g_f[name] for name in g_f})
    products = {name: -g_r[name] * g_f[name] for name in g_f}
    assert_close(score_weights(llama, "gradient_product", forget, retain), products)
    named = [(s.score, s.gamma) for s in (score_weights(llama, "snip", forget), score_weights(llama, "random"))]
    assert named == [("snip", math.inf), ("random", None)]


def test_a_wagle_mask_differs_from_the_exact_one_at_the_threshold_only(llama: nn.Module) -> None:
    forget, retain = make_batches(5, 2, seed=1), make_batches(6, 4, seed=2)
    g_f, g_r = mean_gradients(llama, forget), mean_gradients(llama, retain)
    gamma = 0.01
    exact = torch.cat(
        [
            (g_f[name] * (parameter.detach().double() - g_r[name] / gamma)).abs().reshape(-1)
            for name, parameter in llama.named_parameters()
        ]
    )
    for density in (0.05, 0.2, 0.95):
        masks = select_top(score_weights(llama, "wagle", forget, retain, gamma=gamma), density)
        mask = torch.cat([tensor.reshape(-1) for tensor in masks.values()])
        count = math.ceil(density * len(exact))
        assert int(mask.sum()) == count
        threshold = exact.topk(count).values[-1]
        tolerance = 1e-5 * exact.max()
        assert mask[exact > threshold + tolerance].all()
        assert not mask[exact < threshold - tolerance].any()


def test_magnitude_reads_the_weights_where_they_stand(llama: nn.Module) -> None:
    scores = score_weights(llama, "magnitude")
    assert all(scores[name].data_ptr() == parameter.data_ptr() for name, parameter in llama.named_parameters())
    mask = torch.cat([tensor.reshape(-1) for tensor in select_top(scores, 0.3).values()])
    values = torch.cat([parameter.detach().reshape(-1) for parameter in llama.parameters()]).abs()
    assert values[mask].min() >= values[~mask].max()


def wanda_by_hand(weight: Tensor, norms: Tensor | None) -> Tensor:
    """Places within the rows of an (outputs, inputs) matrix, one number after the other."""
    result = torch.empty(weight.shape, dtype=torch.float64)
    for row, values in enumerate(weight.abs().tolist()):
        if norms is not None:
            values = [value * norm for value, norm in zip(values, norms.tolist(), strict=True)]
        order = sorted(range(len(values)), key=lambda column: (-values[column], column))
        for place, column in enumerate(order):
            result[row, column] = (len(values) - place) / len(values)
    return result


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_wanda_ranks_weights_within_each_output(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    linear, transposed = {
        "llama": (["model.layers.1.mlp.down_proj.weight", "model.layers.0.self_attn.q_proj.weight"], False),
        "gpt2": (["transformer.h.0.mlp.c_proj.weight", "transformer.h.0.attn.c_attn.weight"], True),
    }[name]
    batches = make_batches(5, 3, seed=1)
    inputs: dict[str, list[Tensor]] = {parameter: [] for parameter in linear}
    hooks = [
        model.get_submodule(parameter.removesuffix(".weight")).register_forward_pre_hook(
            lambda _, args, parameter=parameter: inputs[parameter].append(args[0][0].double())
        )
        for parameter in linear
    ]
    for batch in batches:
        for ids, attended in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            model(input_ids=ids[attended.bool()][None])
    for hook in hooks:
        hook.remove()

    scores = score_weights(model, "wanda", batches)
    for parameter in linear:
        weight = model.get_parameter(parameter).detach().double()
        norms = torch.cat(inputs[parameter]).norm(dim=0)
        expected = wanda_by_hand(weight.T if transposed else weight, norms)
        assert torch.equal(scores[parameter], (expected.T if transposed else expected).float())
    for parameter, tensor in model.named_parameters():
        assert scores[parameter].shape == tensor.shape
        if tensor.dim() == 1:
            assert torch.equal(scores[parameter], wanda_by_hand(tensor.detach().double()[None], None)[0].float())
    assert all(mask.float().mean(dim=-1).eq(0.25).all() for mask in select_top(scores, 0.25).values()) or transposed


def test_wanda_depends_on_neither_batching_nor_padding_side(llama: nn.Module) -> None:
    one_by_one = score_weights(llama, "wanda", make_batches(5, 1, seed=1))
    for size, side in [(5, "right"), (2, "left")]:
        scores = score_weights(llama, "wanda", make_batches(5, size, seed=1, side=side))
        assert all(torch.equal(scores[name], one_by_one[name]) for name in scores)


def test_random_scores_are_the_same_each_time_they_are_read() -> None:
    state = torch.get_rng_state()
    scores = RandomScores({"a": (30, 40), "b": (30, 40), "scalar": ()}, seed=3)
    assert torch.equal(scores["a"], scores["a"]) and not torch.equal(scores["a"], scores["b"])
    assert torch.equal(RandomScores({"b": (30, 40)}, seed=3)["b"], scores["b"])
    assert not torch.equal(RandomScores({"b": (30, 40)}, seed=4)["b"], scores["b"])
    assert all(score.isfinite().all() and (score >= 0).all() for score in scores.values())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("score", SCORES)
def test_every_score_makes_masks_of_the_whole_model(score: str, llama: nn.Module) -> None:
    state = torch.get_rng_state()
    batches = make_batches(3, 2, seed=1), make_batches(3, 2, seed=2)
    scores = score_weights(llama, score, *batches, include=["model.layers"], exclude=["*norm*", "*.1.mlp"])
    assert scores.score == score
    assert {name.split(".")[3] for name in scores} == {"self_attn", "mlp"}
    assert not any("layers.1.mlp" in name for name in scores)
    some, many = weight_masks(llama, scores, [0.1, 0.5])
    candidates = sum(tensor.numel() for tensor in scores.values())
    for mask, density in ((some, 0.1), (many, 0.5)):
        mask.verify(llama)
        assert (mask.score, mask.density, mask.gamma) == (score, density, scores.gamma)
        assert mask.count == math.ceil(density * candidates)
        assert not any(mask[name].any() for name in mask if name not in scores)
    assert all((some[name] <= many[name]).all() for name in some)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in llama.parameters())


def test_scores_on_disk_are_those_in_memory_and_leave_no_file(llama: nn.Module, tmp_path: Path) -> None:
    batches = make_batches(5, 2, seed=1), make_batches(5, 2, seed=2)
    scores = score_weights(llama, "wagle", *batches, accumulate_on="disk", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    expected = score_weights(llama, "wagle", *batches)
    assert scores.gamma == expected.gamma
    assert all(torch.equal(scores[name], expected[name]) for name in expected)


def test_gradients_never_stand_in_memory_together(llama: nn.Module) -> None:
    standing: list[int] = []
    hooks = [
        parameter.register_hook(lambda _: standing.append(sum(p.grad is not None for p in llama.parameters())))
        for parameter in llama.parameters()
    ]
    score_weights(llama, "wagle", make_batches(2, 2, seed=1), make_batches(2, 2, seed=2))
    for hook in hooks:
        hook.remove()
    assert len(standing) == 2 * len(list(llama.parameters())) and max(standing) == 0


def test_snip_reads_no_retained_record(llama: nn.Module) -> None:
    retain = iter(make_batches(2, 2, seed=2))
    score_weights(llama, "snip", make_batches(2, 2, seed=1), retain)
    assert len(list(retain)) == 1


def test_patterns_choose_by_module_and_parameter(llama: nn.Module) -> None:
    names = set(dict(llama.named_parameters()))
    assert set(chosen_parameters(llama)) == names
    assert set(chosen_parameters(llama, ["model.layers.0"])) == {n for n in names if n.startswith("model.layers.0.")}
    assert set(chosen_parameters(llama, ["*.mlp"], ["*.up_proj"])) == {
        n for n in names if ".mlp." in n and "up_proj" not in n
    }
    assert set(chosen_parameters(llama, exclude=["*norm.weight"])) == {n for n in names if "norm" not in n}
    assert set(chosen_parameters(llama, ["model.embed_tokens"])) == {"model.embed_tokens.weight"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"score": "fisher"}, r"'fisher' is no built-in name.*pkg.mod:Name"),
        ({"score": "wanda"}, "no forget batch"),
        ({"score": "gradient"}, "no forget batch"),
        ({"score": "magnitude", "include": ["layer.0"]}, r"include has the pattern 'layer.0', which fits no module"),
        ({"score": "random", "exclude": ["model"]}, "leave no parameter"),
        ({"score": "snip", "accumulate_on": "tape"}, "accumulate_on is 'tape'; give 'memory' or 'disk'"),
        ({"score": "snip", "accumulate_on": "disk", "folder": "/no/such"}, "no folder '/no/such'"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(options: dict[str, object], sentence: str, llama: nn.Module) -> None:
    with pytest.raises(ValueError, match=sentence):
        score_weights(llama, **options)


def test_a_disk_too_small_is_refused(llama: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(ValueError, match="give a folder on a larger disk"):
        score_weights(llama, "snip", make_batches(2, 2, seed=1), accumulate_on="disk", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_wanda_names_a_weight_that_is_not_finite(tiny_llama: Callable[..., nn.Module]) -> None:
    model = tiny_llama(hidden_size=16, intermediate_size=24)
    model.model.norm.weight.data[0] = math.nan
    with pytest.raises(ValueError, match="not finite"):
        score_weights(model, "wanda", make_batches(2, 2, seed=1))
