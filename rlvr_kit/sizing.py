"""What a recipe takes: tokens of its prompts, memory by part, seconds of a step. planning.py judges them."""

import contextlib
import ctypes
import io
import resource
import sys
import tempfile
import time
from os.path import commonprefix
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rlvr_kit import UserError
from rlvr_kit.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PretrainedConfig

GIB = 2**30
#: Python, torch, transformers and TRL before any model, resident on a CPU (measured).
LIBRARIES = 0.6 * GIB
#: hidden, intermediate, layers, heads, key-value heads of the GPU recipes' models: to plan without the Hub.
QWEN = {
    "Qwen/Qwen2.5-0.5B": (896, 4864, 24, 14, 2),
    "Qwen/Qwen2.5-0.5B-Instruct": (896, 4864, 24, 14, 2),
    "Qwen/Qwen2.5-1.5B-Instruct": (1536, 8960, 28, 12, 2),
}


def model_config(recipe: Recipe) -> tuple["PretrainedConfig", bool]:
    """The model's sizes without its weights, and whether they are the model's own or this module's table.

    Raises:
        UserError: neither the Hub, nor its cache, nor a folder has them.
    """
    from transformers import AutoConfig, Qwen2Config

    from rlvr_kit.models import find_model, load_policy

    name = recipe.model.name
    if name == "tiny-random":
        return load_policy(name).config, True
    try:
        source = find_model(name, recipe.model.revision)
        return AutoConfig.from_pretrained(source, revision=recipe.model.revision), True
    except UserError:
        if name not in QWEN:
            raise
    except (OSError, ValueError) as error:
        if name not in QWEN:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"the sizes of model {name!r} cannot be read: {reason}") from None
    hidden, intermediate, layers, heads, kv_heads = QWEN[name]
    return Qwen2Config(
        hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, vocab_size=151936,
        max_position_embeddings=32768, tie_word_embeddings=True,
    ), False  # fmt: skip


def prompt_tokens(recipe: Recipe, guess: bool = False) -> dict[str, int]:
    """Tokens of the training prompts as the model gets them: ``median``, ``longest``, ``shared`` by all.

    Counted on the 100 longest questions and an even sample of the others. ``guess``, for want of a tokenizer:
    three characters a token, which is about what prompts with worked examples from GSM8K come to.
    """
    from rlvr_kit.models import load_tokenizer

    questions = sorted(recipe.training_problems()["question"], key=len, reverse=True)
    questions = questions[:100] + questions[100 :: max(1, len(questions) // 200)]
    template = recipe.template()
    tokenizer = None if guess else load_tokenizer(recipe.model.name, recipe.model.revision)
    texts = [template.render(tokenizer, question) for question in questions]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"] if tokenizer else [t[::3] for t in texts]
    lengths = sorted(map(len, ids))
    shared = len(commonprefix([list(each) for each in ids]))
    return {"median": int(median(lengths)), "longest": lengths[-1], "shared": shared}


def memory_by_part(
    recipe: Recipe, config: "PretrainedConfig", tokens: dict[str, int], rows: int, sampled: int,
    group: int, gpu: bool = False,
) -> tuple[dict[str, float], dict[str, int]]:  # fmt: skip
    """GiB on one device at worst, by part and "at once"; and the parameters, ``all`` and ``trained``.

    ``rows`` completions are in one loss pass, ``sampled`` are sampled at once in groups of ``group``.
    ``gpu``: on a GPU, whatever machine this is, which is not measured here. On a CPU the peaks of five runs of
    SmolLM2-135M with LoRA (16 and 32 rows, 24 and 48 tokens, 0, 2 and 8 shots) were between 25 % below and 3 % above
    the estimate; a notebook that had also evaluated and timed a step in the same process held 0.5 GiB more than it.
    """
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    from rlvr_kit.models import pick_dtype
    from rlvr_kit.token_logps import ROWS
    from rlvr_kit.training import lora_config

    gpu = gpu or torch.cuda.is_available()
    four_bit, lora, tree = recipe.model.load_in_4bit, lora_config(recipe), recipe.run.shared_prefix
    auto = gpu and recipe.model.dtype == "auto"
    size = 2 if auto else pick_dtype(recipe.model.dtype).itemsize
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        total = model.num_parameters()
        linear = sum(m.weight.numel() for m in model.model.modules() if isinstance(m, torch.nn.Linear))
        trained = get_peft_model(model, lora).num_parameters(only_trainable=True) if lora else total
    train_size = 4 if lora else size  # peft keeps its own weights in float32
    common = tokens["shared"] if tree else 0
    own, completion = tokens["longest"] - common, tokens["completion"]
    prompts = min(rows, sampled // group) if tree else rows
    positions = common + prompts * own + rows * completion
    # Kept for the backward pass per token and layer, counted with torch's saved_tensors_hooks on Llama and
    # Qwen2. With float32 LoRA on bfloat16 weights the conversions are kept as well.
    kept = 12 * config.hidden_size + 4 * config.intermediate_size
    kept *= 1.6 if lora and size == 2 else 1.0
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    layers, kv = config.num_hidden_layers, config.num_key_value_heads * head_width
    keys = ("activation_checkpointing", "gradient_checkpointing")  # the second is the older name; TRL: True
    checkpointing = all(recipe.grpo.get(key, True) for key in keys)
    activations = positions * size * (kept + layers * config.hidden_size if checkpointing else layers * kept)
    # The keys and values that each branch of the tree attends to are laid out once a layer and kept as well.
    activations += (
        tree * rows * (common + own + completion) * 2 * kv * size * (1 if checkpointing else layers)
    )
    cache = 2 * layers * kv * size * (common + sampled * (own + completion))
    scored = ROWS if lora and tree and not gpu else min(positions, 4096)  # tokens scored at once
    tiles = (
        3 * 4 * min(config.vocab_size, 49152) * scored
    )  # logits, their exponentials, and one more of the kind
    draws = 4 * 4 * config.vocab_size * sampled  # logits, their softmax, and the noise that samples from it
    bytes_of = {
        "libraries": 0.0 if gpu else LIBRARIES,
        "weights": (linear * 0.56 + (total - linear) * 2) if four_bit else float(total * size),
        "reference model": float(total * size) if recipe.grpo.get("beta") and not lora else 0.0,
        "gradients": float(trained * train_size),
        "optimizer": 2.0 * trained * (1 if "8bit" in str(recipe.grpo.get("optim")) else train_size),
        "activations": float(activations + tree * (common + prompts * own) ** 2 * (1 + size)),
        "key-value cache": float(cache),
        "weights with LoRA merged": float(linear * size) if lora and tree and not four_bit else 0.0,
        "logits": float(max(tiles, draws)),
    }
    learning = bytes_of["gradients"] + bytes_of["activations"] + tiles
    # What the backward pass holds for moments: a quarter, by the measured peaks of real runs.
    bytes_of["workspace"] = learning / 4
    parts = {part: amount / GIB for part, amount in bytes_of.items() if amount}
    at_once = sum(parts.values())
    if gpu:  # sampling and learning take turns; a CPU's allocator hardly gives back what the first one had
        sampling = bytes_of["key-value cache"] + bytes_of["weights with LoRA merged"]
        at_once -= min(sampling, learning * 1.25) / GIB
    return parts | {"at once": at_once}, {"all": total, "trained": trained}


def machine_memory() -> tuple[float, str]:
    """GiB of this machine: of its GPU if it has one, else within its container's limit; and its name."""
    import torch

    from rlvr_kit.doctor import memory_gib

    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory / GIB, torch.cuda.get_device_name()
    return memory_gib()[0], "this machine, no GPU"


def reuse_freed_memory() -> None:
    """Let this process keep the memory that tensors free for the next ones, where its C library is glibc.

    Otherwise large tensors go back to the system and come again page by page, zeroed, several gigabytes a training
    step (mallopt(3): M_MMAP_MAX, M_TRIM_THRESHOLD). The peak stays what it was.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-4, 0)  # M_MMAP_MAX: no tensor is mapped on its own
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: nothing at the heap's end is returned


def peak_memory_gib() -> float:
    """The most memory this process has held so far: on the GPU where there is one, else resident, in GiB."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def probe(recipe: Recipe) -> dict[str, float]:
    """Seconds of one training step on this machine, ``sampling`` and ``learning``; nothing of it is kept.

    Loads the model and trains on real prompts, with rewards that make every group count. Real steps leave out
    groups whose rewards are equal, so they take as long or less. On a GPU a first step warms up, uncounted.
    """
    import torch

    from rlvr_kit.training import train

    few = recipe.evaluation.model_copy(update={"heldout": 1, "every_steps": 1000})
    short = recipe.model_copy(update={"grpo": recipe.grpo | {"max_steps": 3}, "evaluation": few})
    moments: list[float] = []  # step 0 logged, step 1 scored, step 1 logged, step 2 scored, step 2 logged

    def score(completions: list, **kwargs: Any) -> list[float]:
        moments.append(time.perf_counter())
        return [float(i % 2) for i in range(len(completions))]

    def stop(run: Any) -> None:
        moments.append(time.perf_counter())
        if len(moments) == (5 if torch.cuda.is_available() else 3):
            raise _Enough

    unseen = io.StringIO()  # the progress bar and the log lines of a run that nobody asked for
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(unseen),
        contextlib.redirect_stderr(unseen),
        contextlib.suppress(_Enough),
    ):
        train(short, Path(folder) / "probe", rewards=[score], live=stop)
    before, scored, after = moments[-3:]
    return {"sampling": scored - before, "learning": after - scored}


class _Enough(Exception):
    pass
