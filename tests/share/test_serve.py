"""A served model gives the answers of the local one; its server is on this machine alone, and ends whatever happens."""

import os
import signal
import socket
import subprocess
import sys
import time
from urllib.parse import urlsplit

import psutil
import pytest

from rlvr_kit import UserError
from rlvr_kit.measure.endpoint import Endpoint, evaluate_endpoint, openai_endpoint
from rlvr_kit.paths import PROJECT
from rlvr_kit.run_folder import Run
from rlvr_kit.share.serve import serve


def is_open(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def server(folders):
    with serve(folders["merged"]) as running:
        yield running
    assert running.process.poll() is not None
    assert not is_open(urlsplit(running.url).port)


def test_the_endpoints_score_and_answers_are_those_of_the_run(run, server, tmp_path):
    rows, summary = run.evaluation("tuned")
    served = evaluate_endpoint(
        run.recipe(), openai_endpoint(server.url, server.model), label="x", out=Run(tmp_path)
    )
    assert served.rows.completion.tolist() == rows.completion.tolist()
    same = ("n", "strict", "strict_ci", "lenient", "format", "truncated")
    assert {key: served.summary[key] for key in same} == {key: summary[key] for key in same}
    assert served.summary["failed"] == 0
    assert served.rows.tokens.tolist() == rows.tokens.tolist()
    assert not served.summary["model"].startswith("/")  # nobody's business where it lay


def test_it_listens_on_this_machine_alone(server):
    process = psutil.Process(server.process.pid)
    addresses = {link.laddr.ip for link in process.net_connections() if link.status == psutil.CONN_LISTEN}
    assert addresses == {"127.0.0.1"}


def test_another_model_name_is_refused_in_one_line(run, server):
    with pytest.raises(UserError, match="answered 400.*pinned"):
        evaluate_endpoint(run.recipe(), openai_endpoint(server.url, "other"), label="x")


def test_what_cannot_be_served_is_one_line(folders, tmp_path, monkeypatch):
    with (
        pytest.raises(UserError, match="is only an adapter: export it as merged"),
        serve(folders["adapter"]),
    ):
        pass
    with pytest.raises(UserError, match="holds no config.json"), serve(tmp_path):
        pass
    fails = tmp_path / "python"
    fails.write_text("#!/bin/sh\necho Traceback; echo OSError: no weights >&2; exit 1\n")
    fails.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(fails))
    (tmp_path / "config.json").write_text("{}")
    with (
        pytest.raises(UserError, match="the server ended with code 1: OSError: no weights$"),
        serve(tmp_path),
    ):
        pass


def test_a_port_in_use_is_refused_at_once(folders, server):
    with (
        pytest.raises(UserError, match="cannot be used.*choose another"),
        serve(folders["merged"], port=urlsplit(server.url).port),
    ):
        pass


HOLD = """
import sys, time
from unittest import mock
from rlvr_kit.share import serve as module
module._wait_until_ready = lambda *_: None  # its start takes seconds, and is not what is tested here
with module.serve(sys.argv[1]) as server:
    print(server.process.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_after_ctrl_c_or_a_kill(how, folders):
    parent = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folders["merged"])], cwd=PROJECT, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    child = psutil.Process(int(parent.stdout.readline()))
    os.kill(parent.pid, how)
    parent.wait(20)
    deadline = time.monotonic() + 10
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_server_that_dies_in_the_middle_leaves_what_was_scored(run, server, tmp_path, monkeypatch):
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    real, asked = openai_endpoint(server.url, server.model, retries=1), []

    def ask(messages, sampling):
        asked.append(messages)
        if len(asked) == 5:
            os.killpg(server.process.pid, signal.SIGKILL)  # so this test is the last one that uses it
            server.process.wait()
        return real.ask(messages, sampling)

    dying = Endpoint(real.address, real.model, ask)
    with pytest.raises(UserError, match="cannot be reached.*goes on from there"):
        evaluate_endpoint(run.recipe(), dying, label="x", out=Run(tmp_path), concurrency=1)
    assert len(Run(tmp_path).rows_so_far("x")) == 4
