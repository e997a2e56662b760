"""What a comparison of methods is made of: entries and their trials, the stages to run, and what they measured."""
