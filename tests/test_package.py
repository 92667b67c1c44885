"""The package as source: modules, functions and signatures stay small, and the examples in docstrings are true."""

import ast
import doctest
import re
from importlib import import_module

import pytest

from rlvr_kit.paths import PROJECT

FILES = {str(path.relative_to(PROJECT)): path for path in sorted((PROJECT / "rlvr_kit").rglob("*.py"))}
#: A line of an example, unless it is marked +SKIP because it needs a trained run, an account or minutes.
EXAMPLE = re.compile(r"^ *>>> (?!.*\+SKIP)", re.MULTILINE)


@pytest.mark.parametrize("name", FILES)
def test_static_modules_functions_and_signatures_are_small(name: str) -> None:
    source = FILES[name].read_text()
    assert len(source.splitlines()) <= 250
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} has more than 60 lines"
            assert len([a for a in arguments if a]) <= 8, f"{node.name} has more than 8 arguments"


@pytest.mark.parametrize("name", [name for name, path in FILES.items() if EXAMPLE.search(path.read_text())])
def test_examples_in_docstrings_give_what_they_show(name: str) -> None:
    module = import_module(name.removesuffix(".py").replace("/", "."))
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0
