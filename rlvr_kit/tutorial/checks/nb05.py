"""The exercises of notebook 05: the masked loss, and the chance that a group is useful."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlvr_kit.tutorial.exercises import Wrong, check, first_difference, run, shown

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def policy_loss(logp: Tensor, advantage: Tensor, mask: Tensor) -> Tensor:
    """The loss of a first step of GRPO: minus advantage times log-probability, averaged over all real tokens.

    `logp` and `mask`: (completions, tokens); `advantage`: (completions, 1).

    >>> policy_loss(torch.tensor([[-1.0, -9.0]]), torch.tensor([[2.0]]), torch.tensor([[1.0, 0.0]]))
    tensor(2.)
    """
    return -(advantage * logp * mask).sum() / mask.sum()


def _batches() -> list[tuple[Tensor, Tensor, Tensor]]:
    """Log-probabilities, advantages and masks of two batches; padding has log-probabilities, too."""
    draw = torch.Generator().manual_seed(5)
    batches = []
    for lengths in ([4, 2, 1], [1, 3, 5, 2]):
        places = torch.arange(max(lengths))
        logp = -3 * torch.rand(len(lengths), max(lengths), generator=draw) - 0.1
        mask = (places < torch.tensor(lengths)[:, None]).float()
        batches.append((logp, torch.randn(len(lengths), 1, generator=draw), mask))
    return batches


_TERMS: dict[str, Loss] = {
    "": lambda logp, A, mask: A * logp * mask,
    "padding counts in the sum: multiply by the mask": lambda logp, A, mask: A * logp,
    "the advantage is left out, so every completion is imitated, good or bad": lambda logp, A, mask: logp * mask,
    "the advantage and the mask are left out": lambda logp, A, mask: logp,
    "these are probabilities (exp); the loss has log-probabilities": lambda logp, A, mask: A * logp.exp() * mask,
    "the sign of the advantage is lost (abs)": lambda logp, A, mask: A.abs() * logp * mask,
    "the advantage is squared, so its sign is lost": lambda logp, A, mask: A**2 * logp * mask,
    "negative advantages are cut off: bad completions must be pushed down, too": (
        lambda logp, A, mask: A.clamp(min=0) * logp * mask
    ),
    "advantage (n, 1) times sums (n,) makes a table of n by n, so every completion gets all advantages: keepdim=True": (
        lambda logp, A, mask: A.sum() * logp * mask
    ),
    "the mask is turned round: only padding counts": lambda logp, A, mask: A * logp * (1 - mask),
    "log is taken twice: logp holds log-probabilities already": lambda logp, A, mask: A * (-logp).log() * mask,
    "advantage is added; it should be multiplied": lambda logp, A, mask: (A + logp) * mask,
}  # fmt: skip
_MEANS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "": lambda x, mask: x.sum() / mask.sum(),
    "you averaged over padding: divide by the number of real tokens, mask.sum()": lambda x, mask: x.mean(),
    "this averages within each completion first, as the GRPO paper does; here all tokens weigh the same (DAPO)": (
        lambda x, mask: (x.sum(1) / mask.sum(1)).mean()
    ),
    "this averages within each completion, and then adds the completions up": (
        lambda x, mask: (x.sum(1) / mask.sum(1)).sum()
    ),
    "this divides by the number of completions; divide by the number of real tokens": (
        lambda x, mask: x.sum() / len(x)
    ),
    "this divides by the longest length; divide by the number of real tokens": lambda x, mask: (
        x.sum() / x.shape[1]
    ),
    "it is added up and not averaged: divide by the number of real tokens": lambda x, mask: x.sum(),
}
_SIGNS = {
    "": -1.0,
    "the minus is missing: an optimizer goes downhill, so this makes the bad completions likelier": 1.0,
}


@check
def check_policy_loss(answer: Loss) -> str:
    """The slopes of the loss, against those of the reference, on two batches with padding."""
    batches = _batches()
    cases = [(i,) for i in range(len(batches))]
    mistakes: dict[str, Any] = {}
    for (term, summed), (mean, averaged), (sign, factor) in product(
        _TERMS.items(), _MEANS.items(), _SIGNS.items()
    ):
        if reasons := [reason for reason in (term, mean, sign) if reason]:

            def wrong(logp: Tensor, A: Tensor, mask: Tensor, s=summed, m=averaged, f=factor) -> Tensor:  # type: ignore[no-untyped-def]
                return f * m(s(logp, A, mask), mask)

            mistakes["; and ".join(reasons)] = _slopes(wrong, batches)
    found = first_difference(_slopes(answer, batches), _slopes(policy_loss, batches), cases, mistakes)
    if found:
        (batch,), got, due = found
        padding = batches[batch][2].numpy() == 0
        if np.abs(np.asarray(got)[padding]).max() > 1e-6:
            raise Wrong("the slope at padding is not 0: padding still counts somewhere. Multiply by the mask")
        if np.allclose(got, np.asarray(got)[0, 0] * (1 - padding)):
            raise Wrong(
                "every completion gets the same slope, good or bad: each needs its own advantage in the sum"
            )
        ratio = np.asarray(got)[~padding] / np.asarray(due)[~padding]
        if np.allclose(ratio, ratio[0], rtol=1e-3):
            raise Wrong(
                f"the direction is right, and all slopes of a batch are {ratio[0]:.3g} times the reference's: look "
                "at what the sum is divided by, which should be the number of real tokens"
            )
        raise Wrong(
            f"padding is left out, but the slopes differ. For the first completion they are {shown(got[0])} and "
            f"should be {shown(due[0])}: minus its advantage, divided by the number of real tokens in the batch"
        )
    return (
        "its gradient is the reference's: each real token gets minus its advantage over the number of real tokens, and "
        "padding gets nothing."
    )


def _slopes(loss: Loss, batches: list[tuple[Tensor, Tensor, Tensor]]) -> Callable[[int], list[list[float]]]:
    """A function from the number of a batch to the slopes of `loss` for each log-probability in it."""

    def slopes(batch: int) -> list[list[float]]:
        logp, advantage, mask = batches[batch]
        leaf = logp.clone().requires_grad_()
        value = run(lambda A, m: loss(leaf, A, m), advantage, mask)
        if not isinstance(value, Tensor) or not value.requires_grad:
            raise Wrong(
                f"it returns {shown(value)}, and backward() finds no way back from it: no .item(), .detach(), numpy"
            )
        if value.ndim:
            raise Wrong(
                f"a loss is one number, and this has the shape {tuple(value.shape)}: add up and divide"
            )
        grads = torch.autograd.grad(value, leaf, allow_unused=True)[0]
        if grads is None:
            raise Wrong("the loss does not depend on logp, so nothing can be learned from it")
        return grads.tolist()

    return slopes


CHANCES = [(0.05, 8), (0.5, 2), (0.9, 4), (0.3, 16), (0.0, 8), (1.0, 8)]


def chance_useful(p: Any, size: int) -> Any:
    """The chance that a group of `size` has unequal rewards (0 or 1), where one completion is right with chance `p`.

    >>> chance_useful(0.5, 2)
    0.5
    """
    return 1 - p**size - (1 - p) ** size


_CHANCE_MISTAKES: dict[str, Any] = {
    "this is the chance that at least one is right (pass@k): a group in which all are right teaches nothing either": (
        lambda p, G: 1 - (1 - p) ** G
    ),
    "this is the chance that at least one is wrong: a group in which all are wrong teaches nothing either": (
        lambda p, G: 1 - p**G
    ),
    "this is the chance that all are alike, the useless case: take it from 1": lambda p, G: p**G + (1 - p) ** G,
    "this is the chance that all are right": lambda p, G: p**G,
    "this is the chance that all are wrong": lambda p, G: (1 - p) ** G,
    "the two chances are multiplied. All right and all wrong exclude each other: add them, and take the sum from 1": [
        lambda p, G: 1 - p**G * (1 - p) ** G,
        lambda p, G: (1 - p**G) * (1 - (1 - p) ** G),
    ],
    "this is the chance that exactly one is right": lambda p, G: G * p * (1 - p) ** (G - 1),
    "this is the chance that exactly one is wrong": lambda p, G: G * (1 - p) * p ** (G - 1),
    "this is right for groups of two only: the size must be the exponent": lambda p, G: 2 * p * (1 - p),
    "p (1 - p) is how much one completion varies (its variance), and the size must be the exponent": [
        lambda p, G: p * (1 - p),
        lambda p, G: G * p * (1 - p),
        lambda p, G: p * (1 - p) / G,
        lambda p, G: (p * (1 - p)) ** G,
        lambda p, G: 1 - (p * (1 - p)) ** G,
    ],
    "p is multiplied by the size; the chance that all are right is p to the power of the size": [
        lambda p, G: 1 - p * G - (1 - p) * G,
        lambda p, G: p * G,
        lambda p, G: min(1.0, p * G),
        lambda p, G: 1 - G * p - G * (1 - p),
    ],
    "the size and p have changed places: it is p to the power of the size": lambda p, G: 1 - G**p - G ** (1 - p),
    "the exponent is one less than the size: all of the group count": (
        lambda p, G: 1 - p ** (G - 1) - (1 - p) ** (G - 1)
    ),
    "the two complements are added: take both chances, all right and all wrong, from one 1": (
        lambda p, G: 2 - p**G - (1 - p) ** G
    ),
    "the chance that all are wrong is (1 - p) to the power of the size, and not once more that of all right": (
        lambda p, G: 1 - 2 * p**G
    ),
    "it is always 0: is it (1 - p**size) where it should be (1 - p)**size? The power comes first": lambda p, G: 0.0,
    "the size is fixed in your function: groups may have any size": [
        lambda p, G, size=size: chance_useful(p, size) for size in (4, 8, 16)
    ],
    "this holds for p = 0.5 only": [lambda p, G: 1 - 0.5 ** (G - 1), lambda p, G: 1 - 2 * 0.5**G],
    "the result is in per cent; it should be a chance between 0 and 1": lambda p, G: 100 * chance_useful(p, G),
}  # fmt: skip


@check
def check_chance_useful(answer: Callable[[float, int], float]) -> str:
    """Six pairs of a chance and a group size, never and always right among them."""
    if found := first_difference(answer, chance_useful, CHANCES, _CHANCE_MISTAKES):
        (p, size), got, due = found
        if p in (0, 1):
            raise Wrong(
                f"for p={p:g} all completions are alike, so the chance is 0, and this gives {shown(got)}"
            )
        outside = not 0 <= float(got) <= 1
        hint = "A chance lies between 0 and 1. " if outside else ""
        raise Wrong(
            f"for p={p}, size={size} it gives {shown(got)}, and it should be {due:.4g}. {hint}A group is useless if "
            "all are right or all are wrong. What is the chance of each, and what is left?"
        )
    return "a group teaches unless all are right (p to the power of G) or all are wrong (1 - p, to the power of G)."
