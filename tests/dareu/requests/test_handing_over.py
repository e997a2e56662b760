"""The folder that is handed over, and its card."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import ModelCard

from dareu.requests.handing_over import model_card, place_model, publish
from dareu.requests.ledger import MARK

CARD: dict[str, Any] = {
    "name": "m",
    "base_model": "org/base",
    "method": "dareu",
    "weights": "all weights",
    "num_owners": 2,
    "num_rows": 24,
    "requests": 1,
    "owners": None,
    "numbers": {"fact_recall": {"target": 0.9, "unlearned": 0.1}, "tow": {"unlearned": 0.8}},
    "result": "It states less.",
    "limits": ["Nobody attacked it."],
}


def test_a_card_counts_owners_and_names_them_only_on_request(tmp_path: Path) -> None:
    card = ModelCard(model_card(**CARD))
    assert card.data.base_model == "org/base" and card.data.library_name == "transformers"
    assert {"trl", "dareu", "machine-unlearning"} <= set(card.data.tags)
    assert "forget 2 owners" in card.text and "(24 rows)" in card.text and "requests" not in card.text
    assert "| fact_recall | 0.900 | 0.100 |" in card.text and "| tow |  | 0.800 |" in card.text
    assert "It states less." in card.text and "- Nobody attacked it." in card.text
    named = model_card(**CARD | {"owners": ["Ann", "Bo"], "requests": 2})
    assert "Forgotten by all requests: Ann, Bo." in named and "the last of 2 requests" in named
    here = ModelCard(model_card(**CARD | {"base_model": str(tmp_path)}))
    assert here.data.base_model is None and str(tmp_path) not in str(here)


def test_the_folder_is_the_model_with_its_card(tmp_path: Path) -> None:
    source = tmp_path / "stage" / "model"
    source.mkdir(parents=True)
    (source / "model.safetensors").write_bytes(b"weights")
    for text in ("first", "second"):
        place_model(source, tmp_path / "model", text, {"requests": 1})
        assert (tmp_path / "model" / "README.md").read_text() == text
    assert (tmp_path / "model" / "model.safetensors").samefile(source / "model.safetensors")
    assert json.loads((tmp_path / "model" / MARK).read_text()) == {"requests": 1}
    assert {path.name for path in source.iterdir()} == {"model.safetensors", MARK}, "who goes on from there is told"
    assert {path.name for path in tmp_path.iterdir()} == {"stage", "model"}


def test_the_hub_gets_the_folder_and_its_refusal_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []

    class Api:
        def create_repo(self, name: str, **options: Any) -> Any:
            sent.append((name, options))
            return huggingface_hub.RepoUrl(f"https://huggingface.co/me/{name}")

        def upload_folder(self, **options: Any) -> None:
            sent.append(options)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    publish(tmp_path, "mine", private=True)
    assert sent[0] == ("mine", {"private": True, "exist_ok": True})
    assert sent[1]["repo_id"] == "me/mine" and sent[1]["folder_path"] == tmp_path

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no\nroute")

    monkeypatch.setattr(Api, "create_repo", refuse)
    with pytest.raises(ValueError, match="could not be uploaded as mine: no route The model is whole; log in"):
        publish(tmp_path, "mine", private=False)
