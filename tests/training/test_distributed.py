"""Several processes: two over gloo on this CPU, held against one; and the files that `accelerate launch` reads."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from safetensors.torch import load_file

from rlvr_kit.paths import PROJECT
from rlvr_kit.recipe import RECIPES
from rlvr_kit.run_folder import Run
from rlvr_kit.training.resume import checkpoints

CONFIGS = RECIPES / "accelerate"
TORCHRUN = [
    sys.executable,
    "-W",
    "ignore",
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc_per_node",
    "2",
]
CPU = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
#: Two prompts a step, each with four completions, whatever the number of processes; the entropy bonus moves weights.
SAMPLED = ["grpo.entropy_coef=0.05", "grpo.per_device_train_batch_size=4"]

#: Run by each process: trainings whose weights, as this process sees them, and history are kept in files of its own.
SCRIPT = """
import json, os, signal, sys
from pathlib import Path

import torch
from transformers import Trainer
from trl import GRPOTrainer

from rlvr_kit import UserError
from rlvr_kit.recipe import load_recipe
from rlvr_kit.engine.grpo_trainer import SharedPrefixGRPOTrainer
from rlvr_kit.training.train import Interrupted, train

OUT, RANK, WORLD = Path(sys.argv[1]), int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
learn = Trainer.train


def keep(trainer, *args, **kwargs):
    done = learn(trainer, *args, **kwargs)
    weights = {} if trainer.is_fsdp_enabled else trainer.model.state_dict()
    torch.save(weights, OUT / f"{NAME}-{RANK}.pt")
    (OUT / f"{NAME}-{RANK}.json").write_text(json.dumps(trainer.state.log_history))
    return done


Trainer.train = keep


def run(name, *overrides, rewards=None):
    global NAME
    NAME = name
    train(load_recipe("smoke", list(overrides)), OUT / name, rewards=rewards)


def written(trainer, prompt_ids, *args):
    # A completion that depends on its prompt and its place in the group, wherever it is made.
    first, group = RANK * len(prompt_ids), trainer.num_generations
    numbers = [sum(ids) + 7 * ((first + i) % group) for i, ids in enumerate(prompt_ids)]
    texts = [str(n**3)[: 3 + n % 8] for n in numbers]
    ids = [trainer._tokenizer(text)["input_ids"] for text in texts]
    ids = [own + [trainer._tokenizer.eos_token_id] * (first + i < 4) for i, own in enumerate(ids)]
    # The kit's trainer leaves groups without signal out when it knows their entropy from sampling.
    trainer._sampled_entropy = {(*prompt, *own): 1.0 for prompt, own in zip(prompt_ids, ids)}
    return ids, None


def digits(completions, **_):
    return [float(sum(map(ord, text)) % 5) for text in completions]


def only_the_first_prompt(completions, **_):
    return [r if RANK * len(completions) + i < 4 else 1.0 for i, r in enumerate(digits(completions))]


if WORLD == 2:
    moves = "grpo.entropy_coef=0.05", "grpo.per_device_train_batch_size=4"
    run("sampled", *moves)
    run("stock", *moves, "run.shared_prefix=false")

    def differs_where_gold_is_even(completions, gold, **_):
        return [float(i % 2) if int(gold[i]) % 2 == 0 else 1.0 for i in range(len(completions))]

    run("redrawn", "run.redraws=20", "grpo.per_device_train_batch_size=4", rewards=[differs_where_gold_is_even])

    def stop_one(completions, **_):
        stop_one.calls += 1
        if RANK == 1 and stop_one.calls == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return [0.0] * len(completions)

    stop_one.calls = 0
    try:
        run("stopped", *moves, "run.save_steps=1000", rewards=[stop_one])
    except Interrupted as error:
        (OUT / f"stopped-{RANK}.txt").write_text(f"{error.exit_code} {error}")
    try:
        run("guarded", *moves, "grpo.max_completion_length=1", "grpo.max_steps=40")
    except UserError as error:
        (OUT / f"guarded-{RANK}.txt").write_text(str(error))

for trainer in (GRPOTrainer, SharedPrefixGRPOTrainer):
    trainer._generate_single_turn = written
size = f"grpo.per_device_train_batch_size={8 // WORLD}"
run("fixed", size, rewards=[digits])
run("fixed-stock", size, "run.shared_prefix=false", rewards=[digits])
run("split", f"grpo.per_device_train_batch_size={4 // WORLD}", "grpo.gradient_accumulation_steps=2",
    "grpo.num_generations=8", rewards=[digits])
run("lopsided", size, rewards=[only_the_first_prompt])
for kind, how in (("", []), ("-stock", ["run.shared_prefix=false"])):
    run("reused" + kind, size, "grpo.beta=0.1", "grpo.num_iterations=2", *how, rewards=[digits])
    run("idle" + kind, size, "grpo.weight_decay=0.1", *how, rewards=[only_the_first_prompt])
run("cut", size, "grpo.mask_truncated_completions=true", rewards=[digits])

if WORLD == 2:
    # FSDP from its config file. accelerate has it for GPUs alone, so it is told that these processes are some.
    from accelerate import PartialState
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType
    from accelerate.utils.launch import prepare_multi_gpu_env

    options = ["--config_file", sys.argv[2], "--num_processes", "2", "--main_process_port", "0", "-m", "rlvr_kit"]
    launched, _, _ = _validate_launch_command(launch_command_parser().parse_args(options))
    os.environ |= {k: v for k, v in prepare_multi_gpu_env(launched).items() if "FSDP" in k}
    begin = AcceleratorState.__init__

    def with_fsdp(state, *args, **kwargs):
        if PartialState(cpu=True).distributed_type == DistributedType.MULTI_CPU:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        begin(state, *args, **kwargs)

    AcceleratorState.__init__ = with_fsdp
    run("fsdp", size, rewards=[digits])
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left."""
    return finish(tmp_path_factory.mktemp("two"), TORCHRUN)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process left, given the same completions."""
    return finish(tmp_path_factory.mktemp("one"), [sys.executable, "-W", "ignore"])


def finish(out: Path, launch: list[str]) -> Path:
    (out / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [*launch, str(out / "script.py"), str(out), str(CONFIGS / "fsdp.yaml")],
        env=CPU,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return out


def weights(out: Path, name: str, rank: int) -> dict[str, torch.Tensor]:
    return torch.load(out / f"{name}-{rank}.pt")


def history(out: Path, name: str, rank: int) -> pd.DataFrame:
    """What one process saw of the metrics, but for the clock's."""
    lines = [line for line in json.loads((out / f"{name}-{rank}.json").read_text()) if "loss" in line]
    return pd.DataFrame(lines).drop(columns="step_time")


@pytest.mark.parametrize("name", ["sampled", "stock", "fixed", "fixed-stock", "split", "lopsided", "cut"])
def test_both_processes_end_with_the_same_weights_and_metrics(two: Path, name: str) -> None:
    ours, theirs = (weights(two, name, rank) for rank in (0, 1))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    pd.testing.assert_frame_equal(history(two, name, 0), history(two, name, 1))
    log = Run(two / name).log()
    assert [json.loads(line)["step"] for line in (two / name / "log.jsonl").read_text().splitlines()] == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert log.completions.tolist() == [0, 8, 16, 24, 32] and log["heldout/n"].dropna().tolist() == [8, 8, 8]
    written = Run(two / name).completions()
    assert written.groupby("step").size().tolist() == [8] * 4
    paid = written.filter(["format", "correct", "digits", "only_the_first_prompt"]).sum(axis=1)
    assert paid.groupby(written.step).mean().tolist() == pytest.approx(log.reward[1:].tolist(), rel=1e-6)


@pytest.mark.parametrize("name", ["sampled", "stock"])
def test_processes_sample_from_streams_of_their_own(two: Path, name: str) -> None:
    written = Run(two / name).completions()
    assert written.groupby("step").prompt.nunique().tolist() == [2] * 4
    for _, step in written.groupby("step"):
        first, second = step.completion[:4], step.completion[4:]
        pairs = [pair for texts in zip(first, second, strict=True) for pair in zip(*texts, strict=False)]
        same = [
            a == b for a, b in pairs if "\ufffd" not in (a, b)
        ]  # bytes that are no UTF-8 all look the same
        assert sum(same) < len(same) / 4


def test_both_processes_draw_a_group_without_signal_again(two: Path) -> None:
    ours, theirs = (weights(two, "redrawn", rank) for rank in (0, 1))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    pd.testing.assert_frame_equal(history(two, "redrawn", 0), history(two, "redrawn", 1))
    log, written = Run(two / "redrawn").log(), Run(two / "redrawn").completions()
    assert log.equal_groups[1:].eq(0).all() and written.advantage.ne(0).all()
    assert written.groupby("step").prompt.nunique().tolist() == [2] * 4
    redrawn = log.completions - 8 * log.step
    assert redrawn.is_monotonic_increasing and redrawn.iloc[-1] >= 4 and redrawn.mod(4).eq(0).all()


@pytest.mark.parametrize("name", ["fixed", "fixed-stock", "split", "lopsided", "cut"])
def test_fed_the_same_completions_two_processes_are_one(two: Path, one: Path, name: str) -> None:
    ours, theirs = weights(two, name, 0), weights(one, name, 0)
    for key in theirs:  # Adam divides by the gradient's size, so rounding shows at 1e-7 in weights of 2.5e-3
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-5, atol=5e-7)
    metrics = [
        "reward",
        "reward_std",
        "length",
        "truncated",
        "equal_groups",
        "loss",
        "grad_norm",
        "learning_rate",
    ]
    pd.testing.assert_frame_equal(Run(two / name).log()[metrics], Run(one / name).log()[metrics], rtol=1e-4)
    assert Run(two / name).log().grad_norm[1:].gt(0).any()


@pytest.mark.parametrize("name", ["fixed", "reused", "idle"])
def test_two_processes_learn_what_two_of_stock_trl_learn(two: Path, name: str) -> None:
    ours, stock = weights(two, name, 0), weights(two, f"{name}-stock", 0)
    for key in stock:
        torch.testing.assert_close(ours[key], stock[key], rtol=1e-5, atol=5e-7)
    assert Run(two / name).log().grad_norm[1:].gt(0).any()


def test_fsdp_ends_with_the_weights_of_one_process(two: Path, one: Path) -> None:
    ours, theirs = (load_file(run / "model" / "model.safetensors") for run in (two / "fsdp", one / "fixed"))
    assert ours.keys() == theirs.keys()
    for key in theirs:
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-5, atol=1e-7)
    pd.testing.assert_frame_equal(history(two, "fsdp", 0), history(two, "fsdp", 1))
    assert Run(two / "fsdp").log()["heldout/n"].dropna().tolist() == [8, 8, 8]


def test_a_signal_that_one_process_hears_stops_both_with_a_checkpoint(two: Path) -> None:
    said = [(two / f"stopped-{rank}.txt").read_text() for rank in (0, 1)]
    assert said[0] == said[1] and said[0].startswith("143 ") and "goes on from there" in said[0]
    assert [path.name for path in checkpoints(two / "stopped")] == ["checkpoint-2"]
    assert not (two / "stopped" / "model").exists()


def test_a_guard_stops_both(two: Path) -> None:
    first, second = ((two / f"guarded-{rank}.txt").read_text() for rank in (0, 1))
    assert "raise grpo.max_completion_length" in first and "rank 0 reports" in second
    assert "raise grpo.max_completion_length" in Run(two / "guarded").log().stopped.iloc[-1]
    assert not (two / "guarded" / "model").exists()


def test_killed_it_ends_and_started_again_it_goes_on(two: Path, tmp_path: Path) -> None:
    settings = [word for override in SAMPLED for word in ("--set", override)]
    command = [
        *TORCHRUN,
        "-m",
        "rlvr_kit",
        "train",
        "--recipe",
        "smoke",
        *settings,
        "--out",
        str(tmp_path / "run"),
    ]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    launcher = subprocess.Popen(command, env=CPU, cwd=PROJECT, **streams)
    workers = []
    for line in launcher.stdout or ():
        if line.startswith('{"step": 3,'):
            workers = psutil.Process(launcher.pid).children()
            next(w for w in workers if w.environ()["RANK"] == "1").send_signal(signal.SIGKILL)
            break
    assert launcher.wait(timeout=60) != 0 and len(workers) == 2
    assert not psutil.wait_procs(workers, timeout=5)[1]
    assert not (tmp_path / "run" / "model").exists()

    done = subprocess.run(command, env=CPU, cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    resumed, whole = Run(tmp_path / "run"), Run(two / "sampled")
    pd.testing.assert_frame_equal(resumed.log().drop(columns="seconds"), whole.log().drop(columns="seconds"))
    ours, theirs = (load_file(run.path / "model" / "model.safetensors") for run in (resumed, whole))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert [json.loads(line)["step"] for line in done.stdout.splitlines()] == [3, 4]
    assert done.stderr.count("trained:") == 1 and done.stderr.count("| 2/4 [00:00<?") == 1, done.stderr
    assert "Warning" not in done.stderr


def test_what_is_wrong_is_said_once(tmp_path: Path) -> None:
    command = [*TORCHRUN, "-m", "rlvr_kit", "train", "--recipe", "nosuch", "--out", str(tmp_path)]
    done = subprocess.run(command, env=CPU, cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and (done.stdout + done.stderr).count("no recipe 'nosuch'") == 1


@pytest.mark.parametrize("name", ["ddp", "fsdp", "zero2"])
def test_accelerate_reads_the_config_files(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    options = [
        "--config_file",
        str(CONFIGS / f"{name}.yaml"),
        "--num_processes",
        "2",
        "--main_process_port",
        "0",
    ]
    parser = launch_command_parser()
    parsed, config, _ = _validate_launch_command(parser.parse_args([*options, "-m", "rlvr_kit", "train"]))
    assert (parsed.num_processes, parsed.multi_gpu) == (2, name == "ddp")
    # accelerate checks the keys of the file itself, but lets any key pass in a section of it.
    known = {action.dest for action in parser._actions}
    assert {*config.fsdp_config, *config.deepspeed_config} <= known
    if name == "zero2":
        parsed.deepspeed_fields_from_accelerate_config = ",".join(
            config.deepspeed_config
        )  # as the launcher does
        _, environ = prepare_deepspeed_cmd_env(parsed)
        assert environ["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "2"
        return
    environ = prepare_multi_gpu_env(parsed)
    assert (environ.get("ACCELERATE_USE_FSDP") == "true") is (name == "fsdp")
    if name == "fsdp":
        for key, value in environ.items():
            if key.startswith("FSDP_"):
                monkeypatch.setenv(key, value)
        plugin = FullyShardedDataParallelPlugin()
        assert (
            plugin.fsdp_version == 2
            and not plugin.reshard_after_forward
            and not plugin.cpu_ram_efficient_loading
        )
