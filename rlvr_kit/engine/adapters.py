"""What a policy's LoRA adapters add while completions are decoded.

In float32 their product is added into the weights, and taken out again afterwards: separate LoRA weights take two small
matrix products more for each linear layer and token. In bfloat16 they stay separate. A bfloat16 number has eight
significant bits, so an update that is much smaller than its weight would be rounded away, and the policy that is
sampled would not be the one that learns. It also saves a second copy of the weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor

from rlvr_kit.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def ready_to_decode(model: "PreTrainedModel") -> Iterator["PreTrainedModel"]:
    """Yield the model without peft's wrapper, as decoding.py takes it; restore everything afterwards.

    Weights in float32 have the active LoRA adapters added. The original weights are kept and put back, also after an
    error. (Subtracting the adapter again would leave rounding errors behind.) Weights in another format stay as they
    are, each beside its adapter. It makes no difference whether peft wrapped the model (``get_peft_model``) or
    transformers loaded the adapter into it. A model that has no adapter, or one that is more than LoRA on plain linear
    layers (4-bit layers, DoRA, embeddings), is yielded as it is: its own forward pass applies the adapter.

    Raises:
        InputError: prompt or prefix tuning, which put trained vectors before the prompt.

    Example:
        >>> with ready_to_decode(policy) as plain_model:  # doctest: +SKIP
        ...     completions = decode(plain_model, tokenizer, prompts, owners, sampling)
    """
    if isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning:
        raise InputError(
            "completions cannot be sampled from a model with prompt tuning or prefix tuning: use LoRA, or the model's "
            "own generate()"
        )
    adapted = adapted_layers(model)
    if not adapted or not all(map(is_plain_lora, adapted)):
        yield model
        return
    before = [
        (layer, layer.base_layer.weight.data)
        for layer in adapted
        if layer.base_layer.weight.dtype == torch.float32
    ]
    try:
        for layer, weight in before:
            layer.base_layer.weight.data = _merged_weight(layer, weight)
            # Not enable_adapters(False): that also sets requires_grad of every adapter weight to False.
            layer._disable_adapters = True
        yield model.get_base_model() if isinstance(model, PeftModel) else model
    finally:
        for layer, weight in before:
            layer.base_layer.weight.data = weight
            layer._disable_adapters = False


def adapted_layers(model: torch.nn.Module) -> list[Any]:
    """The layers whose output an adapter changes; layers whose adapter is disabled are not among them."""
    adapter_types = (BaseTunerLayer, AuxiliaryTrainingWrapper)
    return [m for m in model.modules() if isinstance(m, adapter_types) and not m.disable_adapters]


def is_plain_lora(layer: Any) -> bool:
    """Whether the layer is W x + B A x, with a separate W that is an ordinary linear layer."""
    plain = type(layer) is LoraLinear and type(layer.base_layer) is torch.nn.Linear and not layer.merged
    return plain and not layer.lora_variant and not any(layer.lora_bias.values())


def active_lora(layer: Any) -> list[tuple[Tensor, Tensor, float]]:
    """Return A (r, in), B (out, r) and the scaling of their product, for each active adapter of a plain LoRA layer."""
    return [
        (layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name])
        for name in layer.active_adapters
        if name in layer.lora_A  # another adapter may have other target modules
    ]


@torch.no_grad()
def _merged_weight(layer: Any, weight: Tensor) -> Tensor:
    for name in layer.active_adapters:
        if name in layer.lora_A:
            weight = weight + layer.get_delta_weight(name).to(weight.dtype)
    return weight
