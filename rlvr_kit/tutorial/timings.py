"""How long the notebooks take, and workshop agendas made from that: notebooks/timings.md, never typed by hand.

``make run`` leaves timings.json in its run folder; ``make timings RUN=runs/latest`` writes the page. The seconds of
cells are measured. A machine cannot measure reading and exercises: they are reckoned by the rates below.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from rlvr_kit.errors import InputError
from rlvr_kit.machine import describe_machine
from rlvr_kit.paths import PROJECT

WORDS_A_MINUTE = 170.0  # of prose, for readers whose first language is not English
SECONDS_A_LINE = 3.0  # of code
MINUTES_AN_EXERCISE = 5.0
MINUTES_TO_START = 5.0  # until everybody's training runs
PAGE = PROJECT / "notebooks" / "timings.md"


@dataclass(frozen=True)
class Part:
    """What an agenda does with a notebook: `share` of its text, some exercises; ``start`` only runs all its cells."""

    notebook: str
    share: float = 1.0
    exercises: int = 9
    start: bool = False


#: Minutes that there are, and what is done with them; None is a break of 15 minutes.
AGENDAS: dict[str, tuple[int, list[Part | None]]] = {
    "90 minutes": (
        90,
        [
            Part("06", start=True), Part("00", 0.7), Part("02", 0.4, 1), Part("05", 0.45, 1), Part("06", 0.35, 0),
            Part("09", 0.5, 1),
        ],
    ),
    "Half a day: 225 minutes": (
        225,
        [
            Part("06", start=True), Part("00"), Part("01", 0.4, 1), Part("02", 0.7, 2), Part("03", 0.35, 1), None,
            Part("04", 0.5, 1), Part("05", 0.7, 2), Part("06", 0.6, 1), None, Part("08", 0.5, 1), Part("09", 0.7, 1),
        ],
    ),
    "A full day: 420 minutes, lunch apart": (
        420,
        [
            Part("06", start=True), Part("00"), Part("01"), Part("02"), None, Part("03"), Part("04"), None, Part("05"),
            Part("06"), None, Part("08"), Part("09"), Part("10"), Part("07", 0.6, 1), Part("11", 0.6, 1),
        ],
    ),
}  # fmt: skip


def measure(copies: list[Path], recipe: str) -> dict[str, Any]:
    """Seconds of the cells of each executed notebook, and on which machine.

    >>> measure([Path("runs/x/notebooks/00_start_here.ipynb")], "cpu")["notebooks"]  # doctest: +SKIP
    [{'name': '00_start_here', 'seconds': 9.1, 'longest': 5.2, 'words': 1402, 'lines': 31, 'exercises': 1}]
    """
    return {
        "recipe": recipe,
        "machine": describe_machine(),
        "notebooks": [_measured(copy) for copy in copies],
    }


def _measured(copy: Path) -> dict[str, Any]:
    cells = nbformat.read(copy, as_version=4).cells
    seconds = [cell.metadata.get("papermill", {}).get("duration") or 0.0 for cell in cells]
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    return {
        "name": copy.stem,
        "seconds": round(sum(seconds), 1),
        "longest": round(max(seconds), 1),
        "words": sum(len(cell.source.split()) for cell in cells if cell.cell_type == "markdown"),
        "lines": sum(len(source.splitlines()) for source in code),
        "exercises": sum("exercise" in cell.metadata.get("tags", []) for cell in cells),
    }


def timings_page(measured: dict[str, Any]) -> str:
    """The page: a table of all notebooks, and each agenda with the clock of this machine."""
    rows = [
        f"| {nb['name']} | {nb['seconds']:.0f} | {nb['longest']:.0f} | {_reading(nb):.0f} | {nb['exercises']} |"
        for nb in measured["notebooks"]
    ]
    machine = ", ".join(f"{key} {value}" for key, value in measured["machine"].items()).replace(
        "_gib", " in GiB"
    )
    warning = "" if measured["recipe"] == "cpu" else (
        f"**Seconds of the recipe `{measured['recipe']}`, not of `cpu`: the agendas below are no plan yet.**\n\n"
    )  # fmt: skip
    return (
        "# How long the notebooks take\n\n"
        "Written by `make timings`; do not edit. "
        f"Recipe `{measured['recipe']}`, one run on one machine: {machine}.\n\n{warning}"
        "| notebook | cells, s | longest cell, s | reading, min | exercises |\n|---|---|---|---|---|\n"
        + "\n".join(rows)
        + f"\n\nThe seconds of cells are measured. Reading is reckoned at {WORDS_A_MINUTE:.0f} words a minute and "
        f"{SECONDS_A_LINE:.0f} seconds a line of code, an exercise at {MINUTES_AN_EXERCISE:.0f} minutes.\n\n"
        "## Agendas\n\nThe clock counts reading (or telling), exercises, and waiting for cells; `INSTRUCTOR.md` says "
        "what to do in each part.\n\n"
        + "\n\n".join(_agenda(name, *agenda, measured["notebooks"]) for name, agenda in AGENDAS.items())
        + "\n"
    )


def _reading(notebook: dict[str, Any]) -> float:
    return float(notebook["words"] / WORDS_A_MINUTE + notebook["lines"] * SECONDS_A_LINE / 60)


def _agenda(name: str, available: int, parts: list[Part | None], notebooks: list[dict[str, Any]]) -> str:
    """One agenda as a table with a clock; what was started in the background is waited for where it is needed."""
    by_number = {notebook["name"][:2]: notebook for notebook in notebooks}
    lines, clock, ready = [], 0.0, {}
    for part in parts:
        if part is None:
            lines.append(f"| {_time(clock)} | break | 15 |")
            clock += 15
            continue
        if part.notebook not in by_number:
            continue
        notebook = by_number[part.notebook]
        if part.start:
            ready[part.notebook] = clock + MINUTES_TO_START + notebook["seconds"] / 60
            lines.append(
                f"| {_time(clock)} | **start {notebook['name']}**: run all its cells | {MINUTES_TO_START:.0f} |"
            )
            clock += MINUTES_TO_START
            continue
        if (wait := ready.get(part.notebook, 0.0) - clock) > 0:
            lines.append(f"| {_time(clock)} | wait for the training of {notebook['name']} | {wait:.0f} |")
            clock += wait
        exercises = min(part.exercises, notebook["exercises"])
        minutes = part.share * _reading(notebook) + exercises * MINUTES_AN_EXERCISE
        if part.notebook not in ready:
            minutes = max(minutes, notebook["seconds"] / 60)  # its cells run while one reads
        what = f"{notebook['name']}, {'all' if part.share == 1 else f'{part.share:.0%}'} of it"
        what += f", {exercises} exercise{'s' * (exercises != 1)}" if exercises else ""
        lines.append(f"| {_time(clock)} | {what} | {minutes:.0f} |")
        clock += minutes
    left = available - clock
    end = (
        f"questions: {left:.0f} minutes left"
        if left >= 0
        else f"**{-left:.0f} minutes too long on this machine**"
    )
    lines.append(f"| {_time(clock)} | {end} | |")
    return f"### {name}\n\n| clock | what | minutes |\n|---|---|---|\n" + "\n".join(lines)


def _time(minutes: float) -> str:
    return f"{int(minutes) // 60}:{int(minutes) % 60:02}"


def main() -> None:
    """Write notebooks/timings.md from the run folder that the command line names."""
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/latest")
    if not (run / "timings.json").exists():
        raise InputError(f"{run} holds no timings.json: `make run` leaves one in its run folder")
    PAGE.write_text(
        timings_page(json.loads((run / "timings.json").read_text(encoding="utf-8"))), encoding="utf-8"
    )
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
