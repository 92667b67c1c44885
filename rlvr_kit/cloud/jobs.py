"""A recipe as a SageMaker training job: plan it, submit it, follow it, fetch what it made, clean up after it.

Over the SageMaker SDK 3 and the account that boto3 finds; inside `rehearsal()` the same calls run a pretended
job on this machine. A job is called `rlvr-kit-<time>` and keeps what is its own in s3://<bucket>/rlvr-kit/<job>/.

>>> job = submit(plan_job(load_recipe("gpu"), "ml.g6.2xlarge"))
>>> follow(job)
>>> fetch(job, "runs/gpu").log()
"""

import json
import shutil
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_kit.cloud.account import explained, open_session
from rlvr_kit.cloud.job_plan import NAME, JobPlan, model_trainer, plan_job, staged_source
from rlvr_kit.errors import InputError
from rlvr_kit.paths import project_path
from rlvr_kit.run_folder import Run

if TYPE_CHECKING:
    from sagemaker.core.resources import TrainingJob

__all__ = ["JobPlan", "attach", "clean_up", "fetch", "follow", "plan_job", "stop", "submit"]

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
ENDED = ("Completed", "Failed", "Stopped")


def submit(plan: JobPlan) -> "TrainingJob":
    """Upload and start the planned job; returns at once. Raises UserError when the plan has refusals."""
    if plan.refusals:
        raise InputError("not submitted: " + "; ".join(plan.refusals))
    session = open_session(plan.recipe.sagemaker.bucket)
    with explained(), staged_source(plan.recipe) as source:
        trainer = model_trainer(plan.recipe, session, plan.role, plan.max_minutes, source)
        trainer.train(wait=False, logs=False)
    job = trainer._latest_training_job  # train() itself returns nothing
    assert job is not None
    return job


def attach(name: str) -> "TrainingJob":
    """The job of that name, wherever it was submitted. Raises UserError when it is not one of the kit's."""
    from botocore.exceptions import ClientError
    from sagemaker.core.resources import TrainingJob

    session = open_session()
    with explained():
        try:
            job = TrainingJob.get(name, session=session.boto_session)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("ValidationException", "ResourceNotFound"):
                raise
            raise InputError(f"there is no training job {name!r} in {session.boto_region_name}") from error
    if "rlvr_kit" not in (job.hyper_parameters or {}):
        raise InputError(f"{name!r} is a training job, but none of this kit's: it is left alone")
    return job


def follow(
    job: "TrainingJob",
    *,
    on_line: Callable[[str], Any] = print,
    live: Callable[[Run], Any] | None = None,
    poll: float = 5.0,
) -> "TrainingJob":
    """Show the job's log until it ends; `live` draws the chart, as in `train`, after each step logged.

    Ctrl-C stops following, never the job. Where AWS does not answer, it waits and goes on.
    Raises UserError when the job has failed.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    name, shown, ended, over = job.training_job_name, "", False, False
    logs, seen = open_session().boto_session.client("logs"), dict[str, str]()
    with explained(), tempfile.TemporaryDirectory() as scratch:
        run = Run(scratch)
        try:
            while not over:
                try:
                    over = ended  # CloudWatch is a little late: it is read once more after the end
                    job.refresh()
                    ended = job.training_job_status in ENDED
                    for line in _new_lines(logs, name, seen):
                        on_line(line)
                        if live and line.startswith('{"step"'):
                            run.append_log(json.loads(line))
                            live(run)
                except (BotoCoreError, ClientError) as error:
                    if not _passes(error):
                        raise
                    over = False
                    on_line(f"[AWS does not answer, trying again: {error}]")
                if job.secondary_status != shown:
                    shown = job.secondary_status
                    on_line(f"[{name}: {shown}]")
                time.sleep(0 if over else poll)
        except KeyboardInterrupt:
            on_line(
                f"[no longer following; the job goes on: attach({name!r}) returns to it, stop(job) ends it]"
            )
    if job.training_job_status == "Failed":
        raise InputError(f"job {name} failed: {job.failure_reason}")
    return job


def _passes(error: Any) -> bool:
    """Whether to wait and ask again: the connection is down, AWS is busy, or wants fewer calls."""
    from botocore.exceptions import ConnectionError, HTTPClientError

    answer = getattr(error, "response", {})
    busy = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500
    throttled = "Throttling" in answer.get("Error", {}).get("Code", "")
    return busy or throttled or isinstance(error, ConnectionError | HTTPClientError)


def _new_lines(logs: Any, name: str, seen: dict[str, str]) -> Iterator[str]:
    """Log lines since the last call; `seen` keeps the place in each stream.

    The SDK's own reader settles on its streams at the start, but a spot interruption begins a new one.
    """
    from botocore.exceptions import ClientError

    try:
        listing = logs.describe_log_streams(logGroupName=LOG_GROUP, logStreamNamePrefix=f"{name}/")
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        return  # an account's first job: there is no log group until the container prints
    for stream in (stream["logStreamName"] for stream in listing["logStreams"]):
        events: list[Any] = [None]
        while events:
            place = {"nextToken": seen[stream]} if stream in seen else {}
            read = partial(logs.get_log_events, logGroupName=LOG_GROUP, logStreamName=stream)
            answer = read(startFromHead=True, **place)
            events, seen[stream] = answer["events"], answer["nextForwardToken"]
            yield from (event["message"].rstrip("\n") for event in events)


def stop(job: "TrainingJob") -> None:
    """Ask the job to stop: it checkpoints first, and what it has so far can be fetched."""
    with explained():
        job.stop()


def fetch(job: "TrainingJob", out: str | Path) -> Run:
    """Bring the job's run folder here: it reads like a local run's, and `evaluate` works on its model.

    A job that failed, or was cut off before it could pack, has no run in model.tar.gz: what it had then comes
    from its checkpoints, the log as far as it went.
    Raises UserError when the job still runs, `out` is not empty, or the files are gone.
    """
    from sagemaker.core.s3 import S3Downloader

    target = project_path(out)
    if target.exists() and any(target.iterdir()):
        raise InputError(f"{target} is not empty: choose another folder for what the job made")
    target.parent.mkdir(parents=True, exist_ok=True)
    session = open_session()
    with explained(), tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        job.refresh()
        if job.training_job_status not in ENDED:
            raise InputError(
                f"job {job.training_job_name} is {job.training_job_status}: follow(job) until it ends"
            )
        run, uri = Path(scratch, "run"), job.checkpoint_config.s3_uri
        if job.training_job_status != "Failed":
            packed = job.model_artifacts.s3_model_artifacts
            for file in S3Downloader.download(packed, f"{scratch}/packed", sagemaker_session=session):
                with tarfile.open(file) as archive:
                    archive.extractall(run, filter="data")
        if not (run / "log.jsonl").exists():
            S3Downloader.download(uri, str(run), sagemaker_session=session)
        if not (run / "log.jsonl").exists():
            raise InputError(f"job {job.training_job_name} left nothing at {uri}, or it was deleted")
        if target.exists():
            target.rmdir()
        shutil.move(run, target)
    return Run(target)


def clean_up(delete: Collection[str] = (), bucket: str | None = None) -> list[dict[str, Any]]:
    """List what the kit's jobs left in the account; stop or delete only the items whose "id" is in `delete`.

    An item is {"id", "what", "bytes", "deleted"}: jobs that run, endpoints, log streams, folders in S3.
    `bucket`: the recipe's sagemaker.bucket, where that is not the session's default one.
    """
    session = open_session(bucket, dry=True)
    sagemaker, s3, logs = (session.boto_session.client(name) for name in ("sagemaker", "s3", "logs"))
    bucket, ours = session.default_bucket(), f"{NAME}-"
    prefix = f"{session.default_bucket_prefix}/{NAME}/" if session.default_bucket_prefix else f"{NAME}/"
    found: dict[str, tuple[str, int, Callable[[], Any]]] = {}
    with explained():
        for job in _items(sagemaker, "list_training_jobs", "TrainingJobSummaries", NameContains=ours):
            if job["TrainingJobStatus"] not in ENDED:
                name = job["TrainingJobName"]
                act = partial(sagemaker.stop_training_job, TrainingJobName=name)
                found[f"training-job/{name}"] = ("a job that runs, and costs money", 0, act)
        for endpoint in _items(sagemaker, "list_endpoints", "Endpoints", NameContains=ours):
            name = endpoint["EndpointName"]
            act = partial(sagemaker.delete_endpoint, EndpointName=name)
            found[f"endpoint/{name}"] = ("an endpoint, which costs money", 0, act)
        streams = {"logGroupName": LOG_GROUP, "logStreamNamePrefix": ours}
        for stream in _items(logs, "describe_log_streams", "logStreams", **streams):
            name = stream["logStreamName"]
            act = partial(logs.delete_log_stream, logGroupName=LOG_GROUP, logStreamName=name)
            found[f"log-stream/{name}"] = ("the log of a machine", stream.get("storedBytes", 0), act)
        sizes: Counter[str] = Counter()
        for item in _items(s3, "list_objects_v2", "Contents", Bucket=bucket, Prefix=prefix):
            sizes[prefix + item["Key"].removeprefix(prefix).split("/")[0] + "/"] += item["Size"]
        for folder, size in sizes.items():
            act = session.s3_resource.Bucket(bucket).objects.filter(Prefix=folder).delete
            found[f"s3://{bucket}/{folder}"] = ("a job's source, checkpoints and model", size, act)
        if unknown := sorted(set(delete) - set(found)):
            raise InputError(f"nothing was deleted, because the kit left no {', '.join(unknown)}")
        for name in delete:
            found[name][2]()
    return [
        {"id": name, "what": what, "bytes": size, "deleted": name in delete}
        for name, (what, size, _) in found.items()
    ]


def _items(client: Any, operation: str, key: str, **filters: Any) -> Iterator[dict[str, Any]]:
    """All items of a paged listing; none where the bucket or the log group does not exist (yet)."""
    from botocore.exceptions import ClientError

    try:
        for page in client.get_paginator(operation).paginate(**filters):
            yield from page.get(key, [])
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("NoSuchBucket", "ResourceNotFoundException"):
            raise
