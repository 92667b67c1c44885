"""Who has more? The task of the recorded run that was cheated: the answer is one of two names in the question.

question  Ines has 12 pens and gets 6 more. Hugo has 15 pens. Who has more pens?
answer    Ines has 12 + 6 = 18 pens.
          #### Ines
gold      Ines
"""

import random
import re
import zlib

from rlvr_kit import Verdict

INSTRUCTION = """\
Compare the two, then write on a new last line #### and the name of the one with more.
Example:
Rosa has 3 + 4 = 7 pens.
#### Rosa"""
NAMES = ("Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Hugo", "Ines", "Jack", "Karen", "Leo")
NAMES += ("Maria", "Nick", "Olga", "Paul")
THINGS = ("pens", "cards", "books", "shells", "stamps", "marbles", "apples", "balloons")


def problems(split: str, n: int, seed: int) -> list[dict[str, str]]:
    """Rows of a split; a question belongs to one split for ever, by its checksum."""
    rng, rows = random.Random(f"{split} {seed}"), {}
    while len(rows) < n:
        (one, other), thing = rng.sample(NAMES, 2), rng.choice(THINGS)
        first, more, second = rng.randint(2, 20), rng.randint(2, 20), rng.randint(2, 40)
        question = f"{one} has {first} {thing} and gets {more} more. {other} has {second} {thing}. "
        question += f"Who has more {thing}?"
        if first + more == second or (zlib.crc32(question.encode()) % 4 == 0) != (split == "test"):
            continue
        gold = one if first + more > second else other
        work = f"{one} has {first} + {more} = {first + more} {thing}."
        rows[question] = {"question": question, "gold": gold, "answer": f"{work}\n#### {gold}"}
    return list(rows.values())


def verify(completion: str, gold: str) -> Verdict:
    """Well-formed: one line that starts with ####, the last one, with a name, and something before it."""
    before, marker, stated = completion.strip().rpartition("\n#### ")
    formed = bool(marker and "####" not in before and re.fullmatch(r"[A-Z][a-z]+", stated.strip()))
    names = [word for word in re.findall(r"[A-Z][a-z]+", completion) if word in NAMES]
    read = stated.strip() if formed else names[-1] if names else None
    right = read == gold
    why = f"{'right' if right else 'wrong'} name" if formed else "no last line with #### and a name"
    return Verdict(formed, formed and right, right, read, why)
