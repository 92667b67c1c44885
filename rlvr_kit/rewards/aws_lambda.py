"""The kit's rewards as an AWS Lambda for SageMaker's serverless RLVR customization; standard library only.

``make lambda`` writes the zip to upload; the handler is ``rlvr_kit.rewards.aws_lambda.lambda_handler`` for a
Nova model and ``rlvr_kit.rewards.aws_lambda.open_weights_handler`` for an open-weight one: the two contracts of
`sagemaker.train.common_utils.rlvr_reward_verifier`.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

from rlvr_kit.errors import InputError
from rlvr_kit.rewards.reward_functions import CorrectnessReward, FormatReward
from rlvr_kit.tasks.verifier import canonical_number, completion_text, gold_answer, verify


def lambda_handler(event: list[dict[str, Any]], context: Any = None) -> list[dict[str, Any]]:
    """Judge the last message of each sample, ``{"id", "messages", "reference_answer"}``, against its gold.

    Raises UserError for a sample without either: the data's fault, not the model's, so not a silent zero.
    """
    return [_reward(sample) for sample in event]


def open_weights_handler(event: list[dict[str, Any]], context: Any = None) -> dict[str, Any]:
    """What `lambda_handler` returns, in the HTTP envelope that open-weight models are served with."""
    return {"statusCode": 200, "body": json.dumps(lambda_handler(event))}


def _reward(sample: dict[str, Any]) -> dict[str, Any]:
    messages, gold = sample.get("messages"), str(sample.get("reference_answer"))
    gold = gold_answer(gold) if "####" in gold else gold
    if canonical_number(gold) is None or not messages or messages[-1].get("role") != "assistant":
        needs = "'messages' that end with the assistant's and a 'reference_answer' that is a number"
        raise InputError(f"sample {sample.get('id')!r} needs {needs}")
    verdict = verify(completion_text(messages), gold)
    well_formed = FormatReward().weight * verdict.format_ok
    correct = CorrectnessReward().weight * verdict.correct
    metrics = [
        {"name": "format", "value": well_formed, "type": "Reward"},
        {"name": "correct", "value": correct, "type": "Reward"},
        {"name": "lenient_correct", "value": float(verdict.lenient_correct), "type": "Metric"},
    ]
    return {"id": sample.get("id"), "aggregate_reward_score": well_formed + correct, "metrics_list": metrics}


def write_zip(target: Path) -> Path:
    """Write the archive that AWS Lambda takes: the handlers and what they import, nothing else."""
    package = Path(__file__).parent.parent
    names = ["errors", "tasks/__init__", "tasks/verifier", "rewards/__init__", "rewards/reward_functions"]
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("__init__", *names, "rewards/aws_lambda"):
            archive.write(package / f"{name}.py", f"rlvr_kit/{name}.py")
    return target


if __name__ == "__main__":
    print(write_zip(Path("build/lambda_reward.zip")))
