"""A rehearsal of SageMaker training jobs on this machine: no account, no network, no cost.

A pretended AWS takes the real requests. Then the job's own container command runs as a process here, in the folders
that SageMaker would make. Its log, metrics, checkpoints and model.tar.gz return through the pretended CloudWatch and
S3. Not rehearsed: the image, GPUs, IAM, several machines, and how long AWS takes.

>>> with rehearsal(interrupt_at=2):  # doctest: +SKIP
...     job = submit(plan_job(load_recipe("smoke")))
...     follow(job, poll=0.2)
...     fetch(job, "runs/rehearsed")
"""

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from rlvr_kit.cloud.account import environment
from rlvr_kit.cloud.job_log import LOG_GROUP
from rlvr_kit.cloud.pretended_aws import PretendedAWS
from rlvr_kit.errors import MachineError

#: Mounts the folder $0 at /opt/ml for the command that follows. Without an /opt/ml it first mounts an empty /opt.
MOUNT = '[ -d /opt/ml ] || { mount -t tmpfs none /opt && mkdir /opt/ml; } && mount --bind "$0" /opt/ml'
UNSHARE = ("unshare", "--map-root-user", "--mount", "sh", "-c")
#: Variables of this machine that a container gets. GSM8K's folder is not one of them: it must arrive as a channel.
PASSED_VARIABLES = re.compile("PATH|HOME|LANG|TMPDIR|OMP_.*|HF_.*|XDG_.*|RLVR_KIT_(?!GSM8K).*")


@contextmanager
def rehearsal(
    *,
    interrupt_at: int | None = None,
    quota: float = 1,
    price: float | None = 0,
    region: str = "us-east-1",
    run_jobs: bool = True,
) -> Iterator[PretendedAWS]:
    """Pretend AWS inside the block and run every submitted job here. The end of the block ends its jobs.

    `interrupt_at`: once, after the log line of that step, the machine is taken away (SIGKILL) and the job starts on a
    new one with its checkpoints, as with managed spot. `quota`: the answer of Service Quotas. `price`: the answer of
    the Pricing API in US dollars per hour (0, because a rehearsal costs nothing), or None for no answer. With
    `run_jobs=False` jobs are accepted, but never start.

    Raises:
        MachineError: moto or the SageMaker SDK is not installed.
    """
    try:
        import boto3
        from moto import mock_aws
        from moto.sagemaker.models import FakeEndpointConfig
        from sagemaker.core.utils.utils import SageMakerClient
    except ImportError as error:
        raise MachineError(
            f"a rehearsal needs {error.name}: install the kit with its `aws` extra (pip install 'rlvr_kit[aws]')"
        ) from error

    values = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    # moto's list of instance types for endpoints is of 2020: without this patch it refuses ml.g5 and newer ones.
    any_type = mock.patch.object(FakeEndpointConfig, "validate_instance_type", lambda *_: None)
    with environment(values | {"AWS_DEFAULT_REGION": region}), mock_aws(), any_type:
        aws = PretendedAWS(region, partial(_run_job, Interruption(interrupt_at)) if run_jobs else None)
        SageMakerClient.reset()  # the SDK keeps its clients: none may be used both inside and outside the block
        try:
            boto3.DEFAULT_SESSION = aws.user_session(quota, price)
            yield aws
        finally:
            aws.close()
            SageMakerClient.reset()


class Interruption:
    """Takes a machine away once, after the log line of the step `at`. None means never.

    >>> Interruption(2).is_due('{"step": 2, "reward": 0.5}')
    True
    """

    def __init__(self, at: int | None) -> None:
        self.at = at

    def is_due(self, line: str) -> bool:
        """Whether the machine is taken away after this log line. It is true at most once."""
        due = self.at is not None and line.startswith(f'{{"step": {self.at},')
        self.at = None if due else self.at
        return due


def _run_job(interruption: Interruption, aws: PretendedAWS, request: dict[str, Any]) -> None:
    """Run one job from its start to its end. After an interruption it goes on with a new machine, as on SageMaker."""
    from sagemaker.core.s3 import S3Uploader

    name, interrupted = request["TrainingJobName"], True
    while interrupted:
        with tempfile.TemporaryDirectory() as machine:
            opt_ml, archive = Path(machine, "ml"), Path(machine, "model.tar.gz")
            _lay_out(aws, request, opt_ml)
            aws.set_status(name, "InProgress", "Training")
            interrupted, metrics = _run_container(interruption, aws, request, opt_ml)
            S3Uploader.upload(str(opt_ml / "checkpoints"), request["CheckpointConfig"]["S3Uri"], **aws.s3)
            if interrupted:
                aws.set_status(name, "InProgress", "Interrupted")
                continue
            code, failure = aws.processes[name].returncode, opt_ml / "output" / "failure"
            status = "Stopped" if name in aws.stopping else "Failed" if code else "Completed"
            more: dict[str, Any] = {"final_metric_data_list": metrics}
            if status == "Failed":
                reason = failure.read_text() if failure.exists() else f"exit code {code}"
                more["failure_reason"] = f"AlgorithmError: {reason}"
            else:
                with tarfile.open(archive, "w:gz") as tar:
                    tar.add(opt_ml / "model", ".")
                output = f"{request['OutputDataConfig']['S3OutputPath']}/{name}/output"
                S3Uploader.upload(str(archive), output, **aws.s3)
            aws.set_status(name, status, status, **more)


def _lay_out(aws: PretendedAWS, request: dict[str, Any], opt_ml: Path) -> None:
    """Make the folders, channels and configuration files that a container finds in /opt/ml."""
    from sagemaker.core.s3 import S3Downloader

    for folder in ("input/config", "input/data", "model", "output/data", "checkpoints"):
        (opt_ml / folder).mkdir(parents=True)
    channels = {item["ChannelName"]: item["DataSource"] for item in request["InputDataConfig"]}
    for name, source in channels.items():
        S3Downloader.download(source["S3DataSource"]["S3Uri"], str(opt_ml / "input/data" / name), **aws.s3)
    S3Downloader.download(request["CheckpointConfig"]["S3Uri"], str(opt_ml / "checkpoints"), **aws.s3)
    machine = {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "eth0"}
    for name, content in {
        "hyperparameters": request["HyperParameters"],
        "resourceconfig": machine | {"current_instance_type": request["ResourceConfig"]["InstanceType"]},
        "inputdataconfig": {name: {"TrainingInputMode": "File"} for name in channels},
    }.items():
        (opt_ml / "input/config" / f"{name}.json").write_text(json.dumps(content))


def _run_container(
    interruption: Interruption, aws: PretendedAWS, request: dict[str, Any], opt_ml: Path
) -> tuple[bool, list[dict[str, Any]]]:
    """Run the container's command and log what it prints. Returns whether it was interrupted, and its metrics."""
    name, image = request["TrainingJobName"], request["AlgorithmSpecification"]
    write_log = aws.open_log(f"{name}/algo-1-{time.time_ns()}")
    write_log("[REHEARSAL: this container is a process on your own machine, and AWS is pretended]")
    process = _start_container(aws, request, opt_ml)
    aws.processes[name] = process
    if name in aws.stopping:
        process.terminate()
    patterns = {metric["Name"]: metric["Regex"] for metric in image["MetricDefinitions"]}
    interrupted, metrics = False, dict[str, Any]()
    for line in process.stdout or ():
        write_log(line.rstrip("\n") or " ")
        found = ((key, re.search(regex, line)) for key, regex in patterns.items())
        values = {key: float(match.group(1)) for key, match in found if match}
        new = {k: {"MetricName": k, "Value": v, "Timestamp": time.time()} for k, v in values.items()}
        metrics |= new
        if new:
            aws.metrics.put_metric_data(Namespace=LOG_GROUP, MetricData=list(new.values()))
        if interruption.is_due(line):
            interrupted = True
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return interrupted, list(metrics.values())


def _start_container(aws: PretendedAWS, request: dict[str, Any], opt_ml: Path) -> "subprocess.Popen[str]":
    """Start the container's command with `opt_ml` as its /opt/ml."""
    image = request["AlgorithmSpecification"]
    command = [*image["ContainerEntrypoint"], *image["ContainerArguments"]]
    if can_mount():
        command = [*UNSHARE, f'{MOUNT} && exec "$@"', str(opt_ml), *command]
    else:  # the SDK's scripts name /opt/ml: replace it by the folder
        command = [word.replace("/opt/ml", str(opt_ml)) for word in command]
        for script in (opt_ml / "input/data/sm_drivers").rglob("*.[ps][yh]"):
            script.write_text(script.read_text().replace("/opt/ml", str(opt_ml)))
    environ = {key: value for key, value in os.environ.items() if PASSED_VARIABLES.fullmatch(key)}
    environ |= {"PATH": f"{Path(sys.executable).parent}:{environ['PATH']}", "PIP_NO_INDEX": "1"}
    environ |= {"TRAINING_JOB_NAME": request["TrainingJobName"], "AWS_REGION": aws.region}
    return subprocess.Popen(
        command, env=environ | request.get("Environment", {}), start_new_session=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, encoding="utf-8", errors="replace",
    )  # fmt: skip


def can_mount() -> bool:
    """Whether a process here may have a private /opt/ml, which must not hide an /opt in which Python is installed."""
    if not Path("/opt/ml").is_dir() and sys.base_prefix.startswith("/opt"):
        return False
    probe = [*UNSHARE, MOUNT, tempfile.gettempdir()]
    try:
        return subprocess.run(probe, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False
