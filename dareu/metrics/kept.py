"""What was found of rows before, kept by the content of all that it depends on."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from dareu.files import atomic_file, content_hash
from dareu.models.tokenizers import chat_ids
from dareu.weights.fingerprint import fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

#: Part of every key: another one where what is computed of a row changes.
_VERSION = 2

#: What was found of a row: columns of a table.
Found: TypeAlias = dict[str, Any]


class Kept:
    """What a model was found to say of rows: in a folder, a Parquet file a model and kind of result.

    A row's key is made of its texts and of the settings, a file's name of the model's weights, config and dtype and of
    its tokenizer and chat template: what changes is found again, and nothing else. What is kept is not tokenised again.

    Args:
        folder: Where the files are; None: nothing is kept.
        model: The causal language model that is asked; its weights must not change meanwhile.
        tokenizer: Its tokenizer.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self._folder = None if folder is None else Path(folder)
        self._model, self._tokenizer = model, tokenizer
        self._tables: dict[str, dict[str, Found]] = {}

    def completed(
        self, kind: str, keys: Sequence[str], find: Callable[[list[int]], Iterable[Found]]
    ) -> Sequence[Found]:
        """What is known of every key, once what is not was found.

        Args:
            kind: Of the results.
            keys: Of n rows; see `row_key`.
            find: Takes the places in `keys` of rows of which nothing is known, each row once, and finds their results.

        Returns:
            The results of the n rows.
        """
        known = self._tables.get(kind)
        if known is None:
            known = self._tables[kind] = self._read(kind)
        missing = {key: place for place, key in reversed(list(enumerate(keys))) if key not in known}
        places = sorted(missing.values())
        if places:
            known.update(zip((keys[place] for place in places), find(places), strict=True))
            self._write(kind, known)
        return [known[key] for key in keys]

    def _path(self, kind: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{kind}-{self._identity}.parquet"

    def _read(self, kind: str) -> dict[str, Found]:
        from pyarrow import ArrowException, parquet

        if self._folder is None or not self._path(kind).is_file():
            return {}
        path = self._path(kind)
        try:
            rows = parquet.read_table(path).to_pylist()
            return {row.pop("key"): row for row in rows}
        except (ArrowException, OSError, KeyError) as error:
            reason = str(error).strip().split("\n")[0].rstrip(".")
            logger.warning("%s is no whole file of %s (%s): they are made again.", path, kind, reason)
            return {}

    def _write(self, kind: str, known: dict[str, Found]) -> None:
        import pyarrow
        from pyarrow import parquet

        if self._folder is not None:
            with atomic_file(self._path(kind)) as temporary:
                rows = [{"key": key, **found} for key, found in known.items()]
                parquet.write_table(pyarrow.Table.from_pylist(rows), temporary)

    @cached_property
    def _identity(self) -> str:
        """What is asked: the model and its tokenizer."""
        config = {name: value for name, value in self._model.config.to_dict().items() if name not in _OF_NO_MATTER}
        weights = dict(self._model.named_parameters()) | dict(self._model.named_buffers())
        tokenizer = self._tokenizer
        backend = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else sorted(tokenizer.get_vocab().items())
        parts = [fingerprint(weights), str(self._model.dtype), json.dumps(config, default=str, sort_keys=True)]
        specials = json.dumps(tokenizer.special_tokens_map, default=str, sort_keys=True)
        return content_hash([*parts, backend, specials, tokenizer.chat_template, self._opening()])[:32]

    def _opening(self) -> list[int] | None:
        """What the chat template makes of a question: some write the day's date before it."""
        try:
            asked = [{"role": "user", "content": "?"}]
            return (
                chat_ids(self._tokenizer, asked, add_generation_prompt=True) if self._tokenizer.chat_template else None
            )
        except ValueError:  # whoever asks by it says so
            return None


#: Of a model's config: where it came from.
_OF_NO_MATTER = ("_name_or_path", "transformers_version", "architectures", "torch_dtype", "dtype")


def row_key(*parts: object) -> str:
    """The key of a row: texts, messages, numbers and lists of these that its result is made of, beside the model."""
    said = json.dumps([_VERSION, *parts], ensure_ascii=False)
    return hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
