"""The run folder: what is in it, how it is written and how it is read back.

    recipe.yaml  log.jsonl  evals/<label>.parquet|json  completions/ checkpoints/ model/ figures/ summary.json

A reader never sees half a file: all is written beside its place and moved there, a torn log line is dropped.
"""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from rlvr_kit.errors import InputError

if TYPE_CHECKING:
    from rlvr_kit.recipe import Recipe


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a file to write beside `path`, then move it there; nothing is left behind when that fails."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        os.replace(draft, path)
    except OSError as error:
        raise InputError(f"could not write {path}: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)


class Run:
    """One run folder, local or fetched: `Run(project_path("runs/x")).log()`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def _existing(self, name: str, what: str) -> Path:
        if not (self.path / name).exists():
            raise InputError(f"{self.path} holds no {name} ({what})")
        return self.path / name

    def recipe(self) -> "Recipe":
        """The recipe as it was resolved when the run began."""
        file = self._existing("recipe.yaml", "the recipe of the run")
        from rlvr_kit.recipe import load_recipe

        return load_recipe(file)

    def append_log(self, line: dict[str, Any]) -> None:
        """Add one line to log.jsonl; numbers that are not finite become null, as in JSON."""
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "log.jsonl").open("ab+") as file:
            if file.tell() and (file.seek(-1, os.SEEK_END), file.read())[1] != b"\n":
                file.write(b"\n")  # a killed run left half a line: do not lose this one with it
            file.write(json.dumps(finite).encode() + b"\n")

    def lines(self) -> list[dict[str, Any]]:
        """The lines of log.jsonl as they were written."""
        lines = []
        for text in self._existing("log.jsonl", "the training log").read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                continue  # the half line of a killed run
        return lines

    def log(self) -> pd.DataFrame:
        """One row a step; a step logged again after a resume replaces what it logged before."""
        lines = self.lines()
        if not lines:
            raise InputError(f"{self.path / 'log.jsonl'} has no line yet: the run has not logged a step")
        return pd.DataFrame(lines).groupby("step").last().reset_index()

    def forget_after(self, step: int) -> None:
        """Drop what was logged after `step`, before a run goes on from the checkpoint of that step."""
        if (self.path / "log.jsonl").exists():
            lines = (self.path / "log.jsonl").read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
            with atomic(self.path / "log.jsonl") as draft:
                draft.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        for file in self.path.glob("completions/*.parquet"):
            if int(file.stem.split("_")[-1]) > step:
                file.unlink(missing_ok=True)  # another process of the same run may be faster

    def completions(self) -> pd.DataFrame:
        """Every completion that was trained on, in the order of the steps, with its rewards and advantage."""
        files = sorted(self.path.glob("completions/*.parquet"))
        if not files:
            raise InputError(f"{self.path} holds no completions yet (what the policy wrote while training)")
        return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)

    def save_rows(self, label: str, rows: pd.DataFrame) -> None:
        """Write the rows alone while an evaluation goes on; there is no summary until it is complete."""
        (self.path / "evals" / f"{label}.json").unlink(missing_ok=True)
        with atomic(self.path / "evals" / f"{label}.parquet") as draft:
            rows.to_parquet(draft, index=False)

    def save_evaluation(self, label: str, rows: pd.DataFrame, summary: dict[str, Any]) -> None:
        """Write evals/<label>.parquet (a row per problem and sample) and evals/<label>.json (the summary)."""
        self.save_rows(label, rows)
        self._write_json(f"evals/{label}.json", summary)

    def evaluation(self, label: str) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Rows and summary of one evaluation, as :meth:`save_evaluation` wrote them."""
        if not (self.path / "evals" / f"{label}.json").exists():
            known = sorted(file.stem for file in self.path.glob("evals/*.json"))
            raise InputError(
                f"{self.path} holds no evaluation {label!r}; it has: {', '.join(known) or 'none'}"
            )
        summary = json.loads((self.path / "evals" / f"{label}.json").read_text(encoding="utf-8"))
        return pd.read_parquet(self.path / "evals" / f"{label}.parquet"), summary

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write summary.json, the headline figures of the run."""
        self._write_json("summary.json", summary)

    def summary(self) -> dict[str, Any]:
        """The headline figures of the run."""
        return json.loads(self._existing("summary.json", "the headline figures").read_text(encoding="utf-8"))

    def _write_json(self, name: str, values: dict[str, Any]) -> None:
        with atomic(self.path / name) as draft:
            draft.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a run folder, oldest first.

    SageMaker copies a job's checkpoints to S3 file by file, so that what comes back after an interruption may be
    half of one: whole is what has every file that its files.json names, in full.
    """
    lists = (folder / "checkpoints").glob("checkpoint-*/files.json")
    found = [
        path.parent
        for path in lists
        if json.loads(path.read_text()).items() <= file_sizes(path.parent).items()
    ]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))


def file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file in a folder, by its path there."""
    return {
        str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()
    }
