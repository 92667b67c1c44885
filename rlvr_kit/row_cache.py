"""What makes a decoding step cheap: keys of the common beginning kept once, and matrix products for few rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class RowCache:
    """Keys and values of one decoding batch: the common beginning once, then a buffer of its own for each row.

    It stands in for a transformers cache (``update`` is all that a Llama or Qwen2 attention asks of one) and keeps the
    common part out of the buffers, so that its memory does not grow with the number of rows.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.common: list[tuple[Tensor, Tensor]] = []
        self.own: list[tuple[Tensor, Tensor]] = []

    def update(
        self, keys: Tensor, values: Tensor, layer: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        own_keys, own_values = self.own[layer]
        own_keys[:, :, self.length - 1], own_values[:, :, self.length - 1] = keys[:, :, 0], values[:, :, 0]
        return own_keys[:, :, : self.length], own_values[:, :, : self.length]

    def get_seq_length(self, *args: Any) -> int:
        return self.length

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self.own = [(keys[rows], values[rows]) for keys, values in self.own]


class TreeRecorder:
    """Collects the keys and values of a packed prompt tree while the model reads it."""

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []

    def update(
        self, keys: Tensor, values: Tensor, layer: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        self.layers.append((keys, values))
        return keys, values

    def get_seq_length(self, *args: Any) -> int:
        return 0


def _attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, scaling: float,
    rows: RowCache, **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """One decoding step of attention: query (R, H, 1, D) over the common beginning and each row's own keys.

    The common part is one matrix product for all rows; its keys (1, H_kv, L, D) are read once, not once a row.
    """
    count, heads, _, width = query.shape
    kv_heads = key.shape[1]
    grouped = query.view(count, kv_heads, heads // kv_heads, width) * scaling
    common_keys, common_values = rows.common[module.layer_idx]
    stacked = grouped.transpose(0, 1).reshape(kv_heads, heads // kv_heads * count, width)
    common_scores = (stacked @ common_keys[0].transpose(1, 2)).view(kv_heads, count, heads // kv_heads, -1)
    own_scores = grouped @ key.transpose(2, 3) + attention_mask
    scores = (
        torch.cat([common_scores.transpose(0, 1), own_scores], dim=-1).float().softmax(dim=-1).to(query.dtype)
    )
    from_common, from_own = scores.split([common_scores.shape[-1], own_scores.shape[-1]], dim=-1)
    mixed = from_common.transpose(0, 1).reshape(*stacked.shape[:2], common_keys.shape[2]) @ common_values[0]
    output = from_own @ value + mixed.view(kv_heads, count, heads // kv_heads, width).transpose(0, 1)
    return output.reshape(count, 1, heads, width), None


@contextmanager
def row_attention(model: "PreTrainedModel") -> Iterator[None]:
    from transformers import AttentionInterface

    AttentionInterface.register("rlvr_kit_rows", _attend)
    before = model.config._attn_implementation
    model.config._attn_implementation = "rlvr_kit_rows"
    try:
        yield
    finally:
        model.config._attn_implementation = before


@contextmanager
def few_rows(model: "PreTrainedModel") -> Iterator[None]:
    """On a CPU, compute each linear layer as (W xᵀ)ᵀ: with few rows that is faster than x Wᵀ."""

    def product(layer: torch.nn.Linear, x: Tensor) -> Tensor:
        output = (layer.weight @ x.reshape(-1, x.shape[-1]).t()).t()
        return (output if layer.bias is None else output + layer.bias).reshape(*x.shape[:-1], -1)

    layers = [
        module for module in model.modules() if type(module) is torch.nn.Linear and not module.weight.is_cuda
    ]
    for layer in layers:
        layer.forward = partial(product, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
