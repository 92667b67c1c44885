"""The one description of a run: a YAML file in ``recipes/``, which is read into one pydantic model.

The ``grpo`` section is handed to ``trl.GRPOConfig`` and the ``lora`` section to ``peft.LoraConfig`` as they stand, so
their documentation is the documentation of those keys.
"""

import math
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from rlvr_kit.errors import InputError
from rlvr_kit.recipe_yaml import apply_override, read_sections
from rlvr_kit.sampling_settings import SamplingSettings
from rlvr_kit.tasks.prompts import Template, choose_exemplars
from rlvr_kit.tasks.task import Split, Task, load_task

if TYPE_CHECKING:
    from datasets import Dataset

RECIPES = Path(__file__).parent / "recipes"

#: The first rows of the training split are kept for exemplars; they are never trained or evaluated on.
EXEMPLAR_POOL = 16


class _Section(BaseModel):  # allow_inf_nan: a limit that is infinite or not a number would limit nothing
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSection(_Section):
    """Which policy to train."""

    name: str = "bundled"  # bundled, tiny-random, a folder, or a Hub id
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    load_in_4bit: bool = False  # QLoRA: needs a GPU and bitsandbytes


class DataSection(_Section):
    """How many of the task's problems, and which."""

    train_size: int | None = Field(None, ge=1)  # None: all of GSM8K or of a folder, 2,000 of another task
    max_steps: int = Field(3, ge=1, le=3)  # word problems only: calculations a solution takes at most
    seed: int = 0


class PromptSection(_Section):
    """The template that training, evaluation and serving share."""

    instruction: str | None = None  # None: the task's own
    shots: int = Field(0, ge=0, le=EXEMPLAR_POOL)
    seed: int | None = None  # which exemplars; None: run.seed. Fixed, runs of several seeds share one prompt


class RewardsSection(_Section):
    """What a well-formed completion earns, and what a correct one earns on top."""

    format: float = Field(0.5, ge=0)
    correct: float = Field(1.0, ge=0)


class EvaluationSection(_Section):
    """How the policy is measured, before, during and after training."""

    n: int = Field(256, ge=1)  # test problems, before and after training
    heldout: int = Field(64, ge=1)  # training-split problems kept out of training, for the curve
    every_steps: int = Field(10, ge=1)
    max_new_tokens: int | None = Field(None, ge=1)  # None: as many as in training
    batch_size: int = Field(32, ge=1)


class RunSection(_Section):
    """How the run behaves, rather than what it learns."""

    seed: int = Field(0, ge=0, lt=2**32)  # numpy takes no other seeds
    save_steps: int = Field(50, ge=1)
    max_minutes: float | None = Field(None, gt=0)  # stop in good order after this time
    threads: int | None = Field(None, ge=1)  # CPU threads; None: torch's own choice, one a core
    guards: bool = True  # stop what cannot learn any more, warn of what learns the wrong thing (guards.py)
    shared_prefix: bool = True  # compute what prompts share once (engine/grpo_trainer.py)


class SageMakerSection(_Section):
    """Where and how the same recipe runs as a SageMaker training job. Nothing here changes what is learned."""

    instance_type: str = "ml.g6.2xlarge"  # one 24 GB GPU (NVIDIA L4)
    instance_count: int = Field(1, ge=1)  # more than one only for GPU instances
    volume_gb: int = Field(100, ge=1)  # disk of the instance: model, image layers and checkpoints
    keep_alive: int = Field(0, ge=0, le=3600)  # seconds of warm pool after the job; they are billed
    framework_version: str = "2.9.0"  # AWS PyTorch training container; asked of image_uris.retrieve
    python_version: str = "py312"
    sharding: Literal["ddp", "fsdp", "zero2"] = "ddp"  # several GPUs: which of recipes/accelerate/
    spot: bool = False  # managed spot: cheaper, may be interrupted; the run resumes from its checkpoint
    max_minutes: float | None = Field(None, ge=1)  # hard limit; None: 3 times the estimate, at least 60
    max_wait_minutes: float | None = Field(None, ge=1)  # spot: running and waiting; None: 2 max_minutes
    max_cost: float = Field(20.0, gt=0)  # US dollars; submit refuses when max_minutes x price may exceed it
    price_per_hour: float | None = Field(None, gt=0)  # US dollars; used when the Pricing API cannot be asked
    role: str | None = None  # execution role ARN or name; None: the role this notebook runs as
    bucket: str | None = None  # None: the session's default bucket
    subnets: list[str] = []  # VPC; goes together with security_groups
    security_groups: list[str] = []
    kms_key: str | None = None  # encrypts the volume, the output and the checkpoints
    tags: dict[str, str] = {}
    secrets: dict[str, str] = {}  # environment variable -> Secrets Manager name, e.g. HF_TOKEN: rlvr/hf-token
    mlflow_arn: str | None = None  # tracking server or app ARN; metrics go there as well (TRL's report_to)


class Recipe(_Section):
    """A run, wholly described.

    Example:
        >>> recipe = load_recipe("smoke", ["grpo.learning_rate=1e-5"])
        >>> recipe.grpo["learning_rate"]
        1e-05
    """

    name: str
    task: str = "word_problems"  # gsm8k, orders, …, a .py file, or a folder like GSM8K's (tasks/task.py)
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    prompt: PromptSection = PromptSection()
    rewards: RewardsSection = RewardsSection()
    lora: dict[str, Any] | None = None  # None: every weight is trained
    grpo: dict[str, Any] = {}
    evaluation: EvaluationSection = EvaluationSection()
    run: RunSection = RunSection()
    sagemaker: SageMakerSection = SageMakerSection()

    @field_validator("grpo", "lora")
    @classmethod
    def _numbers(cls, section: dict[str, Any] | None) -> dict[str, Any] | None:
        # YAML 1.1 reads 2e-5 (no dot) as text; these libraries' numbers are never meant as text.
        number = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")
        read = {
            key: float(value) if isinstance(value, str) and number.fullmatch(value) else value
            for key, value in (section or {}).items()
        }
        for key, value in read.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{key} is {value}, not a finite number")
        return None if section is None else read

    @property
    def loaded_task(self) -> Task:
        """The task that the recipe names. Raises UserError when it cannot be loaded."""
        if self.task not in self._loaded:
            self._loaded[self.task] = load_task(self.task)
        return self._loaded[self.task]

    def problems(self, split: Split, n: int | None = None) -> "Dataset":
        """The first ``n`` rows of a split of the task, each with its gold."""
        options = {"max_steps": self.data.max_steps} if self.task == "word_problems" else {}
        return self.loaded_task.problems(split, n, self.data.seed, **options)

    @cached_property
    def _loaded(self) -> dict[Any, Any]:
        # What was loaded, by what it depends on: a changed copy (model_copy) shares this dictionary, but not an entry.
        return {}

    def _train_split(self) -> "Dataset":
        depends_on = (self.task, self.data, self.evaluation.heldout)
        if depends_on in self._loaded:
            return self._loaded[depends_on]
        reserved = EXEMPLAR_POOL + self.evaluation.heldout
        size = self.data.train_size or (None if self.loaded_task.whole else 2000)
        rows = self.problems("train", size and size + reserved)
        if len(rows) <= reserved:
            raise InputError(
                f"{len(rows)} training rows are too few: {EXEMPLAR_POOL} are kept for exemplars and "
                f"{self.evaluation.heldout} for the held-out curve (evaluation.heldout)"
            )
        self._loaded[depends_on] = rows
        return rows

    def training_problems(self) -> "Dataset":
        """The rows that are trained on."""
        rows = self._train_split()
        return rows.select(range(EXEMPLAR_POOL + self.evaluation.heldout, len(rows)))

    def heldout_problems(self) -> "Dataset":
        """Rows of the training split kept out of training: the curve is drawn on them, the test split stays unseen."""
        return self._train_split().select(range(EXEMPLAR_POOL, EXEMPLAR_POOL + self.evaluation.heldout))

    def test_problems(self) -> "Dataset":
        """The rows of the test split that the policy is measured on before and after training."""
        return self.problems("test", self.evaluation.n)

    def template(self, shots: int | None = None) -> Template:
        """The prompt template, with the recipe's number of exemplars unless ``shots`` says otherwise."""
        shots = self.prompt.shots if shots is None else shots
        pool = self._train_split().select(range(EXEMPLAR_POOL)) if shots else None
        seed = self.run.seed if self.prompt.seed is None else self.prompt.seed
        exemplars = choose_exemplars(pool, shots, seed) if pool else ()
        return Template(instruction=self._instruction, exemplars=exemplars)

    def resolved(self) -> "Recipe":
        """The same recipe with the task's instruction and this machine's number format, as a run folder keeps it."""
        from rlvr_kit.models import choose_dtype  # late: it loads torch

        own, prompt = self.model, self.prompt.model_copy(update={"instruction": self._instruction})
        dtype = choose_dtype(own.name, own.revision, own.dtype, every_weight=self.lora is None)
        return self.model_copy(update={"prompt": prompt, "model": own.model_copy(update={"dtype": dtype})})

    @property
    def _instruction(self) -> str:
        own = self.prompt.instruction
        return self.loaded_task.instruction if own is None else own

    @property
    def max_new_tokens(self) -> int:
        """How long a completion may get in evaluation."""
        return self.evaluation.max_new_tokens or int(self.grpo.get("max_completion_length", 512))

    @property
    def sampling(self) -> SamplingSettings:
        """How completions are sampled in evaluation: greedily, one for each problem."""
        return SamplingSettings(max_new_tokens=self.max_new_tokens, batch_size=self.evaluation.batch_size)

    def to_yaml(self) -> str:
        """The recipe as YAML; ``load_recipe`` reads it back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load_recipe(name_or_path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe by its name (``cpu``) or path, with overrides such as ``grpo.learning_rate=1e-5``.

    Raises:
        UserError: no such recipe, not YAML, an unknown key (named), or a value out of range.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = RECIPES / f"{name_or_path}.yaml"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml")))
        raise InputError(
            f"no recipe {str(name_or_path)!r}: the recipes are {known}, or give the path of a .yaml file"
        )
    values = read_sections(path)
    for override in overrides or []:
        apply_override(values, override)
    try:
        return Recipe.model_validate({"name": path.stem} | values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InputError(f"recipe {path.name}: {problems}") from None
