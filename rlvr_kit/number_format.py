"""Which number format a model computes in: on a CPU both are timed once, because processors differ tenfold in it.

A processor with bfloat16 units (AVX-512 BF16, AMX) multiplies two to ten times faster in bfloat16 than in float32; one
without them is several times slower. What a processor's name says about this is not reliable, so it is measured.
"""

import json
import os
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from rlvr_kit.machine import describe_machine
from rlvr_kit.paths import cache_folder

if TYPE_CHECKING:
    import torch

#: bfloat16 is taken on a CPU where its products are at least this many times faster. Products take about two thirds of
#: a training step, so a step is then at least a quarter faster. For a smaller gain the exactness of float32 is kept.
CLEARLY_FASTER = 1.5
#: Width and inner width of SmolLM2-135M's layers, which are timed where no other model is named.
BUNDLED_SHAPE = (576, 1536)
#: Columns of the two products that are timed: tokens in a loss pass, and completions that are decoded together.
LEARNING, DECODING = 256, 64
#: A narrower model spends its time on calls rather than on arithmetic, so no format is faster than the other.
NARROW = 256


def pick_dtype(dtype: str = "auto", config: Any = None) -> "torch.dtype":
    """Return the number format that a model's weights are loaded and computed in.

    ``dtype`` is ``float32``, ``bfloat16``, or ``auto``: bfloat16 on a GPU that supports it and on a CPU on which it is
    clearly faster (:data:`CLEARLY_FASTER`), else float32. ``config`` is the model's configuration, whose sizes are
    timed; without it those of the bundled model are.

    >>> pick_dtype("float32")
    torch.float32
    """
    import torch

    if dtype != "auto":
        return getattr(torch, dtype)
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    shape = (config.hidden_size, config.intermediate_size) if config else BUNDLED_SHAPE
    if min(shape) < NARROW:
        return torch.float32
    speeds = product_speeds(*shape)
    return torch.bfloat16 if speeds["bfloat16"] >= CLEARLY_FASTER * speeds["float32"] else torch.float32


@cache
def product_speeds(width: int = BUNDLED_SHAPE[0], inner: int = BUNDLED_SHAPE[1]) -> dict[str, float]:
    """Return the GFLOP/s of one CPU thread in ``float32`` and ``bfloat16``, for layers of these sizes.

    It is timed once for each processor and build of torch (about a tenth of a second), and kept in the cache folder so
    that later runs decide alike. Where that folder cannot be written, each process times anew.
    """
    import torch

    limits = [os.environ.get(name, "") for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")]
    units = [torch.backends.cpu.get_cpu_capability(), *limits]
    key = " ".join([describe_machine()["processor"], *units, torch.__version__, f"{width}x{inner}"])
    file = cache_folder() / "product_speeds.json"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):  # processes that start together must decide alike
            known = _kept(file)
            if key not in known:
                known[key] = _timed(width, inner)
                draft = file.with_suffix(".partial")
                draft.write_text(json.dumps(known, indent=2), encoding="utf-8")
                draft.replace(file)
            return known[key]
    except (OSError, NotImplementedError):  # the second: a file system without locks
        return _timed(width, inner)


def _kept(file: Path) -> dict[str, dict[str, float]]:
    """The speeds that were timed before; those that cannot be read are left out, and so are timed again."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        return {
            key: {name: float(speeds[name]) for name in ("float32", "bfloat16")}
            for key, speeds in known.items()
        }
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return {}


def _timed(width: int, inner: int) -> dict[str, float]:
    """The formats take turns, and the fastest turn of each counts, so that a busy neighbour disturbs neither more."""
    import torch

    fastest = {"float32": float("inf"), "bfloat16": float("inf")}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(8):
            for name in fastest:
                dtype = getattr(torch, name)
                weight = torch.ones(inner, width, dtype=dtype)
                tokens, columns = weight[:LEARNING], torch.ones(width, DECODING, dtype=dtype)
                began = time.perf_counter()
                torch.nn.functional.linear(tokens, weight)
                _ = weight @ columns
                fastest[name] = min(fastest[name], time.perf_counter() - began)
            if fastest["bfloat16"] > 3 * fastest["float32"]:  # no bfloat16 units: it need not be known better
                break
    finally:
        torch.set_num_threads(threads)
    operations = 2 * inner * width * (min(LEARNING, inner) + DECODING)
    return {name: operations / seconds / 1e9 for name, seconds in fastest.items()}
