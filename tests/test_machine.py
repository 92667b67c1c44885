"""What the kit says of the machine it runs on."""

import subprocess
import sys
import time

from rlvr_kit.machine import describe_machine, process_tree_gib, share_of_cores, watched_memory


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
    machine = describe_machine()
    assert machine["processor"] and machine["memory_gib"] > 0 and machine["torch"].startswith("2.")
