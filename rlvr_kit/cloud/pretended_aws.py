"""The pretended AWS of a rehearsal: moto, fixed answers to the calls that moto does not implement, and a job's state.

moto keeps S3, CloudWatch, the role and the training jobs in the memory of this process. It does not run jobs, so this
module calls `run_job` for every job that moto has accepted.
"""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

from rlvr_kit.cloud.account import REHEARSAL_ACCOUNT
from rlvr_kit.cloud.job_log import LOG_GROUP
from rlvr_kit.cloud.pretended_endpoints import PretendedEndpoints

ROLE = f"arn:aws:iam::{REHEARSAL_ACCOUNT}:role/rehearsal"
TRUST_POLICY = {
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ]
}


class PretendedAWS:
    """One pretended account and the processes that run its jobs. Tests read from it which requests were sent."""

    def __init__(self, region: str, run_job: "RunJob | None") -> None:
        import boto3
        from sagemaker.core.helper.session_helper import Session

        self.region, self.run_job = region, run_job  # run_job None: jobs are accepted, but never start
        self.requests: list[dict[str, Any]] = []  # of CreateTrainingJob, as they were sent
        self.processes: dict[str, subprocess.Popen[str]] = {}  # by the job's name
        self.stopping: set[str] = set()
        self.threads: list[threading.Thread] = []
        service = boto3.Session(region_name=region)  # for calls that SageMaker makes itself
        self.logs, self.metrics = service.client("logs"), service.client("cloudwatch")
        self.s3 = {"sagemaker_session": Session(service, sagemaker_config={"SchemaVersion": "1.0"})}
        self.endpoints = PretendedEndpoints(region, self.s3)

    def user_session(self, quota: float, price: float | None) -> Any:
        """Return the user's boto3 session. It is signed in as a role, as in Studio."""
        import boto3

        key = boto3.client("sts").assume_role(RoleArn=ROLE, RoleSessionName="you")["Credentials"]
        credentials = (key["AccessKeyId"], key["SecretAccessKey"], key["SessionToken"])
        session = boto3.Session(*credentials, region_name=self.region)
        types = session.client("sagemaker").meta.service_model.shape_for("TrainingInstanceType").enum
        names = [f"{name} for {spot}training job usage" for name in types for spot in ("", "spot ")]
        names += [f"{name} for endpoint usage" for name in types]
        quotas = [{"QuotaName": name, "Value": quota} for name in names]
        terms = {"OnDemand": {"term": {"priceDimensions": {"rate": {"pricePerUnit": {"USD": price}}}}}}
        usages = [f"{use}:{name}" for use in ("Train", "Host") for name in types]
        products = [{"attributes": {"usagetype": usage}} for usage in usages]
        prices = [json.dumps({"product": product, "terms": terms}) for product in products]
        role = {"Arn": ROLE, "AssumeRolePolicyDocument": json.dumps(TRUST_POLICY)}
        answers = {  # AWS calls that moto does not implement, or answers in another way than AWS
            "iam.GetRole": {"Role": role},
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
        session.events.register("before-parameter-build.sagemaker.CreateTrainingJob", self._keep_request)
        session.events.register("after-call.sagemaker.CreateTrainingJob", self._start)
        self.endpoints.register(session)
        return session

    def _keep_request(self, params: dict[str, Any], **_: Any) -> None:
        self.requests.append(deepcopy(params))

    def _start(self, http_response: Any, **_: Any) -> None:
        if http_response.status_code < 300:
            self.set_status(self.requests[-1]["TrainingJobName"], "InProgress", "Starting")
            if self.run_job:
                self.threads.append(
                    threading.Thread(target=self._run, args=(self.run_job, self.requests[-1]), daemon=True)
                )
                self.threads[-1].start()

    def _run(self, run_job: "RunJob", request: dict[str, Any]) -> None:
        try:
            run_job(self, request)
        except Exception as error:  # such as a full disk: code that follows the job must see that it failed
            reason = f"InternalServerError: this machine could not run the job: {error!r}"
            self.set_status(request["TrainingJobName"], "Failed", "Failed", failure_reason=reason)

    def _stop(self, params: dict[str, Any], **_: Any) -> None:
        name = params["TrainingJobName"]
        self.stopping.add(name)
        self.set_status(name, "Stopping", "Stopping")
        if name in self.processes:
            self.processes[name].terminate()  # SIGTERM goes to the container's first process only

    def close(self) -> None:
        """End the jobs and the endpoints that still run."""
        self.endpoints.close()
        while any(thread.is_alive() for thread in self.threads):
            for process in self.processes.values():
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.05)

    def set_status(self, name: str, status: str, secondary: str, **more: Any) -> None:
        """Set the answer of DescribeTrainingJob: the status, the secondary status and `more` fields of moto's job."""
        from moto.sagemaker.models import sagemaker_backends

        job = sagemaker_backends[REHEARSAL_ACCOUNT][self.region].training_jobs[name]
        vars(job).update(more, training_job_status=status, secondary_status=secondary)

    def open_log(self, stream: str) -> Callable[[str], None]:
        """Create a log stream, and return the function that writes a line to it."""
        place = {"logGroupName": LOG_GROUP, "logStreamName": stream}
        if not self.logs.describe_log_groups(logGroupNamePrefix=LOG_GROUP)["logGroups"]:
            self.logs.create_log_group(logGroupName=LOG_GROUP)
        self.logs.create_log_stream(**place)

        def write(line: str) -> None:
            event = {"timestamp": int(time.time() * 1000), "message": line}
            self.logs.put_log_events(**place, logEvents=[event])

        return write


RunJob = Callable[[PretendedAWS, dict[str, Any]], None]
