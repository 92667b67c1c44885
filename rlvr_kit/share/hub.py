"""Put an exported folder on the Hugging Face Hub. It is private by default, and only this module does it."""

from pathlib import Path

from rlvr_kit.errors import InputError, MachineError

NO_TOKEN = (
    "no Hub token: make one with write access at https://huggingface.co/settings/tokens, then `hf auth login`, or set "
    "HF_TOKEN for this one command"
)


def push(folder: str | Path, repo: str, public: bool = False) -> str:
    """Upload an exported folder with its card as the model ``repo`` (``name/model``), and return its address.

    Raises:
        UserError: the folder was not exported, its licence is unknown, there is no token, or the Hub refuses.

    >>> push("runs/x/share", "somebody/my-model")  # doctest: +SKIP
    'https://huggingface.co/somebody/my-model'
    """
    from huggingface_hub import HfApi, ModelCard, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    path = Path(folder)
    exported = [path / name for name in ("README.md", "prompt.json", "generation_config.json")]
    if not all(file.is_file() for file in exported):
        raise InputError(
            f"{path} is not an exported model: make one with `python -m rlvr_kit export RUN --out {path}`"
        )
    if ModelCard.load(path / "README.md").data.license in (None, "unknown"):
        raise InputError(
            f"the card in {path} does not name the base's licence: find it out, and export again with --licence"
        )
    if not get_token():
        raise MachineError(NO_TOKEN)
    try:
        api = HfApi()
        address = str(api.create_repo(repo, private=not public, exist_ok=True))
        api.upload_folder(
            folder_path=path, repo_id=repo, commit_message="Exported by rlvr_kit, with its card"
        )
    except HFValidationError as error:
        raise InputError(f"{repo!r} cannot be a model's name on the Hub: {_first_line(error)}") from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        advice = "; does your token have write access, and is the name yours?" if status in (401, 403) else ""
        raise MachineError(f"the Hub refused: {_first_line(error)}{advice}") from error
    except Exception as error:  # no network, a time-out or offline mode, from the client's HTTP library
        raise MachineError(f"the Hub could not be reached: {_first_line(error)}") from error
    return address


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
