"""Options that several commands share."""

from collections.abc import Callable
from functools import wraps
from inspect import get_annotations, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from rlvr_kit.errors import InputError


def folder(text: str) -> Path:
    """Read --out. An empty name (an unset variable, say) is refused, because it would mean the current folder."""
    if not text.strip():
        raise InputError("--out is empty: name a folder, such as runs/first")
    return Path(text)


RecipeName = Annotated[
    str, typer.Option("--recipe", "-r", help="A recipe's name (cpu, gpu, …) or its .yaml file.")
]
Overrides = Annotated[list[str], typer.Option("--set", help="Override, e.g. --set grpo.learning_rate=1e-5.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="The run folder.", parser=folder)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def options_of(command: Callable[[Any], None]) -> Callable[..., None]:
    """Let a command with many options take them as one dataclass: typer makes an option of each of its fields.

    >>> @options_of
    ... def evaluate(given: Evaluate) -> None: ...  # doctest: +SKIP
    """
    settings, _ = get_annotations(command).values()

    @wraps(command)
    def run(**options: Any) -> None:
        command(settings(**options))

    run.__signature__ = signature(settings)  # type: ignore[attr-defined]  # typer reads the options here
    return run
