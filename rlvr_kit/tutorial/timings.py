"""How long the notebooks take, and workshop agendas made from that: notebooks/timings.md, never typed by hand.

``make run`` leaves timings.json in its run folder; ``make timings RUN=runs/latest`` writes the page. The seconds of
cells are measured. A machine cannot measure reading and exercises: they are reckoned by the rates below.
"""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from rlvr_kit.errors import InputError, UserError
from rlvr_kit.machine import describe_machine
from rlvr_kit.paths import PROJECT

WORDS_A_MINUTE = 170.0  # of prose, for readers whose first language is not English
SECONDS_A_LINE = 3.0  # of code
MINUTES_AN_EXERCISE = 5.0
MINUTES_TO_START = 5.0  # until everybody's training runs
PAGE = PROJECT / "notebooks" / "timings.md"
_CHECK = re.compile(r"^check_(\w+)\(", re.MULTILINE)  # an exercise has the name of its check
_HEADING = re.compile(r"^(?=## )", re.MULTILINE)


@dataclass(frozen=True)
class Part:
    """What an agenda does with a notebook: its opening and some sections, with some exercises; None stands for all.

    A section is named by its number or by its first words. ``start`` only runs all cells.
    """

    notebook: str
    sections: tuple[str, ...] | None = None
    exercises: tuple[str, ...] | None = None
    start: bool = False


#: Minutes that there are, and what is done with them; None is a break of 15 minutes.
AGENDAS: dict[str, tuple[int, list[Part | None]]] = {
    "90 minutes": (
        90,
        [
            Part("06", start=True),
            Part("00", ("The idea", "GRPO", "Words")),
            Part("02", ("The reward", "1", "2")),
            Part("05", ("The whole idea", "1", "2", "3")),
            Part("06", ("Train", "Did it work?"), ()),
            Part("09", ("1", "2", "3"), ("conclusion",)),
        ],
    ),
    "Half a day: 225 minutes": (
        225,
        [
            Part("06", start=True),
            Part("00"),
            Part("01", ("What RLVR asks", "1", "2")),
            Part("02", ("The reward", "1", "2", "3")),
            Part("03", ("2", "3"), ("attack",)),
            None,
            Part("04", ("Why", "1", "2", "4", "5"), ("wilson",)),
            Part("05", ("The whole idea", "1", "2", "3", "4")),
            Part("06", ("Train", "My loss is 0", "My reward is flat", "Did it work?")),
            None,
            Part("08", ("What a run", "A healthy run", "Four patients", "The causes", "Two exercises"), ("evidence",)),
            Part("09", ("1", "2", "3", "4"), ("conclusion",)),
        ],
    ),
    "A full day: 420 minutes, lunch apart": (
        420,
        [
            Part("06", start=True), Part("00"), Part("01"), Part("02"), None, Part("03"), Part("04"), None, Part("05"),
            Part("06"), None, Part("08"), Part("09"), Part("10"),
            Part("07", ("What a training job", "1", "2"), ("most",)),
            Part("11", ("1", "2")),
        ],
    ),
}  # fmt: skip


def measure(copies: list[Path], recipe: str) -> dict[str, Any]:
    """Seconds of the cells of each executed notebook, and on which machine.

    >>> measure([Path("runs/x/notebooks/00_start_here.ipynb")], "cpu")["notebooks"]  # doctest: +SKIP
    [{'name': '00_start_here', 'seconds': 9.1, 'longest': 5.2, 'sections': [{'title': '', 'words': 190, ...}, ...]}]
    """
    return {
        "recipe": recipe,
        "machine": describe_machine(),
        "notebooks": [_measured(copy) for copy in copies],
    }


def _measured(copy: Path) -> dict[str, Any]:
    cells = nbformat.read(copy, as_version=4).cells
    seconds = [cell.metadata.get("papermill", {}).get("duration") or 0.0 for cell in cells]
    sections: list[dict[str, Any]] = [{"title": "", "words": 0, "lines": 0, "exercises": []}]  # the opening
    for cell in cells:
        if cell.cell_type == "code":
            sections[-1]["lines"] += len(cell.source.splitlines())
            if "check" in cell.metadata.get("tags", []):
                sections[-1]["exercises"] += _CHECK.findall(cell.source)
            continue
        for part in _HEADING.split(cell.source):
            if part.startswith("## "):
                title = part.splitlines()[0].removeprefix("## ")
                sections.append({"title": title, "words": 0, "lines": 0, "exercises": []})
            sections[-1]["words"] += len(part.split())
    return {
        "name": copy.stem,
        "seconds": round(sum(seconds), 1),
        "longest": round(max(seconds), 1),
        "sections": sections,
    }


def timings_page(measured: dict[str, Any]) -> str:
    """The page: a table of all notebooks, and each agenda with the clock of this machine."""
    rows = [
        f"| {nb['name']} | {nb['seconds']:.0f} | {nb['longest']:.0f} | {_reading(nb['sections']):.0f} "
        f"| {len(_exercises(nb['sections']))} |"
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
        "## Agendas\n\nA part is the opening of a notebook and the sections named, by number or by their first words; "
        "an exercise has the name of its check. The clock counts reading (or telling), exercises, and waiting for "
        "cells; `INSTRUCTOR.md` says what to do in each part.\n\n"
        + "\n\n".join(_agenda(name, *agenda, measured["notebooks"]) for name, agenda in AGENDAS.items())
        + "\n"
    )


def _reading(sections: list[dict[str, Any]]) -> float:
    """Minutes to read these sections of a notebook."""
    return sum(each["words"] / WORDS_A_MINUTE + each["lines"] * SECONDS_A_LINE / 60 for each in sections)


def _exercises(sections: list[dict[str, Any]]) -> list[str]:
    return [name for each in sections for name in each["exercises"]]


def sections_of(part: Part, notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """The sections of a notebook that a part of an agenda covers; the opening always belongs to them."""
    if part.sections is None:
        return list(notebook["sections"])
    starts = tuple(f"{name}." if name.isdigit() else name for name in part.sections)
    return [
        each
        for each in notebook["sections"]
        if not each["title"] or each["title"].lstrip('"').startswith(starts)
    ]


def _told(part: Part, notebook: dict[str, Any], exercises: list[str]) -> str:
    """A part in words: the notebook, its sections and its exercises."""
    sections = part.sections and ", ".join(n if n.isdigit() else f"*{n}*" for n in part.sections)
    named = ", ".join(f"`check_{name}`" for name in exercises)
    asked = f"; exercise{'s' * (len(exercises) > 1)} {named}" if exercises else ""
    return f"{notebook['name']}: {sections or 'all of it'}{asked}"


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
        sections = sections_of(part, notebook)
        exercises = _exercises(sections) if part.exercises is None else list(part.exercises)
        minutes = _reading(sections) + len(exercises) * MINUTES_AN_EXERCISE
        if part.notebook not in ready:
            minutes = max(minutes, notebook["seconds"] / 60)  # its cells run while one reads
        what = _told(part, notebook, exercises)
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


def main(arguments: list[str]) -> None:
    """Write notebooks/timings.md from the run folder that the command line names."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise InputError("name one run folder: make timings RUN=runs/latest")
    run = Path(arguments[0])
    if not (run / "timings.json").exists():
        raise InputError(f"{run} holds no timings.json: `make run` leaves one in its run folder")
    PAGE.write_text(
        timings_page(json.loads((run / "timings.json").read_text(encoding="utf-8"))), encoding="utf-8"
    )
    print(f"written: {PAGE}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
