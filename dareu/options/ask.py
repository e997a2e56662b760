"""The options of `dareu ask`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dareu.data import QA_PROMPT
from dareu.data.parts import DataArguments
from dareu.data.tofu import is_tofu
from dareu.files import read_yaml
from dareu.values import as_list


@dataclass
class AskArguments:
    """What is asked, and who answers."""

    models: list[str] = field(metadata={"help": "Model folders or hub ids, which answer side by side."})
    question: str | None = field(
        default=None, metadata={"help": "The question; default: those that are typed, until an empty one."}
    )
    classifier: str | None = field(
        default=None, metadata={"help": "The folder of an attribution classifier: whose does each answer seem to be?"}
    )
    num_samples: int = field(default=3, metadata={"help": "Sampled answers beside the greedy one; 0: none."})
    temperature: float = field(default=1.0, metadata={"help": "Of these."})
    seed: int = field(default=0, metadata={"help": "Of these."})
    max_new_tokens: int = field(default=128, metadata={"help": "Tokens of the longest answer."})
    prompt_template: str | None = field(
        default=None,
        metadata={
            "help": "Text around the question, with {prompt}; default: that of the run which made the model, else "
            "none. A tokenizer's chat template comes on top."
        },
    )
    pad_token: str | None = field(
        default=None,
        metadata={"help": "The token that pads, for a tokenizer that names none; its end token will do."},
    )

    def __post_init__(self) -> None:
        self.models = as_list(self.models) or []
        if not self.models:
            raise ValueError("models names none: name at least one.")
        if self.num_samples < 0:
            raise ValueError(f"num_samples is {self.num_samples}: give a whole number of at least 0.")
        if self.question is not None and not self.question.strip():
            raise ValueError("The question is empty: ask something.")
        if self.prompt_template is not None and "{prompt}" not in self.prompt_template:
            raise ValueError(f"prompt_template is {self.prompt_template!r}: it must hold {{prompt}}.")

    def template(self, model: str) -> str:
        """The text around a question to a model: as is said, or as the run that made the model had it.

        Args:
            model: Its folder or hub id.
        """
        if self.prompt_template is not None:
            return self.prompt_template
        config = Path(model).parent / "config.yaml"
        said = read_yaml(config) if config.is_file() else {}
        dataset = str(said.get("dataset", DataArguments.dataset)) if said else ""
        usual = QA_PROMPT if dataset in ("fictional", "tofu") or is_tofu(dataset) else "{prompt}"
        return str(said.get("prompt_template") or usual)
