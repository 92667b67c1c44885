"""The request of a training job: what is uploaded, named and asked for; moto answers, no network."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
import yaml

from rlvr_kit import UserError, __version__
from rlvr_kit.cloud.account import REHEARSAL_ACCOUNT as ACCOUNT
from rlvr_kit.cloud.container import train_arguments
from rlvr_kit.cloud.job_request import JOB_METRICS, channels, metric_regex, requirements, staged_source
from rlvr_kit.cloud.jobs import plan_job, submit
from rlvr_kit.cloud.pretended_aws import ROLE
from rlvr_kit.cloud.rehearsal import rehearsal
from rlvr_kit.models import resolve_model
from rlvr_kit.paths import PROJECT
from rlvr_kit.recipe import RECIPES, load_recipe

pytestmark = pytest.mark.usefixtures("quick")


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
        UserError, match="needs the folder .*project/gsm8k .channel gsm8k., which does not exist"
    ):
        channels(recipe)


def test_a_task_of_ones_own_travels_with_the_files_it_names(tmp_path):
    file = tmp_path / "colours.py"
    file.write_text(
        "from rlvr_kit import Verdict\n"
        "INSTRUCTION, FILES = 'Say the colour.', ['things.csv']\n"
        "def problems(split, n, seed): return [{'question': split, 'gold': 'red', 'answer': 'red'}]\n"
        "def verify(completion, gold): return Verdict(True, True, True, None, '')\n"
    )
    recipe = load_recipe("smoke", [f"task={file}"])
    with pytest.raises(UserError, match="FILES names things.csv"), staged_source(recipe):
        pass
    (tmp_path / "things.csv").write_text("colour,thing")
    (tmp_path / "secret.csv").write_text("not asked for")
    with staged_source(recipe) as source:
        assert {path.name for path in (source / "task").iterdir()} == {"colours.py", "things.csv"}
        assert train_arguments(recipe, {"SM_MODEL_DIR": "/opt/ml/model"})[-2:] == [
            "--set",
            "task=task/colours.py",
        ]
    assert channels(recipe) == {}


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
