"""A recipe as a SageMaker training job: plan it, submit it, follow it, stop it, fetch what it made.

This uses the SageMaker SDK 3 and the account that boto3 finds. Inside `rehearsal()` the same calls run the job on this
machine with a pretended AWS. A job's name is `rlvr-kit-<time>`, and its files are in s3://<bucket>/rlvr-kit/<job>/.

>>> job = submit(plan_job(load_recipe("gpu"), "ml.g6.2xlarge"))  # doctest: +SKIP
>>> follow(job)  # doctest: +SKIP
>>> fetch(job, "runs/gpu").log()  # doctest: +SKIP
"""

import json
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_kit.cloud.account import REHEARSAL_ACCOUNT, explain_aws_errors, explain_sdk_errors, open_session
from rlvr_kit.cloud.job_log import ENDED, log_lines
from rlvr_kit.cloud.job_plan import JobPlan, plan_job
from rlvr_kit.cloud.job_request import model_trainer, staged_source
from rlvr_kit.errors import AWSError, InputError
from rlvr_kit.paths import project_path
from rlvr_kit.run_folder import Run

if TYPE_CHECKING:
    from sagemaker.core.resources import TrainingJob

__all__ = ["JobPlan", "attach", "fetch", "follow", "has_ended", "plan_job", "stop", "submit"]


def submit(plan: JobPlan) -> "TrainingJob":
    """Upload what the planned job needs, start it and return at once.

    Raises:
        InputError: the plan has refusals; nothing was uploaded.
        AWSError: AWS refuses a call.
    """
    if plan.refusals:
        raise InputError("not submitted: " + "; ".join(plan.refusals))
    session = open_session(plan.recipe.sagemaker.bucket)
    with (
        explain_sdk_errors("the SageMaker SDK refuses the recipe's settings"),
        explain_aws_errors(),
        staged_source(plan.recipe) as source,
    ):
        trainer = model_trainer(plan.recipe, session, plan.role, plan.max_minutes, source)
        trainer.train(wait=False, logs=False)
    job = trainer._latest_training_job  # train() itself returns nothing
    assert job is not None
    return job


def attach(name: str) -> "TrainingJob":
    """Return the job of that name, which may have been submitted on another machine.

    Raises:
        InputError: there is no such job, or the kit did not submit it.
        AWSError: AWS refuses a call.
    """
    session = open_session()  # before the imports, since it reports when the SDK is not installed
    from botocore.exceptions import ClientError
    from sagemaker.core.resources import TrainingJob

    with explain_aws_errors():
        try:
            job = TrainingJob.get(name, session=session.boto_session)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("ValidationException", "ResourceNotFound"):
                raise
            raise InputError(f"there is no training job {name!r} in {session.boto_region_name}") from error
    if "rlvr_kit" not in (job.hyper_parameters or {}):
        raise InputError(f"{name!r} is a training job, but this kit did not submit it: it is left alone")
    return job


def follow(
    job: "TrainingJob",
    *,
    on_line: Callable[[str], Any] = print,
    live: Callable[[Run], Any] | None = None,
    poll: float = 5.0,
) -> "TrainingJob":
    """Show the job's log until the job ends. `live` draws the chart after each logged step, as in `train`.

    AWS is asked every `poll` seconds; when it does not answer, it is asked again. Ctrl-C ends only the following, and
    the job goes on.

    Raises:
        AWSError: the job has failed, or AWS refuses a call.
    """
    name = job.training_job_name
    with tempfile.TemporaryDirectory() as scratch:
        run = Run(scratch)
        try:
            for line in log_lines(job, poll):
                on_line(line)
                if live and line.startswith('{"step"'):
                    run.append_log(json.loads(line))
                    live(run)
        except KeyboardInterrupt:
            if f":{REHEARSAL_ACCOUNT}:" in job.training_job_arn:
                on_line("[no longer following; this is a rehearsal, so the job ends when the rehearsal ends]")
            else:
                on_line(
                    f"[no longer following; the job goes on and is billed: attach({name!r}) or "
                    f"`submit --attach {name}` follows it again, stop(job) ends it]"
                )
    if job.training_job_status == "Failed":
        raise AWSError(f"job {name} failed: {job.failure_reason}")
    return job


def has_ended(job: "TrainingJob") -> bool:
    """Whether the job had completed, failed or stopped when AWS was last asked about it."""
    return job.training_job_status in ENDED


def stop(job: "TrainingJob") -> None:
    """Ask the job to stop. It first saves a checkpoint, and what it has made so far can be fetched."""
    with explain_aws_errors():
        job.stop()


def fetch(job: "TrainingJob", out: str | Path) -> Run:
    """Download the job's run folder to `out`. It is like the folder of a local run, and `evaluate` takes its model.

    A job that failed, or was killed before it could pack its files, has no run in model.tar.gz. Then the run is taken
    from the job's checkpoints, with as much of the log as there is.

    Raises:
        InputError: `out` is not an empty folder, or the job still runs.
        AWSError: the files are gone, or AWS refuses a call.
    """
    target = project_path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} is not an empty folder: choose another one for what the job made")
    session = open_session()  # before the import, since it reports when the SDK is not installed
    from sagemaker.core.s3 import S3Downloader

    target.parent.mkdir(parents=True, exist_ok=True)
    with explain_aws_errors(), tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        job.refresh()
        if not has_ended(job):
            raise InputError(
                f"job {job.training_job_name} is {job.training_job_status}: wait with follow(job) until it ends"
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
            raise AWSError(f"job {job.training_job_name} left nothing at {uri}, or it was deleted")
        if job.training_job_status != "Failed":  # so that `deploy` need not upload the model again
            (run / "job.json").write_text(
                json.dumps({"name": job.training_job_name, "model_artifacts": packed})
            )
        if target.exists():
            target.rmdir()
        shutil.move(run, target)
    return Run(target)
