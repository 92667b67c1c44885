"""LoRA added into the weights while completions are decoded, and taken out again afterwards.

Decoding with separate LoRA weights takes two small matrix products more for each linear layer and token.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper

from rlvr_kit.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def merged_adapter(model: "PreTrainedModel") -> Iterator["PreTrainedModel"]:
    """Yield the model with its active LoRA adapters added into the weights; restore everything afterwards.

    The original weights are kept and put back, also after an error. (Subtracting the adapter again would leave
    rounding errors behind.) It makes no difference whether peft wrapped the model (``get_peft_model``) or transformers
    loaded the adapter into it. A model that has no adapter, or one that is more than LoRA on plain linear layers (4-bit
    layers, DoRA, embeddings), is yielded as it is: its own forward pass applies the adapter.

    Raises:
        InputError: prompt or prefix tuning, which put trained vectors before the prompt.

    Example:
        >>> with merged_adapter(policy) as plain_model:  # doctest: +SKIP
        ...     completions = decode(plain_model, tokenizer, prompts, owners, sampling)
    """
    if isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning:
        raise InputError(
            "completions cannot be sampled from a model with prompt tuning or prefix tuning: use LoRA, or the model's "
            "own generate()"
        )
    adapted = adapted_layers(model)
    if not adapted or not all(map(_is_plain_lora, adapted)):
        yield model
        return
    before = [(layer, layer.base_layer.weight.data) for layer in adapted]
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


def _is_plain_lora(layer: Any) -> bool:
    """Whether the layer is W x + B A x, with a separate W that is an ordinary linear layer."""
    plain = type(layer) is LoraLinear and type(layer.base_layer) is torch.nn.Linear and not layer.merged
    return plain and not layer.lora_variant and not any(layer.lora_bias.values())


@torch.no_grad()
def _merged_weight(layer: Any, weight: torch.Tensor) -> torch.Tensor:
    for name in layer.active_adapters:
        if name in layer.lora_A:  # another adapter may have other target modules
            weight = weight + layer.get_delta_weight(name).to(weight.dtype)
    return weight
