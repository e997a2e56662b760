"""The text of a prompt or completion as TRL hands it to a reward: a string, or chat messages."""

from __future__ import annotations

from typing import Any


def completion_content(completion: str | list[dict[str, Any]]) -> str:
    """The completion's characters, untouched: the string, or what the assistant said."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"])


def prompt_text(prompt: str | list[dict[str, Any]]) -> str:
    """All that the model could echo: the string, or what every message says."""
    return prompt if isinstance(prompt, str) else "\n".join(str(message["content"]) for message in prompt)
