"""What runs in a SageMaker training container: `python -m rlvr_kit.cloud.container`, where the job's source is.

It starts and watches the same `python -m rlvr_kit train` as a laptop does. The run folder is
/opt/ml/checkpoints, which SageMaker copies to S3 while the job runs and puts back after a spot interruption,
so training resumes as anywhere. In the end all of it but the checkpoints goes to /opt/ml/model, the future
model.tar.gz.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from rlvr_kit.errors import InputError, UserError
from rlvr_kit.recipe import RECIPES, Recipe, load_recipe


def checkpoint_folder(environ: Mapping[str, str]) -> Path:
    """The folder that outlives an interruption: it is beside the model's and has no variable of its own."""
    return Path(environ["SM_MODEL_DIR"]).parent / "checkpoints"


def train_arguments(recipe: Recipe, environ: Mapping[str, str]) -> list[str]:
    """`train` and its options; a local folder that the recipe names is the channel in which it arrived.

    >>> train_arguments(recipe, {"SM_MODEL_DIR": "/opt/ml/model", "SM_CHANNEL_MODEL": "/opt/ml/input/data/m"})
    ['train', '--recipe', 'recipe.yaml', '--out', '/opt/ml/checkpoints', '--set', 'model.name=/opt/ml/...']
    """
    task = Path(recipe.task)  # a user's own file travelled with the source
    overrides = {
        "task": environ.get("SM_CHANNEL_DATA") or (f"task/{task.name}" if task.suffix == ".py" else None),
        "model.name": environ.get("SM_CHANNEL_MODEL"),
        "grpo.report_to": "mlflow" if recipe.sagemaker.mlflow_arn else None,
    }
    options = [word for key, value in overrides.items() if value for word in ("--set", f"{key}={value}")]
    return ["train", "--recipe", "recipe.yaml", "--out", str(checkpoint_folder(environ)), *options]


def launch_command(arguments: list[str], environ: Mapping[str, str], sharding: str = "ddp") -> list[str]:
    """This host's command line: plain Python for one process, `accelerate launch` for several GPUs or hosts.

    `sharding` names the accelerate config beside the recipes (ddp, fsdp, zero2), as on any machine with several GPUs.
    """
    hosts, gpus = json.loads(environ["SM_HOSTS"]), int(environ["SM_NUM_GPUS"])
    if len(hosts) * gpus <= 1:
        return [sys.executable, "-u", "-m", "rlvr_kit", *arguments]
    return [
        *(sys.executable, "-u", "-m", "accelerate.commands.launch"),
        *("--config_file", str(RECIPES / "accelerate" / f"{sharding}.yaml")),
        *("--num_processes", str(len(hosts) * gpus), "--num_machines", str(len(hosts))),
        *("--machine_rank", str(hosts.index(environ["SM_CURRENT_HOST"]))),
        *("--main_process_ip", environ["SM_MASTER_ADDR"], "--main_process_port", environ["SM_MASTER_PORT"]),
        *("--module", "rlvr_kit", *arguments),
    ]


def fetch_secrets(names: Mapping[str, str]) -> dict[str, str]:
    """Environment variables for training, their values asked of AWS Secrets Manager by name.

    A secret is the value itself or, as the console makes them, a JSON object with the variable as a key.
    """
    if not names:
        return {}
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    client, values = boto3.client("secretsmanager", os.environ.get("AWS_REGION")), {}
    for variable, name in names.items():
        try:
            text = client.get_secret_value(SecretId=name)["SecretString"]
        except (BotoCoreError, ClientError) as error:
            raise InputError(f"secret {name!r} (for {variable}) could not be fetched: {error}") from error
        values[variable] = json.loads(text)[variable] if text.lstrip().startswith("{") else text
    return values


def run() -> int:
    """Train, print what training prints, hand SIGTERM on, keep the result. Returns the exit code."""
    recipe = load_recipe("recipe.yaml")
    out, model_dir = checkpoint_folder(os.environ), Path(os.environ["SM_MODEL_DIR"])
    environ = os.environ | {"TQDM_DISABLE": "1"} | fetch_secrets(recipe.sagemaker.secrets)
    if recipe.sagemaker.mlflow_arn:
        environ |= {"MLFLOW_TRACKING_URI": recipe.sagemaker.mlflow_arn, "MLFLOW_EXPERIMENT_NAME": "rlvr-kit"}
    command = launch_command(train_arguments(recipe, environ), environ, recipe.sagemaker.sharding)
    child = subprocess.Popen(
        command, env=environ, preexec_fn=_die_with_parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        encoding="utf-8", errors="replace",
    )  # fmt: skip
    # SageMaker sends SIGTERM before it takes the machine away, to this process alone.
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    tail: deque[str] = deque(maxlen=30)
    for line in child.stdout or ():
        print(line, end="", flush=True)
        if not line.startswith('{"step"'):  # what went wrong is among the others
            tail.append(line)
    code = child.wait()
    if os.environ["SM_CURRENT_HOST"] == json.loads(os.environ["SM_HOSTS"])[0] and out.exists():
        shutil.copytree(out, model_dir, ignore=shutil.ignore_patterns("checkpoints"), dirs_exist_ok=True)
        shutil.copy("recipe.yaml", model_dir)  # as submitted: without the container's own paths
    if code:
        fail("".join(tail))
    return code if code >= 0 else 128 - code


def _die_with_parent() -> None:
    """Let no training outlive this process and write into the next attempt's checkpoints."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG


def fail(reason: str) -> None:
    """Leave the reason where SageMaker looks for it; DescribeTrainingJob shows 1,024 characters of it."""
    Path(os.environ["SM_OUTPUT_FAILURE"]).write_text(reason.strip()[-1000:], encoding="utf-8")


if __name__ == "__main__":
    try:
        sys.exit(run())
    except UserError as error:
        print(error, file=sys.stderr, flush=True)
        fail(str(error))
        sys.exit(1)
