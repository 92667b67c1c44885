"""The request of a training job: image, source, channels, limits and tags, as the SageMaker SDK sends them.

`sagemaker.train.ModelTrainer` (SDK 3.27) makes the request. Only this module decides what is uploaded.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import TYPE_CHECKING

from rlvr_kit import __version__
from rlvr_kit.cloud.account import environment
from rlvr_kit.errors import InputError, MachineError
from rlvr_kit.models import resolve_model
from rlvr_kit.paths import found_path
from rlvr_kit.recipe import RECIPES, Recipe
from rlvr_kit.tasks.task import names_folder

if TYPE_CHECKING:
    from sagemaker.core.helper.session_helper import Session
    from sagemaker.train import ModelTrainer

#: A job's name is this and the time, its tag has this key, and its files are in this folder of the bucket.
NAME = "rlvr-kit"
#: People read the job's log, so pip prints neither progress bars nor advice into it.
PIP = {"PIP_QUIET": "1", "PIP_ROOT_USER_ACTION": "ignore", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
#: Keys of log.jsonl that become CloudWatch metrics of the job. SageMaker reads them in the lines that training prints.
JOB_METRICS = (
    *("reward", "reward_std", "rewards/format", "rewards/correct", "heldout/strict", "heldout/lenient"),
    *("heldout/format", "length", "truncated", "entropy", "equal_groups", "loss", "grad_norm", "kl"),
)
PACKAGE = RECIPES.parent


def model_trainer(
    recipe: Recipe, session: "Session", role: str, minutes: float, source: Path
) -> "ModelTrainer":
    """Return the SDK's trainer for this recipe. It stops the job after `minutes`; `source` is a staged folder."""
    from sagemaker.core import image_uris
    from sagemaker.train import ModelTrainer, configs

    job, region = recipe.sagemaker, session.boto_region_name
    version = {"version": job.framework_version, "py_version": job.python_version, "image_scope": "training"}
    # Instances with their own disks (most GPU instances) encrypt them in hardware and refuse a volume key.
    own_disk = re.match(r"ml\.(g[4-9]|p[4-9]|p3dn|trn|\w+d\.)", job.instance_type)
    limits = {"max_runtime_in_seconds": int(minutes * 60)}
    if job.spot:
        limits["max_wait_time_in_seconds"] = int((job.max_wait_minutes or 2 * minutes) * 60)
    # The plan has already validated the role and shows the result. Without this variable the SDK would do it again.
    with environment({**os.environ, "SAGEMAKER_VALIDATE_ROLE": "false"}):
        trainer = ModelTrainer(
            sagemaker_session=session,
            role=role,
            base_job_name=NAME,
            training_image=image_uris.retrieve("pytorch", region, instance_type=job.instance_type, **version),
            source_code=configs.SourceCode(
                source_dir=str(source),
                requirements="requirements.txt",
                # exec: SageMaker sends SIGTERM to the first process only, and a shell would not pass it on.
                command="exec $SM_PYTHON_CMD -u -m rlvr_kit.cloud.container",
            ),
            compute=configs.Compute(
                instance_type=job.instance_type,
                instance_count=job.instance_count,
                volume_size_in_gb=job.volume_gb,
                volume_kms_key_id=None if own_disk else job.kms_key,
                keep_alive_period_in_seconds=job.keep_alive or None,
                enable_managed_spot_training=job.spot,
            ),
            networking=configs.Networking(
                subnets=job.subnets or None, security_group_ids=job.security_groups or None
            ),
            stopping_condition=configs.StoppingCondition(**limits),
            output_data_config=configs.OutputDataConfig(kms_key_id=job.kms_key),
            checkpoint_config=configs.CheckpointConfig(),
            input_data_config=[
                configs.InputData(channel_name=name, data_source=str(folder))
                for name, folder in channels(recipe).items()
            ],
            hyperparameters={"rlvr_kit": __version__, "recipe": recipe.name},
            environment=PIP,
            tags=[configs.Tag(key=k, value=value) for k, value in {**job.tags, NAME: __version__}.items()],
        )
    return trainer.with_metric_definitions(
        [configs.MetricDefinition(name=name, regex=metric_regex(name)) for name in JOB_METRICS]
    )


def metric_regex(name: str) -> str:
    """Return the pattern that finds `name` in a printed line of log.jsonl.

    >>> re.search(metric_regex("reward"), '{"step": 3, "rewards/format": 0.1, "reward": 0.25}').group(1)
    '0.25'
    """
    return rf'^\{{"step": .*"{re.escape(name)}": (-?[0-9][0-9.eE+-]*)'


@contextmanager
def staged_source(recipe: Recipe) -> Iterator[Path]:
    """Yield a folder with only what the job needs: package, resolved recipe, requirements.txt, a user's own task."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        not_needed = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(PACKAGE, source / PACKAGE.name, ignore=not_needed)
        for file in recipe.loaded_task.travels:  # a user's own task, which the container finds in task/
            (source / "task").mkdir(exist_ok=True)
            shutil.copy(file, source / "task")
        (source / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
        (source / "requirements.txt").write_text("\n".join(requirements(recipe)) + "\n")
        yield source


def requirements(recipe: Recipe) -> list[str]:
    """Return the kit's own version pins, without torch: the container brings the build that fits its CUDA.

    They are read from the installed package's metadata, which also exists without the project folder.
    Raises UserError when the kit is not installed.

    >>> "trl==1.16.*" in requirements(load_recipe("smoke"))  # doctest: +SKIP
    True
    """
    try:
        pins = requires("rlvr_kit") or []  # such as "trl==1.16.*" or 'deepspeed==0.19.*; extra == "gpu"'
    except PackageNotFoundError as error:
        raise MachineError("the kit's requirements are unknown: install it (pip install -e .)") from error
    wanted = {
        "sagemaker-mlflow": bool(recipe.sagemaker.mlflow_arn),
        "deepspeed": recipe.sagemaker.sharding == "zero2",
        "bitsandbytes": recipe.model.load_in_4bit,
        "reasoning-gym": recipe.task.startswith("reasoning_gym:"),
    }
    needed = []
    for requirement, _, marker in (pin.partition(";") for pin in pins):
        name = re.split(r"[\[<>=!~ ]", requirement)[0]
        if wanted.get(name, False) if "extra" in marker else name != "torch":
            needed.append(requirement.strip())
    return needed


def channels(recipe: Recipe) -> dict[str, Path]:
    """Return the local folders that the job needs, by channel. Without them, GSM8K and the model come from the Hub.

    Raises:
        InputError: a folder that the recipe or the environment names does not exist.
    """
    found: dict[str, Path] = {}
    if recipe.task == "gsm8k":
        from rlvr_kit.tasks.gsm8k import gsm8k_folder  # late: it loads the library `datasets`

        if folder := gsm8k_folder():
            found["gsm8k"] = folder
    elif names_folder(recipe.task):
        found["data"] = found_path(recipe.task)
    if recipe.model.name not in ("bundled", "tiny-random"):
        model = Path(resolve_model(recipe.model.name))
        if model.is_dir():
            found["model"] = model
    for channel, folder in found.items():
        if not folder.is_dir():
            raise InputError(f"the job needs the folder {folder} (channel {channel}), which does not exist")
    return found
