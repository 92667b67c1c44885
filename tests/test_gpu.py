"""`make gpu` in tiny sizes on whatever this machine has, so that it is known to run where there is a GPU."""

import json
from pathlib import Path

import gpu
import pytest
import torch


def test_every_part_runs_in_tiny_sizes(tmp_path: Path) -> None:
    assert gpu.main([*gpu.PARTS], tmp_path, tiny=True) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    formats = [(row["model"], row["trained"], row["format"]) for row in found["parity"]]
    assert len(set(formats)) == 8 and all(row["ok"] for row in found["parity"])
    [step], [memory], [trained, gsm8k] = found["speed"], found["memory"], found["train"]
    assert step["stock TRL, s"] > 0 and step["this kit, s"] > 0
    assert 0 < memory["used, GiB"] <= memory["planned, GiB"]
    assert trained["steps"] == 4 and "skipped" in gsm8k
    table = (tmp_path / "gpu.md").read_text()
    assert all(f"\n{part}, on " in "\n" + table for part in gpu.PARTS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_each_part_is_skipped_with_the_reason(tmp_path: Path) -> None:
    assert gpu.main([*gpu.PARTS], tmp_path) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert all(found[part] == [{"skipped": "torch finds no GPU here"}] for part in gpu.PARTS)


def test_a_part_that_fails_is_told_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(tiny: bool, left: object) -> list:
        raise RuntimeError("no room")

    off = [{"model": "x", "ok": False}]
    monkeypatch.setattr(gpu, "PARTS", {"speed": broken, "memory": lambda tiny, left: off})
    assert gpu.main(["speed", "memory"], tmp_path, tiny=True) == 1
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["speed"] == [{"failed": "RuntimeError: no room"}] and found["memory"] == off
    assert gpu.main(["memory"], tmp_path, tiny=True) == 1  # outside its bound
