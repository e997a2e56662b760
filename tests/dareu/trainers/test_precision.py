from pathlib import Path
from typing import Any

import pytest
import torch

from dareu.methods import METHODS
from dareu.trainers import FinetuneConfig

CONFIGS = {FinetuneConfig} | {method.config for method in METHODS.values()}


@pytest.mark.parametrize("config", sorted(CONFIGS, key=lambda config: config.__name__))
@pytest.mark.parametrize(
    ("has_it", "options", "expected"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"fp16": True}, False),
        (True, {"bf16": False}, False),
    ],
)
def test_every_config_computes_in_bfloat16_where_the_gpu_has_it(
    config: Any,
    has_it: bool,
    options: dict[str, Any],
    expected: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_it)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: has_it)
    assert config(output_dir=str(tmp_path), use_cpu=True, **options).bf16 is expected


@pytest.mark.parametrize("config", sorted(CONFIGS, key=lambda config: config.__name__))
@pytest.mark.parametrize(
    ("capabilities", "options", "expected"),
    [
        ({"avx512_bf16": True}, {"bf16_on_cpu": True}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, {"bf16_on_cpu": True}, True),
        ({"bf16": True}, {"bf16_on_cpu": True}, True),  # ARM's
        ({"avx512_bf16": False, "avx2": True}, {"bf16_on_cpu": True}, False),
        ({"avx512_bf16": True}, {}, False),
        ({"avx512_bf16": True}, {"bf16_on_cpu": True, "bf16": False}, False),
        ({"avx512_bf16": True}, {"bf16_on_cpu": True, "fp16": True}, False),
    ],
)
def test_a_processor_computes_in_bfloat16_on_request_and_where_it_has_it(
    config: Any,
    capabilities: dict[str, bool],
    options: dict[str, Any],
    expected: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert config(output_dir=str(tmp_path), use_cpu=True, **options).bf16 is expected
    if "fp16" not in options:
        untold = config(output_dir=str(tmp_path), **options)
        assert (untold.bf16, untold.use_cpu) == (expected, expected), "without use_cpu, where there is no GPU"


@pytest.mark.parametrize("bf16", [True, False])
def test_continuous_batching_is_refused_in_bfloat16(bf16: bool, tmp_path: Path) -> None:
    def build() -> Any:
        return METHODS["dareu"].config(
            output_dir=str(tmp_path), use_cpu=True, bf16=bf16, use_transformers_continuous_batching=True
        )

    if not bf16:
        build()
        return
    with pytest.raises(ValueError, match="casts the trained weights to bf16 for good"):
        build()
