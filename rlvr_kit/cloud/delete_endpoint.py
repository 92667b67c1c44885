"""Delete an endpoint and its parts, even if AWS refuses at first or somebody presses Ctrl-C meanwhile."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from rlvr_kit.errors import AWSError
from rlvr_kit.machine import handle_signals

if TYPE_CHECKING:
    from sagemaker.core.helper.session_helper import Session

#: Seconds between two questions about a state: the first pause and the longest one. Each grows by half.
POLL = (1.0, 15.0)
#: Seconds for which a deletion is tried again: SageMaker refuses it while an endpoint is being created.
DELETE_WITHIN = 2400.0


def delete_endpoint(
    name: str,
    session: "Session",
    upload: tuple[str, str] | None = None,
    on_line: Callable[[str], Any] = print,
) -> None:
    """Delete the endpoint, its configuration, its model, and the `upload` (bucket, key). Missing parts are no error.

    Raises:
        AWSError: something could not be deleted, and the message names it. The rest is still deleted.
    """
    sagemaker = session.boto_session.client("sagemaker")
    calls: dict[str, Callable[[], Any]] = {
        "endpoint": partial(sagemaker.delete_endpoint, EndpointName=name),
        "endpoint-config": partial(sagemaker.delete_endpoint_config, EndpointConfigName=name),
        "model": partial(sagemaker.delete_model, ModelName=name),
    }
    if upload:
        s3 = session.boto_session.client("s3")
        calls["upload"] = partial(s3.delete_object, Bucket=upload[0], Key=upload[1])
    left = {kind: problem for kind, call in calls.items() if (problem := _delete(call, kind, on_line))}
    if left:
        told = "; ".join(f"{kind} {name}: {problem}" for kind, problem in left.items())
        raise AWSError(f"not deleted, and an endpoint costs money until it is: {told} (see `clean-up`)")


def _delete(call: Callable[[], Any], kind: str, on_line: Callable[[str], Any]) -> str:
    """Delete one part, and wait while it is being created. Returns why it could not be deleted, or ""."""
    from botocore.exceptions import BotoCoreError, ClientError

    deadline, pause, told = time.monotonic() + DELETE_WITHIN, POLL[0], False
    failures = 0
    while True:
        try:
            call()
            return ""
        except ClientError as error:
            message = error.response["Error"].get("Message", "")
            if "Could not find" in message or "does not exist" in message or "NotFound" in str(error):
                return ""
            busy = "in-progress" in message or "in progress" in message or "Throttling" in str(error)
            failures += not busy
            problem = " ".join(str(error).split())
        except BotoCoreError as error:
            failures, problem = failures + 1, " ".join(str(error).split())
        if failures > 3 or time.monotonic() > deadline:
            return problem
        if not told:
            on_line(f"[the {kind} cannot be deleted yet, so it is tried again: leave this running]")
        told, pause = True, min(1.5 * pause, POLL[1])
        time.sleep(pause)


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt, as Ctrl-C does, so that everything is deleted. Only in the main thread."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with handle_signals(interrupt, signal.SIGTERM):
        yield


@contextmanager
def no_ctrl_c(on_line: Callable[[str], Any]) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM print a line and stop nothing while something that costs money is being deleted."""
    notice = "[deleting the endpoint, which costs money until it is gone: one moment]"
    with handle_signals(lambda *_: on_line(notice), signal.SIGINT, signal.SIGTERM):
        yield
