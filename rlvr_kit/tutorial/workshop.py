"""Copies of the notebooks for a workshop: ``make workshop`` writes them into build/workshop/.

    student/      every notebook without the solutions of its exercises
    solutions/    the notebooks as they are
    student.zip   the student copies, to hand out

There is one source for exercise and solution: in a cell tagged ``exercise``, the student copy has a comment where the
original has the lines between nbgrader's two markers.
"""

import re
import shutil
import zipfile
from pathlib import Path

import nbformat

from rlvr_kit.errors import InputError
from rlvr_kit.paths import PROJECT

STUB = "# Your code here, instead of the three dots above."
_BLOCK = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION$", re.MULTILINE | re.DOTALL)


def replace_solution(source: str, code: str = STUB) -> str:
    """The source of an exercise with `code`, indented alike, in the place of its solution and the two markers.

    Raises InputError where the source has not exactly one solution.

    >>> print(replace_solution("x = ...\\n### BEGIN SOLUTION\\nx = 7\\n### END SOLUTION", "x = 8"))
    x = ...
    x = 8
    """
    blocks = list(_BLOCK.finditer(source))
    if len(blocks) != 1 or "SOLUTION" in source.replace(blocks[0][0], ""):
        raise InputError(f"an exercise needs one solution between its two markers:\n{source}")
    [block] = blocks
    indented = "\n".join(f"{block[1]}{line}" if line else line for line in code.splitlines())
    return source[: block.start()] + indented + source[block.end() :]


def student_copy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy of `notebook` in which no exercise is solved."""
    copied = nbformat.from_dict(notebook)
    for cell in copied.cells:
        if "exercise" in cell.metadata.get("tags", []):
            cell.source = replace_solution(cell.source)
    return copied


def make_workshop(out: Path = PROJECT / "build" / "workshop") -> Path:
    """Write student copies, solutions and the zip of the student copies into `out`, made anew; return `out`."""
    shutil.rmtree(out, ignore_errors=True)
    for name in ("student", "solutions"):
        (out / name).mkdir(parents=True)
    with zipfile.ZipFile(out / "student.zip", "w", zipfile.ZIP_DEFLATED) as handed_out:
        for path in sorted((PROJECT / "notebooks").glob("*.ipynb")):
            shutil.copy(path, out / "solutions")
            nbformat.write(student_copy(nbformat.read(path, as_version=4)), out / "student" / path.name)
            handed_out.write(out / "student" / path.name, f"student/{path.name}")
    return out


if __name__ == "__main__":
    print(f"written: {make_workshop()}")
