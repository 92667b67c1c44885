"""Completions by plain ``transformers`` generation, as a stranger with the exported folder would get them.

The kit's engine takes no part: the model's own ``generate`` answers one prompt at a time. So when these answers equal
those of the kit, the folder holds everything that the answers depend on.
"""

from collections.abc import Callable
from typing import Any

import torch

from rlvr_kit.engine.sampling import Completion
from rlvr_kit.errors import InputError
from rlvr_kit.sampling_settings import SamplingSettings, cut_at_stop


@torch.inference_mode()
def plain_generate(
    model: Any,
    tokenizer: Any,
    prompts: list[str],
    sampling: SamplingSettings,
    *,
    on_batch: Callable[[dict[int, list[Completion]]], None],
) -> None:
    """Write greedy answers with ``transformers`` alone, for the option ``generate`` of :func:`rlvr_kit.evaluate`.

    Raises:
        UserError: the settings ask for sampling.

    >>> evaluate(model, tokenizer, problems, template, label="plain", generate=plain_generate)  # doctest: +SKIP
    """
    if sampling.temperature or sampling.samples != 1:
        raise InputError("plain_generate is greedy: give it temperature 0 and one sample")
    for i, prompt in enumerate(prompts):
        inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).to(model.device)
        written = model.generate(
            **inputs, do_sample=False, max_new_tokens=sampling.max_new_tokens,
            stop_strings=list(sampling.stop) or None, tokenizer=tokenizer,
        )[0, inputs["input_ids"].shape[1] :].tolist()  # fmt: skip
        text, stopped = cut_at_stop(tokenizer.decode(written, skip_special_tokens=True), sampling.stop)
        ends = model.generation_config.eos_token_id
        ended = written[-1] in (ends if isinstance(ends, list) else [ends])
        on_batch({i: [Completion(text, written, truncated=not (ended or stopped))]})
