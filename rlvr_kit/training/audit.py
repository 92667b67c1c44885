"""Audit a task before any training: is it sound, can its reward be cheated, and can this model learn it?

The answers fit on one page, and the verdict follows from them by fixed rules.

>>> print(audit("word_problems", load_recipe("smoke"), model=False).verdict)  # doctest: +SKIP
sound: nothing wrong was found in its data and its verifier
"""

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_kit.errors import InputError, UserError
from rlvr_kit.measure.statistics import pass_at_k, wilson_interval
from rlvr_kit.recipe import RECIPES, Recipe
from rlvr_kit.tasks.checks import Check, check_data, check_verifier
from rlvr_kit.tasks.hostile import Rows, TookTooLong, limited
from rlvr_kit.tasks.task import Split, Task

if TYPE_CHECKING:
    from rich.console import Group

TRAIN_ROWS, TEST_ROWS, ATTACKED_ROWS = 1000, 500, 200
ROWS_SECONDS = 60.0  # for the rows of one split
GREEDY_PROBLEMS, GROUPS = 48, 24
#: When fewer groups than this share hold different rewards, most of the work of a step teaches nothing.
FEW_GROUPS = 0.2
#: Below this chance that a group of eight holds a right answer, and above this greedy accuracy, little can be learned.
HARD_PASS, EASY_GREEDY = 0.15, 0.9


@dataclass
class Audit:
    """The result of an audit: the checks by section, and the verdict that follows from them."""

    task: str
    recipe: str
    data: list[Check]
    verifier: list[Check]
    learnability: list[Check]
    verdict: str

    @property
    def wrong(self) -> list[Check]:
        """The checks of data and verifier that failed. When there are none, the task itself is sound."""
        return [check for check in (*self.data, *self.verifier) if check.wrong]

    def lines(self, every: bool = False) -> Iterator[tuple[str, str, str]]:
        """Yield (section, question, finding). Attacks that earned nothing share one line, unless `every` is true."""
        for section, checks in (
            ("data", self.data),
            ("verifier", self.verifier),
            ("model", self.learnability),
        ):
            shown, unpaid = (
                checks,
                [c for c in checks if c.name.startswith("paid for") and c.share and not c.share[0]],
            )
            if not every and len(unpaid) > 1:
                shown = [check for check in checks if check not in unpaid]
                n = max(check.share[1] for check in unpaid if check.share)
                yield section, "attacks that are never paid", f"{len(unpaid)}, each tried on up to {n} rows"
            yield from ((section, check.name, _found(check)) for check in shown)

    def __rich__(self) -> "Group":
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=f"Audit of {escape(self.task)}, recipe {escape(self.recipe)}", show_lines=False)
        for column in ("", "asked", "found"):
            table.add_column(column)
        for section, name, found in self.lines():
            table.add_row(section, escape(name), escape(found), style="red" if "WRONG" in found else None)
        return Group(table, f"[bold]Verdict[/]: {escape(self.verdict)}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; every share comes with its n and its 95 % interval."""

        def plain(check: Check) -> dict[str, Any]:
            told = asdict(check) | {"ok": not check.wrong}
            if check.share:
                k, n = check.share
                told["share"] = {"k": k, "n": n, "value": k / n, "ci": list(wilson_interval(k, n))}
            return told

        sections = {name: [*map(plain, getattr(self, name))] for name in ("data", "verifier", "learnability")}
        wrong = [check.wrong for check in self.wrong]
        return {"task": self.task, "recipe": self.recipe, "verdict": self.verdict, "wrong": wrong, **sections}


def _found(check: Check) -> str:
    parts = [check.found] if check.found else []
    if check.share:
        (k, n), (low, high) = check.share, wilson_interval(*check.share)
        counted = f"{k} of {n}" if isinstance(k, int) else f"mean over {n} problems"
        parts.append(f"{counted}, {k / n:.1%} ({low:.1%} to {high:.1%})")
    parts += [f"WRONG: {check.wrong}", *check.rows[:5]] if check.wrong else []
    if check.wrong and len(check.rows) > 5:
        parts.append(f"and {len(check.rows) - 5} more")
    return "\n".join(parts)


def audit(recipe: Recipe, *, model: bool = True, progress: Callable[[str], Any] = print) -> Audit:
    """Audit the recipe's task.

    With `model`, the recipe's model is tried on the task as well, unless data or verifier have failed a check.
    `progress` is called with a sentence about what is being done. Raises UserError for a task that cannot be loaded,
    or whose verifier raises an error on a worked answer.
    """
    task = recipe.loaded_task
    progress("reading rows …")
    train, test = _rows(recipe, "train", TRAIN_ROWS), _rows(recipe, "test", TEST_ROWS)
    again = _rows(recipe, "train", TRAIN_ROWS)
    data = check_data(task, train, test, again)
    progress("attacking the verifier …")
    verifier = check_verifier(task, test[:ATTACKED_ROWS])
    page = Audit(task.name, recipe.name, data, verifier, [], "")
    if wrong := page.wrong:
        page.verdict = "not sound: " + "; ".join(check.wrong for check in wrong)
        if model:
            page.verdict += ". The model was not asked: with this its figures would mean nothing"
    elif model:
        page.learnability, page.verdict = _learnability(recipe, task, progress)
    else:
        page.verdict = "sound: nothing wrong was found in its data and its verifier"
    return page


def _rows(recipe: Recipe, split: Split, n: int) -> Rows:
    """Rows of a split. Raises UserError where they do not come, in a loop that waits for more than there are say."""
    try:
        with limited(ROWS_SECONDS):
            return recipe.problems(split, n).to_list()
    except TookTooLong:
        call = f"problems({split!r}, {n}, {recipe.data.seed})"
        raise InputError(
            f"{recipe.task}: {call} gave no rows in {ROWS_SECONDS:.0f} seconds of computing. Does it wait for more "
            "different rows than there are? It may return fewer than n"
        ) from None


def _learnability(recipe: Recipe, task: Task, progress: Callable[[str], Any]) -> tuple[list[Check], str]:
    """Return what the recipe's model does on the task before training, and the verdict that follows by rule."""
    from rlvr_kit.measure.evaluation import evaluate
    from rlvr_kit.models import load_policy, load_tokenizer
    from rlvr_kit.training.step_cost import prompt_tokens

    progress(f"asking the model {recipe.model.name} …")
    tokenizer, template = load_tokenizer(recipe.model.name, recipe.model.revision), recipe.template()
    problems, group = recipe.training_problems(), int(recipe.grpo.get("num_generations", 8))
    temperature = float(recipe.grpo.get("temperature", 1.0))
    answers = problems.select(range(min(200, len(problems))))["answer"]
    texts = [re.sub(r"<<.*?>>", "", answer) for answer in answers]
    longest = 1 + max(len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"])
    limit = int(recipe.grpo.get("max_completion_length", 512))
    as_trained = recipe.resolved().model.dtype  # the format in which training samples
    policy = load_policy(recipe.model.name, revision=recipe.model.revision, dtype=as_trained)
    one = replace(recipe.sampling, max_new_tokens=max(limit, longest), seed=recipe.run.seed)
    many = replace(one, samples=group, temperature=temperature)
    asked, tried = (
        recipe.problems("test", GREEDY_PROBLEMS),
        problems.select(range(min(GROUPS, len(problems)))),
    )
    greedy = evaluate(policy, tokenizer, asked, template, label="greedy", sampling=one, task=task).rows
    sampled = evaluate(policy, tokenizer, tried, template, label="sampled", sampling=many, task=task).rows
    del policy  # the step that is timed below has its memory: train releases what is free
    sampled["reward"] = recipe.rewards.format * sampled.format_ok + recipe.rewards.correct * sampled.correct
    groups = sampled.groupby("problem")
    n, solved = len(tried), groups.correct.sum()
    passed = sum(pass_at_k(group, int(c), min(8, group)) for c in solved)
    shares: dict[str, tuple[float, int]] = {
        "greedy accuracy": (int(greedy.correct.sum()), len(greedy)),
        f"accuracy, sampled at {temperature:g}": (float(sampled.correct.mean()) * n, n),
        f"well-formed, sampled at {temperature:g}": (float(sampled.format_ok.mean()) * n, n),
        f"a right answer in {min(8, group)} samples (pass@{min(8, group)})": (passed, n),
        "groups in which rewards differ": (int((groups.reward.nunique() > 1).sum()), n),
    }
    checks = [Check(name, share=share) for name, share in shares.items()]
    tokens = prompt_tokens(recipe)
    checks.append(Check("tokens", f"prompts {tokens['median']}, longest {tokens['longest']}; worked answers up to "
                        f"{longest}; a completion may have {limit}"))  # fmt: skip
    progress("timing a training step …")
    checks.append(Check("a training step", _step_time(recipe)))
    names = ("greedy", "sampled", "format", "pass", "mixed")
    verdict = verdict_on(recipe, **{name: k / n for name, (k, n) in zip(names, shares.values(), strict=True)})
    if longest > limit:
        verdict += (
            f". Worked answers take up to {longest} tokens: set grpo.max_completion_length={longest + 4}"
        )
        verdict += f" (measured with {longest})"
    return checks, verdict


def _step_time(recipe: Recipe) -> str:
    from rlvr_kit.training.time_step import time_step

    try:
        seconds = sum(time_step(recipe).values())
    except UserError as error:
        return f"not timed: {error}"
    steps = int(recipe.grpo.get("max_steps", 0))
    told = f"{seconds / 60:.2f} minutes ({seconds:.1f} s) on this machine"
    return told + (f", {steps} steps: {steps * seconds / 60:.1f} minutes" if steps > 0 else "")


def verdict_on(recipe: Recipe, **share: float) -> str:
    """Return ready, too easy or too hard, with what to change. `share` has greedy, sampled, format, pass and mixed."""
    told = f"{share['greedy']:.0%} right when greedy, {share['sampled']:.0%} when sampled"
    if share["greedy"] >= EASY_GREEDY:
        return (
            f"too easy for this model: {told}. Take harder rows, or stop here: there is little left to learn"
        )
    if share["pass"] >= HARD_PASS and share["mixed"] >= FEW_GROUPS:
        return f"ready: {told}, and {share['mixed']:.0%} of the groups hold different rewards, from which GRPO learns"
    temperature, change = float(recipe.grpo.get("temperature", 1.0)), []
    if share["format"] < 0.5:
        change.append(f"show exemplars (prompt.shots={max(2, 2 * recipe.prompt.shots)})")
    if temperature > 0.7:
        change.append("sample below temperature 1 (grpo.temperature=0.7)")
    group = int(recipe.grpo.get("num_generations", 8))
    change += [
        "begin with easier rows",
        f"larger groups (grpo.num_generations={2 * group})",
        "or take a larger model",
    ]
    few = f"{share['mixed']:.0%} of the groups hold different rewards, {share['pass']:.0%} a right answer"
    return f"too hard for this model: {told}; {few}. What to change: {', '.join(change)}"


def new_task(path: str | Path) -> Path:
    """Write a commented task file that passes the audit, as a start for a task of your own.

    Raises UserError where there is a file of that name.
    """
    target = Path(path)
    if target.suffix != ".py":
        raise InputError(f"a task is a Python file: {target} must end in .py")
    if target.exists():
        raise InputError(f"{target} is there already: choose another name, or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(RECIPES / "new_task.py", target)
    return target
