"""The planner judges the recipe for the job's instances before anything is uploaded."""

import boto3
import pytest
from sagemaker.core import instance_types_gpu_info

from rlvr_kit import UserError
from rlvr_kit.cloud.instances import gpus_of
from rlvr_kit.cloud.jobs import plan_job, submit
from rlvr_kit.recipe import load_recipe

pytestmark = pytest.mark.usefixtures("quick")


def refused(account, planned, message):
    with pytest.raises(UserError, match=message):
        submit(planned)
    assert account.requests == [] and boto3.client("s3").list_buckets()["Buckets"] == []


def test_number_of_gpus_is_that_of_the_sdk_where_it_knows_the_type():
    known = instance_types_gpu_info.retrieve("us-east-1")
    ours = {name: gpus_of(name) for name in known if not name.startswith(("ml.p2.", "ml.g5n."))}
    assert {name: count for name, (count, _) in ours.items()} == {name: known[name]["Count"] for name in ours}
    for name, (count, gib) in ours.items():
        assert 0.85 <= gib * 1024 * count / known[name]["TotalGpuMemoryInMiB"] <= 1


@pytest.mark.parametrize(
    "name, gpus",
    [
        ("ml.g6.2xlarge", (1, 22)),
        ("ml.g6e.12xlarge", (4, 44)),
        ("ml.g6.24xlarge", (4, 22)),
        ("ml.p5.4xlarge", (1, 79)),
        ("ml.m5.xlarge", (0, 0)),
        ("ml.c6i.8xlarge", (0, 0)),
        ("ml.trn1.32xlarge", None),
        ("ml.p9.48xlarge", None),
        ("banana", None),
    ],
)
def test_gpus_of_other_types(name, gpus):
    assert gpus_of(name) == gpus


def test_batch_that_the_group_does_not_divide_is_refused_before_anything_is_uploaded(aws):
    planned = plan_job(load_recipe("smoke", ["grpo.num_generations=3"]))
    refused(aws, planned, "not submitted: .*8 completions .* are not whole groups of 3: make it 9")
    assert "whole groups of 3" in planned.in_words()["submit would"]


def test_batch_is_counted_over_all_gpus_of_all_hosts(aws):
    recipe = load_recipe("smoke", ["grpo.per_device_train_batch_size=2", "grpo.num_generations=8"])
    assert "8 completions a step on 4 x 22 GiB" in plan_job(recipe, "ml.g5.12xlarge").training_check
    assert plan_job(recipe, "ml.g5.12xlarge").refusals == []
    refused(aws, plan_job(recipe, "ml.g5.2xlarge"), "2 completions .* are not whole groups of 8")
    hosts = recipe.sagemaker.model_copy(update={"instance_count": 4})
    four_hosts = plan_job(recipe.model_copy(update={"sagemaker": hosts}), "ml.g5.2xlarge")
    assert four_hosts.training_problem == ""


def test_memory_of_the_gpu_counts_and_not_that_of_this_machine(aws):
    recipe = load_recipe(
        "multi-gpu", ["data.source=word_problems", "lora=null"]
    )  # 1.5 billion weights trained
    refused(
        aws, plan_job(recipe, "ml.g4dn.xlarge"), "it needs up to .* and there are 14.5 .a GPU of that size"
    )
    assert plan_job(recipe, "ml.p4de.24xlarge").training_problem == ""
    assert plan_job(recipe, "ml.m5.xlarge").training_problem == ""  # nobody here knows that machine's memory


def test_data_that_only_the_job_can_fetch_is_no_refusal(aws, monkeypatch):
    monkeypatch.setattr("rlvr_kit.tasks.gsm8k.try_to_load_from_cache", lambda *a, **k: None)
    planned = plan_job(load_recipe("gpu"))
    assert planned.refusals == []
    assert "batch sizes fit 1 x 22 GiB" in planned.training_check and "GSM8K" in planned.training_check
    wrong = plan_job(load_recipe("gpu", ["grpo.num_generations=7"]))
    assert "not whole groups of 7" in wrong.training_problem and wrong.estimate.value is None


def test_instance_type_that_the_kit_does_not_know(aws):
    planned = plan_job(load_recipe("smoke"), "ml.p6-b200.48xlarge")
    assert "how many GPUs ml.p6-b200.48xlarge has" in planned.training_check and planned.refusals == []


def test_several_cpu_hosts_are_refused(aws):
    planned = plan_job(load_recipe("smoke", ["sagemaker.instance_count=2"]), "ml.m5.xlarge")
    refused(
        aws, planned, "each of 2 CPU instances would train the whole recipe.*sagemaker.instance_count to 1"
    )
