"""Samples completions for training and evaluation.

The completions of a batch are decoded together, one token a step, and what their prompts share is computed once
(decoding.py). A completion ends with the model's end token, before a stop string, or at the limit of tokens. The GRPO
paper knows no stop strings; grpo_trainer.py says what they change in the loss.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.utils import logging

from rlvr_kit.engine.adapters import ready_to_decode
from rlvr_kit.engine.decoding import PlainRows, SharedRows, reason_not_to_share
from rlvr_kit.sampling_settings import GREEDY, SamplingSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Completion:
    """One sampled completion. Its text is cut before a stop string; its ids include the end token if there is one."""

    text: str
    ids: list[int] = field(repr=False)
    truncated: bool
    entropy: float = 0.0
    """Mean over the tokens of the entropy of the model's distribution at the sampling temperature, before top-k and
    top-p, in nats; 0 where decoding was greedy."""

    @property
    def tokens(self) -> int:
        """How many tokens were sampled."""
        return len(self.ids)


def pick_tokens(
    logits: Tensor, sampling: SamplingSettings, noise: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Return the next tokens (R,) for logits (R, V), and the entropies (R,) of the distributions.

    At temperature 0 the most likely token is taken, and the entropy is 0. Entropies are those before top-k and top-p.
    Logits in bfloat16 are converted first: the probabilities are always computed in float32.
    """
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    logits = logits.contiguous().float()
    if sampling.temperature == 0:
        return logits.argmax(dim=-1), logits.new_zeros(len(logits))
    if sampling.temperature != 1:
        logits = logits / sampling.temperature
    cumulated, entropies = _cumulated(logits)
    if sampling.top_k or sampling.top_p < 1.0:
        if sampling.top_k:
            logits = TopKLogitsWarper(sampling.top_k, filter_value=-1e9)(None, logits)
        if sampling.top_p < 1.0:
            logits = TopPLogitsWarper(sampling.top_p, filter_value=-1e9)(None, logits)
        cumulated, _ = _cumulated(logits)
    total = cumulated[:, -1:]
    # The factor is slightly below 1, so that a rounded product never points behind the last token.
    point = torch.rand(total.shape, generator=noise, device=total.device) * (1 - 1e-6) * total
    return torch.searchsorted(cumulated, point, right=True)[:, 0], entropies


def _cumulated(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return running sums (R, V) of probabilities that are not normalized, and the distributions' entropies (R,).

    One pass over 32 x 49,152 numbers takes milliseconds, so the number of passes matters. To draw from running sums
    needs no softmax, and one random number for each row instead of one for each vocabulary entry.
    """
    logits = logits - logits.amax(dim=-1, keepdim=True)
    weights = logits.exp()
    cumulated = weights.cumsum(dim=-1)
    total = cumulated[:, -1]
    return cumulated, total.log() - torch.linalg.vecdot(weights, logits) / total


@torch.inference_mode()
def decode(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Sequence[int]],
    owners: list[int],
    sampling: SamplingSettings,
    noise: torch.Generator | None = None,
) -> list[Completion]:
    """Sample one completion for each entry of ``owners``, the index of its prompt (token ids) in ``prompts``.

    All completions are decoded together. The settings ``samples``, ``batch_size`` and ``seed`` are not used here: the
    caller has chosen ``owners`` and ``noise`` by them.
    """
    end_tokens = model.generation_config.eos_token_id
    end_tokens = set(end_tokens if isinstance(end_tokens, list) else [end_tokens]) | {tokenizer.eos_token_id}
    if reason := reason_not_to_share(model):
        logger.warning_once(f"shared prompts are not computed once in sampling: {reason}")
    rows = (PlainRows if reason else SharedRows)(model, prompts, owners, sampling.max_new_tokens)

    # A stop string of n bytes lies in the last n tokens; a few more, because a character may need several tokens.
    window = max((len(text.encode()) for text in sampling.stop), default=0) + 4
    active = list(range(len(owners)))  # completions that are still being written
    live = list(range(len(owners)))  # the completions that `rows` holds, in its order; some may be finished
    written: list[list[int]] = [[] for _ in owners]
    entropies: list[list[float]] = [[] for _ in owners]
    for step in range(sampling.max_new_tokens):
        tokens, step_entropies = pick_tokens(rows.logits, sampling, noise)
        finished = []
        for row, token, entropy in zip(live, tokens.tolist(), step_entropies.tolist(), strict=True):
            if row not in active:
                continue
            written[row].append(token)
            entropies[row].append(entropy)
            tail = tokenizer.decode(written[row][-window:]) if sampling.stop else ""
            if token in end_tokens or any(text in tail for text in sampling.stop):
                finished.append(row)
        active = [row for row in active if row not in finished]
        if not active or step == sampling.max_new_tokens - 1:
            break
        # Dropping finished rows copies the caches, so it waits until a quarter of them are finished.
        if len(active) <= 0.75 * len(live):
            kept = torch.tensor([i for i, row in enumerate(live) if row in set(active)], device=model.device)
            live = [live[i] for i in kept.tolist()]
            rows.keep(kept)
            tokens = tokens[kept]
        rows.write(tokens)
    return [
        _completion(tokenizer, ids, each, end_tokens, sampling.stop)
        for ids, each in zip(written, entropies, strict=True)
    ]


def _completion(
    tokenizer: Any, ids: list[int], entropies: list[float], end_tokens: set[int], stop: Sequence[str]
) -> Completion:
    ended = ids[-1] in end_tokens
    text = tokenizer.decode(ids, skip_special_tokens=True)
    cut = min((text.index(string) for string in stop if string in text), default=None)
    if cut is not None:
        text, ended = text[:cut], True
        # Rewards are paid for the text before the stop string, so only its tokens are kept, and at least one.
        while len(ids) > 1 and len(tokenizer.decode(ids[:-1], skip_special_tokens=True)) >= cut:
            ids = ids[:-1]
    return Completion(text, ids, not ended, sum(entropies[: len(ids)]) / len(ids))


def prompt_token_ids(tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of rendered prompts, exactly as TRL computes them in training.

    A chat template writes all special tokens into the text. A tokenizer without one adds its own, such as a token for
    the beginning.
    """
    plain = not getattr(tokenizer, "chat_template", None)
    return tokenizer(list(prompts), add_special_tokens=plain)["input_ids"]


def generate(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str],
    sampling: SamplingSettings = GREEDY,
    *,
    on_batch: Callable[[dict[int, list[Completion]]], None] | None = None,
) -> list[list[Completion]]:
    """Sample ``sampling.samples`` completions for each prompt text (greedy at temperature 0).

    The prompts are sorted by length and taken in batches of ``sampling.batch_size`` completions. ``on_batch`` is
    called after each batch with ``{index of the prompt: its completions}``, so that the caller can show and save them.

    Returns:
        For each prompt, in the order given, its completions.

    Example:
        >>> from rlvr_kit.models import load_policy, load_tokenizer
        >>> policy, tokenizer = load_policy("tiny-random"), load_tokenizer("tiny-random")
        >>> [[only]] = generate(policy, tokenizer, ["1+1="], SamplingSettings(max_new_tokens=4))
        >>> only.tokens <= 4
        True
    """
    ids = prompt_token_ids(tokenizer, prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(ids[i]), reverse=True)
    done: dict[int, list[Completion]] = {}
    noise = torch.Generator(device=model.device).manual_seed(sampling.seed)
    per_batch = max(1, sampling.batch_size // sampling.samples)
    training = model.training
    model.eval()
    try:
        with ready_to_decode(model) as policy:
            for start in range(0, len(order), per_batch):
                chosen = order[start : start + per_batch]
                owners = [i for i in range(len(chosen)) for _ in range(sampling.samples)]
                completions = iter(
                    decode(policy, tokenizer, [ids[i] for i in chosen], owners, sampling, noise)
                )
                batch = {i: list(islice(completions, sampling.samples)) for i in chosen}
                done.update(batch)
                if on_batch:
                    on_batch(batch)
    finally:
        model.train(training)
    return [done[i] for i in range(len(prompts))]
