"""Sampling completions, with everything that prompts share computed once.

The prompts of a batch go through the model once, as a tree (prompt_tree.py). Then all completions are decoded
together, a token a step: the keys of the common beginning are kept once, the others once a completion.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlvr_kit.prompt_tree import additive, prompt_tree
from rlvr_kit.row_cache import RowCache, TreeRecorder, few_rows, row_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Completion:
    """One sampled answer: its text (cut before a stop string), its token ids (with the end token, if it came)."""

    text: str
    ids: list[int] = field(repr=False)
    truncated: bool
    entropy: float = 0.0
    """Mean entropy of the sampling distribution over the completion's tokens, in nats."""

    @property
    def tokens(self) -> int:
        """How many tokens were sampled."""
        return len(self.ids)


@contextmanager
def merged_adapter(model: "PreTrainedModel") -> Iterator["PreTrainedModel"]:
    """Decode with LoRA added into the weights, which saves two small products a layer a token.

    The weights are put back as they were, to the bit (merging and unmerging in place would drift by rounding).
    """
    from peft import PeftModel
    from peft.tuners.lora import Linear

    if not isinstance(model, PeftModel):
        yield model
        return
    layers = [module for module in model.modules() if isinstance(module, Linear)]
    plain = [layer.base_layer.weight.data for layer in layers]
    for layer, weight in zip(layers, plain, strict=True):
        delta = layer.get_delta_weight(layer.active_adapters[0])
        layer.base_layer.weight.data = weight + delta.to(weight.dtype)
    try:
        with model.disable_adapter():
            yield model.get_base_model()
    finally:
        for layer, weight in zip(layers, plain, strict=True):
            layer.base_layer.weight.data = weight


def pick_tokens(
    logits: Tensor, temperature: float, top_p: float, top_k: int, noise: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Next tokens (R,) and the entropies (R,) of the distributions they came from; greedy at temperature 0."""
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    logits = logits.float().contiguous()
    if temperature not in (0.0, 1.0):
        logits = logits / temperature
    if top_k:
        logits = TopKLogitsWarper(top_k, filter_value=-1e9)(None, logits)
    if top_p < 1.0:
        logits = TopPLogitsWarper(top_p, filter_value=-1e9)(None, logits)
    # A pass over 32 x 49,152 numbers costs milliseconds, so there are few: no softmax, no noise for every token.
    logits = logits - logits.amax(dim=-1, keepdim=True)
    weights = logits.exp()
    cumulated = weights.cumsum(dim=-1)
    total = cumulated[:, -1:]
    entropies = (total.log() - torch.linalg.vecdot(weights, logits)[:, None] / total)[:, 0]
    if temperature == 0:
        return logits.argmax(dim=-1), entropies
    # Just under 1, so that rounding never lands behind the last token.
    point = torch.rand(total.shape, generator=noise, device=total.device) * (1 - 1e-6) * total
    return torch.searchsorted(cumulated, point, right=True)[:, 0], entropies


@torch.inference_mode()
def decode(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[Sequence[int]], owners: list[int],
    *, max_new_tokens: int, temperature: float, top_p: float = 1.0, top_k: int = 0, stop: Sequence[str] = (),
    noise: torch.Generator | None = None,
) -> list[Completion]:  # fmt: skip
    """Sample one completion for each entry of ``owners``, the index of its prompt (token ids) in ``prompts``."""
    device = model.device
    tree = prompt_tree(prompts, device=device)
    recorder = TreeRecorder()
    end_tokens = model.generation_config.eos_token_id
    end_tokens = set(end_tokens if isinstance(end_tokens, list) else [end_tokens]) | {tokenizer.eos_token_id}
    hidden = model.base_model(
        input_ids=tree.ids,
        position_ids=tree.positions,
        attention_mask=additive(tree.mask, model.dtype),
        past_key_values=recorder,
        use_cache=True,
    ).last_hidden_state[0]
    # A prompt that is wholly common ends at the last common token.
    last = torch.tensor([(span.stop if len(span) else tree.common) - 1 for span in tree.spans], device=device)
    logits = model.get_output_embeddings()(hidden[last[torch.tensor(owners, device=device)]])

    rows = len(owners)
    longest = max(len(span) for span in tree.spans)
    gather = torch.zeros(rows, longest, dtype=torch.long, device=device)
    own_mask = torch.zeros(rows, 1, 1, longest + max_new_tokens, dtype=model.dtype, device=device)
    for row, owner in enumerate(owners):
        span = tree.spans[owner]
        gather[row, longest - len(span) :] = torch.arange(span.start, span.stop, device=device)
        own_mask[row, ..., : longest - len(span)] = torch.finfo(model.dtype).min
    cache = RowCache(longest)
    for keys, values in recorder.layers:
        cache.common.append(
            (keys[:, :, : tree.common].contiguous(), values[:, :, : tree.common].contiguous())
        )
        buffers = []
        for packed in (keys, values):
            buffer = packed.new_empty(rows, packed.shape[1], longest + max_new_tokens, packed.shape[3])
            buffer[:, :, :longest] = packed[0][:, gather].transpose(0, 1)
            buffers.append(buffer)
        cache.own.append((buffers[0], buffers[1]))
    positions = torch.tensor([len(prompts[owner]) for owner in owners], device=device)

    active = list(range(rows))  # rows still being written; cache row i belongs to live[i]
    live = list(range(rows))
    written: list[list[int]] = [[] for _ in owners]
    entropies = [0.0] * rows
    with row_attention(model), few_rows(model):
        for step in range(max_new_tokens):
            tokens, step_entropies = pick_tokens(logits, temperature, top_p, top_k, noise)
            finished = []
            for row, token, entropy in zip(live, tokens.tolist(), step_entropies.tolist(), strict=True):
                if row not in active:
                    continue
                written[row].append(token)
                entropies[row] += entropy
                tail = tokenizer.decode(written[row][-16:]) if stop else ""
                if token in end_tokens or any(text in tail for text in stop):
                    finished.append(row)
            active = [row for row in active if row not in finished]
            if not active or step == max_new_tokens - 1:
                break
            # Dropping finished rows copies the buffers, so it waits until a quarter of them are done.
            if len(active) <= 0.75 * len(live):
                kept = torch.tensor([i for i, row in enumerate(live) if row in set(active)], device=device)
                live = [live[i] for i in kept.tolist()]
                cache.keep(kept)
                tokens, positions, own_mask = tokens[kept], positions[kept], own_mask[kept]
            cache.length += 1
            hidden = model.base_model(
                input_ids=tokens[:, None], position_ids=positions[:, None], past_key_values=cache,
                attention_mask=own_mask[..., : cache.length], use_cache=True, rows=cache,
            ).last_hidden_state  # fmt: skip
            logits = model.get_output_embeddings()(hidden[:, 0])
            positions = positions + 1
    return [
        _completion(tokenizer, ids, total, end_tokens, stop)
        for ids, total in zip(written, entropies, strict=True)
    ]


def _completion(
    tokenizer: Any, ids: list[int], entropy: float, end_tokens: set[int], stop: Sequence[str]
) -> Completion:
    entropy /= len(ids)
    ended = ids[-1] in end_tokens
    text = tokenizer.decode(ids, skip_special_tokens=True)
    cut = min((text.index(string) for string in stop if string in text), default=None)
    if cut is None:
        return Completion(text, ids, not ended, entropy)
    while len(ids) > 1 and len(tokenizer.decode(ids[:-1], skip_special_tokens=True)) >= cut:
        ids = ids[:-1]  # the policy is paid for what it wrote before the stop string
    return Completion(text[:cut], ids, False, entropy)


def generate(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[str], *, samples: int = 1,
    max_new_tokens: int = 64, temperature: float = 0.0, top_p: float = 1.0, top_k: int = 0, stop: Sequence[str] = (),
    batch_size: int = 32, seed: int = 0, on_batch: Callable[[dict[int, list[Completion]]], None] | None = None,
) -> list[list[Completion]]:  # fmt: skip
    """Sample ``samples`` completions for each prompt text (greedy at temperature 0).

    Prompts go through in batches of ``batch_size`` completions, sorted by length; ``on_batch`` is called after each
    with ``{index of the prompt: its completions}``, so that work done can be shown and kept.

    Returns:
        For each prompt, in the order given, its completions.

    Example:
        >>> from rlvr_kit.models import load_policy, load_tokenizer
        >>> policy, tokenizer = load_policy("tiny-random"), load_tokenizer("tiny-random")
        >>> [[only]] = generate(policy, tokenizer, ["1+1="], max_new_tokens=4)
        >>> only.tokens <= 4
        True
    """
    ids = tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
    order = sorted(range(len(prompts)), key=lambda i: len(ids[i]), reverse=True)
    done: dict[int, list[Completion]] = {}
    noise = torch.Generator(device=model.device).manual_seed(seed)
    per_batch = max(1, batch_size // samples)
    training = model.training
    model.eval()
    try:
        with merged_adapter(model) as policy:
            for start in range(0, len(order), per_batch):
                chosen = order[start : start + per_batch]
                owners = [i for i in range(len(chosen)) for _ in range(samples)]
                completions = decode(
                    policy, tokenizer, [ids[i] for i in chosen], owners, max_new_tokens=max_new_tokens,
                    temperature=temperature, top_p=top_p, top_k=top_k, stop=stop, noise=noise,
                )  # fmt: skip
                batch = {i: completions[k * samples : (k + 1) * samples] for k, i in enumerate(chosen)}
                done.update(batch)
                if on_batch:
                    on_batch(batch)
    finally:
        model.train(training)
    return [done[i] for i in range(len(prompts))]
