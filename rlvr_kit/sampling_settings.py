"""How completions are sampled, as one value for the recipe, for sampling and for evaluation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SamplingSettings:
    """How completions are sampled. ``dataclasses.replace`` makes a copy with some fields changed.

    >>> from dataclasses import replace
    >>> replace(GREEDY, temperature=0.7, samples=8).samples
    8
    """

    max_new_tokens: int = 256  # the most tokens of one completion
    temperature: float = 0.0  # 0: greedy, the most likely token each time
    top_p: float = 1.0  # draw only from the most likely tokens whose probabilities sum to this; 1: from all
    top_k: int = 0  # draw only from this many of the most likely tokens; 0: from all
    stop: tuple[str, ...] = ()  # a completion ends before any of these strings
    samples: int = 1  # completions of each prompt
    batch_size: int = 32  # completions that are decoded together
    seed: int = 0  # of the random numbers


#: Greedy decoding: one completion of each prompt.
GREEDY = SamplingSettings()


def cut_at_stop(text: str, stop: tuple[str, ...]) -> tuple[str, bool]:
    """Return ``text`` up to the first of the ``stop`` strings in it, and whether there was one.

    >>> cut_at_stop("#### 7\\nQuestion: what", ("\\nQuestion:",))
    ('#### 7', True)
    """
    ends = [text.index(string) for string in stop if string in text]
    return (text[: min(ends)], True) if ends else (text, False)
