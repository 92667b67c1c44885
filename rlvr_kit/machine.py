"""What this computer has: its memory and cores, how processes on it are run, and whether the Hub answers."""

import ctypes
import gc
import os
import platform
import re
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

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


def share_of_cores(jobs: int) -> int:
    """Return how many threads each of `jobs` processes may use so that together they fill this machine."""
    return max(1, (psutil.cpu_count(logical=False) or psutil.cpu_count() or 1) // jobs)


def use_threads(threads: int | None) -> None:
    """Let torch compute with so many CPU threads; None leaves it as it is."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


def die_with_parent() -> None:
    """Let this process be killed when the one that started it ends (Linux), so that nothing is left running."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG


@contextmanager
def handle_signals(handler: Callable[[int, Any], Any], *numbers: int) -> Iterator[None]:
    """Let `handler` take these signals inside the block. Outside the main thread Python forbids it: nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def describe_machine() -> dict[str, Any]:
    """Return what a figure measured here depends on: processor, cores, memory, and the versions of the libraries."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", info.read_text()) if info.is_file() else []
    libraries = ("torch", "transformers", "trl", "peft")
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(memory_gib()[0], 1),
        "system": platform.system(),
        "python": platform.python_version(),
    } | {name: version(name) for name in libraries}


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


@contextmanager
def watched_memory(every: float = 0.5) -> Iterator[dict[str, float]]:
    """Watch the memory of this process and all its children, each shared page counted once (Linux; else resident).

    Yields:
        A dictionary whose ``peak`` is the most that was seen so far, in GiB.
    """
    seen, over = {"peak": 0.0}, threading.Event()

    def watch() -> None:
        while True:
            seen["peak"] = max(seen["peak"], process_tree_gib())
            if over.wait(every):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def process_tree_gib() -> float:
    """Return the GiB that this process and all its children hold now (proportional set size where there is one)."""
    total, own = 0, psutil.Process()
    for process in (own, *own.children(recursive=True)):
        with suppress(psutil.Error):  # it may have ended meanwhile
            total += process.memory_full_info().pss if sys.platform == "linux" else process.memory_info().rss
    return total / GIB


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


def release_memory() -> None:
    """Give back to the system, and to the GPU, what finished work still holds."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


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
