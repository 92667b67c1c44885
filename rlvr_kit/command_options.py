"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from rlvr_kit.errors import InputError


def folder(text: str) -> Path:
    """What --out names. An empty name (an unset variable, say) would be the current folder."""
    if not text.strip():
        raise InputError("--out is empty: name a folder, such as runs/first")
    return Path(text)


RecipeName = Annotated[
    str, typer.Option("--recipe", "-r", help="A recipe's name (cpu, gpu, …) or its .yaml file.")
]
Overrides = Annotated[list[str], typer.Option("--set", help="Override, e.g. --set grpo.learning_rate=1e-5.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="The run folder.", parser=folder)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
