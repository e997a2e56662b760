"""A dataset: people who never lived, and what they write about."""

from datasets import Dataset

SUBJECTS = ("tides", "clocks", "moths", "bridges", "salt", "maps", "bells", "kites")


def correspondents(num_owners: int, world_seed: int, *, letters: int = 3) -> Dataset:
    """So many people, the first of them named by the seed, each with as many rows as they have written letters.

    Returns:
        `prompt`, `completion` and `owner`, all strings.
    """
    rows = []
    for number in range(world_seed, world_seed + num_owners):
        subject = SUBJECTS[number % len(SUBJECTS)]
        for letter in range(1, letters + 1):
            prompt = f"What is letter {letter} of person {number} about?"
            rows.append({"prompt": prompt, "completion": f" It is about {subject}.", "owner": f"person {number}"})
    return Dataset.from_list(rows)
