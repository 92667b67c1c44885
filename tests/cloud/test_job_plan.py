"""What a job would take and cost, and what is refused before anything is uploaded; moto answers, no network."""

import json
import re

import boto3
import pytest
from typer.testing import CliRunner

from rlvr_kit import UserError
from rlvr_kit.__main__ import app
from rlvr_kit.cloud.jobs import plan_job, submit
from rlvr_kit.cloud.rehearsal import rehearsal
from rlvr_kit.recipe import load_recipe

pytestmark = pytest.mark.usefixtures("quick")


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


@pytest.mark.parametrize("setting", ["instance_type=banana", "framework_version='0.1'"])
def test_settings_that_cannot_be(aws, setting):
    with pytest.raises(UserError, match="the SageMaker SDK refuses"):
        plan_job(load_recipe("smoke", [f"sagemaker.{setting}"]))


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
