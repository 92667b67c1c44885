"""What runs in a SageMaker training container: `python -m rlvr_kit.cloud.container`, in the folder of the job's source.

It starts the same `python -m rlvr_kit train` as on a laptop, and watches it. The run folder is /opt/ml/checkpoints:
SageMaker copies it to S3 while the job runs and puts it back after a spot interruption, so training resumes as it
does anywhere else. At the end the run, without its checkpoints, is copied to /opt/ml/model, which SageMaker packs as
model.tar.gz. When the job fails, the reason is written to /opt/ml/output/failure, where SageMaker looks for it.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from rlvr_kit.cloud.instances import cpu_hosts_refusal
from rlvr_kit.errors import AWSError, InputError, UserError
from rlvr_kit.machine import die_with_parent
from rlvr_kit.recipe import RECIPES, Recipe, load_recipe


def checkpoint_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder that survives an interruption. It lies beside the model's, and has no variable of its own."""
    return Path(environ["SM_MODEL_DIR"]).parent / "checkpoints"


def train_arguments(recipe: Recipe, environ: Mapping[str, str]) -> list[str]:
    """Return `train` and its options. Local folders that the recipe names are replaced by their channels here.

    >>> environ = {"SM_MODEL_DIR": "/opt/ml/model", "SM_CHANNEL_MODEL": "/opt/ml/input/data/m"}
    >>> train_arguments(load_recipe("smoke"), environ)[-3:]
    ['/opt/ml/checkpoints', '--set', 'model.name=/opt/ml/input/data/m']
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
    """Return this host's command line: plain Python for one process, `accelerate launch` for several GPUs or hosts.

    `sharding` names the accelerate config beside the recipes (ddp, fsdp, zero2), as on any machine with several GPUs.

    Raises:
        InputError: there are several hosts without GPUs, which would not train together.

    >>> launch_command(["train"], {"SM_HOSTS": '["algo-1"]', "SM_NUM_GPUS": "1"})[1:]
    ['-u', '-m', 'rlvr_kit', 'train']
    """
    hosts, gpus = json.loads(environ["SM_HOSTS"]), int(environ["SM_NUM_GPUS"])
    if len(hosts) > 1 and gpus == 0:
        raise InputError(cpu_hosts_refusal(len(hosts)))
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
    """Return environment variables for training. `names` maps each one to its secret's name in AWS Secrets Manager.

    Raises:
        AWSError: a secret cannot be fetched.
        InputError: a secret is neither the value itself nor a JSON object with the variable as a key.
    """
    if not names:
        return {}
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    values = {}
    for variable, name in names.items():
        try:
            client = boto3.client("secretsmanager", os.environ.get("AWS_REGION"))
            secret = client.get_secret_value(SecretId=name)
        except (BotoCoreError, ClientError) as error:
            raise AWSError(f"secret {name!r} (for {variable}) could not be fetched: {error}") from error
        try:
            values[variable] = secret_value(secret.get("SecretString"), variable)
        except ValueError as error:
            raise InputError(f"secret {name!r} (for {variable}) {error}") from None
    return values


def secret_value(text: str | None, variable: str) -> str:
    """Return the value in a secret's text: the text itself, or a key of a JSON object, as the AWS console stores it.

    Raises:
        ValueError: there is no such value. The message never shows the secret's content.

    >>> secret_value('{"HF_TOKEN": "hf_x"}', "HF_TOKEN")
    'hf_x'
    """
    if text is None:
        raise ValueError("is binary: store it as text")
    if not text.lstrip().startswith("{"):
        return text
    try:
        value = json.loads(text).get(variable)
    except ValueError:
        raise ValueError("begins like a JSON object but is not valid JSON: mend it in the console") from None
    if not isinstance(value, str):
        raise ValueError(f"has no text under the key {variable!r}: store the value there in the console")
    return value


def run() -> int:
    """Run the training: print what it prints, pass SIGTERM on to it, keep its result. Returns the exit code."""
    recipe = load_recipe("recipe.yaml")
    out, model_dir = checkpoint_folder(os.environ), Path(os.environ["SM_MODEL_DIR"])
    environ = os.environ | {"TQDM_DISABLE": "1"} | fetch_secrets(recipe.sagemaker.secrets)
    if recipe.sagemaker.mlflow_arn:
        environ |= {"MLFLOW_TRACKING_URI": recipe.sagemaker.mlflow_arn, "MLFLOW_EXPERIMENT_NAME": "rlvr-kit"}
    command = launch_command(train_arguments(recipe, environ), environ, recipe.sagemaker.sharding)
    child = subprocess.Popen(  # it dies with this process, so that it never writes into the next attempt's folder
        command, env=environ, preexec_fn=die_with_parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        encoding="utf-8", errors="replace",
    )  # fmt: skip
    # Before SageMaker takes the machine away, it sends SIGTERM, and only to this process.
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    last_lines: deque[str] = deque(maxlen=30)
    for line in child.stdout or ():
        print(line, end="", flush=True)
        if not line.startswith('{"step"'):  # the lines of log.jsonl do not say what went wrong
            last_lines.append(line)
    code = child.wait()
    if os.environ["SM_CURRENT_HOST"] == json.loads(os.environ["SM_HOSTS"])[0] and out.exists():
        shutil.copytree(out, model_dir, ignore=shutil.ignore_patterns("checkpoints"), dirs_exist_ok=True)
        shutil.copy("recipe.yaml", model_dir)  # the recipe as submitted, without the container's paths
    if code:
        write_failure("".join(last_lines))
    return code if code >= 0 else 128 - code


def write_failure(reason: str) -> None:
    """Write the reason to the file that SageMaker reads; DescribeTrainingJob shows 1,024 characters of it."""
    Path(os.environ["SM_OUTPUT_FAILURE"]).write_text(reason.strip()[-1000:], encoding="utf-8")


def main() -> int:
    """Run the job. An error is printed and written to the failure file. Returns the exit code."""
    try:
        return run()
    except UserError as error:
        print(error, file=sys.stderr, flush=True)
        write_failure(str(error))
    except Exception as error:  # an error of the kit itself: the log shows where, the job's state shows what
        traceback.print_exc()
        write_failure(f"{type(error).__name__}: {error}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
