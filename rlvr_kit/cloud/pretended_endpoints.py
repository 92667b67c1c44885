"""The endpoints of a rehearsal: moto keeps model, configuration and endpoint, and a local server answers.

This module plays the container: it fetches the model's archive from the pretended S3 and unpacks it, and
``transformers serve`` serves the folder that HF_MODEL_ID names. Not rehearsed: the image, its vLLM, the GPU, the wait.
"""

import json
import tarfile
import tempfile
import threading
import urllib.error
import urllib.request
from copy import deepcopy
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rlvr_kit.cloud.account import REHEARSAL_ACCOUNT
from rlvr_kit.share.serve import Server, serve

OPT_ML = "/opt/ml/model"


class PretendedEndpoints:
    """The endpoints of one pretended account. Tests read from it which requests were sent."""

    def __init__(self, region: str, s3: dict[str, Any]) -> None:
        self.region, self.s3 = region, s3
        self.requests: dict[str, dict[str, Any]] = {}  # by call, as they were sent
        self.servers: dict[str, Server] = {}  # by endpoint
        self.threads: dict[str, tuple[threading.Thread, threading.Event]] = {}  # the event ends the thread

    def register(self, session: Any) -> None:
        """Listen to the requests of the user's session to SageMaker."""
        for call in ("CreateModel", "CreateEndpointConfig", "CreateEndpoint"):
            session.events.register(
                f"before-parameter-build.sagemaker.{call}",
                lambda params, call=call, **_: self.requests.update({call: deepcopy(params)}),
            )
        for call in ("DescribeModel", "DescribeEndpointConfig", "DescribeEndpoint"):
            session.events.register(f"after-call.sagemaker.{call}", _without_empty_parts)
        session.events.register("after-call.sagemaker.CreateEndpoint", self._start)
        session.events.register("before-parameter-build.sagemaker.DeleteEndpoint", self._delete)
        session.events.register("before-parameter-build.sagemaker-runtime.InvokeEndpoint", self._remember)
        session.events.register("before-call.sagemaker-runtime.InvokeEndpoint", self._invoke)

    def _start(self, http_response: Any, **_: Any) -> None:
        if http_response.status_code < 300:
            name, model, over = (
                self.requests["CreateEndpoint"]["EndpointName"],
                self.requests["CreateModel"],
                threading.Event(),
            )
            self._state(name).endpoint_status = "Creating"
            self.threads[name] = (
                threading.Thread(target=self._run, args=(name, model, over), daemon=True),
                over,
            )
            self.threads[name][0].start()

    def _run(self, name: str, model: dict[str, Any], over: threading.Event) -> None:
        """Do the work of the instance and its container until the endpoint is deleted."""
        from sagemaker.core.s3 import S3Downloader

        state, container = self._state(name), model["PrimaryContainer"]
        try:
            with tempfile.TemporaryDirectory() as machine:
                (archive,) = S3Downloader.download(container["ModelDataUrl"], machine, **self.s3)
                with tarfile.open(archive) as tar:
                    tar.extractall(f"{machine}/model", filter="data")
                place = container["Environment"]["HF_MODEL_ID"].removeprefix(OPT_ML).lstrip("/")
                with serve(Path(machine, "model", place)) as server:
                    self.servers[name] = server
                    state.endpoint_status = "InService"
                    over.wait()
        except Exception as error:  # code that waits for the endpoint must see that it failed
            state.endpoint_status, state.failure_reason = "Failed", f"the container did not start: {error}"
        finally:
            self.servers.pop(name, None)

    def _delete(self, params: dict[str, Any], **_: Any) -> None:
        self._end(params["EndpointName"])

    def _end(self, name: str) -> None:
        if name in self.threads:
            thread, over = self.threads.pop(name)
            over.set()
            thread.join()

    def _remember(self, params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        context["rehearsed"] = params["EndpointName"], params["Body"]

    def _invoke(self, context: dict[str, Any], **_: Any) -> Any:
        """Send a request to the local server, and return its answer in the form of SageMaker's."""
        name, body = context["rehearsed"]
        if name not in self.servers:
            return _error(
                400, "ValidationError", f"Endpoint {name} of account {REHEARSAL_ACCOUNT} not found."
            )
        server = self.servers[name]
        content = json.dumps(json.loads(body) | {"model": server.model}).encode()
        request = urllib.request.Request(
            f"{server.url}/chat/completions", content, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
                body = BytesIO(answer.read())
                return SimpleNamespace(status_code=200), {"Body": body, "ContentType": "application/json"}
        except urllib.error.HTTPError as error:
            return _error(
                424, "ModelError", f"Received {error.code} from primary: {error.read().decode()[:200]}"
            )

    def _state(self, name: str) -> Any:
        from moto.sagemaker.models import sagemaker_backends

        return sagemaker_backends[REHEARSAL_ACCOUNT][self.region].endpoints[name]

    def close(self) -> None:
        """End all servers, also those that are still starting."""
        for name in list(self.threads):
            self._end(name)


def _without_empty_parts(parsed: dict[str, Any], **_: Any) -> None:
    """Remove the empty parts of an answer, which moto adds, AWS does not, and the SDK cannot read."""
    for key in [key for key, value in parsed.items() if value == {}]:
        del parsed[key]


def _error(status: int, code: str, message: str) -> Any:
    return SimpleNamespace(status_code=status), {"Error": {"Code": code, "Message": message}}
