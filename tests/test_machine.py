"""What the kit says of the machine it runs on."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlvr_kit import machine
from rlvr_kit.machine import GIB, describe_machine, process_tree_gib, share_of_cores, watched_memory


def test_memory_of_children_counts_and_the_peak_stays() -> None:
    before = process_tree_gib()
    with watched_memory(every=0.05) as memory:
        child = "x = bytearray(400 * 2**20); print('held', flush=True); input()"
        process = subprocess.Popen(
            [sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        process.stdout.readline()
        while memory["peak"] < before + 0.35 and process.poll() is None:
            time.sleep(0.05)
        process.communicate(b"\n")
    assert before + 0.35 < memory["peak"] < before + 0.8
    assert process_tree_gib() < before + 0.35


def test_jobs_share_the_cores() -> None:
    cores = share_of_cores(1)
    assert cores >= 1 and share_of_cores(10 * cores) == 1


def test_a_figure_says_what_it_depends_on() -> None:
    described = describe_machine()
    assert described["processor"] and described["memory_gib"] > 0 and described["torch"].startswith("2.")


@pytest.mark.parametrize("version", [1, 2])
def test_free_memory_in_a_container_is_what_its_limit_leaves(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory").mkdir()
    limit, used, stat, cache = machine.CGROUP_NAMES[2 - version]
    (tmp_path / limit).write_text(f"{2 * GIB}\n")
    (tmp_path / used).write_text(f"{GIB * 7 // 4}\n")
    (tmp_path / stat).write_text(f"anon 5\n{cache} {GIB // 2}\n")
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    total, free = machine.memory_gib()
    assert (total, free) == (2.0, pytest.approx(0.75))  # the file cache is given back on demand
    (tmp_path / limit).write_text("max" if version == 2 else str(2**63 - 4096))
    assert machine.memory_gib()[0] > 2.0
