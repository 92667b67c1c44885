"""The sections of a recipe, each with its keys, their defaults and their limits (recipe.py puts them together)."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

#: The first rows of the training split are kept for exemplars; they are never trained or evaluated on.
EXEMPLAR_POOL = 16


class Section(BaseModel):
    """What all sections have in common: an unknown key is an error, and so is a number that is not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSection(Section):
    """Which policy to train."""

    name: str = "bundled"  # bundled, tiny-random, a folder, or a Hub id
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    load_in_4bit: bool = False  # QLoRA: needs a GPU and bitsandbytes


class DataSection(Section):
    """How many of the task's problems, and which."""

    train_size: int | None = Field(None, ge=1)  # None: all of GSM8K or of a folder, 2,000 of another task
    max_steps: int = Field(3, ge=1, le=3)  # word problems only: calculations a solution takes at most
    seed: int = 0


class PromptSection(Section):
    """The template that training, evaluation and serving share."""

    instruction: str | None = None  # None: the task's own
    shots: int = Field(0, ge=0, le=EXEMPLAR_POOL)
    seed: int | None = None  # which exemplars; None: run.seed. Fixed, runs of several seeds share one prompt


class RewardsSection(Section):
    """What a well-formed completion earns, and what a correct one earns on top."""

    format: float = Field(0.5, ge=0)
    correct: float = Field(1.0, ge=0)


class EvaluationSection(Section):
    """How the policy is measured, before, during and after training."""

    n: int = Field(256, ge=1)  # test problems, before and after training
    heldout: int = Field(64, ge=1)  # training-split problems kept out of training, for the curve
    every_steps: int = Field(10, ge=1)
    max_new_tokens: int | None = Field(None, ge=1)  # None: as many as in training
    batch_size: int = Field(32, ge=1)


class RunSection(Section):
    """How the run behaves, rather than what it learns."""

    seed: int = Field(0, ge=0, lt=2**32)  # numpy takes no other seeds
    save_steps: int = Field(50, ge=1)
    max_minutes: float | None = Field(None, gt=0)  # stop in good order after this time
    threads: int | None = Field(None, ge=1)  # CPU threads; None: torch's own choice, one a core
    guards: bool = True  # stop what cannot learn any more, warn of what learns the wrong thing (guards.py)
    shared_prefix: bool = True  # compute what prompts share once (engine/grpo_trainer.py)
    redraws: int = Field(0, ge=0)  # how often a group of equal rewards is drawn again (engine/redraw.py)

    @model_validator(mode="after")
    def _only_the_kits_trainer_redraws(self) -> Self:
        if self.redraws and not self.shared_prefix:
            raise ValueError(
                "redraws needs shared_prefix: true, since TRL's own trainer has no dynamic sampling"
            )
        return self


class SageMakerSection(Section):
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
