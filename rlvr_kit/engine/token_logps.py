"""Log-probabilities of tokens straight from hidden states, with a few rows of logits at a time.

The last layer turns each hidden state h into one logit per vocabulary entry, z = W h / T: 49,152 numbers a token, the
largest tensor of a training step. With W frozen, as under LoRA, all that training needs of them is known at once,
    log p(y) = z_y - log sum_v exp(z_v),        d log p(y) / dh = (W_y - sum_v p_v W_v) / T,
so the gradient is computed beside the log-probability, and nothing as long as the vocabulary is kept for the
backward pass or computed again in it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

#: 128 x 49,152 float32 logits are 25 MB: about what stays in a CPU's cache through the passes over them.
ROWS_AT_ONCE = 128


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        logps = hidden.new_empty(len(hidden), dtype=torch.float32)
        entropies, slopes = torch.empty_like(logps), torch.empty_like(hidden)
        for start in range(0, len(hidden), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            logits = (hidden[part] / temperature @ weight.t()).float()
            logits -= logits.amax(dim=-1, keepdim=True)
            weights = logits.exp()
            total = weights.sum(dim=-1)
            logps[part] = logits.gather(-1, labels[part, None])[:, 0] - total.log()
            entropies[part] = total.log() - torch.linalg.vecdot(weights, logits) / total
            expected = (weights.to(weight.dtype) @ weight) / total[:, None]
            slopes[part] = (weight[labels[part]] - expected) / temperature
        ctx.save_for_backward(slopes)
        ctx.mark_non_differentiable(entropies)
        return logps, entropies

    @staticmethod
    def backward(ctx: Any, d_logps: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return d_logps[:, None].to(slopes.dtype) * slopes, None, None, None


def token_logps(
    hidden: Tensor, weight: Tensor, labels: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Log-probabilities (N,) of `labels` (N,) and the entropies (N,) of their distributions, in nats.

    `hidden`: (N, D), gradients flow back to it. `weight`: (V, D), the frozen output embedding. The entropies carry
    no gradient.

    Example:
        >>> logps, entropies = token_logps(torch.zeros(1, 4), torch.randn(8, 4), torch.tensor([3]))
        >>> round(logps.exp().item(), 4), round(entropies.exp().item(), 4)  # one of eight equally likely tokens
        (0.125, 8.0)
    """
    return _FrozenHead.apply(hidden, weight, labels, temperature)


@contextmanager
def hidden_states_as_logits(model: Any) -> Iterator[None]:
    """Let the model's output be its last hidden states: its head passes them through."""
    head = model.get_output_embeddings()
    head.forward = lambda hidden: hidden
    try:
        yield
    finally:
        del head.forward


@contextmanager
def logits_only_from(first: int, model: Any) -> Iterator[None]:
    """Let the model's head see the hidden states from position `first` on: the rest has nothing to predict."""

    def cut(module: torch.nn.Module, inputs: Any, outputs: Any) -> None:
        outputs.last_hidden_state = outputs.last_hidden_state[:, first:]

    hook = model.base_model.register_forward_hook(cut)
    try:
        yield
    finally:
        hook.remove()
