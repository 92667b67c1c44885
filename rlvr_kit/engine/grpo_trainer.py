"""GRPO with each shared prompt computed once: a small subclass of TRL's GRPOTrainer.

Two of TRL's steps are replaced, and nothing else: sampling a batch's completions, and the per-token log-probabilities
in the loss. Both lay prompts and completions out as a tree (prompt_tree.py), so a token that several completions share
goes through the model once, forwards and backwards. The numbers are those of stock TRL, to rounding.
"""

from typing import Any

import torch
from accelerate.logging import get_logger
from torch import Tensor
from trl import GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from rlvr_kit.engine.decoding import merged_adapter
from rlvr_kit.engine.prompt_tree import (
    PromptTree,
    prompt_tree,
    tree_inputs,
    unsupported_reason,
    use_tree_attention,
)
from rlvr_kit.engine.sampling import decode
from rlvr_kit.engine.token_logps import hidden_states_as_logits, logits_only_from, token_logps
from rlvr_kit.sampling_settings import SamplingSettings

logger = get_logger(__name__)


def _distinct(prompts: list[tuple[int, ...]]) -> tuple[list[tuple[int, ...]], list[int]]:
    """The different prompts, and for each given one which of them it is."""
    number = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
    return list(number), [number[prompt] for prompt in prompts]


def _groups_together(batches: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """The rows of all batches in as many batches again, those of one prompt beside each other, idle groups last."""
    idle = [advantage == 0 for batch in batches for advantage in batch["advantages"].tolist()]
    prompts = [ids for batch in batches for ids in batch["prompt_ids"].tolist()]
    order = sorted(range(len(prompts)), key=lambda row: (idle[row], prompts[row]))
    rows = {
        key: torch.cat([batch[key] for batch in batches])[order] if value.dim() else value
        for key, value in batches[0].items()
    }
    return split_tensor_dict(rows, len(batches))


class SharedPrefixGRPOTrainer(GRPOTrainer):
    """``trl.GRPOTrainer`` that computes shared prompts once and skips groups that teach nothing.

    A group whose rewards are all equal has advantage 0 for every completion; with ``beta`` 0 and no entropy bonus its
    loss has no gradient, so its loss pass is left out.

    Example:
        >>> SharedPrefixGRPOTrainer(model=policy, reward_funcs=rewards, args=config, ...)  # doctest: +SKIP
    """

    _buffered_inputs: Any  # TRL's: the sampled completions, a dict for each loss pass

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stop: list[str] = []
        self._has_signal: Tensor | None = None
        self._sampled_entropy: dict[tuple[int, ...], float] = {}
        self.fallback_reason = self._find_fallback_reason()
        if self.fallback_reason:
            logger.warning("shared prompts are not computed once here: %s", self.fallback_reason)
        else:
            use_tree_attention(self.model)

    def _find_fallback_reason(self) -> str | None:
        if self.use_vllm:
            return "vLLM generates, and shares prefixes itself"
        if self.use_transformers_continuous_batching or self.rollout_func is not None or self.tools:
            return "completions come from another generator"
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return "weights are sharded over processes"
        return unsupported_reason(self.model.config)

    def _generate_single_turn(
        self, prompt_ids: list, images: Any, multimodal_fields: dict, *args: Any
    ) -> tuple:
        if self.fallback_reason or images or multimodal_fields:
            return super()._generate_single_turn(prompt_ids, images, multimodal_fields, *args)
        prompts, owners = _distinct([tuple(ids) for ids in prompt_ids])
        model = self.accelerator.unwrap_model(self.model_wrapped)
        model.eval()
        with merged_adapter(model) as policy:
            completions = decode(
                policy, self._tokenizer, prompts, owners,
                SamplingSettings(
                    max_new_tokens=self.max_completion_length, temperature=self.temperature, top_p=self.top_p,
                    top_k=self.top_k, stop=tuple(self.stop),
                ),
            )  # fmt: skip
        model.train()
        # One that was cut before a stop string has ended, which TRL sees by nothing but its last token.
        end = [self._tokenizer.eos_token_id]
        written = [
            c.ids + end if self.stop and not c.truncated and c.ids[-1:] != end else c.ids for c in completions
        ]
        sampled = zip(prompt_ids, written, completions, strict=True)
        self._sampled_entropy = {(*prompt, *ids): c.entropy for prompt, ids, c in sampled}
        return written, None

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """Give each loss pass whole groups. Their gradients are summed before the update, so order is free."""
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        passes = self.args.steps_per_generation
        sampled = self._buffered_inputs is not before
        if sampled and passes == self.args.gradient_accumulation_steps and not self.fallback_reason:
            self._buffered_inputs = _groups_together(self._buffered_inputs)
            inputs = self._buffered_inputs[self._step % passes]
        return inputs

    def _compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any]) -> Tensor:
        without_gradient = self.beta == 0.0 and not self._entropy_bonus_enabled
        self._has_signal = (
            inputs["advantages"] != 0 if without_gradient and inputs["advantages"].dim() == 1 else None
        )
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self._has_signal = None

    def _get_per_token_logps_and_entropies(
        self, model: torch.nn.Module, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, *args: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
        beyond_text = {
            k: v for k, v in kwargs.items() if k not in ("batch_size", "compute_entropy") and v is not None
        }
        # Where all is cut off and masked there is no tree, but the weights must take part in every process's pass.
        empty = not attention_mask[:, -logits_to_keep:].any()
        if self.fallback_reason or beyond_text.pop("compute_aux_loss", False) or beyond_text or empty:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
            )
        return self._tree_logps(model, input_ids, attention_mask.bool(), logits_to_keep)

    def _tree_logps(
        self, model: torch.nn.Module, input_ids: Tensor, mask: Tensor, width: int
    ) -> tuple[Tensor, Tensor, None]:
        """Log-probabilities and entropies (B, width) of the completions, each shared token computed once.

        The last prompt token is copied to every branch, because it predicts a different first token in each.
        """
        rows = [i for i in range(len(input_ids)) if mask[i, -width:].any()]
        logps = torch.zeros(
            len(input_ids), width, device=input_ids.device, requires_grad=torch.is_grad_enabled()
        )
        # What is not computed below was still sampled, and its entropy with it: the metric covers every completion.
        entropies = torch.zeros(len(input_ids), width, device=input_ids.device)
        for i in rows:
            entropies[i] = self._sampled_entropy.get(tuple(input_ids[i][mask[i]].tolist()), 0.0)
        if self._has_signal is not None:
            teaching = [i for i in rows if self._has_signal[i]]
            # Every process of a distributed run must take part in the backward pass, so one row stays there.
            rows = teaching or (rows[:1] if self.accelerator.num_processes > 1 else [])
        if not rows:
            return logps, entropies, None
        prompts = [tuple(input_ids[i, :-width][mask[i, :-width]].tolist()) for i in rows]
        completions = [input_ids[i, -width:][mask[i, -width:]].tolist() for i in rows]
        distinct, owners = _distinct(prompts)
        branches = [
            (owner, [prompt[-1], *completion[:-1]])
            for owner, prompt, completion in zip(owners, prompts, completions, strict=True)
        ]
        tree = prompt_tree([prompt[:-1] for prompt in distinct], branches, device=input_ids.device)
        # Branches lie behind all prompts, and each of their tokens predicts one of a completion.
        first, device = tree.branches[0].start, tree.ids.device
        labels = torch.tensor([token for completion in completions for token in completion], device=device)
        token_logprobs, token_entropies = self._branch_logps(model, tree, first, labels)
        logps = logps.to(token_logprobs.dtype)
        for i, span in zip(rows, tree.branches, strict=True):
            own = slice(span.start - first, span.stop - first)
            place = (torch.tensor(i), torch.arange(len(span)))
            logps = logps.index_put(place, token_logprobs[own])
            entropies = entropies.index_put(place, token_entropies[own].to(entropies.dtype))
        return logps, entropies, None

    def _branch_logps(
        self, model: torch.nn.Module, tree: PromptTree, first: int, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies of the labels, one for each token of the tree from ``first`` on."""
        causal = self.accelerator.unwrap_model(model)
        causal = causal.get_base_model() if hasattr(causal, "get_base_model") else causal
        head = causal.get_output_embeddings()
        # Where its weights are trained, or Triton is at hand, TRL's own chunked head does the same.
        frozen = type(head) is torch.nn.Linear and head.bias is None and not head.weight.requires_grad
        with self.accelerator.autocast():
            autocast = torch.is_autocast_enabled(labels.device.type)
            dtype = torch.get_autocast_dtype(labels.device.type) if autocast else causal.dtype
            inputs = tree_inputs(tree, causal.config, dtype)
            if frozen and labels.device.type == "cpu" and not self._entropy_bonus_enabled:
                with hidden_states_as_logits(causal):
                    hidden = model(**inputs, use_cache=False, logits_to_keep=len(labels)).logits[0]
                return token_logps(hidden, head.weight, labels, self.temperature)
            with logits_only_from(first, causal):
                outputs = model(**inputs, shift_labels=labels[None], fused_lm_head=True)
        return outputs.log_probs[0], outputs.entropy[0]
