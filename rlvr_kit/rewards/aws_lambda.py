"""The kit's rewards as an AWS Lambda for SageMaker's serverless RLVR customization; standard library only.

``make lambda`` writes the zip to upload, for answers that are numbers. ``make lambda TASK=path/to/my_task.py`` writes
the zip of another task. The handler is ``rlvr_kit.rewards.aws_lambda.lambda_handler`` for a Nova model and
``rlvr_kit.rewards.aws_lambda.open_weights_handler`` for an open-weight model. These are the two contracts of
`sagemaker.train.common_utils.rlvr_reward_verifier`.
"""

import json
import sys
import zipfile
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlvr_kit.errors import InputError
from rlvr_kit.rewards.reward_functions import CorrectnessReward, FormatReward
from rlvr_kit.tasks.task import NUMBERS, Task, load_task, task_from
from rlvr_kit.tasks.verifier import completion_text

#: The module of the zip that holds the task's file. When it is missing, answers are judged as numbers.
TASK_MODULE = "lambda_task"
#: A task's file may import `datasets` for its problems. A Lambda has no such library and asks for no problems.
NO_DATASETS = "def __getattr__(name):  # any class asked for, empty\n    return type(name, (), {})\n"


def lambda_handler(event: list[dict[str, Any]], context: Any = None) -> list[dict[str, Any]]:
    """Judge the last message of each sample, ``{"id", "messages", "reference_answer"}``, against its gold.

    Raises UserError for a sample that lacks one of them. That is an error of the data and not of the model, so it must
    not look like a reward of zero.

    >>> said = {"role": "assistant", "content": "9 * 2 = 18\\n#### 18"}
    >>> lambda_handler([{"id": "1", "messages": [said], "reference_answer": "18"}])[0]["aggregate_reward_score"]
    1.5
    """
    task = _task()
    return [_reward(sample, task) for sample in event]


def open_weights_handler(event: list[dict[str, Any]], context: Any = None) -> dict[str, Any]:
    """Return the result of `lambda_handler` in the HTTP envelope that SageMaker expects for open-weight models."""
    return {"statusCode": 200, "body": json.dumps(lambda_handler(event))}


@cache
def _task() -> Task:
    if find_spec(TASK_MODULE) is None:
        return NUMBERS
    return task_from(import_module(TASK_MODULE), "the task of this Lambda")


def _reward(sample: dict[str, Any], task: Task) -> dict[str, Any]:
    messages, answer = sample.get("messages"), sample.get("reference_answer")
    problem = "it has none" if answer is None else task.gold_problem(gold := task.read_gold(str(answer)))
    if problem or not messages or messages[-1].get("role") != "assistant":
        needs = "'messages' that end with the assistant's and a 'reference_answer' that can be read"
        raise InputError(f"sample {sample.get('id')!r} needs {needs}" + (f": {problem}" if problem else ""))
    verdict = task.verify(completion_text(messages), gold)
    well_formed = FormatReward().weight * verdict.format_ok
    correct = CorrectnessReward().weight * verdict.correct
    metrics = [
        {"name": "format", "value": well_formed, "type": "Reward"},
        {"name": "correct", "value": correct, "type": "Reward"},
        {"name": "lenient_correct", "value": float(verdict.lenient_correct), "type": "Metric"},
    ]
    return {"id": sample.get("id"), "aggregate_reward_score": well_formed + correct, "metrics_list": metrics}


def write_zip(target: Path, task: str = "gsm8k") -> Path:
    """Write the archive for AWS Lambda, with nothing but the handlers, what they import and the task's file.

    Returns `target`. Raises UserError when the task cannot be loaded or is not a single file.

    >>> write_zip(Path("build/lambda_reward.zip"), "orders")  # doctest: +SKIP
    """
    from rlvr_kit.tasks.task_file import imported_beside, imports  # late: the Lambda does without

    package, loaded = Path(__file__).parent.parent, load_task(task)
    names = [
        "__init__",
        "errors",
        *(f"tasks/{name}" for name in ("__init__", "verifier", "task", "generated")),
    ]
    names += [f"rewards/{name}" for name in ("__init__", "reward_functions", "aws_lambda")]
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.write(package / f"{name}.py", f"rlvr_kit/{name}.py")
        if not loaded.judges_numbers:
            source = loaded.file or package / "tasks" / f"{task}.py"
            if not source.is_file():
                raise InputError(
                    f"{task} is not a single file that a Lambda could hold: write a task file of your own"
                )
            archive.write(source, f"{TASK_MODULE}.py")
            for file in loaded.travels[1:]:
                archive.write(file, file.name)
            needed = set().union(*(imports(file) for file in [source, *imported_beside(source)]))
            if "datasets" in needed:
                archive.writestr("datasets.py", NO_DATASETS)
            if others := sorted(needed - {"datasets"} - {file.stem for file in loaded.travels}):
                print(
                    f"{task} imports {', '.join(others)}: add a layer with these packages to the Lambda",
                    file=sys.stderr,
                )
    return target


if __name__ == "__main__":
    try:
        print(write_zip(Path("build/lambda_reward.zip"), *sys.argv[1:2]))
    except InputError as error:
        sys.exit(f"error: {error}")
