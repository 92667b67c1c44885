"""A recipe describes a whole run: a YAML file in ``recipes/`` that is read into one pydantic model.

The ``grpo`` section is passed to ``trl.GRPOConfig`` and the ``lora`` section to ``peft.LoraConfig`` unchanged, so the
documentation of TRL and peft is the documentation of those keys. The other sections are in recipe_sections.py.
"""

import math
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError, field_validator

from rlvr_kit.errors import InputError
from rlvr_kit.recipe_sections import (
    EXEMPLAR_POOL,
    DataSection,
    EvaluationSection,
    ModelSection,
    PromptSection,
    RewardsSection,
    RunSection,
    SageMakerSection,
    Section,
)
from rlvr_kit.recipe_yaml import apply_override, read_sections
from rlvr_kit.sampling_settings import SamplingSettings
from rlvr_kit.tasks.prompts import Template, choose_exemplars
from rlvr_kit.tasks.task import Split, Task, load_task

if TYPE_CHECKING:
    from datasets import Dataset

RECIPES = Path(__file__).parent / "recipes"


class Recipe(Section):
    """The complete description of a run.

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
        # YAML 1.1 reads 2e-5 (without a dot) as text, but no setting of these libraries takes a number as text.
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
        """Return the first ``n`` rows of a split of the task, each with its gold answer."""
        options = {"max_steps": self.data.max_steps} if self.task == "word_problems" else {}
        return self.loaded_task.problems(split, n, self.data.seed, **options)

    @cached_property
    def _loaded(self) -> dict[Any, Any]:
        # Keys hold everything that a value depends on, because changed copies (model_copy) share this dictionary.
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
        """Return the rows that are trained on."""
        rows = self._train_split()
        return rows.select(range(EXEMPLAR_POOL + self.evaluation.heldout, len(rows)))

    def heldout_problems(self) -> "Dataset":
        """Return rows of the training split that are not trained on: the held-out curve is measured on them."""
        return self._train_split().select(range(EXEMPLAR_POOL, EXEMPLAR_POOL + self.evaluation.heldout))

    def test_problems(self) -> "Dataset":
        """Return the rows of the test split on which the policy is measured before and after training."""
        return self.problems("test", self.evaluation.n)

    def template(self, shots: int | None = None) -> Template:
        """Return the prompt template, with ``shots`` exemplars (by default the recipe's number)."""
        shots = self.prompt.shots if shots is None else shots
        pool = self._train_split().select(range(EXEMPLAR_POOL)) if shots else None
        seed = self.run.seed if self.prompt.seed is None else self.prompt.seed
        exemplars = choose_exemplars(pool, shots, seed) if pool else ()
        return Template(instruction=self._instruction, exemplars=exemplars)

    def resolved(self) -> "Recipe":
        """Return the recipe with the task's instruction and this machine's number format, as a run folder keeps it."""
        from rlvr_kit.models import choose_dtype  # late: it loads torch

        own, prompt = self.model, self.prompt.model_copy(update={"instruction": self._instruction})
        dtype = choose_dtype(own.name, own.revision, own.dtype, exact=self.lora is None)
        return self.model_copy(update={"prompt": prompt, "model": own.model_copy(update={"dtype": dtype})})

    @property
    def _instruction(self) -> str:
        own = self.prompt.instruction
        return self.loaded_task.instruction if own is None else own

    @property
    def max_new_tokens(self) -> int:
        """How many tokens a completion may have in evaluation."""
        return self.evaluation.max_new_tokens or int(self.grpo.get("max_completion_length", 512))

    @property
    def sampling(self) -> SamplingSettings:
        """How completions are sampled in evaluation: greedily, one for each problem."""
        return SamplingSettings(max_new_tokens=self.max_new_tokens, batch_size=self.evaluation.batch_size)

    def to_yaml(self) -> str:
        """Return the recipe as YAML, which ``load_recipe`` can read."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load_recipe(name_or_path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe by its name (``cpu``) or path, with overrides such as ``grpo.learning_rate=1e-5``.

    Raises:
        UserError: there is no such recipe, it is not YAML, or a key is unknown or has a value out of range.
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
