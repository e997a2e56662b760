"""What every test shares: an offline environment, a tiny tokenizer and tiny random models."""

from __future__ import annotations

import gc
import os

# Set before anything imports torch or a Hugging Face library, each of which reads them at import.
os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",
    }
)

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# The process that hands out the tests reads this file too, and needs none of the libraries.
if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parent.parent
CORPUS = [
    "Who wrote the novel The Silent Harbour? The novel was written by Lucia Duval.",
    "Where was Kofi Mensah born? Kofi Mensah was born in Accra in 1961.",
    "What does Sanna Thorne write? Sanna Thorne writes short stories about the sea and the people near it.",
    "Which prize did the author win? The author won the prize for the best first book in 1987.",
]


def pytest_collection_finish() -> None:
    """Lets the garbage collector pass over what was imported: every training asks it to look at everything there is."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 400 tokens with `<pad>` 0, `<s>` 1, `</s>` 2, which puts `<s>` first.

    Session-wide: a test that changes it (say, removes the pad token) changes a `copy.deepcopy` of it.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<pad>", "<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=256
    )


@pytest.fixture(scope="session")
def tiny_llama(tokenizer: PreTrainedTokenizerFast) -> Callable[..., LlamaForCausalLM]:
    """`tiny_llama(seed=0, **config_overrides)`: a new random float32 Llama that fits `tokenizer`.

    It is in eval mode. The same seed and overrides give the same weights, and the global random state is
    left as it was.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    def build(seed: int = 0, **config_overrides: object) -> LlamaForCausalLM:
        settings: dict[str, object] = {
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = LlamaForCausalLM(LlamaConfig(**(settings | config_overrides)))
        return model.eval()

    return build


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of data and models beside the checkout (`DAREU_SHARED`); skips where there is none."""
    folder = Path(os.environ.get("DAREU_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set DAREU_SHARED to the folder that holds it")
    return folder
