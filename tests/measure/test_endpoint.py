"""Endpoints of every temper, played by a server in this process: what is scored, what is asked again, what is said."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from rlvr_kit import UserError
from rlvr_kit.__main__ import app
from rlvr_kit.measure.endpoint import evaluate_endpoint, openai_endpoint
from rlvr_kit.recipe import load_recipe
from rlvr_kit.run_folder import Run
from rlvr_kit.sampling_settings import SamplingSettings

HTML = "<!doctype html>\n<html><body>Welcome</body></html>"
RECIPE = load_recipe("smoke")
GOLD = {row["question"]: row["gold"] for row in RECIPE.test_problems()}


def completion(text, finish="stop", tokens=5):
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    usage = {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": 9 + tokens}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "usage": usage,
    }


def right(body):
    return 200, completion(f"So.\n#### {GOLD[body['messages'][-1]['content']]}")


class Fake:
    """A server whose next answers are given by `answer(body, how many came before)`."""

    def __init__(self):
        self.answer, self.asked, self.keys = (lambda body, _: right(body)), [], set()
        fake, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    fake.asked.append(body)
                    fake.keys.add(self.headers["Authorization"])
                    status, content = fake.answer(body, len(fake.asked) - 1)
                if status is None:  # the server dies
                    self.connection.close()
                    return
                kind = "application/json" if isinstance(content, dict) else "text/html"
                text = (json.dumps(content) if isinstance(content, dict) else content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json" if content == "{oops" else kind)
                self.send_header("retry-after-ms", "10")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.01)
    server = Fake()
    yield server
    server.close()


def measure(fake, out=None, retries=2, **options):
    endpoint = openai_endpoint(fake.url, "m", timeout=5, retries=retries)
    return evaluate_endpoint(RECIPE, endpoint, label="served", out=out, **options)


def test_the_same_problems_prompt_and_verifier(fake):
    result = measure(fake)
    assert result.summary["n"] == 12 and result.summary["strict"] == 1 and result.summary["failed"] == 0
    template = RECIPE.template()
    assert sorted(body["messages"][-1]["content"] for body in fake.asked) == sorted(GOLD)
    for body in fake.asked:
        assert body["messages"] == template.messages(body["messages"][-1]["content"])
        assert (body["temperature"], body["max_tokens"], body["stop"]) == (
            0,
            RECIPE.max_new_tokens,
            template.stop,
        )
    assert result.rows.tokens.eq(5).all() and not result.rows.truncated.any()


def test_a_stop_string_and_a_cut_answer_are_read_as_here(fake):
    fake.answer = lambda body, i: (
        200,
        completion("#### 1\nQuestion: and", "length") if i else completion("#### 1", "length"),
    )
    rows = measure(fake, concurrency=1).rows
    assert rows.completion.tolist() == ["#### 1"] * 12
    assert rows.truncated.tolist() == [True] + [False] * 11


def test_samples_are_asked_one_by_one_with_seeds_of_their_own(fake):
    result = measure(fake, sampling=SamplingSettings(max_new_tokens=8, temperature=0.7, samples=2, seed=5))
    assert len(result.rows) == 24 and sorted({body["seed"] for body in fake.asked}) == [5, 6]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_endpoint_is_asked_again(fake, status):
    fake.answer = lambda body, i: (status, {"error": "busy"}) if i % 2 == 0 else right(body)
    assert measure(fake, concurrency=1).summary["strict"] == 1
    assert len(fake.asked) == 24


def test_what_fails_counts_as_wrong_is_shown_and_is_asked_again_next_time(fake, tmp_path):
    first = RECIPE.test_problems()["question"][0]
    fake.answer = lambda body, _: (
        (400, {"error": "no"}) if body["messages"][-1]["content"] == first else right(body)
    )
    result = measure(fake, Run(tmp_path))
    assert result.summary["failed"] == 1 and result.summary["strict"] == pytest.approx(11 / 12)
    assert "answered 400" in result.rows.error[0] and not result.rows.correct[0]
    fake.answer, fake.asked[:] = (lambda body, _: right(body)), []
    again = measure(fake, Run(tmp_path))
    assert [body["messages"][-1]["content"] for body in fake.asked] == [first]
    assert again.summary["failed"] == 0 and again.summary["strict"] == 1
    fake.asked[:] = []
    measure(fake, Run(tmp_path))  # complete: another model may be served by now, so it is measured anew
    assert len(fake.asked) == 12


@pytest.mark.parametrize(
    "answer, said",
    [
        ((429, {"error": {"message": "too many requests"}}), "answered 429.*too many requests"),
        ((200, HTML), "a chat completion: <!doctype html> <html>"),
        ((200, "{oops"), "a chat completion"),
        ((200, {"detail": "hello"}), "a chat completion"),
        ((200, completion(None) | {"choices": []}), "a chat completion"),
        ((500, HTML), "answered 500"),
        ((404, {"detail": "no such model"}), "answered 404.*no such model"),
        ((401, {"error": "no key"}), "answered 401"),
        ((None, None), "cannot be reached"),
    ],
)
def test_an_endpoint_that_answers_nonsense_is_one_line_and_what_came_before_is_kept(
    fake, answer, said, tmp_path
):
    fake.answer = lambda body, i: right(body) if i < 3 else answer
    with pytest.raises(UserError, match=said) as caught:
        measure(fake, Run(tmp_path), concurrency=1, retries=1)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    kept = Run(tmp_path).rows_so_far("served")
    assert sum(row["correct"] for row in kept) == 3
    assert not (tmp_path / "evals" / "served.json").exists()  # nothing is claimed
    fake.answer, fake.asked[:] = (lambda body, _: right(body)), []
    assert measure(fake, Run(tmp_path)).summary["strict"] == 1
    assert len({body["messages"][-1]["content"] for body in fake.asked}) == 9  # only what had no answer


def test_a_slow_answer_is_a_failed_request(fake):
    over = threading.Event()
    fake.answer = lambda body, _: (over.wait(3), right(body))[1]
    endpoint = openai_endpoint(fake.url, "m", timeout=0.2, retries=0)
    with pytest.raises(UserError, match="no answer within 0.2 s"):
        evaluate_endpoint(RECIPE, endpoint, label="served", concurrency=8)
    over.set()


def test_no_other_services_key_is_sent(fake, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    measure(fake)
    monkeypatch.setenv("RLVR_KIT_API_KEY", "mine")
    measure(fake)
    assert fake.keys == {"Bearer none", "Bearer mine"}


@pytest.mark.parametrize("address", ["", "localhost:8000", "ftp://x", "http://"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(UserError, match="is not the address of an endpoint"):
        openai_endpoint(address, "m")


def test_the_command_measures_an_endpoint(fake, tmp_path):
    arguments = ["evaluate", "--recipe", "smoke", "--endpoint", f"{fake.url}/v1/", "--model", "m"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path), "--label", "tuned", "--json"])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["strict"] == 1 and summary["endpoint"] == f"{fake.url}/v1" and summary["model"] == "m"
    assert Run(tmp_path).evaluation("tuned")[1]["n"] == 12
