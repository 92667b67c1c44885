"""A worst day: full disks, kills at bad moments, two processes in one folder, damaged files, values that cannot be."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from rlvr_kit import InputError, MachineError, UserError
from rlvr_kit.models import load_tokenizer
from rlvr_kit.paths import PROJECT
from rlvr_kit.recipe import Recipe, load_recipe
from rlvr_kit.run_folder import Run, only_writer
from rlvr_kit.training.resume import checkpoints
from rlvr_kit.training.train import train

#: A constant rate and an entropy bonus: one step too many would move the weights.
MOVES = ["grpo.entropy_coef=0.05", "grpo.lr_scheduler_type=constant"]


def smoke(*overrides: str) -> Recipe:
    return load_recipe("smoke", [*MOVES, *overrides])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(smoke(), tmp_path_factory.mktemp("faults") / "run")


@pytest.fixture
def copy(finished: Run, tmp_path: Path) -> Path:
    """The finished run once more, to be damaged."""
    return shutil.copytree(finished.path, tmp_path / "copy")


def test_from_the_last_checkpoint_nothing_more_is_trained(finished: Run, tmp_path: Path) -> None:
    folder = tmp_path / "full"
    with pytest.MonkeyPatch.context() as patch:

        def full(*args: Any, **kwargs: Any) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(PreTrainedModel, "save_pretrained", full)
        with pytest.raises(MachineError, match="model: No space left.*then go on"):
            train(smoke("run.save_steps=4"), folder)
    assert [path.name for path in checkpoints(folder)] == ["checkpoint-4"]
    again = train(smoke("run.save_steps=4"), folder)
    assert again.log().step.tolist() == [0, 1, 2, 3, 4] and again.summary()["steps"] == 4
    ours, theirs = (load_file(run.path / "model" / "model.safetensors") for run in (again, finished))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_summary_that_a_kill_prevented_is_written_by_the_same_command(copy: Path) -> None:
    before = json.loads((copy / "summary.json").read_text())
    (copy / "summary.json").unlink()
    assert train(smoke(), copy).summary() == before | {"peak_memory_gib": None}


def test_a_run_whose_time_is_used_up_ends_where_it_was(tmp_path: Path) -> None:
    recipe = smoke("run.max_minutes=0.0001")
    train(recipe, tmp_path)
    shutil.rmtree(tmp_path / "model")  # as if it had been killed before it was saved
    again = train(recipe, tmp_path)
    assert again.log().step.tolist() == [0, 1] and "time budget" in again.summary()["stopped_by"]


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "rlvr_kit", "train", "--recipe", "smoke", "--out"]
    with only_writer(tmp_path / "run"):
        second = subprocess.run(
            [*command, str(tmp_path / "run")], cwd=PROJECT, capture_output=True, text=True
        )
        assert second.returncode == 1 and "another process is training in" in second.stderr
        assert {path.name for path in (tmp_path / "run").iterdir()} == {".lock"}


def no_network(completions: list, **_: Any) -> list[float]:
    raise ConnectionError("the judge does not answer")


def test_a_network_that_fails_is_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="the judge does not answer") as caught:
        train(smoke(), tmp_path / "run", rewards=[no_network])
    assert "space" not in str(caught.value)


def test_an_error_in_the_callers_own_reward_is_the_callers_to_read(tmp_path: Path) -> None:
    def broken(completions: list, **_: Any) -> list[float]:
        raise ValueError("my own mistake")

    with pytest.raises(ValueError, match="my own mistake"):
        train(smoke(), tmp_path / "run", rewards=[broken])
    assert not (tmp_path / "run").exists()  # nothing was trained, so nothing stays


def test_torchs_own_error_on_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:678] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="could not write .*checkpoint-2: .*unexpected pos"):
        train(smoke(), tmp_path)
    assert not (tmp_path / "checkpoints" / ".partial").exists()


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "optimizer.pt", "trainer_state.json", "rng_state.pth"]
)
def test_a_checkpoint_of_zeros_is_named_and_what_to_do_works(copy: Path, name: str) -> None:
    shutil.rmtree(copy / "model")
    last = checkpoints(copy)[-1]
    (last / name).write_bytes(bytes((last / name).stat().st_size))
    if name == "rng_state.pth":  # it is read where a run goes on, and this one is at its end
        shutil.rmtree(last)
        last = checkpoints(copy)[-1]
        (last / name).write_bytes(bytes((last / name).stat().st_size))
    with pytest.raises(InputError, match=rf"{last.name} is damaged .*delete that folder"):
        train(smoke(), copy)
    shutil.rmtree(last)
    assert train(smoke(), copy).log().step.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("content", [b"", b"\x00\x01\xff", b"grpo: [1"])
def test_a_damaged_recipe_of_a_run_is_named(copy: Path, content: bytes) -> None:
    (copy / "recipe.yaml").write_bytes(content)
    with pytest.raises(InputError, match="recipe.yaml .*choose another output folder") as caught:
        train(smoke(), copy)
    assert "\n" not in str(caught.value)


def test_a_run_whose_log_is_damaged_goes_on(copy: Path) -> None:
    shutil.rmtree(copy / "model")
    (copy / "log.jsonl").write_bytes(b"\x00\xff" * 50)
    assert train(smoke(), copy).summary()["steps"] in (None, 4)


@pytest.mark.parametrize("out", ["", "file", "file/run"])
def test_an_output_folder_that_cannot_be_is_one_line(out: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="empty" if not out else "could not write"):
        train(smoke(), out and tmp_path / out)
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize(
    "override, said",
    [
        ("grpo.max_steps=2.5", "grpo.max_steps is 2.5"),
        ("grpo.loss_type=zzz", "grpo.loss_type is 'zzz', not one of grpo, dr_grpo"),
        ("grpo.scale_rewards=sometimes", "grpo.scale_rewards"),
        ("grpo.warmup_steps=-1", "grpo.warmup_steps is -1, which is below 0"),
        ("grpo.num_iterations=0", "grpo.num_iterations is 0, which is below 1"),
        ("grpo.max_grad_norm=high", "grpo.max_grad_norm"),
        ("grpo.generation_kwargs=zzz", "grpo.generation_kwargs is 'zzz', not a section"),
        ("grpo.lr_scheduler_type=zzz", "section grpo"),
        ("grpo.optim=zzz", "section grpo"),
        ("grpo.adam_beta1=2", "cannot be trained: ValueError: Invalid beta"),
        ("grpo.reward_weights=[1]", "refused by TRL"),
        ("lora.r=0", "section lora"),
        ("lora.r=2.5", "section lora"),
        ("lora.target_modules=zzz", "section lora"),
        ("lora.lora_dropout=2", "section lora"),
        ("lora.bias=zzz", "section lora"),
    ],
)
def test_a_recipe_that_is_refused_leaves_the_folder_free(override: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said) as caught:
        train(smoke(override), tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_control_tokens_in_the_data_are_trained_on_as_text(tmp_path: Path) -> None:
    for split, n in (("train", 60), ("test", 4)):
        rows = [{"question": f"{split} <|end|> {i}+1?", "answer": f"So.\n#### {i + 1}"} for i in range(n)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = smoke(f"data.source={tmp_path}", "data.train_size=null", "grpo.max_steps=1", "evaluation.n=4")
    prompts = train(recipe, tmp_path / "run").completions().prompt
    assert prompts.str.contains("< |end|>", regex=False).all()
    tokenizer = load_tokenizer("tiny-random")
    rendered = {
        recipe.template().render(tokenizer, question) for question in recipe.training_problems()["question"]
    }
    assert set(prompts) <= rendered  # what evaluation would ask


def rich_path(tmp_path: Path) -> Path:
    return tmp_path / "a[" / "b]"  # read as rich's markup it would be a closing tag


def test_a_path_is_no_markup(finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(finished.path, rich_path(tmp_path))
    train(smoke(), folder)
    assert "a[/b] is a finished run" in capsys.readouterr().err
