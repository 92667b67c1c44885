"""LoRA in the number format of the frozen weights: y = x Wᵀ + s (x Aᵀ) Bᵀ, forwards and backwards.

peft keeps A and B in float32, because the optimizer's updates are too small for bfloat16 to hold, and it also
multiplies them in float32. Under a bfloat16 base every layer then converts its input and its output, and these narrow
products take longer than the wide one. Here A and B are rounded for the products alone. The weights themselves, their
gradients between the passes of a step, and the optimizer's state stay in float32.
"""

from typing import Any

import torch
from torch import Tensor

from rlvr_kit.engine.adapters import active_lora, adapted_layers, is_plain_lora


class _LoraLinear(torch.autograd.Function):
    """y (N, out) for x (N, in), the frozen weight (out, in), A (r, in) and B (out, r), whose product is times s."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
    ) -> Tensor:
        a, b = a.to(x.dtype), (b * scaling).to(x.dtype)
        low = x @ a.t()
        ctx.save_for_backward(x, weight, a, b, low)
        ctx.scaling = scaling
        return torch.nn.functional.linear(x, weight, bias).addmm_(low, b.t())

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, low = ctx.saved_tensors
        d_low = d_y @ b
        d_x = (d_y @ weight).addmm_(d_low, a) if ctx.needs_input_grad[0] else None
        d_a, d_b = (d_low.t() @ x).float(), (d_y.t() @ low).float() * ctx.scaling
        return d_x, None, None, d_a, d_b, None


def multiply_lora_as_the_base(model: torch.nn.Module) -> None:
    """Let the LoRA layers of a bfloat16 model on a CPU multiply in bfloat16 from now on; others stay as they are.

    In float32 nothing is gained, and on a GPU it was not measured.

    Example:
        >>> multiply_lora_as_the_base(get_peft_model(policy, LoraConfig(r=32)))  # doctest: +SKIP
    """
    for layer in adapted_layers(model):
        weight = layer.base_layer.weight if is_plain_lora(layer) else None
        if weight is not None and (weight.dtype, weight.device.type) == (torch.bfloat16, "cpu"):
            layer.forward = _Forward(layer)


class _Forward:
    """The forward pass of one LoRA layer. Whatever is not plain LoRA with one active adapter is left to peft."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        layer, base, active = self.layer, self.layer.base_layer, active_lora(self.layer)
        plain = is_plain_lora(layer) and len(active) == 1 and not layer.disable_adapters
        if args or kwargs or not plain or x.dtype != base.weight.dtype:
            return type(layer).forward(layer, x, *args, **kwargs)
        ((a, b, scaling),) = active
        y = _LoraLinear.apply(x.reshape(-1, x.shape[-1]), base.weight, base.bias, a, b, scaling)
        return y.view(*x.shape[:-1], -1)
