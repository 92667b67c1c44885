"""A model served by vLLM, for evaluation on a GPU: vLLM batches the prompts and shares their beginnings by itself."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rlvr_kit.engine.sampling import Completion, prompt_token_ids
from rlvr_kit.number_format import pick_dtype
from rlvr_kit.sampling_settings import SamplingSettings


def vllm_model(name: str, dtype: str = "auto") -> tuple[Any, Callable[..., None]]:
    """What :func:`evaluate` takes as its model, and as ``generate`` (which is called as engine.sampling.generate is).

    ``dtype`` is the format to compute in, as :func:`pick_dtype` takes it. vLLM's own choice for float32 is float16.

    >>> model, generate = vllm_model("runs/latest/model")  # doctest: +SKIP
    """
    from vllm import LLM, SamplingParams

    engine = LLM(model=name, dtype=str(pick_dtype(dtype)).removeprefix("torch."), enable_prefix_caching=True)

    def generate(
        _: Any,
        tokenizer: Any,
        prompts: list[str],
        sampling: SamplingSettings,
        *,
        on_batch: Callable[[dict[int, list[Completion]]], None],
    ) -> None:
        ids = prompt_token_ids(tokenizer, prompts)
        params = SamplingParams(
            temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k, stop=list(sampling.stop),
            n=sampling.samples, max_tokens=sampling.max_new_tokens, seed=sampling.seed,
        )  # fmt: skip
        answers = engine.generate([{"prompt_token_ids": prompt} for prompt in ids], params)
        for i, answer in enumerate(answers):
            texts = [
                Completion(o.text, list(o.token_ids), o.finish_reason == "length") for o in answer.outputs
            ]
            on_batch({i: texts})

    saved = [name, *(file.stat().st_mtime for file in sorted(Path(name).glob("*.safetensors")))]
    return SimpleNamespace(name_or_path=name, saved=saved, parameters=list), generate
