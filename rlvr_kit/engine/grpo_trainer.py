"""GRPO with each shared prompt computed once: a small subclass of TRL's GRPOTrainer.

How this departs from GRPO as published (DeepSeekMath, arXiv 2402.03300); the first two are TRL's defaults:
- The loss is DAPO's (arXiv 2503.14476): a mean over all tokens of a step, so a long completion weighs more than a
  short one. The paper takes the mean of each completion first (``loss_type: grpo``).
- There is no KL term unless ``beta`` says so.

How it departs from stock TRL:
- Prompts and completions are laid out as a tree (prompt_tree.py), so a token that several completions share goes
  through the model once, forwards and backwards.
- A group whose rewards are all equal has advantage 0, so its loss has no gradient. It is left out of the loss pass;
  its entropy, which is logged, was measured when it was sampled. One completion always stays in the pass, so that
  every weight has a gradient, if only of zeros, and the optimizer makes the step that stock TRL makes.
- Completions are regrouped by prompt into the same number of loss passes, groups without signal last.
- Groups without signal are drawn again with another problem where ``redraws`` says so (redraw.py).
- Sampling may end at a stop string (``stop``). The completion is cut before it, and an end token is appended,
  because TRL only recognises the end of a completion by a final end token. That token was not sampled, so it
  is excluded from the loss (through ``tool_mask``, as TRL excludes the answers of tools). TRL's length metrics count
  it.

- In bfloat16 on a CPU, LoRA and the attention of short prompts are multiplied in bfloat16 (lora_products.py,
  score_attention.py). Weights, gradients, log-probabilities and loss stay in float32. tests/engine/test_bfloat16.py
  states how closely sampling and loss agree.

Everything else is exact: with equal completions the weights, after several steps, and the logged metrics are those of
stock TRL to rounding (tests/engine/test_options.py). Where that would cost more than it brings, the trainer does less:
- no group is left out with ``beta``, an entropy bonus or ``top_entropy_quantile``, and none where completions are used
  for more than one update (``num_iterations``, ``steps_per_generation``);
- nor is anything regrouped then, nor where the loss or its metrics depend on which rows share a pass (``bnpo``,
  ``cispo``, ``sapo``, ``vespo``).
Under options that it does not know (fallback.py has the list) it steps aside: everything is stock TRL's, and one line
of the log says why (``fallback_reason``).
"""

from typing import Any

import torch
from torch import Tensor
from trl.trainer.utils import split_tensor_dict

from rlvr_kit.engine.prompt_tree import prompt_tree
from rlvr_kit.engine.token_logps import branch_logps
from rlvr_kit.engine.trainer_sampling import SharedPrefixSampler, distinct

#: Losses that are the same however the completions of a step are spread over its loss passes.
REGROUPED_LOSSES = ("dapo", "grpo", "dr_grpo", "luspo")


def _loss_mask(inputs: dict[str, Tensor]) -> Tensor:
    """Return (B, T) with 1 for each token that is in the loss, and 0 for the others."""
    return inputs["completion_mask"] * inputs.get("tool_mask", 1)


class SharedPrefixGRPOTrainer(SharedPrefixSampler):
    """``trl.GRPOTrainer`` that computes shared prompts once and leaves out groups without signal.

    ``fallback_reason`` says why it leaves everything to stock TRL, or is None. ``stop`` (empty at first) holds the
    strings before which a completion ends; stock TRL has no such thing, so they are not used after stepping aside.
    ``redraws`` (0 at first) is how often groups without signal are drawn again (redraw.py).

    Example:
        >>> SharedPrefixGRPOTrainer(model=policy, reward_funcs=rewards, args=config, ...)  # doctest: +SKIP
    """

    _buffered_inputs: Any  # TRL's: the sampled completions, a dict for each loss pass

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._has_signal: Tensor | None = None  # (B,) while a loss pass may leave rows out, else None
        self._entropies: Tensor | None = None  # (B, T) of the last loss pass

    def _may_leave_out(self, inputs: dict[str, Any]) -> bool:
        """Whether rows of advantage 0 change neither gradients nor metrics, except for the entropy."""
        other_terms = self.beta != 0.0 or self._entropy_bonus_enabled or self.top_entropy_quantile < 1.0
        # TRL computes old log-probabilities where the policy may have changed since sampling.
        changed = "old_per_token_logps" in inputs
        return not (self.fallback_reason or other_terms or changed) and inputs["advantages"].dim() == 1

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """As TRL's, with whole groups in each loss pass. Gradients are summed before the update: order is free."""
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        passes = self._buffered_inputs
        if passes is before or self.loss_type not in REGROUPED_LOSSES or not self._may_leave_out(passes[0]):
            return inputs
        self._buffered_inputs = self._regrouped(passes)
        return self._buffered_inputs[self._step % len(passes)]

    def _regrouped(self, passes: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """The rows regrouped by prompt into the same number of passes, groups without signal last.

        TRL logs the mean over passes of each pass's mean entropy. So that this stays the same, every row keeps
        ``entropy_share``: one over the number of tokens in the pass that it came from, over all processes.
        """
        tokens = self.accelerator.reduce(torch.stack([_loss_mask(rows).sum() for rows in passes]), "sum")
        for rows, count in zip(passes, tokens.clamp(min=1), strict=True):
            rows["entropy_share"] = torch.ones_like(rows["advantages"]) / count
        rows = {
            key: torch.cat([each[key] for each in passes]) if value.dim() else value
            for key, value in passes[0].items()
        }
        idle, prompts = (rows["advantages"] == 0).tolist(), rows["prompt_ids"].tolist()
        order = sorted(range(len(prompts)), key=lambda row: (idle[row], prompts[row]))
        rows = {key: value[order] if value.dim() else value for key, value in rows.items()}
        return split_tensor_dict(rows, len(passes))

    def _compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any]) -> Tensor:
        if self.model.training and self._may_leave_out(inputs):
            self._has_signal = inputs["advantages"] != 0
        try:
            loss = super()._compute_loss(model, inputs)
        finally:
            self._has_signal = None
        if "entropy_share" in inputs:
            entropy = (self._entropies * _loss_mask(inputs)).sum(dim=1) @ inputs["entropy_share"]
            self._metrics["train"]["entropy"][-1] = self.accelerator.reduce(entropy, "sum").item()
        return loss

    def _get_per_token_logps_and_entropies(
        self, model: torch.nn.Module, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int,
        batch_size: int | None = None, compute_entropy: bool = False, **others: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
        stock = super()._get_per_token_logps_and_entropies
        if self.fallback_reason:
            return stock(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **others
            )
        logps, entropies = [], []
        size = batch_size or len(input_ids)
        for ids, mask in zip(input_ids.split(size), attention_mask.split(size), strict=True):
            # Where every completion is masked there is no tree. Stock TRL keeps the weights in the backward pass.
            if mask[:, -logits_to_keep:].any():
                found = self._tree_logps(model, ids, mask.bool(), logits_to_keep)
            else:
                found = stock(model, ids, mask, logits_to_keep, compute_entropy=True)[:2]
            logps.append(found[0])
            entropies.append(found[1])
        if not compute_entropy:
            return torch.cat(logps), None, None
        self._entropies = torch.cat(entropies)
        return torch.cat(logps), self._entropies, None

    def _rows_to_compute(self, input_ids: Tensor, mask: Tensor, width: int) -> tuple[list[int], Tensor]:
        """The rows that the loss needs, and the sampled entropies (B, width) of those that are left out."""
        rows = [i for i in range(len(input_ids)) if mask[i, -width:].any()]
        entropies = torch.zeros(len(input_ids), width, device=input_ids.device)
        if self._has_signal is None:
            return rows, entropies
        known = {i: self._sampled_entropy.get(tuple(input_ids[i][mask[i]].tolist())) for i in rows}
        needed = [i for i in rows if self._has_signal[i] or known[i] is None] or rows[:1]
        for i in set(rows) - set(needed):
            entropies[i] = known[i]
        return needed, entropies

    def _tree_logps(
        self, model: torch.nn.Module, input_ids: Tensor, mask: Tensor, width: int
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies (B, width) of the completions, each shared token computed once.

        The last prompt token is copied to every branch, because it predicts a different first token in each.
        """
        rows, entropies = self._rows_to_compute(input_ids, mask, width)
        prompts = [tuple(input_ids[i, :-width][mask[i, :-width]].tolist()) for i in rows]
        completions = [input_ids[i, -width:][mask[i, -width:]].tolist() for i in rows]
        different, owners = distinct(prompts)
        branches = [
            (owner, [prompt[-1], *completion[:-1]])
            for owner, prompt, completion in zip(owners, prompts, completions, strict=True)
        ]
        tree = prompt_tree([prompt[:-1] for prompt in different], branches, device=input_ids.device)
        labels = torch.tensor([token for tokens in completions for token in tokens], device=input_ids.device)
        causal = self.accelerator.unwrap_model(model)
        with self.accelerator.autocast():
            found, found_entropies = branch_logps(
                model, causal, tree, labels, self.temperature, entropy_gradient=self._entropy_bonus_enabled
            )
        # Branches lie behind all prompts, one after the other, and each of their tokens predicts one label.
        lengths = torch.tensor(list(map(len, completions)), device=input_ids.device)
        row = torch.tensor(rows, device=input_ids.device).repeat_interleave(lengths)
        column = torch.cat([torch.arange(len(tokens), device=input_ids.device) for tokens in completions])
        logps = found.new_zeros(len(input_ids), width).index_put((row, column), found)
        if found_entropies is not None:  # the reference model has none
            entropies = entropies.index_put((row, column), found_entropies.to(entropies.dtype))
        return logps, entropies
