"""The SageMaker request, what stops it, and what can be done with a job; moto answers, no network."""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
import yaml
from botocore.exceptions import EndpointConnectionError
from moto import mock_aws
from typer.testing import CliRunner

from rlvr_kit import AWSError, UserError, __version__
from rlvr_kit.__main__ import app
from rlvr_kit.cloud import jobs
from rlvr_kit.cloud.job_request import JOB_METRICS, channels, metric_regex, requirements, staged_source
from rlvr_kit.cloud.jobs import attach, fetch, follow, plan_job, stop, submit
from rlvr_kit.cloud.pretended_aws import ROLE
from rlvr_kit.cloud.rehearsal import rehearsal
from rlvr_kit.models import resolve_model
from rlvr_kit.paths import PROJECT
from rlvr_kit.recipe import RECIPES, load_recipe

ACCOUNT = ROLE.split(":")[4]


pytestmark = pytest.mark.usefixtures("quick")


def error(code):
    return {"Error": {"Code": code, "Message": "because"}}


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.yaml")))
@pytest.mark.parametrize("region", ["us-east-1", "eu-west-1"])
def test_request_of_each_recipe(name, region, monkeypatch):
    monkeypatch.delenv("RLVR_KIT_GSM8K", raising=False)
    with rehearsal(region=region):
        recipe = load_recipe(name)
        planned = plan_job(recipe)
    request, job = planned.request, recipe.sagemaker
    training_job = request["TrainingJobName"]
    ours = f"s3://sagemaker-{region}-{ACCOUNT}/rlvr-kit"
    assert re.fullmatch(r"rlvr-kit-\d{14}", training_job)
    assert request["RoleArn"] == ROLE
    image = request["AlgorithmSpecification"]
    assert re.search(
        rf"\.{region}\.amazonaws\.com/pytorch-training:2\.9\.0-gpu-py312", image["TrainingImage"]
    )
    assert image["ContainerEntrypoint"] == ["/bin/bash"]
    assert {metric["Name"] for metric in image["MetricDefinitions"]} == set(JOB_METRICS)
    assert request["HyperParameters"] == {"rlvr_kit": __version__, "recipe": name}
    assert {
        channel["ChannelName"]: channel["DataSource"]["S3DataSource"]["S3Uri"]
        for channel in request["InputDataConfig"]
    } == {name: f"{ours}/{training_job}/input/{name}" for name in ("code", "sm_drivers")}
    assert request["OutputDataConfig"]["S3OutputPath"] == ours
    assert request["CheckpointConfig"] == {
        "S3Uri": f"{ours}/{training_job}/checkpoints",
        "LocalPath": "/opt/ml/checkpoints",
    }
    assert request["ResourceConfig"] == {
        "InstanceType": job.instance_type,
        "InstanceCount": job.instance_count,
        "VolumeSizeInGB": job.volume_gb,
    }  # no KeepAlivePeriodInSeconds: a warm pool costs
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": int(planned.max_minutes * 60)}
    assert request["EnableManagedSpotTraining"] is False
    assert request["Tags"] == [{"Key": "rlvr-kit", "Value": __version__}]
    assert "VpcConfig" not in request
    elsewhere = "us-east-1" if region == "eu-west-1" else "eu-west-1"
    assert elsewhere not in json.dumps(request)


def test_request_takes_all_that_the_recipe_says(aws, monkeypatch):
    monkeypatch.setenv("RLVR_KIT_GSM8K", "tests")  # any folder
    own = {
        "instance_type": "ml.m5.xlarge", "instance_count": 2, "volume_gb": 7, "keep_alive": 60, "spot": True,
        "max_minutes": 30, "max_wait_minutes": 90, "bucket": "sagemaker-mine", "subnets": ["subnet-1"],
        "security_groups": ["sg-1"], "kms_key": "key-1", "tags": {"team": "maths"}, "role": ROLE + "-2",
        "mlflow_arn": "arn:aws:sagemaker:us-east-1:1:mlflow-app/a", "sharding": "zero2",
    }  # fmt: skip
    recipe = load_recipe("smoke", [f"sagemaker={json.dumps(own)}", "data.source=gsm8k"])
    planned = plan_job(recipe)
    request = planned.request
    assert request["ResourceConfig"] == {
        "InstanceType": "ml.m5.xlarge",
        "InstanceCount": 2,
        "VolumeSizeInGB": 7,
        "KeepAlivePeriodInSeconds": 60,
        "VolumeKmsKeyId": "key-1",
    }
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 1800, "MaxWaitTimeInSeconds": 5400}
    assert request["EnableManagedSpotTraining"] is True
    assert request["VpcConfig"] == {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}
    assert request["OutputDataConfig"]["KmsKeyId"] == "key-1"
    assert request["OutputDataConfig"]["S3OutputPath"] == "s3://sagemaker-mine/rlvr-kit"
    assert request["RoleArn"] == ROLE + "-2"
    assert {"Key": "team", "Value": "maths"} in request["Tags"]
    assert "-cpu-" in request["AlgorithmSpecification"]["TrainingImage"]
    assert {channel["ChannelName"] for channel in request["InputDataConfig"]} == {
        "gsm8k",
        "code",
        "sm_drivers",
    }
    assert planned.upload["gsm8k"] == sum(f.stat().st_size for f in PROJECT.glob("tests/**/*") if f.is_file())


def test_machines_with_their_own_disk_get_no_volume_key(aws):
    request = plan_job(load_recipe("smoke", ["sagemaker.kms_key=key-1"]), "ml.g6.2xlarge").request
    assert "VolumeKmsKeyId" not in request["ResourceConfig"]  # AWS would refuse the job
    assert request["OutputDataConfig"]["KmsKeyId"] == "key-1"


def test_no_secret_leaves_the_machine(aws, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_SECRETvalue")
    recipe = load_recipe("smoke", ["sagemaker.secrets.HF_TOKEN=rlvr/hf-token"])
    submit(plan_job(recipe))
    uploaded = b"".join(
        item.get()["Body"].read()
        for item in boto3.resource("s3").Bucket(f"sagemaker-us-east-1-{ACCOUNT}").objects.all()
    )
    assert b"rlvr/hf-token" in uploaded  # the name goes with the recipe
    assert b"hf_SECRETvalue" not in uploaded + json.dumps(aws.requests).encode()


def test_source_is_package_recipe_and_requirements():
    recipe = load_recipe("smoke", ["run.seed=7"])
    with staged_source(recipe) as source:
        assert {path.name for path in source.iterdir()} == {"rlvr_kit", "recipe.yaml", "requirements.txt"}
        assert {path.suffix for path in source.rglob("*") if path.is_file()} <= {
            ".py",
            ".yaml",
            ".json",
            ".txt",
            ".j2",
        }
        assert load_recipe(source / "recipe.yaml") == recipe
        lines = (source / "requirements.txt").read_text().split("\n")
    assert not [line for line in lines if line.startswith("torch")]
    assert [line for line in lines if line.startswith("trl==")]


def test_gsm8k_in_a_folder_is_one_channel(tmp_path, monkeypatch):
    """A relative folder begins at the project folder; its channel is the one whose rows are checked on loading."""
    folder = tmp_path / "project" / "gsm8k"
    folder.mkdir(parents=True)
    monkeypatch.setattr("rlvr_kit.paths.PROJECT", tmp_path / "project")
    monkeypatch.setenv("RLVR_KIT_GSM8K", "gsm8k")
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("smoke", ["data.source=gsm8k"])
    assert channels(recipe) == {"gsm8k": folder}
    folder.rmdir()
    with pytest.raises(
        UserError, match="needs the folder .*project/gsm8k .channel gsm8k., but there is none"
    ):
        channels(recipe)


def test_folder_named_like_a_source_is_not_uploaded(tmp_path, monkeypatch):
    monkeypatch.setattr("rlvr_kit.paths.PROJECT", tmp_path)
    monkeypatch.delenv("RLVR_KIT_GSM8K", raising=False)
    for name in ("gsm8k", "word_problems", "tiny-random", "mine"):
        (tmp_path / name).mkdir()
    (tmp_path / "mine" / "config.json").touch()
    assert channels(load_recipe("smoke")) == channels(load_recipe("smoke", ["data.source=gsm8k"])) == {}
    mine = load_recipe("smoke", ["data.source=mine", "model.name=mine"])
    assert channels(mine) == {"data": tmp_path / "mine", "model": tmp_path / "mine"}
    with pytest.raises(UserError, match="the job needs the folder .*none .channel data."):
        channels(load_recipe("smoke", ["data.source=none"]))


def test_model_folder_begins_where_the_data_folder_begins(tmp_path, monkeypatch):
    monkeypatch.setattr("rlvr_kit.paths.PROJECT", tmp_path / "project")
    (tmp_path / "project" / "mine").mkdir(parents=True)
    (tmp_path / "project" / "mine" / "config.json").touch()
    monkeypatch.chdir(tmp_path)
    assert resolve_model("mine") == str(tmp_path / "project" / "mine")


def test_installation_without_the_project_folder(tmp_path):
    """As after a plain pip install: the package lies in a folder without pyproject.toml."""
    shutil.copytree(
        RECIPES.parent, tmp_path / "site" / "rlvr_kit", ignore=shutil.ignore_patterns("__pycache__")
    )
    work = tmp_path / "work"
    work.mkdir()
    code = """if True:
        from rlvr_kit import load_recipe, project_path
        from rlvr_kit.cloud.job_request import staged_source
        with staged_source(load_recipe("smoke")) as source:
            print((source / "rlvr_kit" / "__main__.py").is_file(), project_path("runs"))
            print((source / "requirements.txt").read_text())"""
    environ = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-c", code]
    told = subprocess.run(command, cwd=work, env=environ, capture_output=True, text=True, check=True).stdout
    assert told.startswith(f"True {work / 'runs'}\n") and "trl==" in told and "torch" not in told


@pytest.mark.parametrize(
    "setting, package",
    [
        ("sagemaker.mlflow_arn=arn:x", "sagemaker-mlflow"),
        ("sagemaker.sharding=zero2", "deepspeed"),
        ("model.load_in_4bit=true", "bitsandbytes"),
    ],
)
def test_a_setting_brings_the_package_that_it_needs_pinned(setting, package):
    usual = requirements(load_recipe("smoke"))
    (more,) = set(requirements(load_recipe("smoke", [setting]))) - set(usual)
    assert re.fullmatch(rf"{package}==[0-9.]+\*", more)


@pytest.mark.parametrize(
    "own, estimate, limit",
    [
        ([], 0.03 * 12 * (2 * 4 + 3 * 1) / 60, 60),  # 12 tokens, 4 steps, 3 held-out measurements of a batch
        (["grpo.max_steps=8000"], 0.03 * 12 * (2 * 8000 + 4001) / 60, 0.09 * 12 * (2 * 8000 + 4001) / 60),
        (["grpo.max_steps=-1"], None, 480),
        (["sagemaker.max_minutes=7"], 0.066, 7),
    ],
)
def test_limit_follows_the_estimate_and_its_basis_is_said(aws, own, estimate, limit):
    planned = plan_job(load_recipe("smoke", own))
    assert planned.estimate.value == (estimate and pytest.approx(estimate))
    assert planned.max_minutes == pytest.approx(limit)
    assert ("rule of thumb, not measured" if estimate else "no grpo.max_steps") in planned.in_words()[
        "estimate"
    ]


def test_submit_sends_what_was_planned(aws):
    planned = plan_job(load_recipe("smoke"))
    job = submit(planned)
    (sent,) = aws.requests

    def timeless(request):
        return re.sub(r"rlvr-kit-\d{14}", "JOB", json.dumps(request, sort_keys=True))

    assert timeless(sent) == timeless(planned.request)
    assert job.training_job_name == sent["TrainingJobName"]
    assert attach(job.training_job_name).training_job_arn == job.training_job_arn


def test_planning_only_reads(aws):
    calls = []
    boto3.DEFAULT_SESSION.events.register(
        "before-parameter-build", lambda model, **_: calls.append(model.name)
    )
    plan_job(load_recipe("smoke"))
    assert calls and not [name for name in calls if not re.match("Get|List|Describe|Simulate|Head", name)]
    assert boto3.client("s3").list_buckets()["Buckets"] == []


def test_command_line_shows_the_plan_and_sends_nothing():
    options = ["submit", "--recipe", "smoke", "--instance-type", "ml.g5.xlarge", "--rehearse", "--dry-run"]
    shown = CliRunner().invoke(app, options)
    assert shown.exit_code == 0 and "ml.g5.xlarge" in shown.output and "rehearsal" in shown.output
    planned = json.loads(CliRunner().invoke(app, [*options, "--json"]).stdout)
    assert planned["request"]["ResourceConfig"]["InstanceType"] == "ml.g5.xlarge"
    assert planned["quota"] == {"value": 1, "basis": "Service Quotas, ml.g5.xlarge for training job usage"}
    assert planned["refusals"] == [] and planned["max_cost"] == 0


def test_telemetry_is_off(aws, monkeypatch):
    sent = []
    monkeypatch.setattr(
        "sagemaker.core.telemetry.telemetry_logging._requests_helper", lambda *a, **k: sent.append(a)
    )
    submit(plan_job(load_recipe("smoke")))
    assert sent == []


def test_quota_of_zero_is_refused_before_anything_is_uploaded():
    with rehearsal(quota=0) as account:
        planned = plan_job(load_recipe("smoke"), "ml.g5.2xlarge")
        with pytest.raises(
            UserError, match="quota in us-east-1 is 0 .*ml.g5.2xlarge for training job usage.*another --inst"
        ):
            submit(planned)
        assert account.requests == [] and boto3.client("s3").list_buckets()["Buckets"] == []


@pytest.mark.parametrize(
    "max_minutes, keep_alive, machines, cost", [(60, 0, 1, 2), (30, 3600, 1, 3), (90, 0, 2, 6)]
)
def test_most_it_can_cost(max_minutes, keep_alive, machines, cost):
    own = {"max_minutes": max_minutes, "keep_alive": keep_alive, "instance_count": machines}
    with rehearsal(price=2):
        planned = plan_job(load_recipe("smoke", [f"sagemaker={json.dumps(own)}"]))
    assert planned.max_cost == cost
    assert planned.in_words()["costs at most"] == f"${cost:.2f}"


def test_cost_above_the_limit_is_refused():
    limits = ["sagemaker.max_cost=1", "sagemaker.max_minutes=60"]
    with (
        rehearsal(price=1.5),
        pytest.raises(UserError, match=r"may cost \$1.50, more than sagemaker.max_cost = \$1.00"),
    ):
        submit(plan_job(load_recipe("smoke", limits)))


def test_unknown_price_is_refused_until_you_give_yours():
    with rehearsal(price=None) as account:
        planned = plan_job(load_recipe("smoke"))
        assert planned.in_words()["costs at most"] == "unknown without a price"
        with pytest.raises(UserError, match="price is unknown.*set sagemaker.price_per_hour to the dollars"):
            submit(planned)
        assert account.requests == []
        planned = plan_job(load_recipe("smoke", ["sagemaker.price_per_hour=0.5"]))
    assert planned.price.value == 0.5 and "your sagemaker.price_per_hour" in planned.price.basis
    assert planned.refusals == []


def test_price_is_asked_of_aws_first(aws, answer):
    def product(usage, price):
        dimensions = {"sku.rate": {"pricePerUnit": {"USD": price}}}
        terms = {"OnDemand": {"sku": {"priceDimensions": dimensions}}}
        return json.dumps({"product": {"attributes": {"usagetype": usage}}, "terms": terms})

    rows = [product("EUW1-Host:ml.g6.2xlarge", "9"), product("EUW1-Train:ml.g6.2xlarge", "1.2220000000")]
    answer("pricing.GetProducts", {"PriceList": rows})
    price = plan_job(load_recipe("smoke", ["sagemaker.price_per_hour=5"]), "ml.g6.2xlarge").price
    assert price == (1.222, "AWS Pricing API, on demand")


@pytest.mark.parametrize("call", ["pricing.GetProducts", "service-quotas.ListServiceQuotas"])
def test_what_may_not_be_asked_is_unknown(aws, answer, call):
    answer(call, error("AccessDeniedException"), 400)
    planned = plan_job(load_recipe("smoke"))
    fact = planned.price if "pricing" in call else planned.quota
    assert fact.value is None and "could not be asked" in fact.basis
    assert len(planned.refusals) == ("pricing" in call)  # AWS itself keeps to the quota, but to no price


def test_missing_permissions_are_named(aws, answer):
    denied = {"EvalActionName": "cloudwatch:PutMetricData", "EvalDecision": "implicitDeny"}
    answer("iam.SimulatePrincipalPolicy", {"EvaluationResults": [denied]})
    planned = plan_job(load_recipe("smoke"))
    with pytest.raises(UserError, match="rehearsal.*Missing permissions: cloudwatch:PutMetricData"):
        submit(planned)


def test_role_that_sagemaker_may_not_assume(aws, answer):
    answer("iam.GetRole", {"Role": {"Arn": ROLE, "AssumeRolePolicyDocument": '{"Statement": []}'}})
    assert "trust policy" in plan_job(load_recipe("smoke")).role_problem


@pytest.mark.parametrize("setting", ["instance_type=banana", "framework_version='0.1'"])
def test_settings_that_cannot_be(aws, setting):
    with pytest.raises(UserError, match="the SageMaker SDK refuses"):
        plan_job(load_recipe("smoke", [f"sagemaker.{setting}"]))


def test_no_role():
    with mock_aws(), pytest.raises(UserError, match="no role.*set sagemaker.role"):
        plan_job(load_recipe("smoke"))


def test_no_region(monkeypatch):
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", "none")
    with pytest.raises(UserError, match="no AWS region: export AWS_DEFAULT_REGION"):
        plan_job(load_recipe("smoke"))


def test_profile_that_does_not_exist(monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(
        AWSError, match="profile .nobody. could not be found; AWS_PROFILE must name"
    ) as raised:
        plan_job(load_recipe("smoke"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "setting",
    [
        "price_per_hour=.nan", "price_per_hour=-1", "price_per_hour=0", "price_per_hour=.inf", "max_minutes=-5",
        "max_minutes=0", "max_minutes=.inf", "max_minutes=.nan", "max_wait_minutes=-1", "max_cost=.inf",
        "max_cost=.nan", "max_cost=0",
    ],
)  # fmt: skip
def test_limits_that_would_limit_nothing(setting):
    with pytest.raises(UserError, match=f"sagemaker.{setting.split('=')[0]}: Input should be"):
        load_recipe("smoke", [f"sagemaker.{setting}"])


def test_no_credentials(monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "none")
    with pytest.raises(UserError, match="no AWS credentials.*--rehearse"):
        plan_job(load_recipe("smoke"))


@pytest.mark.parametrize(
    "call, code, message",
    [
        (
            "sagemaker.CreateTrainingJob",
            "ThrottlingException",
            "ThrottlingException. when calling the CreateTrainingJob.*wait a minute",
        ),
        ("sagemaker.CreateTrainingJob", "ResourceLimitExceeded", "higher quota in Service Quotas"),
        ("sagemaker.CreateTrainingJob", "AccessDeniedException", "iam_policy.json"),
        ("sts.GetCallerIdentity", "ExpiredToken", "sign in again"),
        ("s3.PutObject", "NoSuchBucket", "bucket is gone"),
    ],
)
def test_refused_by_aws_is_one_clear_line(aws, answer, call, code, message):
    planned = plan_job(load_recipe("smoke"))
    answer(call, error(code), 400)
    with pytest.raises(AWSError, match=message) as raised:
        submit(planned)
    assert "\n" not in str(raised.value)


def test_attach_to_no_job_and_to_another_kits(aws):
    with pytest.raises(UserError, match="no training job 'nothing' in us-east-1"):
        attach("nothing")
    boto3.client("sagemaker").create_training_job(
        TrainingJobName="theirs", RoleArn=ROLE, HyperParameters={"a": "b"},
        AlgorithmSpecification={"TrainingInputMode": "File"}, OutputDataConfig={"S3OutputPath": "s3://theirs/"},
        ResourceConfig={"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 60},
    )  # fmt: skip
    with pytest.raises(UserError, match="'theirs' is a training job, but none of this kit's"):
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
    assert "the job goes on" not in last and "its job ends when the rehearsal ends" in last


def test_ctrl_c_at_the_command_line_ends_with_that_line(monkeypatch):
    def interrupt(line):
        print(line)
        if "REHEARSAL" in line or "Training" in line:
            raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "follow", partial(follow, on_line=interrupt, poll=0.1))
    result = CliRunner().invoke(app, ["submit", "--recipe", "smoke", "--rehearse"])
    assert result.exit_code == 130
    assert "its job ends when the rehearsal ends" in result.output.splitlines()[-1]


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


@pytest.mark.parametrize(
    "name, line, value",
    [
        ("reward", '{"step": 3, "completions": 24, "rewards/format": 0.1, "reward": 0.25}', "0.25"),
        ("rewards/format", '{"step": 3, "rewards/format": 1.5e-05, "reward": 0.25}', "1.5e-05"),
        ("loss", '{"step": 3, "loss": -0.0012}', "-0.0012"),
        ("loss", '{"step": 3, "loss": null}', None),
        ("heldout/strict", '{"step": 0, "heldout/strict": 0.5, "heldout/strict_ci": [0.4, 0.6]}', "0.5"),
        ("reward", 'the text "reward": 1.0 in a completion', None),
    ],
)
def test_metrics_are_read_off_log_lines_alone(name, line, value):
    found = re.search(metric_regex(name), line)
    assert (found and found.group(1)) == value


def test_policy_is_valid_json_and_names_no_account():
    text = Path(RECIPES, "iam_policy.json").read_text()
    assert json.loads(text)["Version"] == "2012-10-17"
    assert not re.search(r"\d{12}", text)
    assert yaml.safe_load(text)["Statement"]
