"""A GGUF file as a folder of a model that trains."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from dareu.files import atomic_folder
from dareu.models._names import first_line

if TYPE_CHECKING:
    from gguf import GGUFReader
    from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

#: What a tokenizer must give back as it was.
_TEXT = "In 1984, José wrote: “It’s a – \nfine – day!”"

#: What transformers raises where a file does not hold what it looks for.
_UNREADABLE = (ValueError, KeyError, IndexError, TypeError, RuntimeError, NotImplementedError, OSError)


class Conversion(NamedTuple):
    """What was made of a GGUF file."""

    model: str
    """The model's class, such as `LlamaForCausalLM`."""
    parameters: int
    """Tied weights counted once."""
    stored: tuple[str, ...]
    """The types of the file's tensors, such as `Q4_1`."""


def convert_gguf(
    file: str | os.PathLike[str], output_dir: str | os.PathLike[str], *, dtype: torch.dtype = torch.float32
) -> Conversion:
    """Writes the model of a GGUF file as a folder that trains: weights, config, tokenizer and chat template.

    Quantized weights become the numbers that they stand for. Every value of the file is in the model and every
    weight of the model was in the file, or nothing is written. End tokens are the file's end token and its end of a
    turn. Text of a byte-level tokenizer is split as GPT-2 does it where transformers does not know the file's own way.

    Args:
        file: With weights, config and tokenizer of a causal language model that transformers reads.
        output_dir: The folder to make; it appears whole or not at all.
        dtype: Of the weights. Float32 holds a quantized file's numbers exactly, so that what is trained starts at the
            file's model; bfloat16 takes half the space, and rounds them to 8 bits.

    Raises:
        ValueError: The output is there already, gguf is not installed, or the file is missing, no GGUF file, cut short,
            no causal language model, or of one that transformers does not read whole.
    """
    file, output_dir = Path(file), Path(output_dir)
    if output_dir.exists():
        raise ValueError(f"{os.fspath(output_dir)!r} is there already; give the name of a new folder.")
    reader = _open(file)
    _check_architecture(file, reader)
    model = _model(file, reader)
    tokenizer = _tokenizer(file, model)
    ids = tokenizer(_TEXT, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        if not bool(model(ids).logits.isfinite().all()):
            raise ValueError(f"The weights in {file} do not make a model: its logits are not finite.")
    with atomic_folder(output_dir) as folder:
        model.to(dtype).save_pretrained(folder)  # type: ignore[arg-type]  # a bound method to mypy
        tokenizer.save_pretrained(folder)
        _check_saved_tokenizer(file, folder, tokenizer)
    stored = tuple(sorted({tensor.tensor_type.name for tensor in reader.tensors}))
    return Conversion(type(model).__name__, sum(parameter.numel() for parameter in model.parameters()), stored)


def _open(file: Path) -> GGUFReader:
    """The file's metadata and tensors, which stay on disk; all of them are there."""
    if not file.is_file():
        raise ValueError(f"There is no file {file}: check the path.")
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise ValueError(f"{file} is no GGUF file, for it does not begin with 'GGUF': check the path.")
    if importlib.util.find_spec("gguf") is None:
        raise ValueError("A GGUF file is read with the package gguf: pip install 'dareu[gguf]'.")
    from gguf import GGUFReader

    try:
        return GGUFReader(file)
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise ValueError(
            f"{file} is cut short or damaged, for its {file.stat().st_size:,} bytes do not hold what its header "
            f"announces ({first_line(error)}): get it again."
        ) from error


def _check_architecture(file: Path, reader: GGUFReader) -> None:
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    stated = reader.fields.get("general.architecture")
    name = "no architecture" if stated is None else f"the architecture {stated.contents()!r}"
    refusal = f"{file} states {name}, and no causal language model to train: give one of {', '.join(_architectures())}."
    if stated is None:
        raise ValueError(refusal)
    try:
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    except _UNREADABLE as error:
        raise ValueError(refusal) from error
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(refusal)


def _architectures() -> list[str]:
    """The names of the causal language models that transformers reads from GGUF files."""
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    known = {name: f"{name}_text" for name in GGUF_SUPPORTED_ARCHITECTURES}
    return sorted(name for name, text in known.items() if {name, text} & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))


def _model(file: Path, reader: GGUFReader) -> PreTrainedModel:
    """A plain float32 model with the weights of the file, all of them."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM, GgufConfig

    try:
        found: Any = AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
        )
    except _UNREADABLE as error:
        raise ValueError(f"transformers cannot read the weights of {file}: {first_line(error)}") from error
    read, report = found
    _check_whole(file, reader, read, report)
    # What was read calls itself quantized and refuses to be saved; the weights themselves are plain.
    strange = ("quantization_config", "_name_or_path", "_model_name_or_path")
    settings = {name: value for name, value in read.config.to_dict().items() if name not in strange}
    with init_empty_weights():
        model: PreTrainedModel = type(read)(type(read.config).from_dict(settings))
    model.load_state_dict(read.state_dict(), assign=True)
    model.tie_weights()
    model.generation_config = _generation_config(model.config.get_text_config(), reader)
    model.eval()
    return model


def _check_whole(file: Path, reader: GGUFReader, model: PreTrainedModel, report: dict[str, Any]) -> None:
    """Refuses a file of which a part has no place in the model, or the other way round."""
    if missing := sorted(report["missing_keys"]):
        raise ValueError(
            f"{file} lacks {len(missing)} of the model's tensors ({', '.join(missing[:3])}, …): "
            "get the whole file; parts of a split one are merged first."
        )
    tied = bool(model.config.get_text_config().tie_word_embeddings)
    tensors = [tensor for tensor in reader.tensors if not (tied and tensor.name == "output.weight")]
    places = {tensor.data_ptr(): tensor for tensor in model.state_dict().values()}  # tied ones once
    stored, placed = sum(int(tensor.n_elements) for tensor in tensors), sum(each.numel() for each in places.values())
    if stored != placed:
        shapes = {tuple(sorted(each.shape)) for each in places.values()}
        strange = [each.name for each in tensors if tuple(sorted(each.shape.tolist())) not in shapes]
        raise ValueError(
            f"{file} holds {stored:,} values, of which transformers puts {placed:,} into the model"
            f"{', not ' + ', '.join(strange[:3]) if strange else ''}: the model would not be the file's. Give the "
            "folder that the file was made from."
        )


def _generation_config(config: PretrainedConfig, reader: GGUFReader) -> GenerationConfig:
    """Ends at the file's end tokens: of texts and, where it is another, of turns."""
    from transformers import GenerationConfig

    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    if (of_turn := reader.fields.get("tokenizer.ggml.eot_token_id")) is not None:
        ends = [*ends, int(of_turn.contents())]
    ends = [end for end in dict.fromkeys(ends) if end is not None]
    return GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=ends if len(ends) > 1 else next(iter(ends), None),
        pad_token_id=config.pad_token_id,
    )


def _tokenizer(file: Path, model: PreTrainedModel) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except _UNREADABLE as error:
        raise ValueError(f"transformers cannot read the tokenizer of {file}: {first_line(error)}") from error
    tokenizer = _without_tokens_from(tokenizer, model.config.get_text_config().vocab_size)
    _check_round_trip(file, tokenizer)
    return tokenizer


def _without_tokens_from(tokenizer: PreTrainedTokenizerBase, end: int) -> PreTrainedTokenizerBase:
    """Drops what transformers adds to a byte-level tokenizer: GPT-2's `<|endoftext|>`, for which a model has no row."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    if len(tokenizer) <= end:
        return tokenizer
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] < end]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        chat_template=tokenizer.chat_template,
        **tokenizer.special_tokens_map,
    )


def _check_round_trip(file: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    text = tokenizer.decode(tokenizer(_TEXT)["input_ids"], skip_special_tokens=True)
    if str(text).strip() != _TEXT:
        raise ValueError(
            f"The tokenizer of {file} does not survive as transformers reads it: of {_TEXT!r} it makes {text!r}. "
            "Give the folder that the file was made from."
        )


def _check_saved_tokenizer(file: Path, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    from transformers import AutoTokenizer

    saved = AutoTokenizer.from_pretrained(folder)
    same = saved(_TEXT)["input_ids"] == tokenizer(_TEXT)["input_ids"]
    if not same or saved.chat_template != tokenizer.chat_template:
        raise ValueError(f"The tokenizer of {file} does not survive being saved by transformers.")
