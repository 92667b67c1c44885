"""What the machine check finds and what it says about it."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from rlvr_kit import doctor
from rlvr_kit.doctor import check_machine, report


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("RLVR_KIT_GSM8K", "SM_CHANNEL_GSM8K", "SM_CHANNEL_TRAIN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("RLVR_KIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def found() -> dict[str, tuple[str, str]]:
    return {item: (value, verdict) for item, value, verdict in check_machine()}


def test_every_item_has_a_value_and_a_verdict() -> None:
    machine = found()
    assert list(machine) == [
        "Python",
        "processor",
        "memory",
        "number format",
        "disk",
        "GPU",
        "bundled model",
        "Hub",
        "GSM8K",
    ]
    assert all(value and verdict for value, verdict in machine.values())


def test_a_bare_machine_falls_back_to_what_is_embedded() -> None:
    machine = found()
    assert machine["Hub"] == ("no answer", "not needed by default")
    assert machine["GSM8K"] == ("not here", "word problems take its place")
    assert machine["bundled model"][0] == "not here yet"


def test_a_wrong_gsm8k_folder_is_not_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RLVR_KIT_GSM8K", str(tmp_path / "nowhere"))
    value, verdict = found()["GSM8K"]
    assert value == "not here" and "nowhere" in verdict


@pytest.mark.parametrize(("free", "expected"), [(3.0, "too little"), (8.0, "enough")])
def test_memory_is_held_against_the_cpu_recipe(
    free: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "memory_gib", lambda: (16.0, free))
    value, verdict = found()["memory"]
    assert value == f"{free:.1f} of 16.0 GiB free" and verdict.startswith(expected)


@pytest.mark.parametrize(
    ("free", "cached", "missing"), [(8, True, []), (3, True, ["memory"]), (8, False, ["bundled model"])]
)
def test_report_is_ready_unless_something_is_missing(
    free: float, cached: bool, missing: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "memory_gib", lambda: (16.0, float(free)))
    monkeypatch.setattr(doctor.psutil, "cpu_count", lambda: 2)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=50 * 2**30))
    if cached:
        weights = tmp_path / "cache" / "SmolLM2-135M-Instruct" / "model.safetensors"
        weights.parent.mkdir(parents=True)
        weights.touch()
    told = report()
    assert told["ready"] is (not missing)
    assert [problem.partition(":")[0] for problem in told["problems"]] == missing
    assert told["found"]["processor"] == "2 cores" and told["machine"] and told["kit"]
