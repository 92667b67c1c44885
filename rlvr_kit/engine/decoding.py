"""Reads the prompts once, then decodes many completions together, one token a step.

A row is a completion that is being written. A decoding step multiplies every weight matrix by a matrix that has one
column for each row. The step of a Llama or Qwen2 layer is written out here for that layout: on a CPU the product W x is
faster than xᵀ Wᵀ when x has few columns, and less time is lost between the products than in transformers' modules. The
keys and values of the beginning that all prompts share are stored once for all rows.
"""

from collections.abc import Sequence
from os.path import commonprefix
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlvr_kit.engine.adapters import adapted_layers, is_plain_lora, ready_to_decode
from rlvr_kit.engine.prompt_tree import prompt_tree, tree_attended, tree_inputs, unsupported_reason
from rlvr_kit.engine.stacked_layers import StackedLayers
from rlvr_kit.machine import release_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TreeRecorder:
    """Collects the keys and values of a packed prompt tree while the model reads it.

    It takes the place of a transformers cache: a Llama or Qwen2 attention layer calls only its ``update``.
    """

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []

    def update(
        self, keys: Tensor, values: Tensor, layer: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        self.layers.append((keys, values))
        return keys, values

    def get_seq_length(self, *args: Any) -> int:
        return 0


def reason_not_to_share(model: Any) -> str | None:
    """Return why :class:`SharedRows` cannot decode with this model, or None if it can."""
    from peft import PeftModel

    head = model.get_output_embeddings()
    if getattr(model, "hf_quantizer", None) is not None:
        return "its weights are quantized"
    if isinstance(model, PeftModel) or not all(map(is_plain_lora, adapted_layers(model))):
        return "its adapter is more than LoRA on linear layers"
    if head.weight.dtype != model.dtype or "forward" in vars(head):
        return "its last layer works in another number format than the others"
    return unsupported_reason(model.config)


def layer_stacks(model: Any) -> list[tuple[StackedLayers, ...]]:
    """For each layer of the model: what reads its input, what writes attention's output, and the same of its MLP."""
    return [
        (
            StackedLayers([attention.q_proj, attention.k_proj, attention.v_proj]),
            StackedLayers([attention.o_proj]),
            StackedLayers([mlp.gate_proj, mlp.up_proj]),
            StackedLayers([mlp.down_proj]),
        )
        for attention, mlp in ((layer.self_attn, layer.mlp) for layer in model.base_model.layers)
    ]


def move_weights(model: Any) -> None:
    """Do now what the first decoding would do: put frozen bfloat16 weights next to each other.

    Before training the memory that they leave goes back to the system. Later it would stay as holes between what
    training allocates, which raised the peak of a run by a fifth of a gigabyte.
    """
    if model.dtype == torch.bfloat16:
        with ready_to_decode(model) as policy:
            if reason_not_to_share(policy) is None:
                layer_stacks(policy)
        release_memory()


def _normalized(norm: Any, x: Tensor) -> Tensor:
    """Return RMSNorm over the first dimension of x (D, R), computed in float32 as in transformers."""
    exact = x.float()
    scale = exact.square().mean(dim=0).add_(norm.variance_epsilon).rsqrt_()
    return norm.weight[:, None] * (exact * scale).to(x.dtype)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return x (H, D, R) rotated by its position; cos and sin are (D, R), and the first half of sin is negated."""
    return torch.addcmul(x * cos, x.roll(x.shape[1] // 2, dims=1), sin)


class SharedRows:
    """R completions that are being written: row r continues prompt ``owners[r]``.

    The beginning common to all prompts goes through the model once, and the rest of each prompt as a branch of it.
    ``logits`` (R, V) are those of the next tokens, in bfloat16 less a constant for each row (:meth:`_score`).
    ``common[layer]`` holds the keys and values (H_kv, C, D) of the common beginning. ``own[layer]`` holds those of each
    row (R, H_kv, room, D), of which the first ``length`` places are in use. Rows are aligned at the right, so a row
    with a shorter prompt begins with empty places; ``mask`` (R, 1, 1, room), additive, hides them.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        prompts: Sequence[Sequence[int]],
        owners: list[int],
        max_new_tokens: int,
    ) -> None:
        self.model, device, dtype = model, model.device, model.dtype
        self.stacks = layer_stacks(model)
        common = len(commonprefix([list(prompt) for prompt in prompts]))
        rests = [(0, prompt[common:]) for prompt in prompts]
        tree = prompt_tree([prompts[0][:common]], rests, device=device)
        recorder = TreeRecorder()
        with tree_attended(model):
            inputs = tree_inputs(tree, model.config, dtype)
            hidden = model.base_model(**inputs, past_key_values=recorder, use_cache=True).last_hidden_state[0]
        # If a prompt is the common beginning and nothing more, it ends at the last common token.
        last = [(span.stop if len(span) else common) - 1 for span in tree.branches]
        ends, head = hidden[[last[owner] for owner in owners]], model.get_output_embeddings()
        self.logits = head(ends)
        self.shift: Tensor | None = None
        if dtype != torch.float32 and type(head) is torch.nn.Linear and head.bias is None:
            self.shift = self.logits.amax(dim=1)
            self._score(ends.t())
        else:
            self.head = StackedLayers([head])

        rows, self.length = len(owners), max(map(len, tree.branches))
        room = self.length + max_new_tokens
        self.positions = torch.tensor([len(prompts[owner]) for owner in owners], device=device)
        self.mask = torch.zeros(rows, 1, 1, room, device=device)
        places = torch.zeros(rows, self.length, dtype=torch.long, device=device)
        for row, owner in enumerate(owners):
            span = tree.branches[owner]
            places[row, self.length - len(span) :] = torch.arange(span.start, span.stop, device=device)
            self.mask[row, ..., : self.length - len(span)] = torch.finfo(torch.float32).min
        self.common = [[part[0, :, :common].contiguous() for part in layer] for layer in recorder.layers]
        self.own = [
            [part.new_empty(rows, part.shape[1], room, part.shape[3]) for part in layer]
            for layer in recorder.layers
        ]
        for buffers, layer in zip(self.own, recorder.layers, strict=True):
            for buffer, part in zip(buffers, layer, strict=True):
                buffer[:, :, : self.length] = part[0][:, places].transpose(0, 1)

    def keep(self, rows: Tensor) -> None:
        """Keep these rows and drop the others."""
        self.own = [[part[rows] for part in layer] for layer in self.own]
        self.mask, self.positions = self.mask[rows], self.positions[rows]
        self.shift = None if self.shift is None else self.shift[rows]

    def write(self, tokens: Tensor) -> None:
        """Append a token (R,) to each row; afterwards ``logits`` are those of the tokens after it."""
        decoder, rows = self.model.base_model, len(tokens)
        x = decoder.embed_tokens(tokens).t().contiguous()
        cos, sin = (part[0].t().contiguous() for part in decoder.rotary_emb(x, self.positions[None]))
        sin[: len(sin) // 2].neg_()
        place, self.length = self.length, self.length + 1
        for index, (layer, stacks) in enumerate(zip(decoder.layers, self.stacks, strict=True)):
            to_attention, from_attention, to_mlp, from_mlp = stacks
            attention, (keys, values) = layer.self_attn, self.own[index]
            heads = to_attention(_normalized(layer.input_layernorm, x)).view(-1, attention.head_dim, rows)
            turned = _rotated(heads[: -keys.shape[1]], cos, sin)
            query, key = turned.split([len(turned) - keys.shape[1], keys.shape[1]])
            keys[:, :, place] = key.permute(2, 0, 1)
            values[:, :, place] = heads[-values.shape[1] :].permute(2, 0, 1)
            x = x + from_attention(self._attend(query * attention.scaling, index))
            gate, up = to_mlp(_normalized(layer.post_attention_layernorm, x)).chunk(2)
            x = x + from_mlp(layer.mlp.act_fn(gate).mul_(up))
        self.positions = self.positions + 1
        self._score(_normalized(decoder.norm, x))

    def _score(self, hidden: Tensor) -> None:
        """Set the logits for the last hidden states (D, R).

        A product in bfloat16 is rounded, and from 16 to 32 such numbers are an eighth apart: the best tokens would
        often be equal. So ``shift``, each row's largest logit of the step before, is taken off inside the product,
        before it is rounded.
        """
        if self.shift is None:
            self.logits = self.head(hidden).t()
        else:
            weight = self.model.get_output_embeddings().weight
            self.logits = torch.addmm(-self.shift[:, None], hidden.t(), weight.t())
            self.shift = (self.shift.float() + self.logits.amax(dim=1).float()).to(hidden.dtype)

    def _attend(self, query: Tensor, layer: int) -> Tensor:
        """Attention of query (H, D, R) over the common beginning and each row's own keys -> (H D, R).

        The common part is one matrix product for all rows, so its keys are read once instead of once for each row.
        """
        common_keys, common_values = self.common[layer]
        keys, values = (part[:, :, : self.length] for part in self.own[layer])
        heads, width, rows = query.shape
        kv_heads, common = common_keys.shape[:2]
        group = heads // kv_heads
        grouped = query.view(kv_heads, group, width, rows)
        # Scores are in float32, as in the loss: from 8 to 16, numbers in bfloat16 are a sixteenth apart.
        exact = grouped.float()
        own_scores = exact.permute(3, 0, 1, 2) @ keys.transpose(2, 3).float() + self.mask[..., : self.length]
        stacked = exact.transpose(2, 3).reshape(kv_heads, group * rows, width)
        common_scores = (stacked @ common_keys.transpose(1, 2).float()).view(kv_heads, group, rows, common)
        scores = torch.cat([common_scores.permute(2, 0, 1, 3), own_scores], dim=-1)
        shares = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
        from_own = shares[..., common:] @ values
        of_common = shares[..., :common].permute(1, 2, 0, 3).reshape(kv_heads, group * rows, common)
        from_common = of_common @ common_values
        mixed = from_common.view(kv_heads, group, rows, width).transpose(2, 3) + from_own.permute(1, 2, 3, 0)
        return mixed.reshape(heads * width, rows)


class PlainRows:
    """Does what :class:`SharedRows` does with the model's own forward pass and cache, which every model has."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], owners: list[int], *_: Any) -> None:
        from transformers import DynamicCache

        self.model, longest = model, max(map(len, prompts))
        ids = torch.zeros(len(owners), longest, dtype=torch.long, device=model.device)
        self.mask = torch.zeros_like(ids)
        for row, owner in enumerate(owners):
            ids[row, longest - len(prompts[owner]) :] = torch.tensor(prompts[owner])
            self.mask[row, longest - len(prompts[owner]) :] = 1
        self.cache = DynamicCache(config=model.config)
        self._read(ids, (self.mask.cumsum(dim=1) - 1).clamp(min=0))

    def _read(self, ids: Tensor, positions: Tensor) -> None:
        self.logits = self.model(
            input_ids=ids, position_ids=positions, attention_mask=self.mask, past_key_values=self.cache,
            use_cache=True, logits_to_keep=1,
        ).logits[:, -1]  # fmt: skip

    def keep(self, rows: Tensor) -> None:
        """Keep these rows and drop the others."""
        self.cache.batch_select_indices(rows)
        self.mask = self.mask[rows]

    def write(self, tokens: Tensor) -> None:
        """Append a token (R,) to each row; afterwards ``logits`` are those of the tokens after it."""
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
        self._read(tokens[:, None], self.mask.sum(dim=1, keepdim=True) - 1)
