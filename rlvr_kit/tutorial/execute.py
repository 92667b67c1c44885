"""Run the notebooks without a browser: papermill executes them in order with one set of parameters.

The executed copies stay in the run folder. At the end their report, the headline figures (headline.json) and the
seconds of their cells (timings.json) are written beside them.
"""

import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import nbformat
import papermill
from tqdm import tqdm
from traitlets.config import Config

from rlvr_kit.errors import InputError, Interrupted
from rlvr_kit.machine import watched_memory
from rlvr_kit.measure.evaluation import compare
from rlvr_kit.measure.plots import save, training_curves
from rlvr_kit.measure.wording import NEXT_STEPS, TITLES, against_room, outcome, room_sentence
from rlvr_kit.paths import PROJECT
from rlvr_kit.recipe import Recipe, load_recipe
from rlvr_kit.run_folder import Run, atomic, cannot_write
from rlvr_kit.tutorial.report import MODELS, build_report, headline_text, subject
from rlvr_kit.tutorial.timings import measure

#: Seconds between two progress lines while a cell trains.
SHOWN_EVERY = 30.0
HEADLINE = ("n", "strict", "strict_ci", "lenient", "format", "truncated")


def run_notebooks(recipe: str, out: str | Path, seed: int = 0, notebooks: list[Path] | None = None) -> Path:
    """Execute `notebooks` (by default the whole series) into the new run folder `out`; return its report.html.

    Raises UserError when `out` already holds a run or cannot be written, when a cell fails (the message names
    notebook, cell and error), or on Ctrl-C. The copies in ``out/notebooks/`` keep what was executed until then.

    >>> run_notebooks("smoke", "runs/first")  # doctest: +SKIP
    """
    settings, out, began = load_recipe(recipe), Path(out).resolve(), time.perf_counter()
    for name in ("notebooks", "log.jsonl", "summary.json", "headline.json"):
        if (out / name).exists():
            raise InputError(
                f"{out} holds another run ({name} is there): choose another folder, or remove it"
            )
    recipe = str(Path(recipe).resolve()) if Path(recipe).is_file() else recipe  # cells run in another folder
    parameters = {"RECIPE": recipe, "RUN_DIR": str(out), "SEED": seed}
    todo = sorted((PROJECT / "notebooks").glob("*.ipynb")) if notebooks is None else notebooks
    copies = [out / "notebooks" / notebook.name for notebook in todo]
    costs: list[dict[str, Any]] = []
    for i, (notebook, copy) in enumerate(zip(todo, copies, strict=True), 1):
        started = time.perf_counter()
        with watched_memory() as memory:  # of this process and of the notebook's kernel together
            _execute(notebook, copy, parameters, f"{i}/{len(todo)} {notebook.stem}")
        minutes = round((time.perf_counter() - started) / 60, 2)
        costs.append({"name": notebook.stem, "minutes": minutes, "peak_memory_gib": round(memory["peak"], 2)})
    run = Run(out)
    comparison = compare(run.evaluation("base")[0], run.evaluation("tuned")[0])
    result, minutes = outcome(comparison), round((time.perf_counter() - began) / 60, 1)
    headline = {"minutes": minutes, "mcnemar_p": comparison.p, **_headline(run, settings, costs)}
    if room := against_room(run):
        headline["room"] = room_sentence(result, room["strict"])
    run.write_headline(headline)
    with atomic(out / "timings.json") as draft:
        draft.write_text(json.dumps(measure(copies, settings.name), indent=2) + "\n", encoding="utf-8")
    curves = None
    if (out / "log.jsonl").exists():
        curves = save(training_curves(run), out / "figures" / "curves").with_suffix(".png")
    page = build_report(copies, headline, comparison.sentence, curves, result)
    with atomic(out / "report.html") as draft:
        draft.write_text(page, encoding="utf-8")
    _point_latest_at(out)
    told = [f"{TITLES[result]} {comparison.sentence}", NEXT_STEPS[result]]
    print("", *headline_text(headline), *told, f"Report: {out / 'report.html'}", sep="\n")
    return out / "report.html"


def _headline(run: Run, settings: Recipe, costs: list[dict[str, Any]]) -> dict[str, Any]:
    """What was run, what it cost, and the shares of each model that was measured on the test problems."""
    measured = run.summary() if (run.path / "summary.json").exists() else {}  # written by training
    sides = [name for name in MODELS if (run.path / "evals" / f"{name}.json").exists()]
    return {
        "subject": subject(settings),
        "recipe": settings.name,
        "model": settings.model.name,
        "data": settings.task,
        "peak_memory_gib": max(cost["peak_memory_gib"] for cost in costs),
        "notebooks": costs,
        "best_step": measured.get("best_step"),
        **{name: {key: run.evaluation(name)[1][key] for key in HEADLINE} for name in sides},
    }


def _execute(notebook: Path, copy: Path, parameters: dict[str, Any], title: str) -> None:
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(copy.parent, error) from None
    bar = {"desc": title, "mininterval": 0.1 if sys.stderr.isatty() else 30}  # few lines in a CI log
    quiet = ["--log-level=ERROR"]  # otherwise each kernel warns that its local socket is not encrypted
    try:
        with _training_shown(Path(parameters["RUN_DIR"])):
            papermill.execute_notebook(
                notebook, copy, parameters, progress_bar=bar, cwd=PROJECT, extra_arguments=quiet,
                config=Config(KernelManager={"transport": "tcp" if _loopback_works() else "ipc"}),
            )  # fmt: skip
    except KeyboardInterrupt:
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # no tracebacks of unfinished tasks
        raise Interrupted(
            signal.SIGINT,
            f"stopped in {notebook.name}, which was not finished; {copy.parent} keeps what was executed",
        ) from None
    except Exception as error:  # from papermill, its client or the kernel: say where and what
        name, text = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", error)
        if name == "DeadKernelError":
            text = "the kernel was killed, most often because memory ran out"
        where = "could not start"
        for cell in nbformat.read(copy, as_version=4).cells if copy.exists() else []:
            if cell.metadata.get("papermill", {}).get("start_time"):  # the last cell that started has failed
                where = f"failed at cell {cell.id}, {cell.source.strip().partition(chr(10))[0]!r}"
        kept = f" (what was executed: {copy})" if copy.exists() else ""
        raise InputError(f"{notebook.name} {where}: {name}: {text}{kept}") from error


@contextmanager
def _training_shown(out: Path) -> Iterator[None]:
    """Show a line of a training's log now and then, because papermill's bar stands still while a cell runs."""
    over = threading.Event()

    def watch() -> None:
        shown = (time.time(), "")  # so only logs that change from now on are shown
        while not over.wait(SHOWN_EVERY):
            logs = [(log.stat().st_mtime, str(log)) for log in out.rglob("log.jsonl")]
            if logs and (last := max(logs)) > shown:
                shown = last
                with suppress(ValueError):  # the last line may be half written
                    line = json.loads(Path(last[1]).read_text(encoding="utf-8").splitlines()[-1])
                    reward = f", reward {line['reward']:.2f}" if line.get("reward") is not None else ""
                    tqdm.write(f"  training: step {line['step']}{reward}", sys.stderr)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _loopback_works() -> bool:
    """Whether this machine has a loopback network. Without one, a kernel is reached through files (ipc)."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=1).close()
    except OSError:
        return False
    return True


def _point_latest_at(out: Path) -> None:
    latest, draft = out.parent / "latest", out.parent / f".latest.{os.getpid()}"
    if latest.is_symlink() or not latest.exists():
        with suppress(OSError):  # some file systems have no links, and the run needs none
            draft.symlink_to(out.name)
            os.replace(draft, latest)
