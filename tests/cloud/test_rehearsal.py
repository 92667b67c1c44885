"""A whole job on this machine: submitted, killed half-way, resumed, fetched; and failed, and stopped."""

import json
import os
import re
import time
from types import SimpleNamespace

import boto3
import pytest
from safetensors.numpy import load_file

from rlvr_kit import UserError
from rlvr_kit.cloud import rehearsal
from rlvr_kit.cloud.clean_up import clean_up
from rlvr_kit.cloud.jobs import fetch, follow, plan_job, stop, submit
from rlvr_kit.recipe import RECIPES, load_recipe


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory, record):
    """The smoke recipe as a job whose machine is taken away after step 2."""
    out, lines, drawn, calls = tmp_path_factory.mktemp("fetched") / "run", [], [], set()
    recipe = load_recipe("smoke", ["run.save_steps=1"])
    with rehearsal.rehearsal(interrupt_at=2) as aws:
        record(calls)
        job = submit(plan_job(recipe))
        follow(job, on_line=lines.append, live=lambda run: drawn.append(len(run.log())), poll=0.3)
        keys = [item.key for bucket in boto3.resource("s3").buckets.all() for item in bucket.objects.all()]
        run = fetch(job, out)
        metrics = {metric.metric_name: metric.value for metric in job.final_metric_data_list}
        clean_up([item["id"] for item in clean_up()])
        left = clean_up()
    return SimpleNamespace(**locals())


def test_interrupted_run_is_complete(interrupted):
    log = interrupted.run.log()
    assert log.step.tolist() == [0, 1, 2, 3, 4]
    written = (interrupted.out / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in written] == [0, 1, 2, 3, 4]
    assert interrupted.run.recipe() == interrupted.recipe
    assert interrupted.run.completions().step.nunique() == 4
    assert load_file(interrupted.out / "model" / "model.safetensors")
    assert not (interrupted.out / "checkpoints").exists()


def test_log_shows_both_machines(interrupted):
    name = interrupted.job.training_job_name
    states = [line for line in interrupted.lines if line.startswith(f"[{name}: ")]
    assert states[-1] == f"[{name}: Completed]"
    steps = [json.loads(line)["step"] for line in interrupted.lines if line.startswith('{"step"')]
    # Step 2 was logged; it comes again unless its checkpoint was complete before the machine was gone.
    assert steps in ([0, 1, 2, 2, 3, 4], [0, 1, 2, 3, 4])
    assert sum("REHEARSAL" in line for line in interrupted.lines) == 2
    assert interrupted.drawn[-1] == 5


def test_metrics_are_those_of_the_log(interrupted):
    last = interrupted.run.log().ffill().iloc[-1]
    assert {"reward", "rewards/format", "rewards/correct", "length", "entropy", "heldout/strict"} <= set(
        interrupted.metrics
    )
    assert interrupted.metrics == {name: last[name] for name in interrupted.metrics}


def test_checkpoints_and_model_were_in_s3(interrupted):
    folder = f"rlvr-kit/{interrupted.job.training_job_name}/"
    assert all(key.startswith(folder) for key in interrupted.keys)
    assert f"{folder}output/model.tar.gz" in interrupted.keys
    assert any(
        re.search("/checkpoints/checkpoints/checkpoint-4/.*safetensors", key) for key in interrupted.keys
    )
    assert interrupted.left == []


def test_policy_allows_every_call_and_no_more_than_the_job_needs(interrupted):
    statements = json.loads((RECIPES / "iam_policy.json").read_text())["Statement"]
    actions = [s["Action"] if isinstance(s["Action"], list) else [s["Action"]] for s in statements]
    allowed = {action for group in actions for action in group}
    needs_none = {"sts:GetCallerIdentity"}
    assert interrupted.calls - needs_none - allowed == set()
    assert not [action for action in allowed if "*" in action]
    # What no call here needs: SageMaker's own work in the account, and what there was no occasion for.
    service = ("ec2:", "ecr:", "cloudwatch:", "logs:Create", "logs:Put", "secretsmanager:", "iam:PassRole")
    others = {"sagemaker:AddTags", "sagemaker:StopTrainingJob"}
    others |= {"servicequotas:ListAWSDefaultServiceQuotas"}
    others |= {"s3:AbortMultipartUpload"}  # of a large upload that breaks off: test_deploy.py
    unused = {a for a in allowed - interrupted.calls if not a.startswith(service)}
    assert {
        a for a in unused if "Endpoint" not in a and not a.endswith("Model")
    } == others  # those: test_deploy.py


def wait_for(lines, start, job):
    """An `on_line` that stops the job once a line starts so."""

    def on_line(line):
        lines.append(line)
        if line.startswith(start):
            stop(job)

    return on_line


def test_stopped_job_checkpoints_and_leaves_what_it_has(tmp_path):
    recipe, lines = load_recipe("smoke", ["grpo.max_steps=500", "run.save_steps=500", "run.guards=false"]), []
    with rehearsal.rehearsal():
        job = submit(plan_job(recipe))
        follow(job, on_line=wait_for(lines, '{"step": 1,', job), poll=0.3)
        assert job.training_job_status == "Stopped"
        run = fetch(job, tmp_path / "run")
        keys = [item.key for bucket in boto3.resource("s3").buckets.all() for item in bucket.objects.all()]
    last = int(run.log().step.iloc[-1])
    assert 1 <= last < 500
    assert any(f"/checkpoints/checkpoint-{last}/" in key for key in keys)
    assert not (run.path / "model").exists()


@pytest.mark.parametrize("mount", [True, False])
def test_failed_job_says_why(mount, tmp_path, monkeypatch):
    if mount and not rehearsal.can_mount():
        pytest.skip("no private mounts on this machine")
    monkeypatch.setattr(rehearsal, "can_mount", lambda: mount)
    lines = []
    with rehearsal.rehearsal():
        job = submit(plan_job(load_recipe("smoke", ["sagemaker.secrets.HF_TOKEN=rlvr/none"])))
        with pytest.raises(
            UserError, match="failed: AlgorithmError: secret 'rlvr/none' .for HF_TOKEN. could not"
        ):
            follow(job, on_line=lines.append, poll=0.3)
        with pytest.raises(UserError, match="left nothing at s3://.*/checkpoints"):
            fetch(job, tmp_path / "run")
    assert any("Installing requirements" in line for line in lines)
    assert not os.path.exists("/opt/ml/checkpoints/log.jsonl")


def test_job_that_this_machine_cannot_run_has_an_end(monkeypatch):
    def full():
        raise OSError("No space left on device")

    monkeypatch.setattr(rehearsal, "can_mount", full)
    with (
        rehearsal.rehearsal(),
        pytest.raises(UserError, match="failed: InternalServerError: .*No space left on device"),
    ):
        follow(submit(plan_job(load_recipe("smoke"))), on_line=lambda line: None, poll=0.1)


def test_nothing_outlives_the_block():
    before, session = dict(os.environ), boto3.DEFAULT_SESSION
    with rehearsal.rehearsal() as aws:
        submit(plan_job(load_recipe("smoke")))
        while not aws.processes:
            time.sleep(0.1)
    (process,) = aws.processes.values()
    assert process.returncode is not None
    assert dict(os.environ) == before
    assert boto3.DEFAULT_SESSION is session
