"""Records, their encoding as token ids, and where they come from."""

from dareu.data._owners import owner_name
from dareu.data.corpora import cut_text, load_corpora
from dareu.data.encoding import (
    CompletionCollator,
    EncodedRecord,
    encode_dataset,
    encode_prompt,
    encode_prompts,
    encode_record,
    to_chat,
)
from dareu.data.facts import distinctive_words
from dareu.data.fictional import FictionalWorld, background_people, fictional_owners, fictional_world
from dareu.data.loaders import (
    QA_COMPLETION,
    QA_PROMPT,
    apply_templates,
    load_records,
    read_dataset,
)
from dareu.data.mixing import mix_background
from dareu.data.parts import DATASETS
from dareu.data.records import (
    DataParts,
    Fold,
    ForgetRetain,
    check_records,
    check_texts,
    forget_retain_split,
    is_chat,
    take_fold,
    text_of,
    thin,
)
from dareu.data.tofu import load_tofu

__all__ = [
    "DATASETS",
    "QA_COMPLETION",
    "QA_PROMPT",
    "CompletionCollator",
    "DataParts",
    "EncodedRecord",
    "FictionalWorld",
    "Fold",
    "ForgetRetain",
    "apply_templates",
    "background_people",
    "check_records",
    "check_texts",
    "cut_text",
    "distinctive_words",
    "encode_dataset",
    "encode_prompt",
    "encode_prompts",
    "encode_record",
    "fictional_owners",
    "fictional_world",
    "forget_retain_split",
    "is_chat",
    "load_corpora",
    "load_records",
    "load_tofu",
    "mix_background",
    "owner_name",
    "read_dataset",
    "take_fold",
    "text_of",
    "thin",
    "to_chat",
]
