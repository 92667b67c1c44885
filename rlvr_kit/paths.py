"""Where things are on disk: the project folder, and the folder in which downloads are kept."""

import os
from pathlib import Path

import platformdirs

from rlvr_kit.errors import InputError

_PARENT = Path(__file__).resolve().parent.parent
#: The folder that holds ``notebooks/`` and ``runs/``. Relative paths in notebooks and recipes start here. After a
#: plain ``pip install`` there is no project folder: then it is the folder in which Python was started.
PROJECT = _PARENT if (_PARENT / "pyproject.toml").is_file() else Path.cwd()


def project_path(path: str | Path) -> Path:
    """Return `path`; a relative one starts in the project folder, wherever a notebook's kernel was started.

    Raises UserError for an empty path (an unset variable, say), which would name the project folder itself.

    >>> project_path("runs/x") == PROJECT / "runs" / "x"
    True
    """
    if not str(path).strip():
        raise InputError("the path of a folder is empty: give it a name, such as runs/first")
    return PROJECT / Path(path).expanduser()


def found_path(path: str | Path) -> Path:
    """Return `path` as `project_path` reads it or, where nothing is there, as read from the current folder.

    So ``--out runs/x`` and ``--model runs/x/model`` name one folder wherever a command is given. Links are followed.
    """
    at_home = project_path(path)
    return (at_home if at_home.exists() else Path(path).expanduser()).resolve()


def cache_folder() -> Path:
    """Return the folder in which downloads are kept: ``$RLVR_KIT_CACHE``, else the user's cache folder for this kit."""
    return Path(os.environ.get("RLVR_KIT_CACHE") or platformdirs.user_cache_path("rlvr_kit"))
