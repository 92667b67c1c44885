"""What a recipe takes: the tokens of its prompts, and memory by part. plan.py judges these numbers."""

from os.path import commonprefix
from statistics import median
from typing import TYPE_CHECKING, Any

from rlvr_kit.errors import InputError, UserError
from rlvr_kit.machine import GIB
from rlvr_kit.number_format import pick_dtype
from rlvr_kit.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PretrainedConfig

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
            raise InputError(f"the sizes of model {name!r} cannot be read: {reason}") from None
    hidden, intermediate, layers, heads, kv_heads = QWEN[name]
    return Qwen2Config(
        hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, vocab_size=151936,
        max_position_embeddings=32768, tie_word_embeddings=True,
    ), False  # fmt: skip


def prompt_tokens(recipe: Recipe, guess: bool = False) -> dict[str, int]:
    """Tokens of the recipe's prompts as the model gets them.

    Of the training prompts: ``median``, ``longest``, and ``shared`` by all of them, counted on the 100 longest
    questions and an even sample of the others. Of the held-out and test prompts: the longest one (``evaluated``), and
    all of the longest batch together, with what they share counted once (``evaluated_batch``). ``guess`` is for want
    of a tokenizer: three characters a token, which is about right for prompts with worked examples from GSM8K.
    """
    from rlvr_kit.engine.sampling import prompt_token_ids
    from rlvr_kit.models import load_tokenizer

    template = recipe.template()
    tokenizer = None if guess else load_tokenizer(recipe.model.name, recipe.model.revision)

    def tokenized(questions: list[str]) -> list[Any]:
        texts = [template.render(tokenizer, question) for question in questions]
        return prompt_token_ids(tokenizer, texts) if tokenizer else [text[::3] for text in texts]

    questions = sorted(recipe.training_problems()["question"], key=len, reverse=True)
    questions = questions[:100] + questions[100 :: max(1, len(questions) // 200)]
    ids = tokenized(questions)
    measured = [*recipe.heldout_problems()["question"], *recipe.test_problems()["question"]]
    evaluated = tokenized(sorted(measured, key=len, reverse=True)[: recipe.evaluation.batch_size])
    lengths, shared = sorted(map(len, ids)), len(commonprefix([list(each) for each in ids]))
    return {
        "median": int(median(lengths)),
        "longest": lengths[-1],
        "shared": shared,
        "evaluated": max(map(len, evaluated)),
        "evaluated_batch": shared + sum(max(0, len(each) - shared) for each in evaluated),
    }


def memory_by_part(
    recipe: Recipe, config: "PretrainedConfig", tokens: dict[str, int], rows: int, sampled: int,
    group: int, gpu: bool = False,
) -> tuple[dict[str, float], dict[str, int]]:  # fmt: skip
    """GiB that one device needs at most, by part and "at once"; and the parameters, ``all`` and ``trained``.

    ``tokens``: what :func:`prompt_tokens` counts, and ``completion``, the limit of a completion in training.
    ``rows`` completions are in one loss pass; ``sampled`` are sampled at once, in groups of ``group``.
    ``gpu``: plan for a GPU, whatever machine this is (never measured). On a CPU the peaks of five runs of SmolLM2-135M
    with LoRA were between 25 % below and 3 % above the estimate.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from rlvr_kit.engine.token_logps import ROWS_AT_ONCE
    from rlvr_kit.training.configs import add_adapter

    gpu = gpu or torch.cuda.is_available()
    four_bit, lora, tree = recipe.model.load_in_4bit, recipe.lora is not None, recipe.run.shared_prefix
    # As models.choose_dtype decides, but for the machine that is planned for and with no need of the weights.
    dtype = recipe.model.dtype
    if dtype == "auto":
        dtype = "bfloat16" if gpu else "auto" if lora else "float32"
    size = pick_dtype(dtype, config).itemsize
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        total = model.num_parameters()
        linear = sum(m.weight.numel() for m in model.model.modules() if isinstance(m, torch.nn.Linear))
        trained = add_adapter(recipe, model).num_parameters(only_trainable=True) if lora else total
    train_size = 4 if lora else size  # peft keeps its own weights in float32
    common = tokens["shared"] if tree else 0
    own, completion = tokens["longest"] - common, tokens["completion"]
    prompts = min(rows, sampled // group) if tree else rows
    positions = common + prompts * own + rows * completion
    kept = config.num_hidden_layers * _key_value_bytes(config, size)  # of one token, in all layers
    scored = ROWS_AT_ONCE if lora and tree and not gpu else min(positions, 4096)  # tokens scored at once
    # Logits, their exponentials and one more such array; in sampling logits, their softmax and two more.
    tiles, draws = 3 * 4 * min(config.vocab_size, 49152) * scored, 4 * 4 * config.vocab_size * sampled
    bytes_of = {
        "libraries": 0.0 if gpu else LIBRARIES,
        "weights": (linear * 0.56 + (total - linear) * 2) if four_bit else float(total * size),
        "reference model": float(total * size) if recipe.grpo.get("beta") and not lora else 0.0,
        "gradients": float(trained * train_size),
        "optimizer": 2.0 * trained * (1 if "8bit" in str(recipe.grpo.get("optim")) else train_size),
        "activations": _activation_bytes(recipe, config, tokens, rows, prompts, size),
        "key-value cache": float(kept * (common + sampled * (own + completion))),
        "weights with LoRA merged": float(linear * size) if lora and tree and not four_bit else 0.0,
        "logits": float(max(tiles, draws)),
    }
    learning = bytes_of["gradients"] + bytes_of["activations"] + tiles
    bytes_of["workspace"] = learning / 4  # of the backward pass, by the measured peaks of real runs
    # Evaluation and training take turns, so only what evaluation needs beyond training is added.
    turns = sum(bytes_of[part] for part in ("activations", "workspace", "key-value cache", "logits"))
    bytes_of["evaluation"] = max(0.0, _evaluation_bytes(recipe, config, tokens, size) - turns)
    at_once = sum(bytes_of.values()) / GIB
    if gpu:  # sampling and learning take turns; a CPU's allocator hardly gives back what the first one had
        sampling = bytes_of["key-value cache"] + bytes_of["weights with LoRA merged"]
        at_once -= min(sampling, learning * 1.25) / GIB
    parts = {part: amount / GIB for part, amount in bytes_of.items() if amount}
    return parts | {"at once": at_once}, {"all": total, "trained": trained}


def _key_value_bytes(config: "PretrainedConfig", size: int) -> int:
    """Bytes of one token's key and value in one layer."""
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_key_value_heads * head_width * size


def _activation_bytes(
    recipe: Recipe, config: "PretrainedConfig", tokens: dict[str, int], rows: int, prompts: int, size: int
) -> float:
    """Bytes that a loss pass keeps for its backward pass: ``rows`` completions of ``prompts`` different prompts."""
    tree, layers = recipe.run.shared_prefix, config.num_hidden_layers
    common = tokens["shared"] if tree else 0
    own, completion = tokens["longest"] - common, tokens["completion"]
    positions = common + prompts * own + rows * completion
    # Per token and layer, counted with torch's saved_tensors_hooks on Llama and Qwen2. With float32 LoRA on bfloat16
    # weights the conversions are kept as well.
    kept = 12 * config.hidden_size + 4 * config.intermediate_size
    kept *= 1.6 if recipe.lora is not None and size == 2 else 1.0
    keys = ("activation_checkpointing", "gradient_checkpointing")  # the second is the older name; TRL: True
    checkpointing = all(recipe.grpo.get(key, True) for key in keys)
    activations = positions * size * (kept + layers * config.hidden_size if checkpointing else layers * kept)
    # The keys and values that each branch of the tree attends to are laid out once in each layer, and kept as well.
    branches = tree * rows * (common + own + completion) * _key_value_bytes(config, size)
    activations += branches * (1 if checkpointing else layers)
    return float(activations + tree * (common + prompts * own) ** 2 * (1 + size))


def _evaluation_bytes(recipe: Recipe, config: "PretrainedConfig", tokens: dict[str, int], size: int) -> float:
    """Bytes that the held-out and test prompts need in one batch: keys and values, and one pass over the prompts."""
    if "evaluated" not in tokens:
        return 0.0
    batch, common = recipe.evaluation.batch_size, tokens["shared"]
    kept = config.num_hidden_layers * _key_value_bytes(config, size)
    # Every row gets as much room as the longest prompt of the batch needs.
    cache = kept * (common + batch * (tokens["evaluated"] - common + recipe.max_new_tokens))
    positions = tokens["evaluated_batch"]
    reading = positions * size * (6 * config.hidden_size + 2 * config.intermediate_size)
    mask = recipe.run.shared_prefix * positions**2 * (1 + size)
    return float(cache + reading + mask)
