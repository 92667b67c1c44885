"""Prompts and completions as a tree in one packed sequence, in which every shared token stands once.

All completions of a group share their prompt, and with fixed exemplars all prompts share a long beginning. So the
sequence holds first the beginning that is common to all prompts, then the rest of each distinct prompt, then the
branches, which are completions. Each token attends only to its ancestors in the tree. This is what a causal model
computes when it reads every row separately (the idea of Prefix Grouper, arXiv 2506.05433). Sampling (sampling.py) and
the loss (grpo_trainer.py) both use it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from os.path import commonprefix
from typing import Any

import torch
from torch import Tensor

from rlvr_kit.engine.score_attention import score_attention, use_scores

#: Model types for which the tests show that the tree is exact: rotary positions and plain causal attention.
SUPPORTED_MODEL_TYPES = ("llama", "qwen2")


@dataclass(frozen=True)
class PromptTree:
    """Prompts and their branches as one packed sequence of N tokens, of which the first P are prompts.

    ``ids``, ``positions``: (1, N). ``mask``: (1, 1, P, P), True where the row's token may attend to the column's. The
    first ``common`` tokens are shared by all prompts; ``spans[i]`` is where the rest of prompt i lies. ``branches[j]``
    is where branch j lies, and ``owners[j]`` is the index of its prompt.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    common: int
    spans: list[range]
    branches: list[range]
    owners: list[int]


def prompt_tree(
    prompts: Sequence[Sequence[int]], branches: Sequence[tuple[int, Sequence[int]]] = (), device: Any = "cpu"
) -> PromptTree:
    """Pack prompts, and branches given as ``(index of its prompt, token ids)``, so that each shared token stands once.

    Example:
        >>> tree = prompt_tree([[1, 2, 3], [1, 2, 4]], [(0, [7, 8]), (1, [9])])
        >>> tree.ids.tolist(), tree.positions.tolist()
        ([[1, 2, 3, 4, 7, 8, 9]], [[0, 1, 2, 2, 3, 4, 3]])
    """
    common = len(commonprefix([list(prompt) for prompt in prompts]))
    ids, positions = list(prompts[0][:common]), list(range(common))

    def append(tokens: Sequence[int], first_position: int) -> range:
        span = range(len(ids), len(ids) + len(tokens))
        ids.extend(tokens)
        positions.extend(range(first_position, first_position + len(tokens)))
        return span

    spans = [append(prompt[common:], common) for prompt in prompts]
    mask = torch.zeros(len(ids), len(ids), dtype=torch.bool, device=device)
    mask[:, :common] = True
    for span in spans:
        mask[span.start : span.stop, span.start : span.stop] = True
    branch_spans = [append(tokens, len(prompts[owner])) for owner, tokens in branches]
    return PromptTree(
        torch.tensor([ids], device=device),
        torch.tensor([positions], device=device),
        mask.tril_()[None, None],
        common,
        spans,
        branch_spans,
        [owner for owner, _ in branches],
    )


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask as numbers to add to attention scores: 0 where it is True, elsewhere the lowest number of ``dtype``."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(
        ~mask, torch.finfo(dtype).min
    )


@dataclass(frozen=True)
class BranchAttention:
    """What the B branches of a tree attend to, as rectangles padded to T queries and L keys.

    ``first``: where the branches begin. ``queries`` (B T), ``keys`` (B L): places in the packed sequence; padding
    entries may point anywhere, because the mask hides them. ``mask``: (B, 1, G T, L), additive, for the G query heads
    that share a key head. ``back`` (N - first): where each branch token lies among the B T queries.
    """

    first: int
    queries: Tensor
    keys: Tensor
    mask: Tensor
    back: Tensor


def branch_attention(tree: PromptTree, queries_per_key: int, dtype: torch.dtype) -> BranchAttention:
    """Arrange the branches of a tree for :func:`tree_attention`; so many query heads share a key head."""
    ancestors = [[*range(tree.common), *tree.spans[owner]] for owner in tree.owners]
    wide = max(map(len, tree.branches))
    long = max(len(path) + len(span) for path, span in zip(ancestors, tree.branches, strict=True))
    queries = torch.zeros(len(tree.branches), wide, dtype=torch.long)
    keys = torch.zeros(len(tree.branches), long, dtype=torch.long)
    mask = torch.zeros(len(tree.branches), 1, 1, wide, long, dtype=torch.bool)
    back: list[int] = []
    for row, (path, span) in enumerate(zip(ancestors, tree.branches, strict=True)):
        queries[row, : len(span)] = torch.arange(span.start, span.stop)
        keys[row, : len(path) + len(span)] = torch.tensor([*path, *span])
        mask[row, ..., : len(path)] = True
        mask[row, 0, 0, :, len(path) : len(path) + len(span)] = torch.ones(wide, len(span)).tril()
        back += range(row * wide, row * wide + len(span))
    every_head = additive(mask, dtype).expand(-1, -1, queries_per_key, -1, -1).flatten(2, 3)
    device = tree.ids.device
    return BranchAttention(
        tree.branches[0].start,
        queries.flatten().to(device),
        keys.flatten().to(device),
        every_head.to(device),
        torch.tensor(back, device=device),
    )


def tree_inputs(tree: PromptTree, config: Any, dtype: torch.dtype) -> dict[str, Any]:
    """The arguments with which a model that uses :func:`tree_attention` is called to read a tree."""
    group = config.num_attention_heads // config.num_key_value_heads
    return {
        "input_ids": tree.ids,
        "position_ids": tree.positions,
        "attention_mask": additive(tree.mask, dtype),
        "branches": branch_attention(tree, group, dtype) if any(map(len, tree.branches)) else None,
    }


def tree_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float, branches: BranchAttention | None = None, **others: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention over a packed tree, for transformers: (1, H, N, D) queries -> (1, N, H, D).

    ``attention_mask`` is for the prompts, ``branches`` for what comes after them. Each branch is compared with its own
    ancestors, not with the whole sequence. Without ``branches`` this is transformers' own attention.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    own_attention = partial(sdpa_attention_forward, module, scaling=scaling, **others)
    if branches is None:
        return own_attention(query, key, value, attention_mask)
    first, (_, heads, _, width), kv_heads = branches.first, query.shape, key.shape[1]
    prompts = query.new_empty(1, 0, heads, width)
    if first and attention_mask is not None and use_scores(query.dtype, query.device, heads * first * first):
        grouped = query[:, :, :first].reshape(1, kv_heads, -1, width)  # the query heads that share a key head
        mask = attention_mask.repeat(1, 1, heads // kv_heads, 1)
        prompts = score_attention(grouped, key[:, :, :first], value[:, :, :first], mask, scaling)
        prompts = prompts.view(1, heads, first, width).transpose(1, 2)
    elif first:
        prompts, _ = own_attention(
            query[:, :, :first], key[:, :, :first], value[:, :, :first], attention_mask
        )
    rows, group = branches.mask.shape[0], heads // kv_heads

    def gather(packed: Tensor, places: Tensor) -> Tensor:
        """(1, heads, N, D) -> (B, key heads, heads / key heads x length, D)."""
        # Places come first here: torch adds up the gradients of whole rows four times as fast as those of parts.
        chosen = packed[0].transpose(0, 1).index_select(0, places)
        return (
            chosen.view(rows, len(places) // rows, kv_heads, -1, width).permute(0, 2, 3, 1, 4).flatten(2, 3)
        )

    own = gather(query, branches.queries), gather(key, branches.keys), gather(value, branches.keys)
    if use_scores(query.dtype, query.device, kv_heads * branches.mask.numel()):
        mixed = score_attention(*own, branches.mask, scaling)
    else:
        mixed = torch.nn.functional.scaled_dot_product_attention(*own, attn_mask=branches.mask, scale=scaling)
    mixed = mixed.view(rows, kv_heads, group, -1, width).permute(0, 3, 1, 2, 4).reshape(-1, heads, width)
    return torch.cat([prompts[0], mixed.index_select(0, branches.back)])[None], None


def use_tree_attention(model: Any) -> None:
    """Let the model use :func:`tree_attention` from now on.

    For training this cannot end after the forward pass, because layers with activation checkpointing run again in the
    backward pass.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register("rlvr_kit_tree", tree_attention)
    AttentionMaskInterface.register("rlvr_kit_tree", sdpa_mask)
    model.config._attn_implementation = "rlvr_kit_tree"


@contextmanager
def tree_attended(model: Any) -> Iterator[None]:
    """Let the model use :func:`tree_attention` inside the ``with`` block."""
    before = model.config._attn_implementation
    use_tree_attention(model)
    try:
        yield
    finally:
        model.config._attn_implementation = before


def unsupported_reason(config: Any) -> str | None:
    """Why a model with this config cannot read a tree; None if it can."""
    if config.model_type not in SUPPORTED_MODEL_TYPES:
        return f"it is tested on {' and '.join(SUPPORTED_MODEL_TYPES)} models, and this one is {config.model_type}"
    if getattr(config, "use_sliding_window", False):
        return "the model's attention has a sliding window"
    if (rope := config.rope_parameters["rope_type"]) in ("dynamic", "longrope"):
        return f"the model's rotary positions ({rope}) depend on the length of the sequence"
    return None
