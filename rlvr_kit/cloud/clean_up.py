"""List what the kit's jobs left in an AWS account, and stop or delete what is named.

Resources of others are not touched. A job or an endpoint counts as the kit's only when its name begins with `rlvr-kit-`
and it has the tag `rlvr-kit`, a log stream when its job does, and a file when it is in the kit's folder of the bucket.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any, NamedTuple

from rlvr_kit.cloud.account import explain_aws_errors, open_session
from rlvr_kit.cloud.job_log import ENDED, LOG_GROUP
from rlvr_kit.cloud.job_request import NAME
from rlvr_kit.errors import InputError

#: How the name of every job begins.
PREFIX = f"{NAME}-"
#: What deploying leaves: AWS's name for it, the name in the calls that list and delete it, and what it is.
ENDPOINT_PARTS = (
    ("Endpoint", "endpoint", "an endpoint, which costs money"),
    ("EndpointConfig", "endpoint_config", "the configuration of an endpoint"),
    ("Model", "model", "the model of an endpoint"),
)


class Leftover(NamedTuple):
    """One thing that a job of the kit left in the account, and the call that stops or deletes it."""

    id: str
    what: str
    bytes: int
    delete: Callable[[], Any]


def clean_up(delete: Collection[str] = (), bucket: str | None = None) -> list[dict[str, Any]]:
    """List what the kit's jobs left in the account, and stop or delete only the items whose "id" is in `delete`.

    Each item is {"id", "what", "bytes", "deleted"}. Items are running jobs, endpoints with their configurations and
    models, log streams, and folders in S3. `bucket` is needed when it is not the session's default one.

    Raises:
        InputError: `delete` names something that the kit did not leave; then nothing is deleted.
        AWSError: AWS refuses a call.

    >>> [item["id"] for item in clean_up() if not item["deleted"]]  # doctest: +SKIP
    """
    session = open_session(bucket, read_only=True)
    with explain_aws_errors():
        found = [*_jobs_endpoints_and_logs(session), *_folders(session)]
        if unknown := sorted(set(delete) - {item.id for item in found}):
            raise InputError(f"nothing was deleted, because the kit left no {', '.join(unknown)}")
        for item in found:
            if item.id in delete:
                item.delete()
    return [
        {"id": item.id, "what": item.what, "bytes": item.bytes, "deleted": item.id in delete}
        for item in found
    ]


def _jobs_endpoints_and_logs(session: Any) -> Iterator[Leftover]:
    sagemaker, logs = session.boto_session.client("sagemaker"), session.boto_session.client("logs")
    arns = {}
    for job in _items(sagemaker, "list_training_jobs", "TrainingJobSummaries", NameContains=PREFIX):
        name = job["TrainingJobName"]
        arns[name] = job["TrainingJobArn"]
        if job["TrainingJobStatus"] not in ENDED and _is_ours(sagemaker, name, arns[name]):
            stop = partial(sagemaker.stop_training_job, TrainingJobName=name)
            yield Leftover(f"training-job/{name}", "a running job, which costs money", 0, stop)
    for kind, call, what in ENDPOINT_PARTS:
        for part in _items(sagemaker, f"list_{call}s", f"{kind}s", NameContains=PREFIX):
            name = part[f"{kind}Name"]
            if _is_ours(sagemaker, name, part[f"{kind}Arn"]):
                delete = partial(getattr(sagemaker, f"delete_{call}"), **{f"{kind}Name": name})
                yield Leftover(f"{call.replace('_', '-')}/{name}", what, 0, delete)
    ours: dict[str, bool] = {}  # by job, because a job has a log stream for each of its machines
    streams = {"logGroupName": LOG_GROUP, "logStreamNamePrefix": PREFIX}
    for stream in _items(logs, "describe_log_streams", "logStreams", **streams):
        job_name = stream["logStreamName"].split("/")[0]
        if job_name not in ours:
            ours[job_name] = job_name in arns and _is_ours(sagemaker, job_name, arns[job_name])
        if ours[job_name]:
            place = {"logGroupName": LOG_GROUP, "logStreamName": stream["logStreamName"]}
            delete = partial(logs.delete_log_stream, **place)
            size = stream.get("storedBytes", 0)
            yield Leftover(f"log-stream/{stream['logStreamName']}", "the log of a machine", size, delete)


def _folders(session: Any) -> Iterator[Leftover]:
    """Yield the folders of jobs in the kit's folder of the session's bucket."""
    bucket = session.default_bucket()
    root = f"{session.default_bucket_prefix}/{NAME}/" if session.default_bucket_prefix else f"{NAME}/"
    sizes: Counter[str] = Counter()
    s3 = session.boto_session.client("s3")
    for item in _items(s3, "list_objects_v2", "Contents", Bucket=bucket, Prefix=root + PREFIX):
        sizes[root + item["Key"].removeprefix(root).split("/")[0] + "/"] += item["Size"]
    for folder, size in sizes.items():
        delete = session.s3_resource.Bucket(bucket).objects.filter(Prefix=folder).delete
        yield Leftover(f"s3://{bucket}/{folder}", "a job's source, checkpoints and model", size, delete)


def _is_ours(sagemaker: Any, name: str, arn: str) -> bool:
    """Whether the kit made a job or an endpoint. `NameContains` also finds names of others, so its tags decide."""
    tags = _items(sagemaker, "list_tags", "Tags", ResourceArn=arn) if name.startswith(PREFIX) else ()
    return any(tag["Key"] == NAME for tag in tags)


def _items(client: Any, operation: str, key: str, **filters: Any) -> Iterator[dict[str, Any]]:
    """Yield all items of a paged listing; none when the bucket or the log group does not exist (yet)."""
    from botocore.exceptions import ClientError

    try:
        for page in client.get_paginator(operation).paginate(**filters):
            yield from page.get(key, [])
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("NoSuchBucket", "ResourceNotFoundException"):
            raise
