"""Makes a language model forget whose data it was trained on, by reinforcement learning."""

__version__ = "0.1.0"
