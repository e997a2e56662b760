"""Language models and their tokenizers: loading, adapters, and the one forward pass."""

from dareu.models._names import BASE_MODEL, resolve_model_path
from dareu.models.adapters import adapter_base, attach_adapter, check_mergeable, merge_adapter
from dareu.models.loading import (
    context_length,
    layer_list,
    load_adapter,
    load_model,
    load_to_read,
    new_llama,
)
from dareu.models.saving import save_model
from dareu.models.tokenizers import check_tokenizer, load_base_tokenizer, load_tokenizer, new_tokenizer

__all__ = [
    "BASE_MODEL",
    "adapter_base",
    "attach_adapter",
    "check_mergeable",
    "check_tokenizer",
    "context_length",
    "layer_list",
    "load_adapter",
    "load_base_tokenizer",
    "load_model",
    "load_to_read",
    "load_tokenizer",
    "merge_adapter",
    "new_llama",
    "new_tokenizer",
    "resolve_model_path",
    "save_model",
]
