"""What runs inside the training container: launch lines, secrets, and where things end."""

import json
import sys

import boto3
import pytest
from moto import mock_aws

from rlvr_kit import UserError
from rlvr_kit.cloud.container import fetch_secrets, launch_command, main, train_arguments
from rlvr_kit.recipe import load_recipe

MODEL = {"SM_MODEL_DIR": "/opt/ml/model"}


def machine(hosts, gpus, rank=0):
    names = [f"algo-{i + 1}" for i in range(hosts)]
    address = {"SM_MASTER_ADDR": "algo-1", "SM_MASTER_PORT": "7777"}
    return {"SM_HOSTS": json.dumps(names), "SM_CURRENT_HOST": names[rank], "SM_NUM_GPUS": str(gpus)} | address


@pytest.mark.parametrize("gpus", [0, 1])
def test_one_process_is_plain_python(gpus):
    assert launch_command(["train"], machine(1, gpus)) == [sys.executable, "-u", "-m", "rlvr_kit", "train"]


@pytest.mark.parametrize("sharding", ["ddp", "fsdp", "zero2"])
@pytest.mark.parametrize("hosts, gpus, rank", [(1, 4, 0), (2, 8, 0), (2, 8, 1)])
def test_several_processes_go_through_accelerate(hosts, gpus, rank, sharding):
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    command = launch_command(["train", "--out", "x"], machine(hosts, gpus, rank), sharding)
    assert command[:4] == [sys.executable, "-u", "-m", "accelerate.commands.launch"]
    parsed, _, _ = _validate_launch_command(launch_command_parser().parse_args(command[4:]))
    assert (parsed.num_machines, parsed.num_processes, parsed.machine_rank) == (hosts, hosts * gpus, rank)
    assert (parsed.main_process_ip, parsed.main_process_port) == ("algo-1", 7777)
    assert (parsed.multi_gpu, parsed.use_fsdp, parsed.use_deepspeed) == tuple(
        sharding == kind for kind in ("ddp", "fsdp", "zero2")
    )
    assert sharding != "zero2" or (parsed.zero_stage, parsed.deepspeed_multinode_launcher) == (2, "standard")
    assert parsed.mixed_precision == "no"  # the recipe's grpo section decides on precision
    assert parsed.module and parsed.training_script == "rlvr_kit"
    assert parsed.training_script_args == ["train", "--out", "x"]


def test_several_hosts_without_gpus_are_refused():
    with pytest.raises(UserError, match="each of 2 CPU instances would train the whole recipe by itself"):
        launch_command(["train"], machine(2, 0))


def test_channels_take_the_place_of_local_folders():
    recipe = load_recipe("smoke", ["sagemaker.mlflow_arn=arn:x"])
    environ = MODEL | {"SM_CHANNEL_DATA": "/in/data", "SM_CHANNEL_MODEL": "/in/model"}
    assert train_arguments(load_recipe("smoke"), MODEL) == [
        *("train", "--recipe", "recipe.yaml", "--out", "/opt/ml/checkpoints")
    ]
    assert train_arguments(recipe, environ)[5:] == [
        *("--set", "task=/in/data", "--set", "model.name=/in/model", "--set", "grpo.report_to=mlflow")
    ]


@mock_aws
def test_secrets_are_fetched_by_name():
    client = boto3.client("secretsmanager")
    client.create_secret(Name="rlvr/plain", SecretString="one")
    client.create_secret(Name="rlvr/object", SecretString='{"WANDB_API_KEY": "two"}')
    names = {"HF_TOKEN": "rlvr/plain", "WANDB_API_KEY": "rlvr/object"}
    assert fetch_secrets(names) == {"HF_TOKEN": "one", "WANDB_API_KEY": "two"}
    with pytest.raises(UserError, match="'rlvr/none' .for HF_TOKEN. could not be fetched"):
        fetch_secrets({"HF_TOKEN": "rlvr/none"})


@pytest.fixture
def container(tmp_path, monkeypatch):
    """A container's folders and variables, with a recipe that takes HF_TOKEN from the secret rlvr/token."""
    for name, value in machine(1, 0).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SM_MODEL_DIR", str(tmp_path / "model"))
    monkeypatch.setenv("SM_OUTPUT_FAILURE", str(tmp_path / "failure"))
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("smoke", ["sagemaker.secrets.HF_TOKEN=rlvr/token"])
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    with mock_aws():
        yield tmp_path


@pytest.mark.parametrize(
    "secret, reason",
    [
        ({"SecretString": '{"OTHER": "hf_hidden"}'}, "has no text under the key 'HF_TOKEN'"),
        ({"SecretString": '{"HF_TOKEN": 17}'}, "has no text under the key 'HF_TOKEN'"),
        ({"SecretString": '{"HF_TOKEN": "hf_hidden"'}, "begins like a JSON object but is not valid JSON"),
        ({"SecretBinary": b"hf_hidden"}, "is binary: store it as text"),
        (None, "could not be fetched"),
    ],
)
def test_unusable_secret_is_one_line_in_the_failure_file(container, capsys, secret, reason):
    if secret:
        boto3.client("secretsmanager").create_secret(Name="rlvr/token", **secret)
    assert main() == 1
    failure = (container / "failure").read_text()
    assert "secret 'rlvr/token' (for HF_TOKEN) " + reason in failure
    assert "\n" not in failure and "hf_hidden" not in failure
    printed = capsys.readouterr().err
    assert printed.strip() == failure and "Traceback" not in printed


def test_mistake_of_the_kit_is_in_the_failure_file_as_well(container, capsys, monkeypatch):
    def fail(names):
        raise RuntimeError("not expected")

    monkeypatch.setattr("rlvr_kit.cloud.container.fetch_secrets", fail)
    assert main() == 1
    assert (container / "failure").read_text() == "RuntimeError: not expected"
    assert "Traceback" in capsys.readouterr().err  # the log says where
