"""The half of the trainer that samples (grpo_trainer.py computes the loss): each shared prompt goes through once."""

from typing import Any

from accelerate.logging import get_logger
from trl import GRPOTrainer

from rlvr_kit.engine.adapters import ready_to_decode
from rlvr_kit.engine.decoding import move_weights
from rlvr_kit.engine.fallback import fallback_reason
from rlvr_kit.engine.lora_products import multiply_lora_as_the_base
from rlvr_kit.engine.prompt_tree import use_tree_attention
from rlvr_kit.engine.redraw import draw_with_signal
from rlvr_kit.engine.sampling import Completion, decode
from rlvr_kit.sampling_settings import SamplingSettings

logger = get_logger(__name__)


def distinct(prompts: list[tuple[int, ...]]) -> tuple[list[tuple[int, ...]], list[int]]:
    """Return the different prompts, and for each given prompt which of them it is."""
    number = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
    return list(number), [number[prompt] for prompt in prompts]


class SharedPrefixSampler(GRPOTrainer):
    """``trl.GRPOTrainer`` that samples with the kit's decoding, or steps aside for TRL's (``fallback_reason``)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stop: list[str] = []
        self.redraws = self.redrawn = 0  # rounds at most, and completions that were sampled in them so far
        self._drawn: list[Completion] = []  # sampled before TRL asks for them (redraw.py)
        self._end_appended: list[bool] = []  # for each completion: whether its last token was not sampled
        # Mean entropy of a completion's tokens, by prompt + completion.
        self._sampled_entropy: dict[tuple[int, ...], float] = {}
        self.fallback_reason = fallback_reason(self)
        if self.fallback_reason:
            logger.warning("the fast trainer steps aside for stock TRL: %s", self.fallback_reason)
            return
        use_tree_attention(self.model)
        multiply_lora_as_the_base(self.model)
        move_weights(self.model)
        if self.ref_model is not None:
            use_tree_attention(self.ref_model)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """As TRL's; with ``redraws`` it gets rows whose completions are already sampled."""
        if self.redraws and self.model.training:
            inputs, self._drawn = draw_with_signal(self, inputs)
        return super()._generate_and_score_completions(inputs)

    def sample(self, prompts: list) -> list[Completion]:
        """Sample a completion for each of this process's prompts, which are texts or lists of messages."""
        return self._sample(self._tokenize_prompts(prompts)[0])

    def _sample(self, prompt_ids: list) -> list[Completion]:
        prompts, owners = distinct([tuple(ids) for ids in prompt_ids])
        sampling = SamplingSettings(
            max_new_tokens=self.max_completion_length, temperature=self.temperature, top_p=self.top_p,
            top_k=self.top_k, stop=tuple(self.stop),
        )  # fmt: skip
        model = self.accelerator.unwrap_model(self.model_wrapped)
        training = model.training
        model.eval()
        try:
            with ready_to_decode(model) as policy:
                return decode(policy, self._tokenizer, prompts, owners, sampling)
        finally:
            model.train(training)

    def _end_missing(self, completion: Completion) -> bool:
        """Whether the completion was cut before a stop string, so that TRL would not see that it has ended."""
        return not completion.truncated and completion.ids[-1] not in self.eos_token_ids

    def written(self, completion: Completion) -> list[int]:
        """Return the completion's tokens as TRL gets them: with an end token where it has ended."""
        return completion.ids + [self._tokenizer.eos_token_id] * self._end_missing(completion)

    def _generate_single_turn(
        self, prompt_ids: list, images: Any, multimodal_fields: dict, *args: Any, **kwargs: Any
    ) -> tuple:
        if self.fallback_reason:
            return super()._generate_single_turn(prompt_ids, images, multimodal_fields, *args, **kwargs)
        completions, self._drawn = self._drawn or self._sample(prompt_ids), []
        self._end_appended = [self._end_missing(completion) for completion in completions]
        written = [self.written(completion) for completion in completions]
        sampled = zip(prompt_ids, written, completions, strict=True)
        self._sampled_entropy = {(*prompt, *ids): c.entropy for prompt, ids, c in sampled}
        return written, None

    def _generate(self, prompts: list) -> tuple:
        """As TRL's; the third value is ``tool_mask``, which excludes appended end tokens from the loss."""
        self._end_appended = []
        prompt_ids, completion_ids, tool_mask, *others = super()._generate(prompts)
        if any(self._end_appended):
            tool_mask = [
                [1] * (len(ids) - appended) + [0] * appended
                for ids, appended in zip(completion_ids, self._end_appended, strict=True)
            ]
        return prompt_ids, completion_ids, tool_mask, *others
