"""Attention in bfloat16 on a CPU: softmax(s Q Kᵀ + mask) V with the scores written out, forwards and backwards.

torch's fused kernel keeps no scores, which pays for long sequences. For a hundred tokens in bfloat16 on a CPU it is
five times slower than the four small products of which it consists, most of all in the backward pass. Scores and
softmax are in float32 here, as in that kernel; what is kept for the backward pass are the shares in bfloat16.
"""

from typing import Any

import torch
from torch import Tensor

#: Scores of one layer, over all heads, up to which they are written out: 4 MiB in bfloat16, 120 MiB in 30 layers.
MOST_SCORES = 2**21


def use_scores(dtype: torch.dtype, device: torch.device, scores: int) -> bool:
    """Return whether :func:`score_attention` is to be used, for so many scores; in float32 nothing would be gained."""
    return dtype == torch.bfloat16 and device.type == "cpu" and scores <= MOST_SCORES


def score_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> Tensor:
    """Attention of (B, H, T, D) queries to (B, H, L, D) keys and values -> (B, H, T, D); the mask is additive.

    Example:
        >>> q, k, v = torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 2, 2), torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]])
        >>> score_attention(q, k, v, torch.zeros(1, 1, 1, 2), 1.0).tolist()  # equal scores: the mean of the values
        [[[[0.5, 0.5]]]]
    """
    return _ScoreAttention.apply(query, key, value, mask, scaling)


class _ScoreAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> Tensor:
        scores = (query.float() * scaling) @ key.float().transpose(-1, -2)
        shares = scores.add_(mask).softmax(dim=-1).to(value.dtype)
        ctx.save_for_backward(query, key, value, shares)
        ctx.scaling = scaling
        return shares @ value

    @staticmethod
    def backward(ctx: Any, d_mixed: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, shares = ctx.saved_tensors
        d_shares = (d_mixed * ctx.scaling) @ value.transpose(-1, -2)
        # Each score's slope less the mean slope of its row, weighted by the shares; one pass, in float32 inside.
        d_scores = torch._softmax_backward_data(d_shares, shares, -1, shares.dtype)
        return (
            d_scores @ key,
            d_scores.transpose(-1, -2) @ query,
            shares.transpose(-1, -2) @ d_mixed,
            None,
            None,
        )
