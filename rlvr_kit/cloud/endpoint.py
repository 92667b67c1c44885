"""A run's model as a SageMaker endpoint that deletes itself: create, wait, ask, delete.

SageMaker bills an endpoint until somebody deletes it, and has no time limit of its own. So the endpoint lives inside a
block. When the block ends (done, failed, Ctrl-C, SIGTERM), or when its minutes are over, endpoint, configuration, model
and upload are deleted. Only a kill that a process cannot notice (SIGKILL) leaves them; `clean-up` then lists them.

>>> with deployed(plan_endpoint(Run("runs/gpu"), "ml.g5.xlarge")) as name:  # doctest: +SKIP
...     evaluate_endpoint(recipe, sagemaker_endpoint(name), label="deployed")
"""

import json
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_kit.cloud.account import explain_aws_errors, explain_sdk_errors, open_session
from rlvr_kit.cloud.delete_endpoint import POLL, delete_endpoint, no_ctrl_c, sigterm_as_ctrl_c
from rlvr_kit.cloud.endpoint_plan import EndpointPlan, plan_endpoint
from rlvr_kit.cloud.job_request import NAME
from rlvr_kit.errors import AWSError, InputError
from rlvr_kit.measure.endpoint import Answer, Endpoint, Messages, RequestFailed, read_reply, request_body
from rlvr_kit.sampling_settings import SamplingSettings
from rlvr_kit.share.export import export

if TYPE_CHECKING:
    from sagemaker.core.helper.session_helper import Session

__all__ = ["EndpointPlan", "deployed", "plan_endpoint", "sagemaker_endpoint"]


@contextmanager
def deployed(plan: EndpointPlan, on_line: Callable[[str], Any] = print) -> Iterator[str]:
    """Deploy the planned endpoint and yield its name when it is in service. The end of the block deletes everything.

    Raises:
        InputError: the plan has refusals; nothing was created.
        AWSError: AWS refuses a call, the endpoint does not start, or its minutes are over. Everything is deleted first.
    """
    if plan.refusals:
        raise InputError("not deployed: " + "; ".join(plan.refusals))
    session = open_session(plan.bucket)
    remove = partial(delete_endpoint, plan.name, session, _uploaded(plan), on_line)
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        on_line(f"[{plan.minutes:g} minutes are over: deleting {plan.name}]")
        try:
            remove()
        except AWSError as error:
            on_line(f"[{error}]")

    timer = threading.Timer(plan.minutes * 60, expire)
    timer.daemon = True
    with sigterm_as_ctrl_c():
        try:
            with explain_sdk_errors("the SageMaker SDK refuses the endpoint"), explain_aws_errors():
                if plan.upload:
                    _upload(plan, session)
                timer.start()
                endpoint = _create(plan, session)
                _wait(endpoint, expired, on_line)
            yield plan.name
        finally:
            timer.cancel()
            with no_ctrl_c(on_line):
                remove()


def sagemaker_endpoint(name: str) -> Endpoint:
    """Connect to a SageMaker endpoint whose container takes OpenAI-style chat messages (LMI, vLLM, TGI).

    Raises:
        AWSError: there is no endpoint of that name, or AWS refuses a call.
    """
    session = open_session()
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.exceptions import ConnectionError as NoConnection
    from sagemaker.core.resources import Endpoint as Resource

    with explain_aws_errors():
        endpoint = Resource.get(name, session=session.boto_session)

    def ask(messages: Messages, sampling: SamplingSettings) -> Answer:
        body = json.dumps(request_body(messages, sampling))
        try:
            output = endpoint.invoke(body=body, content_type="application/json", session=session.boto_session)
            return read_reply(json.loads(output.body.read()), sampling)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            passes = code in ("ModelError", "ModelNotReadyException", "InternalFailure", "ServiceUnavailable")
            fatal = not (passes or "Throttling" in code)
            raise RequestFailed(f"sagemaker:{name}: {' '.join(str(error).split())[:300]}", fatal) from error
        except BotoCoreError as error:
            raise RequestFailed(f"sagemaker:{name}: {error}", isinstance(error, NoConnection)) from error
        except ValueError as error:
            raise RequestFailed(f"sagemaker:{name} did not answer with JSON: {error}") from error

    return Endpoint(f"sagemaker:{name}", name, ask)


def _uploaded(plan: EndpointPlan) -> tuple[str, str] | None:
    bucket, _, key = plan.model_data.removeprefix("s3://").partition("/")
    return (bucket, key) if plan.upload else None


def _upload(plan: EndpointPlan, session: "Session") -> None:
    """Export the run's model, pack it, and upload it to the place in the plan."""
    bucket, key = _uploaded(plan) or ("", "")
    session.default_bucket()  # creates SageMaker's own bucket if it does not exist yet
    with tempfile.TemporaryDirectory() as scratch:
        folder = export(plan.run, Path(scratch, "model"))
        with tarfile.open(Path(scratch, "model.tar.gz"), "w:gz", compresslevel=1) as tar:
            tar.add(folder, ".")
        session.boto_session.client("s3").upload_file(f"{scratch}/model.tar.gz", bucket, key)


def _create(plan: EndpointPlan, session: "Session") -> Any:
    from sagemaker.core.resources import Endpoint as Resource
    from sagemaker.core.resources import EndpointConfig, Model
    from sagemaker.core.shapes import ContainerDefinition, ProductionVariant, Tag, VpcConfig

    settings, boto = plan.recipe.sagemaker, session.boto_session
    common: dict[str, Any] = {"session": boto, "region": plan.region}
    until = datetime.now(UTC) + timedelta(minutes=plan.minutes)
    tags = plan.tags | {f"{NAME}-delete-after": f"{until:%Y-%m-%dT%H:%MZ}"}  # for people who find it later
    common["tags"] = [Tag(key=key, value=value) for key, value in tags.items()]
    network: dict[str, Any] = {}
    if settings.subnets:
        network = {
            "vpc_config": VpcConfig(subnets=settings.subnets, security_group_ids=settings.security_groups)
        }
    container = ContainerDefinition(
        image=plan.image, model_data_url=plan.model_data, environment=plan.environment
    )
    Model.create(plan.name, primary_container=container, execution_role_arn=plan.role, **network, **common)
    variant = ProductionVariant(
        variant_name="all", model_name=plan.name, instance_type=settings.instance_type, initial_instance_count=1,
        container_startup_health_check_timeout_in_seconds=600,
    )  # fmt: skip
    EndpointConfig.create(plan.name, production_variants=[variant], **common)
    return Resource.create(plan.name, endpoint_config_name=plan.name, **common)


def _wait(endpoint: Any, expired: threading.Event, on_line: Callable[[str], Any]) -> None:
    """Wait until the endpoint is in service, and report each change of its state."""
    shown, pause = "", POLL[0]
    while True:
        if expired.is_set():
            raise AWSError(
                f"endpoint {endpoint.endpoint_name} was not in service before its minutes were over"
            )
        endpoint.refresh()
        if endpoint.endpoint_status != shown:
            shown = endpoint.endpoint_status
            on_line(f"[{endpoint.endpoint_name}: {shown}]")
        if shown == "InService":
            return
        if shown not in ("Creating", "Updating", "SystemUpdating"):
            reason = getattr(endpoint, "failure_reason", None)
            raise AWSError(f"endpoint {endpoint.endpoint_name} is {shown}: {reason or 'AWS gives no reason'}")
        expired.wait(pause)
        pause = min(1.5 * pause, POLL[1])
