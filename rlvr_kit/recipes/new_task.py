"""A task of your own: copy of the parcel number in a customer's message. Change the three parts, then audit it again:

    python -m rlvr_kit audit this_file.py

1. ``INSTRUCTION``: what the model is told, with one example of the format of an answer.
2. ``problems``:    your data. Here messages are made up; most often you would read a file (see the end).
3. ``verify``:      whether an answer is right. Write its tests first: what must be paid, and what must never be.
"""

import random
import re

from rlvr_kit import Verdict

INSTRUCTION = """\
Write down the number of the parcel in the message, in one line.
Example:
Parcel: QX-1234"""

MESSAGES = {
    "train": (
        "Where is parcel {code}? I have waited for {days} days.",
        "My order {code} has not arrived. I called {days} times.",
        "Hello, please cancel {code}. Thank you, {name}.",
        "{name} is not at home on Friday: bring {code} on Monday instead.",
        "The box with {code} on it was open, and {days} cups are broken.",
    ),
    # Sentences that training never shows: else a good result could be memory.
    "test": (
        "Can you tell {name} when {code} will be here?",
        "I moved to a new flat {days} weeks ago, so send {code} there.",
        "{code} came today, but it belongs to my neighbour {name}.",
    ),
}
NAMES = ("Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Henry")


def problems(split: str, n: int, seed: int) -> list[dict[str, str]]:
    """At most n rows of "train" or "test". The same call must give the same rows: take all chance from `rng`.

    Every row needs three texts: the question, the gold (what `verify` compares with) and a worked answer, which must
    verify. No question may be in both splits.
    """
    rng = random.Random(f"{split} {seed}")
    rows: dict[str, dict[str, str]] = {}
    while len(rows) < n:
        letters, digits = "".join(rng.choices("ABCDEFGHKLMNPRSTUVWXYZ", k=2)), rng.randint(1000, 9999)
        code = f"{letters}-{digits}"
        question = rng.choice(MESSAGES[split]).format(
            code=code, days=rng.randint(2, 9), name=rng.choice(NAMES)
        )
        rows[question] = {"question": question, "gold": code, "answer": f"Parcel: {code}"}
    return list(rows.values())


def verify(completion: str, gold: str) -> Verdict:
    """Judge any text that a model may write. It must never raise, and never run the text (no eval, no exec).

    format_ok        the answer has the form that was asked for: half a point, whatever it says
    correct          it also is right: one point more. It may be true only where format_ok is
    lenient_correct  the right answer stands somewhere in it; reported, never paid
    extracted        the answer that was read, or None
    why              the reason in a few words; you will read it in tables
    """
    found = re.fullmatch(r"Parcel: ([A-Z]{2}-[0-9]{4})", completion.strip())
    anywhere = re.findall(r"[A-Z]{2}-[0-9]{4}", completion)
    if found is None:
        read = anywhere[-1] if anywhere else None
        return Verdict(False, False, read == gold, read, "not one line 'Parcel: XX-0000'")
    right = found[1] == gold
    return Verdict(True, right, right, found[1], "right number" if right else "another number")


# From a file that lies beside this one, with a column for the question and one for the gold:
#
#     FILES = ["messages.csv"]  # travels with this file to SageMaker
#
#     def problems(split, n, seed):
#         with open(Path(__file__).with_name("messages.csv"), encoding="utf-8") as file:
#             rows = list(csv.DictReader(file))
#         # One row belongs to one split for ever; a checksum decides better than a position in the file.
#         mine = [row for row in rows if (zlib.crc32(row["question"].encode()) % 5 == 0) == (split == "test")]
#         return [row | {"answer": f"Parcel: {row['gold']}"} for row in mine[:n]]
