"""The model as it is handed over: its folder, the card in it, and the hub."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dareu.deltas.patches import make_patch
from dareu.files import atomic_file, atomic_folder, write_json
from dareu.models import adapter_base, resolve_model_path
from dareu.requests.ledger import MARK

_TEMPLATE = Path(__file__).parent / "model_card.md"


def place_model(source: Path, folder: Path, card: str, mark: Mapping[str, Any]) -> None:
    """Makes the folder that is handed over, whole or not at all.

    Its files are those of the training's folder, not copies, where both are on one disk.

    Args:
        source: The model's folder in the stage that made it.
        folder: The folder to make; what stands there is replaced.
        card: The text of its `README.md`.
        mark: What the folder says of its requests, so that a further one does not go without their ledger.
    """
    if not (source / MARK).exists():  # whoever goes on from there has to name the ledger as well
        write_json(source / MARK, mark)
    with atomic_folder(folder) as temporary:
        shutil.copytree(source, temporary, copy_function=_linked, dirs_exist_ok=True)
        with atomic_file(temporary / "README.md") as file:
            file.write_text(card, encoding="utf-8")
        write_json(temporary / MARK, mark)


def model_card(
    *,
    name: str,
    base_model: str,
    method: str,
    weights: str,
    num_owners: int,
    num_rows: int,
    requests: int,
    owners: Sequence[str] | None,
    numbers: Mapping[str, Mapping[str, float]],
    result: str,
    limits: Sequence[str],
) -> str:
    """The text of a model card, with the metadata that the hub reads.

    Args:
        name: The model's.
        base_model: What it was made from: a hub id goes into the metadata, a path of this machine nowhere.
        method: Of the unlearning.
        weights: Which moved.
        num_owners: How many owners were forgotten by the last request.
        num_rows: Their rows.
        requests: How many requests there were.
        owners: Names of those who were forgotten, where the card may name them.
        numbers: By number, its value for each model of the table.
        result: What came of it, in one sentence.
        limits: What the numbers do not show, a sentence each.
    """
    from huggingface_hub import ModelCard, ModelCardData

    data = ModelCardData(
        base_model=None if Path(base_model).exists() else base_model,
        library_name="transformers",
        model_name=name,
        pipeline_tag="text-generation",
        tags=["generated_from_trainer", "trl", "dareu", "machine-unlearning", method],
    )
    models = list(dict.fromkeys(model for values in numbers.values() for model in values))
    card = ModelCard.from_template(
        data,
        template_str=_TEMPLATE.read_text(encoding="utf-8"),
        name=name,
        method=method,
        weights=weights,
        num_owners=num_owners,
        num_rows=num_rows,
        requests=requests,
        owners=owners,
        models=models,
        numbers=numbers,
        result=result,
        limits=limits,
        version=version("dareu"),
    )
    return str(card)


def patch_model(before: str, after: Path, path: Path) -> str | None:
    """Writes what turns one model into the other, where both are whole models in folders.

    Args:
        before: The model's folder or hub id before unlearning.
        after: The folder of it afterwards.
        path: The patch.

    Returns:
        Why there is none; None where there is one.
    """
    folder = Path(resolve_model_path(before))
    if not folder.is_dir() or any(adapter_base(str(each)) is not None for each in (folder, after)):
        return "it is made of two folders with whole models."
    try:
        make_patch(folder, after, path)
    except ValueError as error:
        return str(error)
    return None


def publish(folder: Path, repo_id: str, *, private: bool) -> str:
    """Uploads a model's folder to the hub and gives its address.

    Raises:
        ValueError: The hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api = HfApi()
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=address.repo_id, commit_message="Upload the unlearned model")
    except (OSError, HfHubHTTPError) as error:
        raise ValueError(
            f"{folder} could not be uploaded as {repo_id}: {' '.join(str(error).split())} The model is whole; log in "
            "with `hf auth login` and start again."
        ) from error
    return str(address)


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target)
