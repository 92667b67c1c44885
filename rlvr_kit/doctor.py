"""What this machine has, and which parts of the kit it can run: ``python -m rlvr_kit doctor`` and notebook 00."""

import platform
import shutil
from importlib.metadata import version
from typing import Any

import psutil

from rlvr_kit.errors import UserError
from rlvr_kit.machine import hub_reachable, memory_gib
from rlvr_kit.number_format import pick_dtype, product_speeds
from rlvr_kit.paths import PROJECT, cache_folder
from rlvr_kit.tasks.gsm8k import gsm8k_folder, load_gsm8k

CPU_RECIPE_GIB = 3.5  # the peak memory of the cpu recipe must stay below this
SLOW, MEMORY = "works, but training will be slow", "too little for the cpu recipe: free some"
DISK, MODEL = "little: checkpoints may not fit", "93 MB, once"


def check_machine() -> list[tuple[str, str, str]]:
    """Return (item, what was found, what that means) for each thing that matters. It takes a few seconds.

    It asks whether the Hub answers, but downloads nothing.

    >>> [item for item, _, _ in check_machine()][:3]
    ['Python', 'processor', 'memory']
    """
    import torch

    cores = psutil.cpu_count() or 1
    total, free = memory_gib()
    memory = "enough for the cpu recipe" if free >= CPU_RECIPE_GIB else MEMORY
    disk = shutil.disk_usage(PROJECT).free / 2**30
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    bundled = (cache_folder() / "SmolLM2-135M-Instruct" / "model.safetensors").is_file()
    hub = hub_reachable()
    return [
        ("Python", platform.python_version(), "fine"),
        ("processor", f"{cores} cores", "fine" if cores > 1 else SLOW),
        ("memory", f"{free:.1f} of {total:.1f} GiB free", memory),
        ("number format", *_number_format()),
        ("disk", f"{disk:.0f} GiB free", "fine" if disk > 5 else DISK),
        ("GPU", gpu or "none", "for the gpu recipes" if gpu else "the cpu recipe needs none"),
        ("bundled model", "cached" if bundled else "not here yet", "ready" if bundled else MODEL),
        ("Hub", "answers" if hub else "no answer", "any model by its id" if hub else "not needed by default"),
        ("GSM8K", *_gsm8k(hub)),
    ]


def report() -> dict[str, Any]:
    """The same as one row of a table of many machines, and whether the series can be worked through here offline.

    ``ready`` is false where a line of ``problems`` says what is missing.

    >>> report()["ready"]  # doctest: +SKIP
    True
    """
    found = check_machine()
    wanting = [
        f"{item}: {value} ({verdict})" for item, value, verdict in found if verdict in (MEMORY, DISK, MODEL)
    ]
    return {
        "machine": platform.node(),
        "kit": version("rlvr_kit"),
        "ready": not wanting,
        "problems": wanting
        + [f"{item}: {value} ({verdict})" for item, value, verdict in found if verdict == SLOW],
        "found": {item: value for item, value, _ in found},
    }


def _number_format() -> tuple[str, str]:
    speeds = product_speeds()
    timed = f"float32 {speeds['float32']:.0f}, bfloat16 {speeds['bfloat16']:.0f} GFLOP/s a thread"
    return timed, f"dtype auto takes {str(pick_dtype()).removeprefix('torch.')}"


def _gsm8k(hub: bool) -> tuple[str, str]:
    folder = gsm8k_folder()
    if hub and folder is None:
        return "on the Hub", "fetched when first loaded"
    try:
        rows = len(load_gsm8k("train")) + len(load_gsm8k("test"))
    except UserError as error:
        return "not here", str(error) if folder else "word problems take its place"
    return str(folder or "cached from the Hub"), f"{rows:,} rows, checked"
