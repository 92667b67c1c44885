"""Serve a model folder on this machine with ``transformers serve``, an OpenAI-style API on 127.0.0.1.

>>> with serve("runs/x/share") as server:  # doctest: +SKIP
...     print(server.url)
http://127.0.0.1:41234/v1
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rlvr_kit.errors import InputError, MachineError
from rlvr_kit.machine import die_with_parent
from rlvr_kit.models import choose_dtype

HOST = "127.0.0.1"  # only this machine can reach the server
#: Seconds after which a server that was asked to end is killed.
GRACE = 5.0


@dataclass(frozen=True)
class Server:
    """A running server: its address, the name under which it serves the model, and its process."""

    url: str
    model: str
    process: subprocess.Popen[bytes]


@contextmanager
def serve(folder: str | Path, port: int = 0, start_within: float = 180.0) -> Iterator[Server]:
    """Serve a merged model folder inside the block. The server ends with the block, also after an error.

    ``port`` 0 takes a free one; ``start_within`` is in seconds. The number format is that of the kit's own evaluation,
    so that answers can be equal. The thread that starts the server must live until its end: the operating system ends
    the server with that thread.

    Raises:
        UserError: the folder is not a whole model, the port is in use, a package is missing, or it does not start.
    """
    path = Path(folder).expanduser().resolve()
    if not (path / "config.json").is_file():
        adapter = (path / "adapter_config.json").exists()
        advice = "is only an adapter: export it as merged" if adapter else "holds no config.json"
        raise InputError(f"{folder} cannot be served, because it {advice}")
    from transformers.utils.import_utils import is_serve_available

    if not is_serve_available():
        raise MachineError(
            "serving needs fastapi, uvicorn and openai: install the kit with its `share` extra"
        )
    port = _free_port(port)
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(path)]
    command += ["--host", HOST, "--port", str(port), "--dtype", choose_dtype(str(path))]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            env=os.environ | {"HF_HUB_OFFLINE": "1"}, preexec_fn=die_with_parent,
        )  # fmt: skip
        try:
            _wait_until_ready(process, f"http://{HOST}:{port}/health", start_within, log)
            yield Server(f"http://{HOST}:{port}/v1", str(path), process)
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and the processes that it started: first with SIGTERM, and after some seconds with SIGKILL."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_port(port: int) -> int:
    try:
        with socket.create_server((HOST, port)) as probe:
            return int(probe.getsockname()[1])
    except (OSError, OverflowError) as error:
        raise InputError(
            f"port {port} cannot be used ({error}): choose another, or 0 for a free one"
        ) from None


def _wait_until_ready(process: subprocess.Popen[bytes], health: str, seconds: float, log: IO[bytes]) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy for this machine
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), direct.open(health, timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    ended = (
        f"ended with code {process.poll()}"
        if process.poll() is not None
        else f"was not ready in {seconds:g} s"
    )
    log.seek(0)
    told = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    raise MachineError(f"the server {ended}: {told[-1].strip() if told else 'it printed nothing'}")
