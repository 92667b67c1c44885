"""Log-probabilities from hidden states are those of a softmax over all logits, and so are their gradients."""

import pytest
import torch

from rlvr_kit.engine.token_logps import ROWS_AT_ONCE, token_logps


@pytest.mark.parametrize("rows", [1, ROWS_AT_ONCE, 2 * ROWS_AT_ONCE + 3])
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_log_probabilities_entropies_and_gradients_are_those_of_log_softmax(
    rows: int, temperature: float
) -> None:
    torch.manual_seed(0)
    weight, labels, factors = torch.randn(50, 16), torch.randint(50, (rows,)), torch.randn(rows)
    ours = torch.randn(rows, 16, requires_grad=True)
    plain = ours.detach().clone().requires_grad_()
    logps, entropies = token_logps(ours, weight, labels, temperature)
    (logps * factors).sum().backward()
    whole = (plain @ weight.t() / temperature).log_softmax(dim=-1)
    expected = whole.gather(-1, labels[:, None])[:, 0]
    (expected * factors).sum().backward()
    torch.testing.assert_close(logps, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropies, -(whole.exp() * whole).sum(dim=-1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-5, atol=1e-5)
    assert not entropies.requires_grad


def test_very_large_logits_neither_overflow_nor_make_a_gradient_of_nan() -> None:
    hidden = torch.full((2, 4), 1e4, requires_grad=True)
    logps, entropies = token_logps(hidden, torch.tensor([[1.0] * 4, [-1.0] * 4]), torch.tensor([0, 1]))
    logps.sum().backward()
    assert logps.tolist() == [0.0, -8e4]
    assert entropies.tolist() == [0.0, 0.0]
    assert torch.isfinite(hidden.grad).all()
