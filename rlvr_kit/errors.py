"""Errors that the person at the keyboard can put right.

    UserError          the message says what was wrong, where, and what to do
    ├── InputError     a recipe, a file, an option or a model's name cannot be used as it was given
    ├── MachineError   this computer lacks something: memory, disk, a GPU, a network, a package
    ├── AWSError       what AWS answered, or cannot be asked
    └── Interrupted    someone asked to stop (Ctrl-C, SIGTERM); what was done is kept

The command line shows the message as one line, without a traceback.
"""

import traceback
from pathlib import Path


class UserError(Exception):
    """The base class: catch it to handle every error that the kit expects."""

    exit_code = 1  #: what the command line returns to the shell


class InputError(UserError):
    """A recipe, a file, an option or a model's name cannot be used as it was given."""


class MachineError(UserError):
    """This computer lacks something: memory, disk space, a GPU, a network or an optional package."""


class AWSError(UserError):
    """AWS refused a call, or could not be asked."""


class Interrupted(UserError):
    """Work was asked to stop, and stopped in good order. The message says what is kept and how to resume."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def one_line(error: BaseException) -> str:
    """What an error says, in one line that is not too long."""
    return " ".join(str(error).split())[:300]


def line_in(file: Path | None, error: BaseException) -> str:
    """Return "line N", the place in a file where an error was raised, or "" when it was raised elsewhere."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(file)]
    return f"line {lines[-1]}" if lines else ""
