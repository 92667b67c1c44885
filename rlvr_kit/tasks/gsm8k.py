"""GSM8K, 8,792 school problems with worked solutions (Cobbe et al. 2021), from a folder or the Hub.

    question  Weng earns $12 an hour for babysitting. Yesterday, she just did 50 minutes of babysitting. ...
    answer    ... Working 50 minutes, she earned 0.2 x 50 = $<<0.2*50=10>>10.
              #### 10
    gold      10    (added here)

A folder holds ``train.jsonl`` and ``test.jsonl``, or both as parquet. ``source="auto"`` takes the first that there is:
the folder that RLVR_KIT_GSM8K names (relative to the project folder), a SageMaker channel gsm8k or train, or the Hub's
copy. The copy is kept, so that later runs need no network.
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from datasets import Dataset
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from pyarrow import parquet

from rlvr_kit.errors import InputError, MachineError, UserError
from rlvr_kit.machine import hub_reachable
from rlvr_kit.paths import project_path
from rlvr_kit.tasks.prompts import INSTRUCTION as INSTRUCTION
from rlvr_kit.tasks.verifier import gold_answer
from rlvr_kit.tasks.verifier import verify as verify

Split = Literal["train", "test"]
SPLIT_SIZES: dict[Split, int] = {"train": 7473, "test": 1319}
REPOSITORY, REVISION = "openai/gsm8k", "e53f048856ff4f594e959d75785d2c2d37b678ee"
HUB_FILE = "main/{}-00000-of-00001.parquet"
VARIABLES = ("RLVR_KIT_GSM8K", "SM_CHANNEL_GSM8K", "SM_CHANNEL_TRAIN")
WHOLE = True  # for task.py: a recipe that does not say how many rows takes all of them


def load_gsm8k(split: Split, source: str | Path = "auto") -> Dataset:
    """Load one split of GSM8K with the columns question, answer, gold. ``source``: "auto", "hub" or a folder.

    Raises UserError when the data is not available, or fails a check: row counts, golds, no question in both splits.

    >>> load_gsm8k("test")[1]["gold"]  # doctest: +SKIP
    '3'
    """
    if split not in SPLIT_SIZES:
        raise InputError(f"GSM8K has the splits 'train' and 'test', not {split!r}")
    folder = gsm8k_folder() if source == "auto" else None if source == "hub" else _resolved(source)
    files = {name: _file_in(folder, name) if folder else _hub_file(name) for name in SPLIT_SIZES}
    data = {name: _read(file) for name, file in files.items()}
    for name, rows in data.items():
        if len(rows) != SPLIT_SIZES[name]:
            raise InputError(
                f"{files[name]} has {len(rows):,} rows, not the {SPLIT_SIZES[name]:,} of GSM8K's {name}"
            )
    train, test = ({" ".join(row["question"].lower().split()) for row in rows} for rows in data.values())
    if both := train & test:
        raise InputError(
            f"{folder or 'GSM8K'} has {len(both)} question(s) in both splits: {min(both)[:50]!r}"
        )
    return Dataset.from_list(data[split])


def load_folder(path: str | Path, split: Split) -> Dataset:
    """Load one split of your own problems in GSM8K's schema: ``<split>.jsonl`` or parquet, any number of rows."""
    return Dataset.from_list(_read(_file_in(_resolved(path), split)))


def problems(split: Split, n: int | None, seed: int = 0) -> Dataset:
    """Return the first ``n`` rows of a split, or all for None (task.py). The order is GSM8K's for every seed."""
    return _first(load_gsm8k(split), n)


def folder_task(path: Path) -> SimpleNamespace:
    """Make a task of a folder in GSM8K's schema: GSM8K's prompt and verifier, with the folder's rows."""

    def problems(split: Split, n: int | None, seed: int = 0) -> Dataset:
        return _first(load_folder(path, split), n)

    return SimpleNamespace(INSTRUCTION=INSTRUCTION, problems=problems, verify=verify, WHOLE=WHOLE)


def _first(rows: Dataset, n: int | None) -> Dataset:
    return rows.select(range(min(n, len(rows)))) if n else rows


def gsm8k_folder() -> Path | None:
    """Return the folder that an environment variable names for GSM8K, or None. It need not exist."""
    return next((_resolved(os.environ[name]) for name in VARIABLES if os.environ.get(name)), None)


def _resolved(path: str | Path) -> Path:
    return project_path(path).resolve()


def _file_in(folder: Path, split: Split) -> Path:
    for name in (f"{split}.jsonl", f"{split}.parquet", HUB_FILE.format(split)):
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"no {split}.jsonl and no {split}.parquet in the folder {folder}")


def _hub_file(split: Split) -> Path:
    where: Any = {"filename": HUB_FILE.format(split), "revision": REVISION, "repo_type": "dataset"}
    if isinstance(kept := try_to_load_from_cache(REPOSITORY, **where), str):
        return Path(kept)
    reason = "no answer from the Hub"
    if hub_reachable():  # asked first: the download itself retries for 23 s on a machine without a network
        try:
            return Path(hf_hub_download(REPOSITORY, **where))
        except OSError as error:
            reason = str(error).splitlines()[0]
    raise MachineError(
        f"GSM8K is not on this machine ({reason}). Either set RLVR_KIT_GSM8K to a folder with train.jsonl "
        f"and test.jsonl, or run once where the Hub's {REPOSITORY} can be reached, HF_HUB_OFFLINE unset"
    )


def _read(file: Path) -> list[dict[str, str]]:
    jsonl = file.suffix == ".jsonl"
    try:
        records = file.read_bytes().splitlines() if jsonl else parquet.read_table(file).to_pylist()
    except (ValueError, OSError) as error:
        raise InputError(f"{file} cannot be read: {str(error).splitlines()[0]}") from None
    rows = []
    for number, record in enumerate(records, start=1):
        try:
            row = json.loads(record) if jsonl else record
            question, answer = row["question"] + "", row["answer"] + ""
            rows.append({"question": question, "answer": answer, "gold": gold_answer(answer)})
        except UserError as error:
            raise InputError(f"{file}, row {number}: {error}") from None
        except ValueError as error:
            raise InputError(f"{file}, line {number} is not valid JSON: {error}") from None
        except (KeyError, TypeError):
            raise InputError(f"{file}, row {number} needs the texts 'question' and 'answer'") from None
    if not rows:
        raise InputError(f"{file} holds no rows: each needs the texts 'question' and 'answer'")
    return rows
