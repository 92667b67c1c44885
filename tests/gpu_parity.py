"""Log-probabilities and gradients of the prompt tree against stock TRL's, on this machine's device."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from one_step import Step, logps_and_gradients, make_trainer, relative

from rlvr_kit.bundled_model import quiet
from rlvr_kit.engine.prompt_tree import SUPPORTED_MODEL_TYPES

#: In float32 the tree may differ from stock TRL by this share. In bfloat16 both round, so there its distance from
#: float32 may be at most this many times that of stock TRL.
FLOAT32_LIMIT, BFLOAT16_LIMIT = 1e-3, 2.0

Row = dict[str, Any]


def random_model(folder: str, kind: str, sizes: tuple[int, ...], tokenizer_of: str = "tiny-random") -> str:
    """Save a model with random weights and the tokenizer of another model, and return its folder."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from rlvr_kit.models import load_tokenizer

    sizes_of = (
        "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads vocab_size"
    )
    tokenizer, target = load_tokenizer(tokenizer_of), Path(folder) / f"{kind}-{sizes[0]}"
    config = AutoConfig.for_model(
        kind, **dict(zip(sizes_of.split(), sizes, strict=True)), max_position_embeddings=8192,
        tie_word_embeddings=True, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    with quiet():
        AutoModelForCausalLM.from_config(config).save_pretrained(target)
    tokenizer.save_pretrained(target)
    return str(target)


def padded_rows(device: Any) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Make ids and mask of two prompts with the same beginning, each with four completions of different lengths."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 250, (8, 48), generator=draw)
    mask, width = torch.ones_like(ids), 16
    for row in range(8):
        padding = 4 * (row // 4)
        ids[row, :32] = ids[row // 4 * 4, :32]
        ids[row, padding : padding + 20] = ids[0, :20]
        mask[row, :padding] = 0
        mask[row, 34 + 2 * row :] = 0
    return (ids * mask).to(device), mask.to(device), width


def parity(tiny: bool, left: Callable[[], float]) -> Iterator[Row]:
    """Compare the tree with stock TRL in float32; in bfloat16 compare how far each of them is from float32."""
    from trl import GRPOTrainer

    sizes = (32, 64, 2, 4, 2, 512) if tiny else (256, 1024, 4, 8, 2, 32768)

    def found(name: str, dtype: str, lora: bool) -> list[tuple[Any, Any]]:
        """Log-probabilities and gradients of the kit and of stock TRL, with one and the same adapter."""
        step = Step(model=name, dtype=dtype, problems=2, group=4, tokens=16, rows=8, lora=lora)
        trainer = make_trainer("kit", step, 1, folder)
        draw = torch.Generator().manual_seed(0)
        for key, weight in trainer.model.named_parameters():
            if "lora_" in key:
                weight.data.copy_(0.02 * torch.randn(weight.shape, generator=draw))
        ids, mask, width = padded_rows(trainer.model.device)
        return [
            logps_and_gradients(trainer, cls, ids, mask, width, 8) for cls in (type(trainer), GRPOTrainer)
        ]

    with tempfile.TemporaryDirectory() as folder:
        for kind in SUPPORTED_MODEL_TYPES:
            name = random_model(folder, kind, sizes)
            for lora in (True, False):
                exact = found(name, "float32", lora)
                for dtype in ("float32", "bfloat16"):
                    kit, stock = exact if dtype == "float32" else found(name, dtype, lora)
                    off = [
                        [relative(a, b) for a, b in zip(side, exact[1], strict=True)] for side in (kit, stock)
                    ]
                    limits = [max(FLOAT32_LIMIT, BFLOAT16_LIMIT * error) for error in off[1]]
                    yield {
                        "model": kind, "trained": "LoRA" if lora else "every weight", "format": dtype,
                        "log-probabilities off": off[0][0], "stock TRL's off": off[1][0],
                        "gradients off": off[0][1], "stock TRL's gradients off": off[1][1],
                        "ok": all(error <= limit for error, limit in zip(off[0], limits, strict=True)),
                    }  # fmt: skip
