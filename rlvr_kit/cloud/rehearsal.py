"""A rehearsal of SageMaker training jobs on this machine: no account, no network, no cost.

moto stands in for AWS and takes the real requests. The job's own container command then runs as a process
here, in folders laid out as SageMaker lays them out; its log, metrics, checkpoints and model.tar.gz go back
through the pretended CloudWatch and S3. Not rehearsed: the image, GPUs, IAM, several machines, AWS's pace.

>>> with rehearsal(interrupt_at=2):
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
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from rlvr_kit.cloud.jobs import LOG_GROUP
from rlvr_kit.errors import InputError

ROLE = "arn:aws:iam::123456789012:role/rehearsal"  # in moto's account
WHO = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
TRUST = json.dumps({"Statement": [WHO]})
#: Mounts the folder $0 at /opt/ml for the command that follows; without an /opt/ml, over an /opt of its own.
MOUNT = '[ -d /opt/ml ] || { mount -t tmpfs none /opt && mkdir /opt/ml; } && mount --bind "$0" /opt/ml'
UNSHARE = ("unshare", "--map-root-user", "--mount", "sh", "-c")
#: What a container gets of this machine's environment; not GSM8K's folder, which must come as a channel.
PASSED = re.compile("PATH|HOME|LANG|TMPDIR|OMP_.*|HF_.*|XDG_.*|RLVR_KIT_(?!GSM8K).*")


@contextmanager
def rehearsal(
    *, interrupt_at: int | None = None, quota: float = 1, price: float | None = 0, region: str = "us-east-1"
) -> Iterator["PretendedAWS"]:
    """Inside the block AWS is pretended, and every job submitted runs here; the end of the block ends it.

    `interrupt_at`: once, after the log line of that step, the machine is taken away (SIGKILL) and the job
    starts on a new one with its checkpoints, as with managed spot. `quota`: what Service Quotas answers;
    `price`: what the Pricing API does, in US dollars an hour (nothing, since that is what it costs), or None.
    """
    try:
        from moto import mock_aws
    except ImportError as error:
        raise InputError("a rehearsal needs moto: install the kit with its `aws` extra") from error
    import boto3
    from sagemaker.core.utils.utils import SageMakerClient

    environ = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    environ["AWS_DEFAULT_REGION"] = region
    with mock.patch.dict(os.environ, environ, clear=True), mock_aws():
        aws = PretendedAWS(interrupt_at, region)
        SageMakerClient.reset()  # the SDK keeps clients: real ones must not serve here, nor these afterwards
        try:
            boto3.DEFAULT_SESSION = aws.session(quota, price)
            yield aws
        finally:
            aws.close()
            SageMakerClient.reset()


class PretendedAWS:
    """Answers what moto has no answer to, and runs the jobs that it takes."""

    def __init__(self, interrupt_at: int | None, region: str) -> None:
        import boto3
        from sagemaker.core.helper.session_helper import Session

        self.interrupt_at, self.region = interrupt_at, region
        self.requests: list[dict[str, Any]] = []  # CreateTrainingJob, as sent
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.stopping: set[str] = set()
        self.threads: list[threading.Thread] = []
        own = boto3.Session(region_name=region)  # SageMaker's own calls, not the user's
        self.logs, self.metrics = own.client("logs"), own.client("cloudwatch")
        self.s3 = {"sagemaker_session": Session(own, sagemaker_config={"SchemaVersion": "1.0"})}

    def session(self, quota: float, price: float | None) -> Any:
        """The user's boto3 session, signed in as a role as in Studio."""
        import boto3

        key = boto3.client("sts").assume_role(RoleArn=ROLE, RoleSessionName="you")["Credentials"]
        credentials = (key["AccessKeyId"], key["SecretAccessKey"], key["SessionToken"])
        session = boto3.Session(*credentials, region_name=self.region)
        types = session.client("sagemaker").meta.service_model.shape_for("TrainingInstanceType").enum
        names = [f"{name} for {spot}training job usage" for name in types for spot in ("", "spot ")]
        quotas = [{"QuotaName": name, "Value": quota} for name in names]
        terms = {"OnDemand": {"term": {"priceDimensions": {"rate": {"pricePerUnit": {"USD": price}}}}}}
        products = [{"attributes": {"usagetype": f"Train:{name}"}} for name in types]
        prices = [json.dumps({"product": product, "terms": terms}) for product in products]
        answers = {
            "iam.GetRole": {"Role": {"Arn": ROLE, "AssumeRolePolicyDocument": TRUST}},
            "iam.SimulatePrincipalPolicy": {"EvaluationResults": []},
            "service-quotas.ListServiceQuotas": {"Quotas": quotas},
            "pricing.GetProducts": {"PriceList": [] if price is None else prices},
            "sagemaker.StopTrainingJob": {},
        }
        for call, answer in answers.items():
            session.events.register(
                f"before-call.{call}",
                lambda kept=answer, **_: (SimpleNamespace(status_code=200), deepcopy(kept)),
            )
        session.events.register("before-parameter-build.sagemaker.StopTrainingJob", self._stop)
        take = lambda params, **_: self.requests.append(deepcopy(params))  # noqa: E731
        session.events.register("before-parameter-build.sagemaker.CreateTrainingJob", take)
        session.events.register("after-call.sagemaker.CreateTrainingJob", self._start)
        return session

    def _start(self, http_response: Any, **_: Any) -> None:
        if http_response.status_code < 300:
            self._set_status(self.requests[-1]["TrainingJobName"], "InProgress", "Starting")
            self.threads.append(threading.Thread(target=self._run, args=(self.requests[-1],), daemon=True))
            self.threads[-1].start()

    def _stop(self, params: dict[str, Any], **_: Any) -> None:
        name = params["TrainingJobName"]
        self.stopping.add(name)
        self._set_status(name, "Stopping", "Stopping")
        if name in self.processes:
            self.processes[name].terminate()  # SIGTERM to the container's first process alone

    def close(self) -> None:
        """End what still runs."""
        while any(thread.is_alive() for thread in self.threads):
            for process in self.processes.values():
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.05)

    def _set_status(self, name: str, status: str, secondary: str, **more: Any) -> None:
        from moto.sagemaker.models import sagemaker_backends

        job = sagemaker_backends[ROLE.split(":")[4]][self.region].training_jobs[name]
        vars(job).update(more, training_job_status=status, secondary_status=secondary)

    def _run(self, request: dict[str, Any]) -> None:
        """One job from its start to its end, as SageMaker runs it, on a new machine after an interruption."""
        from sagemaker.core.s3 import S3Uploader

        name, interrupted = request["TrainingJobName"], True
        while interrupted:
            with tempfile.TemporaryDirectory() as machine:
                opt_ml, archive = Path(machine, "ml"), Path(machine, "model.tar.gz")
                self._lay_out(request, opt_ml)
                self._set_status(name, "InProgress", "Training")
                interrupted, metrics = self._container(request, opt_ml)
                S3Uploader.upload(
                    str(opt_ml / "checkpoints"), request["CheckpointConfig"]["S3Uri"], **self.s3
                )
                code, reason = self.processes[name].returncode, opt_ml / "output" / "failure"
                end = "Stopped" if name in self.stopping else "Failed" if code else "Completed"
                more = {"final_metric_data_list": metrics}
                if interrupted:
                    self._set_status(name, "InProgress", "Interrupted")
                elif end == "Failed":
                    told = reason.read_text() if reason.exists() else f"exit code {code}"
                    self._set_status(name, end, end, failure_reason=f"AlgorithmError: {told}", **more)
                else:
                    with tarfile.open(archive, "w:gz") as tar:
                        tar.add(opt_ml / "model", ".")
                    output = f"{request['OutputDataConfig']['S3OutputPath']}/{name}/output"
                    S3Uploader.upload(str(archive), output, **self.s3)
                    self._set_status(name, end, end, **more)

    def _log(self, log: dict[str, str], line: str) -> None:
        self.logs.put_log_events(**log, logEvents=[{"timestamp": int(time.time() * 1000), "message": line}])

    def _lay_out(self, request: dict[str, Any], opt_ml: Path) -> None:
        """The folders, channels and configuration files that a container finds under /opt/ml."""
        from sagemaker.core.s3 import S3Downloader

        for folder in ("input/config", "input/data", "model", "output/data", "checkpoints"):
            (opt_ml / folder).mkdir(parents=True)
        channels = {item["ChannelName"]: item["DataSource"] for item in request["InputDataConfig"]}
        for name, source in channels.items():
            S3Downloader.download(
                source["S3DataSource"]["S3Uri"], str(opt_ml / "input/data" / name), **self.s3
            )
        S3Downloader.download(request["CheckpointConfig"]["S3Uri"], str(opt_ml / "checkpoints"), **self.s3)
        machine = {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "eth0"}
        for name, content in {
            "hyperparameters": request["HyperParameters"],
            "resourceconfig": machine | {"current_instance_type": request["ResourceConfig"]["InstanceType"]},
            "inputdataconfig": {name: {"TrainingInputMode": "File"} for name in channels},
        }.items():
            (opt_ml / "input/config" / f"{name}.json").write_text(json.dumps(content))

    def _container(self, request: dict[str, Any], opt_ml: Path) -> tuple[bool, list[dict[str, Any]]]:
        """Run the container's command; its lines go to the log. Returns: was it interrupted, its metrics."""
        name, image = request["TrainingJobName"], request["AlgorithmSpecification"]
        command = [*image["ContainerEntrypoint"], *image["ContainerArguments"]]
        if may_mount():
            command = [*UNSHARE, f'{MOUNT} && exec "$@"', str(opt_ml), *command]
        else:  # the SDK's scripts name /opt/ml: let them name the folder itself
            command = [word.replace("/opt/ml", str(opt_ml)) for word in command]
            for script in (opt_ml / "input/data/sm_drivers").rglob("*.[ps][yh]"):
                script.write_text(script.read_text().replace("/opt/ml", str(opt_ml)))
        environ = {key: value for key, value in os.environ.items() if PASSED.fullmatch(key)}
        environ |= {"PATH": f"{Path(sys.executable).parent}:{environ['PATH']}", "PIP_NO_INDEX": "1"}
        environ |= {"TRAINING_JOB_NAME": name, "AWS_REGION": self.region} | request.get("Environment", {})
        log = {"logGroupName": LOG_GROUP, "logStreamName": f"{name}/algo-1-{time.time_ns()}"}
        if not self.logs.describe_log_groups(logGroupNamePrefix=LOG_GROUP)["logGroups"]:
            self.logs.create_log_group(logGroupName=LOG_GROUP)
        self.logs.create_log_stream(**log)
        self._log(log, "[REHEARSAL: this container is a process on your own machine, and AWS is pretended]")
        process = subprocess.Popen(
            command, env=environ, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            encoding="utf-8", errors="replace",
        )  # fmt: skip
        self.processes[name] = process
        if name in self.stopping:
            process.terminate()
        patterns = {metric["Name"]: metric["Regex"] for metric in image["MetricDefinitions"]}
        interrupted, metrics = False, dict[str, Any]()
        for line in process.stdout or ():
            self._log(log, line.rstrip("\n") or " ")
            found = ((key, re.search(regex, line)) for key, regex in patterns.items())
            values = {key: float(match.group(1)) for key, match in found if match}
            new = {k: {"MetricName": k, "Value": v, "Timestamp": time.time()} for k, v in values.items()}
            metrics |= new
            if new:
                self.metrics.put_metric_data(Namespace=LOG_GROUP, MetricData=list(new.values()))
            if self.interrupt_at is not None and line.startswith(f'{{"step": {self.interrupt_at},'):
                self.interrupt_at, interrupted = None, True
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return interrupted, list(metrics.values())


def may_mount() -> bool:
    """Whether a process here may have a private /opt/ml (not over an /opt in which Python itself lives)."""
    if not Path("/opt/ml").is_dir() and sys.base_prefix.startswith("/opt"):
        return False
    probe = [*UNSHARE, MOUNT, tempfile.gettempdir()]
    try:
        return subprocess.run(probe, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False
