"""An endpoint is planned, created, asked and deleted, whatever happens in between; moto answers, no network."""

import io
import json
import os
import shutil
import signal
import socket
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import boto3
import pytest
from typer.testing import CliRunner

from rlvr_kit import UserError
from rlvr_kit.__main__ import app
from rlvr_kit.cloud import delete_endpoint as deletion
from rlvr_kit.cloud.account import open_session
from rlvr_kit.cloud.clean_up import clean_up
from rlvr_kit.cloud.endpoint import _create, _upload, deployed, plan_endpoint, sagemaker_endpoint
from rlvr_kit.cloud.rehearsal import rehearsal
from rlvr_kit.measure.endpoint import evaluate_endpoint
from rlvr_kit.recipe import RECIPES, load_recipe
from rlvr_kit.run_folder import Run
from rlvr_kit.share.serve import Server
from rlvr_kit.training.train import train

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = load_recipe("smoke", ["grpo.max_steps=1", "sagemaker.bucket=sagemaker-mine"])
    return train(recipe, tmp_path_factory.mktemp("deployed") / "run")


@pytest.fixture
def no_server(monkeypatch):
    """The container's part is not played: its server is only said to be there."""

    @contextmanager
    def serve(folder):
        assert (folder / "model.safetensors").exists()
        yield Server("http://127.0.0.1:9/v1", str(folder), None)

    monkeypatch.setattr("rlvr_kit.cloud.pretended_endpoints.serve", serve)
    monkeypatch.setattr(deletion, "POLL", (0.05, 0.05))
    monkeypatch.setattr("rlvr_kit.cloud.endpoint.POLL", (0.05, 0.05))


def left():
    return [item["id"] for item in clean_up(bucket="sagemaker-mine")]


def all_gone():
    try:
        return left() == []
    except AttributeError:  # moto looks up the tags of what another thread deletes at this moment
        return False


def test_the_whole_life_of_an_endpoint_here(run, record, tmp_path):
    calls = set()
    with rehearsal() as aws:
        record(calls)
        plan, lines = plan_endpoint(run, "ml.g5.xlarge"), []
        with deployed(plan, lines.append) as name:
            found = left()
            served = evaluate_endpoint(plan.recipe, sagemaker_endpoint(name), label="x", out=Run(tmp_path))
            port = int(aws.endpoints.servers[name].url.split(":")[2].split("/")[0])
        assert left() == []
        assert not aws.endpoints.servers
    assert lines == [f"[{name}: Creating]", f"[{name}: InService]"]
    assert [item.split("/")[0] for item in found] == ["endpoint", "endpoint-config", "model", "s3:"]
    assert served.summary["n"] == 12 and served.summary["failed"] == 0
    assert served.summary["endpoint"] == f"sagemaker:{name}"
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    allowed = policy_actions()
    assert calls - {"sts:GetCallerIdentity"} <= allowed
    assert {action for action in allowed if "Endpoint" in action or action.endswith("Model")} <= calls


def policy_actions():
    statements = json.loads((RECIPES / "iam_policy.json").read_text())["Statement"]
    return {a for s in statements for a in (s["Action"] if isinstance(s["Action"], list) else [s["Action"]])}


def test_what_is_sent(run, no_server):
    with rehearsal() as aws, deployed(plan_endpoint(run, "ml.g6.xlarge", minutes=30), print) as name:
        sent = aws.endpoints.requests
    model, config = sent["CreateModel"], sent["CreateEndpointConfig"]
    assert (
        model["ModelName"] == config["EndpointConfigName"] == sent["CreateEndpoint"]["EndpointName"] == name
    )
    container = model["PrimaryContainer"]
    assert "/djl-inference:" in container["Image"] and ".us-east-1." in container["Image"]
    assert container["ModelDataUrl"] == f"s3://sagemaker-mine/rlvr-kit/{name}/model.tar.gz"
    assert container["Environment"]["OPTION_DTYPE"] == "fp32"  # vLLM would take float16
    (variant,) = config["ProductionVariants"]
    assert (variant["InstanceType"], variant["InitialInstanceCount"]) == ("ml.g6.xlarge", 1)
    for request in sent.values():
        keys = {tag["Key"] for tag in request["Tags"]}
        assert {"rlvr-kit", "rlvr-kit-delete-after"} == keys


def test_the_jobs_own_archive_is_used_where_it_is_still_there(run, no_server, tmp_path):
    copy = Run(shutil.copytree(run.path, tmp_path / "run"))
    uri = "s3://sagemaker-mine/rlvr-kit/job/output/model.tar.gz"
    (copy.path / "job.json").write_text(json.dumps({"name": "job", "model_artifacts": uri}))
    (copy.path / "model" / "chat_template.jinja").write_text("{{ messages }}")
    with rehearsal():
        assert plan_endpoint(copy).upload  # it was deleted meanwhile
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="sagemaker-mine")
        s3.put_object(Bucket="sagemaker-mine", Key="rlvr-kit/job/output/model.tar.gz", Body=b"x")
        plan = plan_endpoint(copy)
    assert plan.model_data == uri and not plan.upload
    assert plan.environment["HF_MODEL_ID"] == "/opt/ml/model/model"


@pytest.mark.parametrize(
    "options, given, said",
    [
        ({}, {"quota": 0}, "the quota in us-east-1 is 0"),
        ({}, {"price": None}, "its price is unknown"),
        ({"minutes": 6000}, {"price": 1.0}, r"may cost \$100.00, more than sagemaker.max_cost = \$20.00"),
        ({"instance_type": "ml.m5.xlarge"}, {}, "has no GPU"),
        ({"price": float("nan")}, {"price": None}, "may cost"),
    ],
)
def test_what_is_refused_is_refused_before_anything_is_made(run, no_server, options, given, said):
    with rehearsal(**given) as aws:
        plan = plan_endpoint(run, **options)
        with pytest.raises(UserError, match=f"not deployed: .*{said}"), deployed(plan):
            pass
        assert aws.endpoints.requests == {} and left() == []


def test_a_run_without_a_model_is_one_line(run, tmp_path):
    (tmp_path / "recipe.yaml").write_bytes((run.path / "recipe.yaml").read_bytes())
    with rehearsal(), pytest.raises(UserError, match="holds no whole model"):
        plan_endpoint(Run(tmp_path))


@pytest.mark.parametrize(
    "call", ["CreateModel", "CreateEndpointConfig", "CreateEndpoint", "DescribeEndpoint"]
)
def test_what_a_refused_call_leaves_is_deleted(run, no_server, answer, call):
    answer(f"sagemaker.{call}", {"Error": {"Code": "ResourceLimitExceeded", "Message": "because"}}, 400)
    with pytest.raises(UserError, match="because.*quota"), deployed(plan_endpoint(run)):
        pytest.fail("it was not deployed")
    assert left() == []


def test_an_endpoint_that_fails_says_why_and_is_deleted(run, monkeypatch, no_server):
    monkeypatch.setattr("rlvr_kit.cloud.pretended_endpoints.OPT_ML", "/elsewhere")
    with rehearsal():
        with (
            pytest.raises(UserError, match="is Failed: the container did not start"),
            deployed(plan_endpoint(run)),
        ):
            pytest.fail("it was not deployed")
        assert left() == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, ZeroDivisionError])
def test_it_is_deleted_after_ctrl_c_a_polite_kill_and_an_error(run, no_server, how):
    before = signal.getsignal(signal.SIGTERM)
    with rehearsal():
        with pytest.raises(how if isinstance(how, type) else KeyboardInterrupt), deployed(plan_endpoint(run)):
            assert len(left()) == 4
            if isinstance(how, type):
                raise how
            os.kill(os.getpid(), how)
            time.sleep(1)
        assert left() == []
    assert signal.getsignal(signal.SIGTERM) == before


def test_it_is_deleted_when_its_minutes_are_over(run, no_server):
    with rehearsal():
        plan, lines = plan_endpoint(run, minutes=0.1), []
        with deployed(plan, lines.append) as name:
            deadline = time.monotonic() + 30
            while not all_gone() and time.monotonic() < deadline:
                time.sleep(0.1)
            assert left() == []
            with pytest.raises(UserError, match="AWS: .*[nN]ot .*find|Could not find"):
                sagemaker_endpoint(name)
    assert any("minutes are over" in line for line in lines)


def test_a_deletion_that_is_refused_at_first_is_tried_until_it_works(run, no_server):
    """SageMaker refuses to delete an endpoint while it is being created."""
    refused = []

    def refuse(**_):
        refused.append(1)
        if len(refused) < 4:
            error = {"Code": "ValidationException", "Message": "Cannot update in-progress endpoint"}
            return SimpleNamespace(status_code=400), {"Error": error}

    with rehearsal():
        boto3.DEFAULT_SESSION.events.register_first("before-call.sagemaker.DeleteEndpoint", refuse)
        lines = []
        with deployed(plan_endpoint(run), lines.append):
            pass
        assert left() == [] and len(refused) == 4
    assert sum("leave this running" in line for line in lines) == 1


def test_what_cannot_be_deleted_is_named(run, no_server, answer):
    answer("sagemaker.DeleteEndpoint", {"Error": {"Code": "AccessDeniedException", "Message": "no"}}, 400)
    with (
        pytest.raises(UserError, match="not deleted, and an endpoint costs money.*endpoint rlvr-kit-.*no"),
        deployed(plan_endpoint(run)),
    ):
        pass
    assert [item.split("/")[0] for item in left()] == ["endpoint"]  # the rest was deleted all the same


@pytest.mark.parametrize(
    "body, said",
    [(b"<html>", "not answer with JSON"), (b"{}", "a chat completion")],
)
def test_an_endpoint_that_answers_nonsense_is_one_line(run, no_server, body, said):
    with rehearsal():
        boto3.DEFAULT_SESSION.events.register_first(
            "before-call.sagemaker-runtime.InvokeEndpoint",
            lambda **_: (SimpleNamespace(status_code=200), {"Body": io.BytesIO(body)}),
        )
        plan = plan_endpoint(run)
        with deployed(plan) as name, pytest.raises(UserError, match=said):
            evaluate_endpoint(plan.recipe, sagemaker_endpoint(name), label="x")
        assert left() == []


def test_the_command_shows_its_plan_as_json_and_makes_nothing(run):
    result = CliRunner().invoke(app, ["deploy", str(run.path), "--rehearse", "--dry-run", "--json"])
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)["plan"]
    assert plan["minutes"] == 60 and plan["max_cost"] == 0 and plan["refusals"] == []


def test_nothing_outlives_a_rehearsal(run, no_server):
    before = set(threading.enumerate())
    with rehearsal():
        plan = plan_endpoint(run)
        _upload(plan, session := open_session(plan.bucket))
        _create(plan, session)
    assert set(threading.enumerate()) <= before
