"""What can be done with a job: submit, attach, follow, stop, fetch; moto answers, no network."""

import json
import re
from functools import partial
from types import SimpleNamespace

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from typer.testing import CliRunner

from rlvr_kit import UserError
from rlvr_kit.__main__ import app
from rlvr_kit.cloud import jobs
from rlvr_kit.cloud.account import REHEARSAL_ACCOUNT as ACCOUNT
from rlvr_kit.cloud.jobs import attach, fetch, follow, plan_job, stop, submit
from rlvr_kit.cloud.pretended_aws import ROLE
from rlvr_kit.recipe import load_recipe

pytestmark = pytest.mark.usefixtures("quick")


def error(code):
    return {"Error": {"Code": code, "Message": "because"}}


def test_submit_sends_what_was_planned(aws):
    planned = plan_job(load_recipe("smoke"))
    job = submit(planned)
    (sent,) = aws.requests

    def timeless(request):
        return re.sub(r"rlvr-kit-\d{14}", "JOB", json.dumps(request, sort_keys=True))

    assert timeless(sent) == timeless(planned.request)
    assert job.training_job_name == sent["TrainingJobName"]
    assert attach(job.training_job_name).training_job_arn == job.training_job_arn


def test_telemetry_is_off(aws, monkeypatch):
    sent = []
    monkeypatch.setattr(
        "sagemaker.core.telemetry.telemetry_logging._requests_helper", lambda *a, **k: sent.append(a)
    )
    submit(plan_job(load_recipe("smoke")))
    assert sent == []


def test_attach_to_no_job_and_to_another_kits(aws):
    with pytest.raises(UserError, match="no training job 'nothing' in us-east-1"):
        attach("nothing")
    boto3.client("sagemaker").create_training_job(
        TrainingJobName="theirs", RoleArn=ROLE, HyperParameters={"a": "b"},
        AlgorithmSpecification={"TrainingInputMode": "File"}, OutputDataConfig={"S3OutputPath": "s3://theirs/"},
        ResourceConfig={"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 60},
    )  # fmt: skip
    with pytest.raises(UserError, match="'theirs' is a training job, but this kit did not submit it"):
        attach("theirs")


def end(aws, job, status, **more):
    aws.set_status(job.training_job_name, status, status, **more)


def test_follow_shows_the_log_and_draws(aws, job):
    end(aws, job, "Completed")
    lines, drawn = [], []
    follow(job, on_line=lines.append, live=lambda run: drawn.append(run.log().reward.tolist()), poll=0)
    assert lines == ['{"step": 1, "reward": 0.5}', f"[{job.training_job_name}: Completed]"]
    assert drawn == [[0.5]]


def test_follow_a_failed_job_gives_the_reason(aws, job):
    end(aws, job, "Failed", failure_reason="AlgorithmError: out of memory")
    with pytest.raises(UserError, match="failed: AlgorithmError: out of memory"):
        follow(job, on_line=lambda line: None, poll=0)


def test_follow_goes_on_when_the_connection_comes_back(aws, job):
    end(aws, job, "Completed")
    troubles = [EndpointConnectionError(endpoint_url="logs"), error("ThrottlingException")]
    lines = []

    def trouble(**_):
        if troubles:
            reply = troubles.pop()
            if isinstance(reply, Exception):
                raise reply
            return SimpleNamespace(status_code=400), reply

    boto3.DEFAULT_SESSION.events.register_first("before-call.logs.DescribeLogStreams", trouble)
    follow(job, on_line=lines.append, poll=0)
    assert sum("trying again" in line for line in lines) == 2
    assert '{"step": 1, "reward": 0.5}' in lines


def test_empty_page_is_not_the_end_of_the_log(aws, job):
    """CloudWatch may send an empty page first; the end is where the token that was sent comes back."""
    end(aws, job, "Completed")
    pages = {None: ([], "a"), "a": (["first"], "b"), "b": ([], "c"), "c": (["last"], "d"), "d": ([], "d")}
    sent = []

    def read(params, **_):
        sent.append(params.get("nextToken"))

    def page(**_):
        lines, token = pages[sent[-1]]
        events = [{"message": line, "timestamp": 1, "ingestionTime": 1} for line in lines]
        return SimpleNamespace(status_code=200), {"events": events, "nextForwardToken": token}

    boto3.DEFAULT_SESSION.events.register("before-parameter-build.logs.GetLogEvents", read)
    boto3.DEFAULT_SESSION.events.register_first("before-call.logs.GetLogEvents", page)
    lines = []
    follow(job, on_line=lines.append, poll=0)
    assert [line for line in lines if not line.startswith("[")] == ["first", "last"]


def test_all_pages_of_log_streams_are_read(aws, job):
    end(aws, job, "Completed")
    for number in range(60):  # AWS lists 50 streams at a time
        aws.open_log(f"{job.training_job_name}/algo-1-9{number:02}")(f"line {number}")
    lines = []
    follow(job, on_line=lines.append, poll=0)
    assert sum(line.startswith("line ") for line in lines) == 60


@pytest.mark.parametrize(
    "mistake",
    [
        ValueError("of the caller"),
        EndpointConnectionError(endpoint_url="of the caller"),
    ],
)
def test_error_of_the_callers_own_function_stays_what_it_is(aws, job, mistake):
    end(aws, job, "Completed")

    def fail(line):
        raise mistake

    with pytest.raises(type(mistake), match="of the caller"):
        follow(job, on_line=fail, poll=0)
    with pytest.raises(type(mistake), match="of the caller"):
        follow(job, on_line=lambda line: None, live=fail, poll=0)


def interrupted_while_following(job):
    """The lines that follow() shows when Ctrl-C comes with the first one of the log."""
    lines = []

    def interrupt(line):
        lines.append(line)
        if line.startswith("{"):
            raise KeyboardInterrupt

    follow(job, on_line=interrupt, poll=0)
    return lines


def test_ctrl_c_stops_following_and_not_the_job(aws, job):
    name = job.training_job_name
    real = SimpleNamespace(  # the same job, in an account that is not the rehearsal's
        training_job_name=name, training_job_arn=job.training_job_arn.replace(ACCOUNT, "111122223333"),
        training_job_status="InProgress", secondary_status="Training", refresh=lambda: None,
    )  # fmt: skip
    last = interrupted_while_following(real)[-1]
    assert "the job goes on and is billed" in last and f"`submit --attach {name}`" in last
    assert attach(name).training_job_status == "InProgress"
    assert aws.stopping == set()


def test_ctrl_c_in_a_rehearsal_does_not_say_that_the_job_goes_on(aws, job):
    last = interrupted_while_following(job)[-1]
    assert "the job goes on" not in last and "the job ends when the rehearsal ends" in last


def test_ctrl_c_at_the_command_line_ends_with_that_line(monkeypatch):
    def interrupt(line):
        print(line)
        if "REHEARSAL" in line or "Training" in line:
            raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "follow", partial(follow, on_line=interrupt, poll=0.1))
    result = CliRunner().invoke(app, ["submit", "--recipe", "smoke", "--rehearse"])
    assert result.exit_code == 130
    assert "the job ends when the rehearsal ends" in result.output.splitlines()[-1]


def test_stop(aws, job):
    stop(job)
    assert attach(job.training_job_name).training_job_status == "Stopping"


def test_fetch_needs_an_ended_job_an_empty_folder_and_its_files(aws, job, tmp_path):
    with pytest.raises(UserError, match="is InProgress"):
        fetch(job, tmp_path / "out")
    end(aws, job, "Stopped")
    with pytest.raises(UserError, match="left nothing at s3://"):
        fetch(job, tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "log.jsonl").touch()
    with pytest.raises(UserError, match="not an empty folder"):
        fetch(job, tmp_path / "full")
    bucket = boto3.resource("s3").Bucket(f"sagemaker-us-east-1-{ACCOUNT}")
    bucket.objects.delete()
    bucket.delete()
    with pytest.raises(UserError, match="NoSuchBucket.*bucket is gone"):
        fetch(job, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


@pytest.mark.parametrize("status", ["Failed", "Stopped"])
def test_fetch_takes_the_checkpoints_of_a_job_that_could_not_pack(aws, job, tmp_path, status):
    end(aws, job, status)
    bucket, _, folder = job.checkpoint_config.s3_uri.removeprefix("s3://").partition("/")
    for name, text in {"log.jsonl": '{"step": 1, "reward": 0.5}\n', "checkpoints/checkpoint-1/x": ""}.items():
        boto3.client("s3").put_object(Bucket=bucket, Key=f"{folder}/{name}", Body=text.encode())
    run = fetch(job, tmp_path / "out")
    assert run.log().reward.tolist() == [0.5]
    assert (run.path / "checkpoints" / "checkpoint-1" / "x").exists()
