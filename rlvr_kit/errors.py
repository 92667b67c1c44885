"""Errors that the person at the keyboard can put right.

    UserError          the message says what was wrong, where, and what to do
    ├── InputError     a recipe, a file, an option or a model's name cannot be used as it was given
    ├── MachineError   this computer lacks something: memory, disk, a GPU, a network, a package
    └── AWSError       what AWS answered, or cannot be asked

The command line shows the message as one line, without a traceback.
"""


class UserError(Exception):
    """The base of all of them: catch this one to handle every error that the kit expects."""

    exit_code = 1  #: what the command line returns to the shell


class InputError(UserError):
    """A recipe, a file, an option or a model's name cannot be used as it was given."""


class MachineError(UserError):
    """This computer lacks something: memory, disk space, a GPU, a network or an optional package."""


class AWSError(UserError):
    """AWS refused a call, or could not be asked."""
