"""A task is one Python file: what is asked, on which problems, and how an answer is judged.

    INSTRUCTION: str                                   the system message, with one example of the answer's format
    def problems(split, n, seed) -> rows               at most n rows of the split "train" or "test"; the same call
                                                       gives the same rows. Each row has the texts `question`, `gold`
                                                       and `answer` (a worked answer, which must verify)
    def verify(completion: str, gold: str) -> Verdict  judges any text, and never raises

The kit's own tasks are such files in this folder; `task: path/to/my_task.py` in a recipe names yours, and
``python -m rlvr_kit new-task my_task.py`` writes one to start from. A task file is your own code, so it is run; the
text of a model never is. ``problems`` may return a ``datasets.Dataset`` or a list of dictionaries. When no completion
could match a gold, ``verify`` says so with a `why` that starts with "unreadable gold".
A file that reads other files in its folder names them in ``FILES = ["orders.csv"]``: they go to SageMaker with it.
Python files in its folder that it imports go with it too.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlvr_kit.errors import InputError, UserError, line_in, one_line
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
    """A loaded task. It checks every row and every verdict that the task's file returns.

    >>> task = load_task("orders")
    >>> row = task.problems("train", 1)[0]
    >>> task.verify(row["answer"], row["gold"]).correct
    True
    """

    name: str
    instruction: str
    _problems: Callable[..., "Dataset | Iterable[dict[str, Any]]"]
    _verify: Callable[[str, str], Verdict]
    file: Path | None = None  # the file of a user's own task
    beside: tuple[str, ...] = ()  # FILES: the names of other files in its folder that it reads
    whole: bool = False  # its rows lie on disk: a recipe that does not say how many takes all of them

    def __post_init__(self) -> None:
        """Raise UserError for a name in FILES that is no file in the task's own folder."""
        for name in self.beside:
            if self.file and (Path(name).name != name or not self.file.with_name(name).is_file()):
                raise InputError(
                    f"{self.name}: FILES names {name}, and there is no such file in the task's folder"
                )

    def problems(self, split: Split, n: int | None, seed: int = 0, **options: Any) -> "Dataset":
        """Return at most ``n`` rows of a split, as a Dataset with at least the columns question, gold and answer.

        Raises UserError when the task's own function raises, or when a row lacks one of the three texts.
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
        """Judge a completion. Raises UserError when the task's verifier raises, or returns anything but a Verdict."""
        asked = f"for the completion {ascii(completion[:60])} and the gold {ascii(gold[:60])}"
        try:
            verdict = self._verify(completion, gold)
        except (Exception, SystemExit) as error:
            raise InputError(
                f"{self.name}: verify raised {self._told(error)} {asked}: it must return a Verdict for any text"
            ) from error
        if not isinstance(verdict, Verdict):
            raise InputError(f"{self.name}: verify returned {ascii(verdict)[:60]}, not a Verdict, {asked}")
        for key, (kinds, told) in VERDICT_FIELDS.items():
            if not isinstance(found := getattr(verdict, key), kinds):
                raise InputError(
                    f"{self.name}: verify returned a Verdict with {key}={ascii(found)[:60]} {asked}: it must be {told}"
                )
        return verdict

    def read_gold(self, text: str) -> str:
        """Return the gold in `text`, which for a number may be a worked solution that ends ``#### N`` (as in GSM8K).

        >>> NUMBERS.read_gold("9 * 2 = 18\\n#### 18")
        '18'
        """
        return gold_answer(text) if self.judges_numbers and "####" in text else text

    @property
    def judges_numbers(self) -> bool:
        """Whether the task is judged by the kit's own verifier of numbers (verifier.py)."""
        return self._verify is verify_number

    def gold_problem(self, gold: str) -> str | None:
        """Return why no completion could match this gold, or None when one could."""
        why = self.verify("", gold).why if gold.strip() else "unreadable gold: it is empty"
        return why if why.startswith("unreadable gold") else None

    @property
    def travels(self) -> list[Path]:
        """The files that another machine needs to run a user's own task; none for the kit's tasks.

        They are the task's file, those in ``FILES``, and the Python files beside it that it imports.
        """
        if self.file is None:
            return []
        from rlvr_kit.tasks.task_file import imported_beside

        named = [self.file.with_name(name) for name in self.beside]
        return [*dict.fromkeys([self.file, *named, *imported_beside(self.file)])]

    def refuse_changed(self, copy: Path) -> None:
        """Raise UserError when a user's own file has changed since a run made its `copy` of it."""
        if self.file and copy.exists() and copy.read_bytes() != self.file.read_bytes():
            raise InputError(
                f"{copy.parent} holds a run of {self.file.name} as it was before that file changed (its {copy.name}): "
                "choose another output folder"
            )

    @property
    def digest(self) -> str:
        """A hash of a user's own file and of those that travel with it; empty for the kit's tasks."""
        contents = b"\0".join(file.read_bytes() for file in self.travels)
        return hashlib.sha256(contents).hexdigest()[:12] if self.file else ""

    def _told(self, error: BaseException) -> str:
        """Describe an error, with the line of the task's file in which it was raised."""
        where = f" in {line}" if (line := line_in(self.file, error)) else ""
        return f"{type(error).__name__}{where} ({one_line(error)})"


def _none(*_: Any) -> list[dict[str, Any]]:
    return []


#: The verifier of numbers, without any problems. It scores and pays wherever no task is named.
NUMBERS = Task("numbers", "", _none, verify_number)


def load_task(name: str) -> Task:
    """Load a task: one of the kit's, ``reasoning_gym:<dataset>``, a .py file, or a folder in GSM8K's schema.

    A path starts in the project folder, or in the current folder when the project folder has no such file.
    Raises UserError for an unknown name, a file that cannot be imported, or a file without the three names.

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
    """Return a question without capitals, punctuation and extra spaces, to find it again in another split.

    >>> plain_question("What is  3 + 4?")
    'what is 3 + 4'
    """
    return re.sub(r"[^\w+*/<>=%^-]+", " ", question.lower()).strip()


def task_title(name: str) -> str:
    """Return a task's name without its folder and ending, for titles and file names. The task is not loaded.

    >>> task_title("my/tasks/mails.py"), task_title("reasoning_gym:leg_counting")
    ('mails', 'reasoning_gym-leg_counting')
    """
    return Path(name).name.removesuffix(".py").replace(":", "-")


def names_folder(name: str) -> bool:
    """Whether a task's name has the form of a folder's name. The folder need not exist."""
    return name not in BUILT_IN and not name.startswith("reasoning_gym:") and not name.endswith(".py")


def task_from(module: Any, name: str, file: Path | None = None) -> Task:
    """Make a task of a module, or of any object with the three names. Raises UserError when one is missing."""
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
