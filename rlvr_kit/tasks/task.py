"""A task is one Python file: what is asked, on which problems, and how an answer is judged.

    INSTRUCTION: str                                   the system message, with one example of the answer's format
    def problems(split, n, seed) -> rows               at most n rows of the split "train" or "test"; the same call
                                                       gives the same rows. Each row has the texts `question`, `gold`
                                                       and `answer` (a worked answer, which must verify)
    def verify(completion: str, gold: str) -> Verdict  judges any text, and never raises

The kit's own tasks are such files in this folder; `task: path/to/my_task.py` in a recipe names yours, and
``python -m rlvr_kit new-task my_task.py`` writes one to start from. A task file is your own code, so it is run; the
text of a model never is. ``problems`` may return a ``datasets.Dataset`` or a list of dictionaries. A gold that nothing
could match is said by a `why` that starts with "unreadable gold".
A file that reads others beside it names them in ``FILES = ["orders.csv"]``: they travel with it to SageMaker.
Python files beside it that it imports travel by themselves.
"""

import hashlib
import re
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlvr_kit.errors import InputError, UserError, one_line
from rlvr_kit.tasks.verifier import Verdict, gold_answer
from rlvr_kit.tasks.verifier import verify as verify_number

if TYPE_CHECKING:
    from datasets import Dataset

Split = Literal["train", "test"]
BUILT_IN = ("gsm8k", "word_problems", "orders", "sql")
COLUMNS = ("question", "gold", "answer")
#: What the fields of a Verdict must be: rewards add them up, and JSON and parquet keep them.
VERDICT_FIELDS: dict[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(("format_ok", "correct", "lenient_correct"), ((bool,), "True or False")),
    "extracted": ((str, type(None)), "a text or None"), "why": ((str,), "a text"),
    "partial": ((int, float, type(None)), "a number or None"),
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """A loaded task, whose problems and verdicts are checked as they are made."""

    name: str
    instruction: str
    _problems: Callable[..., "Dataset | Iterable[dict[str, Any]]"]
    _verify: Callable[[str, str], Verdict]
    file: Path | None = None  # of a user's own task
    beside: tuple[str, ...] = ()  # FILES: other files that it reads, in its folder
    whole: bool = False  # rows kept on disk, of which a recipe takes all where it does not say how many

    def __post_init__(self) -> None:
        """Raise UserError for a name in FILES that is no file in the task's own folder."""
        for name in self.beside:
            if self.file and (Path(name).name != name or not self.file.with_name(name).is_file()):
                raise InputError(
                    f"{self.name}: FILES names {name}, and there is no such file in the task's folder"
                )

    def problems(self, split: Split, n: int | None, seed: int = 0, **options: Any) -> "Dataset":
        """At most ``n`` rows of a split, as a Dataset with the columns question, gold and answer at least.

        Raises UserError where the task's own function raises, or a row lacks one of the three texts.
        """
        from datasets import Dataset

        call = f"problems({split!r}, {n}, {seed})"
        try:
            made = self._problems(split, n, seed, **options)
            if isinstance(made, Dataset):
                made = made if n is None else made.select(range(min(n, len(made))))
            rows = made.to_list() if isinstance(made, Dataset) else list(islice(made, n))
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            raise InputError(f"{self.name}: {call} raised {self._told(error)}; correct the file") from error
        for i, row in enumerate(rows):
            missing = [
                key for key in COLUMNS if not (isinstance(row, dict) and isinstance(row.get(key), str))
            ]
            missing += [key for key in COLUMNS if not missing and not row[key].strip()]
            if missing:
                raise InputError(
                    f"{self.name}: row {i} of {call}, counted from 0, has no text {missing[0]!r}: every row needs "
                    f"a question, a gold and an answer that are texts and not empty. The row: {ascii(row)[:200]}"
                )
        if not rows:
            raise InputError(f"{self.name}: {call} gave no row; it must give up to n rows of each split")
        try:
            return made if isinstance(made, Dataset) else Dataset.from_list(rows)
        except Exception as error:  # pyarrow's, of further columns
            raise InputError(
                f"{self.name}: the rows of {call} make no table: give a column values of one kind ({one_line(error)})"
            ) from error

    def verify(self, completion: str, gold: str) -> Verdict:
        """Judge a completion. Raises UserError where the task's verifier raises or returns no Verdict."""
        asked = f"for the completion {ascii(completion[:60])} and the gold {ascii(gold[:60])}"
        try:
            verdict = self._verify(completion, gold)
        except (Exception, SystemExit) as error:
            raise InputError(
                f"{self.name}: verify raised {self._told(error)} {asked}: it must return a Verdict for any text"
            ) from error
        if not isinstance(verdict, Verdict):
            raise InputError(f"{self.name}: verify returned {ascii(verdict)[:60]} and no Verdict {asked}")
        for key, (kinds, told) in VERDICT_FIELDS.items():
            if not isinstance(found := getattr(verdict, key), kinds):
                raise InputError(
                    f"{self.name}: verify returned a Verdict with {key}={ascii(found)[:60]} {asked}: it must be {told}"
                )
        return verdict

    def read_gold(self, text: str) -> str:
        """The gold itself, where a worked solution in GSM8K's form (``#### N``) was given for a number."""
        return gold_answer(text) if self.judges_numbers and "####" in text else text

    @property
    def judges_numbers(self) -> bool:
        """Whether its verifier is the kit's own for numbers (verifier.py)."""
        return self._verify is verify_number

    def gold_problem(self, gold: str) -> str | None:
        """Why no completion could match this gold, or None when one could."""
        why = self.verify("", gold).why if gold.strip() else "unreadable gold: it is empty"
        return why if why.startswith("unreadable gold") else None

    @property
    def travels(self) -> list[Path]:
        """The files of a user's own task, for another machine: those that it names or imports; none for the kit's."""
        if self.file is None:
            return []
        from rlvr_kit.tasks.task_file import imported_beside

        named = [self.file.with_name(name) for name in self.beside]
        return [*dict.fromkeys([self.file, *named, *imported_beside(self.file)])]

    def refuse_changed(self, copy: Path) -> None:
        """Raise UserError when a run's `copy` of a user's own file is not that file as it is now."""
        if self.file and copy.exists() and copy.read_bytes() != self.file.read_bytes():
            raise InputError(
                f"{copy.parent} holds a run of {self.file.name} as it was before that file changed (its {copy.name}): "
                "choose another output folder"
            )

    @property
    def digest(self) -> str:
        """Changes when a user's own file does, or one that it reads; empty for the kit's tasks."""
        contents = b"\0".join(file.read_bytes() for file in self.travels)
        return hashlib.sha256(contents).hexdigest()[:12] if self.file else ""

    def _told(self, error: BaseException) -> str:
        """The error with the line of the task's file in which it arose."""
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if self.file
                 and frame.filename == str(self.file)]  # fmt: skip
        where = f" in line {lines[-1]}" if lines else ""
        return f"{type(error).__name__}{where} ({one_line(error)})"


def _none(*_: Any) -> list[dict[str, Any]]:
    return []


#: The verifier of numbers without problems: what scores and pays where no task is named.
NUMBERS = Task("numbers", "", _none, verify_number)


def load_task(name: str) -> Task:
    """The task of that name: one of the kit's, ``reasoning_gym:<dataset>``, a .py file, or a folder like GSM8K's.

    Paths are read from the project folder or, where there is no such file, from the current one.
    Raises UserError for an unknown name, a file that cannot be imported, or one without the three names.

    >>> load_task("word_problems").verify("9 * 2 = 18\\n#### 18", "18").correct
    True
    """
    kind, _, dataset = str(name).partition(":")
    if name in BUILT_IN:
        return task_from(import_module(f"rlvr_kit.tasks.{name}"), name)
    if kind == "reasoning_gym":
        return task_from(import_module("rlvr_kit.tasks.reasoning_gym").gym_task(dataset), name)
    from rlvr_kit.paths import found_path
    from rlvr_kit.tasks.task_file import run_file  # late: a Lambda does without

    path = found_path(name)
    if path.suffix == ".py" and path.is_file():
        return task_from(run_file(path), str(name), path)
    if path.is_dir():
        return task_from(import_module("rlvr_kit.tasks.gsm8k").folder_task(path), str(name))
    raise InputError(
        f"no task {name!r}: the tasks are {', '.join(BUILT_IN)} and reasoning_gym:<dataset>, or give the path of "
        "a task's .py file or of a folder with train.jsonl and test.jsonl"
    )


def plain_question(question: str) -> str:
    """The question as two splits are compared by: without capitals, spaces and sentence marks; a + or - counts."""
    return re.sub(r"[^\w+*/<>=%^-]+", " ", question.lower()).strip()


def task_title(name: str) -> str:
    """A task's name without a path and its ending, for titles and file names; the task need not be here."""
    return Path(name).name.removesuffix(".py").replace(":", "-")


def names_folder(name: str) -> bool:
    """Whether a task's name is that of a folder in GSM8K's schema, by its form: it need not exist."""
    return name not in BUILT_IN and not name.startswith("reasoning_gym:") and not name.endswith(".py")


def task_from(module: Any, name: str, file: Path | None = None) -> Task:
    """The task that a module (or any object with the three names) is. Raises UserError for what it lacks."""
    wanted = {"INSTRUCTION": "a text", "problems": "a function", "verify": "a function"}
    for key, kind in wanted.items():
        found = getattr(module, key, None)
        if not (isinstance(found, str) if kind == "a text" else callable(found)):
            raise InputError(
                f"{name} has no {key} that is {kind}. A task's file defines INSTRUCTION, problems(split, n, seed) and "
                "verify(completion, gold); `python -m rlvr_kit new-task my_task.py` writes an example"
            )
    beside, whole = getattr(module, "FILES", []), getattr(module, "WHOLE", False)
    if not isinstance(beside, list | tuple) or not all(isinstance(name, str) for name in beside):
        raise InputError(
            f'{name}: FILES is a list of names, such as ["orders.csv"], not {ascii(beside)[:60]}'
        )
    return Task(name, module.INSTRUCTION, module.problems, module.verify, file, tuple(beside), whole)
