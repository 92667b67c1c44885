"""What runs inside the training container: launch lines, secrets, and where things end."""

import json
import sys

import boto3
import pytest
from moto import mock_aws

from rlvr_kit import UserError
from rlvr_kit.cloud.container import fetch_secrets, launch_command, train_arguments
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
