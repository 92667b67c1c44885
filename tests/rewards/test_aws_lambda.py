"""The Lambda reward under the SageMaker SDK's own check, and the zip as AWS would unpack it."""

import json
import subprocess
import sys
import zipfile

import pytest

from rlvr_kit import UserError
from rlvr_kit.paths import PROJECT
from rlvr_kit.rewards import aws_lambda as lambda_reward
from rlvr_kit.rewards.aws_lambda import lambda_handler, open_weights_handler


def sample(text, gold="18", name="a"):
    turns = [{"role": "user", "content": "9 * 2?"}, {"role": "assistant", "content": text}]
    return {"id": name, "messages": turns, "reference_answer": gold}


SAMPLES = [
    sample("9 * 2 = 18\n#### 18", name="right"),
    sample("9 * 3 = 27\n#### 27", "9*2=<<9*2=18>>18\n#### 18", name="wrong"),
    sample([{"text": "The answer is 18."}], 18, name="unmarked"),
    sample("", "1,080", name="empty"),
]
SCORES = {"right": 1.5, "wrong": 0.5, "unmarked": 0.0, "empty": 0.0}


def test_scores_are_those_of_the_reward_functions():
    results = lambda_handler(SAMPLES, None)
    assert {result["id"]: result["aggregate_reward_score"] for result in results} == SCORES
    for result in results:
        parts = {metric["name"]: metric for metric in result["metrics_list"]}
        assert parts["format"]["value"] + parts["correct"]["value"] == result["aggregate_reward_score"]
        assert parts["lenient_correct"]["type"] == "Metric"


@pytest.mark.parametrize("nova", [True, False], ids=["nova", "open weights"])
def test_the_sdk_accepts_it(tmp_path, nova):
    from sagemaker.train.common_utils.rlvr_reward_verifier import verify_reward_function

    source = tmp_path / "reward.py"
    handler = "lambda_handler" if nova else "open_weights_handler as lambda_handler"
    source.write_text(f"from rlvr_kit.rewards.aws_lambda import {handler}\n")
    for file in [lambda_reward.__file__, str(source)] if nova else [str(source)]:
        report = verify_reward_function(file, SAMPLES, is_nova=nova)
        assert report["success"] and report["successful_samples"] == len(SAMPLES)
        assert [r["output"]["aggregate_reward_score"] for r in report["results"]] == list(SCORES.values())


@pytest.mark.parametrize(
    "broken",
    [
        sample("9\n#### 18", None),
        sample("9\n#### 18", "eighteen"),
        sample("9\n#### 18", {"answer": 18}),
        sample("9\n#### 18") | {"messages": []},
        sample("9\n#### 18") | {"messages": [{"role": "user", "content": "9 * 2?"}]},
        {"id": "a", "reference_answer": "18"},
    ],
)
def test_a_broken_sample_is_an_error_that_names_it(broken):
    with pytest.raises(UserError, match="sample 'a' needs"):
        lambda_handler([SAMPLES[0], broken])


def test_the_envelope_is_json():
    answer = open_weights_handler(SAMPLES)
    assert answer["statusCode"] == 200 and json.loads(answer["body"]) == lambda_handler(SAMPLES)


def test_the_zip_runs_with_nothing_but_the_standard_library(tmp_path):
    made = subprocess.run(
        [sys.executable, "-m", "rlvr_kit.rewards.aws_lambda"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    with zipfile.ZipFile(made.stdout.strip()) as archive:
        archive.extractall(tmp_path)
    code = (
        f"import sys, json; sys.path.insert(0, {str(tmp_path)!r});"
        "from rlvr_kit.rewards.aws_lambda import lambda_handler;"
        "print(json.dumps(lambda_handler(json.load(sys.stdin))))"
    )
    # -S leaves out site-packages and -I the environment: what the zip does not hold cannot be imported.
    run = [sys.executable, "-I", "-S", "-c", code]
    results = subprocess.run(run, input=json.dumps(SAMPLES), capture_output=True, text=True, check=True)
    assert json.loads(results.stdout) == lambda_handler(SAMPLES)
