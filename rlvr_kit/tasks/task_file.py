"""A task's Python file: run as a module of its own, and read for the files beside it that it imports."""

import ast
import importlib.util
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from rlvr_kit.errors import InputError, UserError, line_in, one_line


def run_file(path: Path) -> Any:
    """Run a task's file as a module of its own; the message says in which line it failed."""
    module_name = f"rlvr_kit_task_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec and spec.loader  # a file that ends in .py has both
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # pydantic and dataclasses look up a class's module there
    if (folder := str(path.parent)) not in sys.path:
        sys.path.append(folder)  # last, so that a file beside the task takes no library's place
    try:
        # The loader's own exec_module may take a file that changed within the same second for the one before.
        with redirect_stdout(sys.stderr):  # what it prints is no result of a command
            exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
    except UserError:
        raise
    except SyntaxError as error:
        where = f"{error.filename or path}" + (f", line {error.lineno}" if error.lineno else "")
        raise InputError(f"{where}: {error.msg}; correct the file") from None
    except (Exception, SystemExit) as error:
        where = f", {line}" if (line := line_in(path, error)) else ""
        told = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"{path}{where}: the task cannot be imported: {told}; correct the file") from error
    return module


def imports(source: Path) -> set[str]:
    """The modules that a Python file imports, beside the standard library and this kit."""
    found = set()
    for node in ast.walk(ast.parse(source.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {"rlvr_kit"}


def imported_beside(source: Path) -> list[Path]:
    """The Python files in the folder of `source` that it imports, and those that these import."""
    found = [source]
    for file in found:  # the list grows while it is read
        beside = [file.with_name(f"{name}.py") for name in sorted(imports(file))]
        found += [path for path in beside if path.is_file() and path not in found]
    return found[1:]
