"""What runs inside the training container: launch lines, secrets, and where things end."""

import json
import sys

import boto3
import pytest
from moto import mock_aws

from rlvr_kit import UserError
from rlvr_kit.container import fetch_secrets, launch_command, train_arguments
from rlvr_kit.recipe import load_recipe

MODEL = {"SM_MODEL_DIR": "/opt/ml/model"}


def machine(hosts, gpus, rank=0):
    names = [f"algo-{i + 1}" for i in range(hosts)]
    address = {"SM_MASTER_ADDR": "algo-1", "SM_MASTER_PORT": "7777"}
    return {"SM_HOSTS": json.dumps(names), "SM_CURRENT_HOST": names[rank], "SM_NUM_GPUS": str(gpus)} | address


@pytest.mark.parametrize("gpus", [0, 1])
def test_one_process_is_plain_python(gpus):
    assert launch_command(["train"], machine(1, gpus)) == [sys.executable, "-u", "-m", "rlvr_kit", "train"]


@pytest.mark.parametrize(
    "hosts, gpus, rank, sharding, expected",
    [
        (1, 4, 0, "ddp", "--multi_gpu --num_processes 4 --num_machines 1 --machine_rank 0"),
        (2, 8, 0, "ddp", "--multi_gpu --num_processes 16 --num_machines 2 --machine_rank 0"),
        (2, 8, 1, "ddp", "--multi_gpu --num_processes 16 --num_machines 2 --machine_rank 1"),
        (1, 4, 0, "zero2", "--use_deepspeed --zero_stage 2 --num_processes 4 --num_machines 1 --machine_rank 0"),
        (
            2, 8, 1, "zero2",
            "--use_deepspeed --zero_stage 2 --deepspeed_multinode_launcher standard"
            " --num_processes 16 --num_machines 2 --machine_rank 1",
        ),
    ],
)  # fmt: skip
def test_several_processes_go_through_accelerate(hosts, gpus, rank, sharding, expected):
    command = " ".join(launch_command(["train", "--out", "x"], machine(hosts, gpus, rank), sharding))
    assert command.startswith(f"{sys.executable} -u -m accelerate.commands.launch {expected} ")
    assert "--main_process_ip algo-1 --main_process_port 7777" in command
    assert command.endswith("--module rlvr_kit train --out x")


def test_accelerate_knows_these_options():
    from accelerate.commands.launch import launch_command_parser

    for sharding in ("ddp", "zero2"):
        command = launch_command(["train", "--out", "x"], machine(2, 8, 1), sharding)
        parsed = launch_command_parser().parse_args(command[4:])
        assert (parsed.num_processes, parsed.num_machines, parsed.machine_rank) == (16, 2, 1)
        assert parsed.module and parsed.training_script == "rlvr_kit"
        assert parsed.training_script_args == ["train", "--out", "x"]


def test_channels_take_the_place_of_local_folders():
    recipe = load_recipe("smoke", ["sagemaker.mlflow_arn=arn:x"])
    environ = MODEL | {"SM_CHANNEL_DATA": "/in/data", "SM_CHANNEL_MODEL": "/in/model"}
    assert train_arguments(load_recipe("smoke"), MODEL) == [
        *("train", "--recipe", "recipe.yaml", "--out", "/opt/ml/checkpoints")
    ]
    assert train_arguments(recipe, environ)[5:] == [
        *("--set", "data.source=/in/data", "--set", "model.name=/in/model", "--set", "grpo.report_to=mlflow")
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
