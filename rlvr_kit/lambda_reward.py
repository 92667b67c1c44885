"""The kit's rewards as an AWS Lambda for SageMaker's serverless RLVR customization; standard library only.

``make lambda`` writes the zip to upload; the handler is ``rlvr_kit.lambda_reward.lambda_handler`` for a
Nova model and ``rlvr_kit.lambda_reward.open_weights_handler`` for an open-weight one: the two contracts of
`sagemaker.train.common_utils.rlvr_reward_verifier`.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

from rlvr_kit import PROJECT, UserError
from rlvr_kit.rewards import CorrectnessReward, FormatReward, completion_text
from rlvr_kit.verifier import canonical_number, gold_answer, verify


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
        raise UserError(f"sample {sample.get('id')!r} needs {needs}")
    verdict = verify(completion_text(messages), gold)
    well_formed = FormatReward().weight * verdict.format_ok
    correct = CorrectnessReward().weight * verdict.correct
    metrics = [
        {"name": "format", "value": well_formed, "type": "Reward"},
        {"name": "correct", "value": correct, "type": "Reward"},
        {"name": "lenient_correct", "value": float(verdict.lenient_correct), "type": "Metric"},
    ]
    return {"id": sample.get("id"), "aggregate_reward_score": well_formed + correct, "metrics_list": metrics}


if __name__ == "__main__":
    target = PROJECT / "runs" / "lambda_reward.zip"
    target.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("__init__", "verifier", "rewards", "lambda_reward"):
            archive.write(Path(__file__).with_name(f"{name}.py"), f"rlvr_kit/{name}.py")
    print(target)
