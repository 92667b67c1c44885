"""The log of a training job: what its containers print, read from CloudWatch until the job ends."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rlvr_kit.cloud.account import explain_aws_errors, open_session

if TYPE_CHECKING:
    from sagemaker.core.resources import TrainingJob

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
#: The final states of a training job.
ENDED = ("Completed", "Failed", "Stopped")


def log_lines(job: "TrainingJob", poll: float) -> Iterator[str]:
    """Yield the job's log lines as they arrive, and each change of its state in brackets, until the job ends.

    AWS is asked every `poll` seconds. When it does not answer, one line says so, and it is asked again.

    Raises:
        AWSError: AWS refuses a call.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    name, shown, ended, complete = job.training_job_name, "", False, False
    positions: dict[str, str] = {}
    with explain_aws_errors():
        client = open_session().boto_session.client("logs")
        while not complete:
            try:
                was_ended = ended
                job.refresh()
                ended = job.training_job_status in ENDED
                yield from _new_lines(client, name, positions)
                complete = was_ended  # CloudWatch lags a little, so it is read once more after the job's end
            except (BotoCoreError, ClientError) as error:
                if not _is_transient(error):
                    raise
                yield f"[AWS does not answer, trying again: {error}]"
            if job.secondary_status != shown:
                shown = job.secondary_status
                yield f"[{name}: {shown}]"
            time.sleep(0 if complete else poll)


def _is_transient(error: Any) -> bool:
    """Whether to wait and ask again: the connection is down, AWS is busy, or it asks for fewer calls."""
    from botocore.exceptions import ConnectionError, HTTPClientError

    response = getattr(error, "response", {})
    server_error = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500
    throttled = "Throttling" in response.get("Error", {}).get("Code", "")
    return server_error or throttled or isinstance(error, ConnectionError | HTTPClientError)


def _new_lines(client: Any, name: str, positions: dict[str, str]) -> Iterator[str]:
    """Yield the log lines since the last call. `positions` keeps the place in each log stream.

    The SDK's own reader lists the streams only at the start, but a spot interruption begins a new stream.
    """
    from botocore.exceptions import ClientError

    streams = client.get_paginator("describe_log_streams")
    pages = streams.paginate(logGroupName=LOG_GROUP, logStreamNamePrefix=f"{name}/")
    try:
        names = [stream["logStreamName"] for page in pages for stream in page["logStreams"]]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        return  # an account's first job: the log group does not exist until the container prints
    for stream in names:
        # botocore has no paginator for GetLogEvents. A page may be empty before the end of the stream. At the end AWS
        # returns the token that it was sent.
        sent, token = None, positions.get(stream)
        while sent is None or token != sent:
            sent = token
            place = {"nextToken": token} if token else {}
            page = client.get_log_events(
                logGroupName=LOG_GROUP, logStreamName=stream, startFromHead=True, **place
            )
            yield from (event["message"].rstrip("\n") for event in page["events"])
            token = positions[stream] = page["nextForwardToken"]
