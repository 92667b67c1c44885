"""The run folder: what is in it, how it is written, and how it is read back.

    recipe.yaml                    the recipe as it was resolved
    log.jsonl                      one line for each logged step
    evals/<label>.parquet, .json   one row for each problem and sample, and their summary
    completions/                   what the policy wrote while it was trained
    checkpoints/                   from which an interrupted training continues
    model/  figures/               the trained model; pictures
    summary.json                   what training took (written by training)
    headline.json                  what it achieved (written by the run of all notebooks)

Files are written atomically: a reader finds the old file or the new one, and never a part of one. A file that is
nevertheless damaged is named in the error, with what to do about it.
"""

import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from rlvr_kit.errors import InputError, MachineError, UserError

if TYPE_CHECKING:
    from rlvr_kit.recipe import Recipe


def cannot_write(path: Path, error: Exception) -> UserError:
    """Return the error to raise when `path` could not be written: MachineError when the disk is full, else InputError.

    Libraries report a full disk in their own ways (torch.save raises a RuntimeError), so the free space counts too.
    """
    reason = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
    with suppress(OSError, StopIteration):
        full = full or shutil.disk_usage(next(p for p in path.parents if p.exists())).free < 16 * 2**20
    if full:
        return MachineError(f"could not write {path}: {reason}; free some space, then go on")
    return InputError(f"could not write {path}: {reason}")


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path`; when the block ends without an error, the file is moved to `path`."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        os.replace(draft, path)
    except (OSError, SafetensorError) as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):  # if the folder could not be made, there is no file to remove
            draft.unlink(missing_ok=True)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder, so that no second process trains in it. The folder is made if it does not exist.

    The operating system releases the lock when the process ends, also after `kill -9`. A folder that stayed empty is
    removed.

    Raises:
        UserError: another process holds the lock, or the folder cannot be written.
    """
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise InputError(
            f"another process is training in {folder}: wait until it has ended, or choose another output folder"
        ) from None
    except OSError as error:
        raise cannot_write(folder, error) from None
    try:
        yield
    finally:
        with suppress(OSError):
            if [path.name for path in folder.iterdir()] == [".lock"]:
                (folder / ".lock").unlink()
                folder.rmdir()
        lock.release()


class Run:
    """One run folder, made here or copied from elsewhere. Example: `Run(project_path("runs/x")).log()`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def _existing(self, name: str, what: str) -> Path:
        if not (self.path / name).exists():
            raise InputError(f"{self.path} holds no {name} ({what})")
        return self.path / name

    def recipe(self) -> "Recipe":
        """Return the recipe as it was resolved when the run began."""
        file = self._existing("recipe.yaml", "the recipe of the run")
        from rlvr_kit.recipe import load_recipe

        return load_recipe(file)

    def append_log(self, line: dict[str, Any]) -> None:
        """Add one line to log.jsonl. NaN and infinity are written as null, because JSON has no such numbers."""
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with (self.path / "log.jsonl").open("ab+") as file:
                if file.tell() and (file.seek(-1, os.SEEK_END), file.read())[1] != b"\n":
                    file.write(b"\n")  # a killed run left half a line: begin a new one
                file.write(json.dumps(finite).encode() + b"\n")
        except OSError as error:
            raise cannot_write(self.path / "log.jsonl", error) from None

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines of log.jsonl as dictionaries. Damaged lines, such as half a line, are left out."""
        file = self._existing("log.jsonl", "the training log")
        return [line for _, line in _log_lines(file)]

    def log(self) -> pd.DataFrame:
        """Return the log with one row per step. If a step was logged twice (after a resume), the last line counts."""
        lines = self.lines()
        if not lines:
            raise InputError(
                f"{self.path / 'log.jsonl'} has no line yet: the run has not logged a step (or the file is damaged; "
                "then delete it)"
            )
        return pd.DataFrame(lines).groupby("step").last().reset_index()

    def forget_after(self, step: int) -> None:
        """Delete what was logged after `step`, before a run continues from the checkpoint of that step."""
        file = self.path / "log.jsonl"
        if file.exists():
            kept = [text for text, line in _log_lines(file) if line["step"] <= step]
            with atomic(file) as draft:
                draft.write_text("".join(f"{text}\n" for text in kept), encoding="utf-8")
        for file in self.path.glob("completions/*.parquet"):
            if int(file.stem.split("_")[-1]) > step:
                file.unlink(missing_ok=True)  # another process of the same run may have removed it already

    def completions(self) -> pd.DataFrame:
        """Return every completion that was trained on, in the order of the steps, with its rewards and advantage."""
        files = sorted(self.path.glob("completions/*.parquet"))
        if not files:
            raise InputError(f"{self.path} holds no completions yet (what the policy wrote while training)")
        return pd.concat([_read(file, pd.read_parquet) for file in files], ignore_index=True)

    def _evaluation_file(self, label: str, kind: str) -> Path:
        if not label or set(label) & set("/\\\0"):  # "../x" would lie outside the run folder
            raise InputError(f"{label!r} cannot be the label of an evaluation: it becomes the name of a file")
        return self.path / "evals" / f"{label}.{kind}"

    def save_rows(self, label: str, rows: pd.DataFrame) -> None:
        """Write the rows of an evaluation that is not complete yet, without a summary."""
        with suppress(OSError):
            self._evaluation_file(label, "json").unlink()
        with atomic(self._evaluation_file(label, "parquet")) as draft:
            rows.to_parquet(draft, index=False)

    def rows_so_far(self, label: str) -> list[dict[str, Any]]:
        """Return the rows that an unfinished evaluation has saved; none when the file is missing or damaged."""
        try:
            return pd.read_parquet(self._evaluation_file(label, "parquet")).to_dict("records")
        except (OSError, ValueError):
            return []

    def save_evaluation(self, label: str, rows: pd.DataFrame, summary: dict[str, Any]) -> None:
        """Write evals/<label>.parquet (a row per problem and sample) and evals/<label>.json (the summary)."""
        self.save_rows(label, rows)
        self._write_json(f"evals/{label}.json", summary)

    def evaluation(self, label: str) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Return the rows and the summary of one evaluation, as :meth:`save_evaluation` wrote them."""
        files = [self._evaluation_file(label, kind) for kind in ("parquet", "json")]
        if not all(file.exists() for file in files):
            known = sorted(file.stem for file in self.path.glob("evals/*.json"))
            raise InputError(
                f"{self.path} holds no evaluation {label!r}; it has: {', '.join(known) or 'none'}"
            )
        return _read(files[0], pd.read_parquet), _read(files[1], _read_json)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write summary.json: what training took, in steps, minutes and memory."""
        self._write_json("summary.json", summary)

    def summary(self) -> dict[str, Any]:
        """Return what training took, as :meth:`write_summary` wrote it."""
        return _read(self._existing("summary.json", "what training took"), _read_json)

    def write_headline(self, headline: dict[str, Any]) -> None:
        """Write headline.json: base and tuned model side by side, at the end of a run of all notebooks."""
        self._write_json("headline.json", headline)

    def _write_json(self, name: str, values: dict[str, Any]) -> None:
        with atomic(self.path / name) as draft:
            draft.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _read(file: Path, read: Callable[[Path], Any]) -> Any:
    """Read a file of a run. If it is damaged, raise a UserError that names the file and what to do."""
    try:
        return read(file)
    except (ValueError, OSError) as error:  # pyarrow's and json's errors are ValueErrors
        reason = str(error).partition("\n")[0]
        raise InputError(f"{file} is damaged ({reason}): delete it, and make it again") from None


def _read_json(file: Path) -> dict[str, Any]:
    values = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError("not a JSON object")
    return values


def _log_lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each readable line of a log, as text and as a dictionary."""
    for text in file.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError):
            line = json.loads(text)
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                yield text, line
