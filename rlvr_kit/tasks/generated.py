"""What tasks with generated problems share: the rule that splits their questions, and drawing different rows."""

import zlib
from collections.abc import Iterable
from typing import Any, Literal


def split_of(text: str) -> Literal["train", "test"]:
    """Return the split that a question always belongs to: by their checksums, about a quarter are test questions.

    No seed plays a part, so no seed can bring a test question into training.

    >>> split_of("What is 1 + 1?"), split_of("What is 3 + 1?")
    ('train', 'test')
    """
    return "test" if zlib.crc32(text.encode()) % 4 == 0 else "train"


def different(rows: Iterable[dict[str, Any]], n: int) -> list[dict[str, Any]]:
    """Return the first `n` rows with different questions, or fewer when many draws have not brought as many."""
    found: dict[str, dict[str, Any]] = {}
    for drawn, row in enumerate(rows):
        found.setdefault(row["question"], row)
        if len(found) == n or drawn > 20 * n + 2000:
            break
    return list(found.values())
