"""Log-probabilities of tokens straight from hidden states, with a few rows of logits at a time.

The last layer turns each hidden state h into one logit for each vocabulary entry, z = W h / T. These are 49,152 numbers
a token, the largest tensor of a training step. Where W is frozen, as under LoRA, training needs only this of them:
    log p(y) = z_y - log sum_v exp(z_v),        d log p(y) / dh = (W_y - sum_v p_v W_v) / T.
Both are computed in one pass, so no tensor as long as the vocabulary is kept for the backward pass or computed again
in it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from rlvr_kit.engine.prompt_tree import PromptTree, tree_inputs

#: Rows of one product with the head: 256 x 49,152 logits are 25 MB in bfloat16 and 50 MB in float32.
ROWS_AT_ONCE = 256
#: Rows between the two products, where each number is read several times: 16 x 49,152 fit into a core's cache.
ROWS_IN_CACHE = 16


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        logps = hidden.new_empty(len(hidden), dtype=torch.float32)
        entropies, slopes = torch.empty_like(logps), torch.empty_like(hidden)
        for start in range(0, len(hidden), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            logits, own_logits = _logits(hidden[part], weight, labels[part], temperature)
            for first in range(0, len(logits), ROWS_IN_CACHE):
                rows = slice(first, first + ROWS_IN_CACHE)
                place, own = slice(start + first, start + rows.stop), labels[part][rows, None]
                exact = logits[rows].float().scatter_(-1, own, own_logits[rows])
                exact -= exact.amax(dim=-1, keepdim=True)
                weights = exact.exp()
                total = weights.sum(dim=-1)
                logps[place] = exact.gather(-1, own)[:, 0] - total.log()
                entropies[place] = total.log() - torch.linalg.vecdot(weights, exact) / total
                # W_y is taken off before anything is rounded: a token of probability 1 has no slope.
                weights /= total[:, None]
                logits[rows] = weights.scatter_add_(-1, own, -torch.ones_like(total)[:, None])
            slopes[part] = logits @ weight / -temperature
        ctx.save_for_backward(slopes)
        ctx.mark_non_differentiable(entropies)
        return logps, entropies

    @staticmethod
    def backward(ctx: Any, d_logps: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return d_logps[:, None].to(slopes.dtype) * slopes, None, None, None


def _logits(hidden: Tensor, weight: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Logits (R, V), and those of the labels (R, 1) in float32, both less a constant for each row.

    The product comes in the format of its factors, and from 16 to 32 bfloat16 numbers are an eighth apart. log p(y)
    depends only on the distances to z_y, so there z_y is taken off inside the product, before it is rounded: then the
    distances are exact to one part in 256.
    """
    own = torch.linalg.vecdot(hidden.float(), weight[labels].float()).float()[:, None] / temperature
    if weight.dtype == torch.float32:
        return hidden / temperature @ weight.t(), own
    constant = own.to(weight.dtype)
    logits = torch.addmm(-constant, hidden, weight.t(), alpha=1 / temperature)
    return logits, own - constant.float()


def token_logps(
    hidden: Tensor, weight: Tensor, labels: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Log-probabilities (N,) of `labels` (N,) and the entropies (N,) of their distributions, in nats.

    `hidden`: (N, D), gradients flow back to it. `weight`: (V, D), the frozen output embedding. The entropies carry
    no gradient. All of it is computed in float32 where the products are not (``weight`` in bfloat16).

    Example:
        >>> logps, entropies = token_logps(torch.zeros(1, 4), torch.randn(8, 4), torch.tensor([3]))
        >>> round(logps.exp().item(), 4), round(entropies.exp().item(), 4)  # one of eight equally likely tokens
        (0.125, 8.0)
    """
    return _FrozenHead.apply(hidden, weight, labels, temperature)


def branch_logps(
    model: torch.nn.Module, unwrapped: Any, tree: PromptTree, labels: Tensor, temperature: float,
    *, entropy_gradient: bool,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Log-probabilities (N,) and entropies (N,) of `labels`, one for each of the N tokens in the tree's branches.

    `model`: as training calls it, with the fused head that TRL's trainers give to a model; `unwrapped`: the same
    without what accelerate wraps around it. `entropy_gradient`: the entropies must carry a gradient. They are None
    where the fused head computes none, which is so for TRL's reference model.
    """
    causal = unwrapped.get_base_model() if hasattr(unwrapped, "get_base_model") else unwrapped
    head, device = causal.get_output_embeddings(), labels.device
    autocast = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if autocast else causal.dtype
    inputs = tree_inputs(tree, causal.config, dtype)
    frozen = type(head) is torch.nn.Linear and head.bias is None and not head.weight.requires_grad
    # Where the head is trained, or on a GPU, TRL's own chunked head does the same.
    if frozen and device.type == "cpu" and not entropy_gradient:
        with _hidden_states_as_logits(causal):
            hidden = model(**inputs, use_cache=False, logits_to_keep=len(labels)).logits[0]
        return token_logps(hidden, head.weight, labels, temperature)
    with _logits_only_from(tree.branches[0].start, causal):
        outputs = model(**inputs, shift_labels=labels[None], fused_lm_head=True)
    return outputs.log_probs[0], None if outputs.entropy is None else outputs.entropy[0]


@contextmanager
def _hidden_states_as_logits(model: Any) -> Iterator[None]:
    """While this lasts, the model outputs its last hidden states, because its head passes them through."""
    head = model.get_output_embeddings()
    head.forward = lambda hidden: hidden
    try:
        yield
    finally:
        del head.forward


@contextmanager
def _logits_only_from(first: int, model: Any) -> Iterator[None]:
    """While this lasts, the model's head gets the hidden states from position `first` on, which have labels."""

    def cut(module: torch.nn.Module, inputs: Any, outputs: Any) -> None:
        outputs.last_hidden_state = outputs.last_hidden_state[:, first:]

    hook = model.base_model.register_forward_hook(cut)
    try:
        yield
    finally:
        hook.remove()
