"""What this computer has: memory, its limits, processes, number formats, and whether the Hub answers."""

import ctypes
import os
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch

GIB = 2**30

#: False in all but the first of the processes that torchrun or `accelerate launch` starts: only rank 0 prints.
IS_MAIN_PROCESS = os.environ.get("RANK", "0") == "0"


#: Where Linux shows a container's own memory limit, and the names there (cgroup v2, then v1): the limit, what is in
#: use, and the part of it that is only a cache of files and is given back on demand.
CGROUP = Path("/sys/fs/cgroup")
CGROUP_NAMES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)


def memory_gib() -> tuple[float, float]:
    """Return this machine's total and free memory in GiB.

    In a container with a limit of its own, the total is at most the limit, and free is what the limit leaves beside
    the memory that the container's processes already use.
    """
    total, free = psutil.virtual_memory().total, psutil.virtual_memory().available
    for limit_file, used_file, stat_file, cache_name in CGROUP_NAMES:
        try:
            limit, used = ((CGROUP / name).read_text().strip() for name in (limit_file, used_file))
            stat = dict(line.split() for line in (CGROUP / stat_file).read_text().splitlines())
        except (OSError, ValueError):
            continue
        if limit.isdigit():  # "max" where there is no limit
            in_use = int(used) - int(stat.get(cache_name, 0))
            total, free = min(total, int(limit)), min(free, max(0, int(limit) - in_use))
    return total / GIB, free / GIB


def training_memory() -> tuple[float, str]:
    """Return the GiB that training may use, and on what: the GPU where there is one, else this machine."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory / GIB, torch.cuda.get_device_name()
    return memory_gib()[0], "this machine, no GPU"


def peak_memory_gib() -> float:
    """Return the most memory this process has held so far, in GiB: on the GPU if there is one, else resident."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / GIB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def reuse_freed_memory() -> None:
    """Let this process keep the memory that tensors free for the next tensors, where its C library is glibc.

    Otherwise large tensors go back to the system and come again page by page, filled with zeros: several gigabytes in
    each training step (mallopt(3): M_MMAP_MAX, M_TRIM_THRESHOLD). The peak stays what it was. The setting holds for
    the whole process, so whoever starts a training process calls this, and no library code does.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-4, 0)  # M_MMAP_MAX: no tensor gets a memory map of its own
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: nothing at the end of the heap is returned


def pick_dtype(dtype: str = "auto") -> "torch.dtype":
    """Return the number format to compute in: bfloat16 where a GPU supports it, float32 on every CPU.

    On processors without bfloat16 units a bfloat16 product is several times slower than a float32 one, and float32
    keeps log-probabilities exact enough that sampling and loss agree.
    """
    import torch

    if dtype != "auto":
        return getattr(torch, dtype)
    return torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32


def hub_reachable() -> bool:
    """Return whether the Hugging Face Hub answers within seconds; False at once where HF_HUB_OFFLINE is set."""
    from huggingface_hub import constants, get_session  # late: it takes half a second to load

    if constants.is_offline_mode():
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=2)
        return True
    except Exception:  # each version of the Hub's client has its own errors, and all of them mean no
        return False
