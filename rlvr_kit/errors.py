"""Errors that the person at the keyboard can put right.

    UserError          the message says what was wrong, where, and what to do
    ├── InputError     a recipe, a file, an option or a model's name cannot be used as it was given
    ├── MachineError   this computer lacks something: memory, disk, a GPU, a network, a package
    ├── AWSError       what AWS answered, or cannot be asked
    └── Interrupted    someone asked to stop (Ctrl-C, SIGTERM); what was done is kept

The command line shows the message as one line, without a traceback.
"""


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
