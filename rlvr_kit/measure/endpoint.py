"""Evaluate a model behind an address as a local one: with the same problems, prompt and verifier.

Any server with the OpenAI chat API will do (transformers serve, vLLM, TGI, llama.cpp); cloud/endpoint.py asks SageMaker
endpoints. The template's messages are sent, and the server turns them into a prompt with the model's chat template. In
a model that the kit exported, this chat template writes the prompt of the training.
"""

import json
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rlvr_kit.errors import InputError, MachineError, UserError
from rlvr_kit.measure.evaluation import Evaluation, evaluate
from rlvr_kit.run_folder import Run
from rlvr_kit.sampling_settings import SamplingSettings, cut_at_stop

if TYPE_CHECKING:
    from rlvr_kit.recipe import Recipe

Messages = list[dict[str, str]]
#: After so many failed requests in a row the evaluation stops: the cause is the endpoint, not the problems.
GIVE_UP = 8


@dataclass(frozen=True)
class Answer:
    """The answer to one problem, in the form that an evaluation takes. ``error`` says why there is none."""

    text: str
    tokens: int
    truncated: bool
    error: str = ""


class RequestFailed(UserError):
    """A request got no usable answer. ``fatal``: all others will fail as well (wrong address, no permission)."""

    def __init__(self, reason: str, fatal: bool = False) -> None:
        super().__init__(reason)
        self.fatal = fatal


@dataclass(frozen=True)
class Endpoint:
    """An address, the name under which it serves a model, and a function that sends it one request.

    ``ask(messages, sampling)`` returns an Answer or, when its own retries have failed, raises RequestFailed.
    """

    address: str
    model: str
    ask: Callable[[Messages, SamplingSettings], Answer]


def openai_endpoint(address: str, model: str, timeout: float = 60.0, retries: int = 5) -> Endpoint:
    """Connect to an OpenAI-compatible server; a busy or failing one (408, 409, 429, 5xx) is asked again after a pause.

    `timeout` is in seconds per request. The environment variable ``RLVR_KIT_API_KEY`` may hold a key for the server.
    OpenAI's own variable is not read, so that its key is never sent to another server.
    Raises UserError when the address is not one, or the openai client is not installed.

    >>> openai_endpoint("http://127.0.0.1:8000", "runs/x/share").address
    'http://127.0.0.1:8000/v1'
    """
    try:
        import openai
    except ImportError as error:
        raise MachineError("asking an endpoint needs the openai client: install the extra `share`") from error
    url = _base_url(address)
    local = urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
    client = openai.OpenAI(
        base_url=url, api_key=os.environ.get("RLVR_KIT_API_KEY", "none"), timeout=timeout, max_retries=retries,
        http_client=openai.DefaultHttpxClient(trust_env=not local),  # no proxy between this machine and itself
    )  # fmt: skip

    def ask(messages: Messages, sampling: SamplingSettings) -> Answer:
        try:
            reply: Any = client.chat.completions.create(model=model, **request_body(messages, sampling))
        except openai.APITimeoutError as error:
            raise RequestFailed(f"no answer within {timeout:g} s") from error
        except openai.APIConnectionError as error:
            raise RequestFailed(
                f"{url} cannot be reached: {_line(error.__cause__ or error)}", fatal=True
            ) from error
        except openai.APIStatusError as error:
            fatal = error.status_code in (401, 403, 404)
            raise RequestFailed(
                f"{url} answered {error.status_code}: {_line(error.response.text)}", fatal
            ) from error
        except (openai.OpenAIError, ValueError) as error:  # the answer is labelled JSON, but is not JSON
            raise RequestFailed(f"{url} did not answer with a chat completion: {_line(error)}") from error
        return read_reply(reply if isinstance(reply, str) else reply.model_dump(), sampling)

    return Endpoint(url, model, ask)


def request_body(messages: Messages, sampling: SamplingSettings) -> dict[str, Any]:
    """Return the fields of a chat completion request, except the name of the model.

    >>> request_body([{"role": "user", "content": "Hi"}], SamplingSettings(max_new_tokens=8))["max_tokens"]
    8
    """
    body = {"messages": messages, "temperature": sampling.temperature, "max_tokens": sampling.max_new_tokens}
    if sampling.temperature:
        body |= {"top_p": sampling.top_p, "seed": sampling.seed}
    return body | ({"stop": list(sampling.stop)} if sampling.stop else {})


def read_reply(reply: Any, sampling: SamplingSettings) -> Answer:
    """Read the answer in a chat completion. Raises RequestFailed for any other reply (HTML, say) and quotes it."""
    try:
        (choice,), usage = reply["choices"], reply.get("usage") or {}
        text, stopped = cut_at_stop(choice["message"]["content"] or "", sampling.stop)
        return Answer(
            text,
            int(usage.get("completion_tokens") or 0),
            choice["finish_reason"] == "length" and not stopped,
        )
    except (TypeError, KeyError, ValueError, AttributeError):
        raise RequestFailed(f"the endpoint did not answer with a chat completion: {_line(reply)}") from None


def evaluate_endpoint(
    recipe: "Recipe",
    endpoint: Endpoint,
    *,
    label: str,
    shots: int | None = None,
    sampling: SamplingSettings | None = None,
    out: Run | None = None,
    concurrency: int = 4,
) -> Evaluation:
    """Evaluate a served model on the recipe's test problems, with the recipe's prompt, ``concurrency`` at a time.

    A request that fails after all retries counts as a wrong answer. The row's ``error`` says why, and the summary's
    ``failed`` counts such rows. With ``out`` the rows are saved as they arrive: after an interruption, the same call
    continues and asks again what failed. A finished evaluation is repeated, since the server may have a new model.

    Raises:
        UserError: the endpoint cannot be reached, refuses, or fails 8 times in a row. The answers so far are kept.

    >>> evaluate_endpoint(load_recipe("cpu"), openai_endpoint(url, "model"), label="served")  # doctest: +SKIP
    """
    template, problems = recipe.template(shots), recipe.test_problems()
    sampling = sampling or recipe.sampling
    if sampling.top_k:
        raise InputError("an OpenAI-compatible endpoint does not take top_k: leave it at 0")
    if out and (out.path / "evals" / f"{label}.json").exists() and not out.evaluation(label)[1].get("failed"):
        (out.path / "evals" / f"{label}.parquet").unlink()
    files = sorted(Path(endpoint.model).glob("*.safetensors"))
    saved = [endpoint.address, endpoint.model, *(file.stat().st_mtime for file in files)]
    return evaluate(
        SimpleNamespace(name_or_path=endpoint.model, saved=saved, parameters=list), _AsMessages(), problems, template,
        label=label, sampling=sampling, out=out, any_shots=shots is not None,
        generate=_asking(endpoint, concurrency, min(GIVE_UP, len(problems))),
        about={"model": endpoint.model, "endpoint": endpoint.address, "data": recipe.task},
        task=recipe.loaded_task,
    )  # fmt: skip


class _AsMessages:
    """Takes the place of a tokenizer in an evaluation. The endpoint makes the prompt, so the messages are saved."""

    chat_template = "the endpoint's"

    def apply_chat_template(self, messages: Messages, **_: Any) -> str:
        return json.dumps(messages, ensure_ascii=False)


def _asking(endpoint: Endpoint, concurrency: int, give_up: int) -> Callable[..., None]:
    """Return a replacement of ``engine.sampling.generate`` that asks the endpoint, several problems at a time."""

    def answers(prompt: str, sampling: SamplingSettings) -> list[Answer]:
        found = []
        for i in range(sampling.samples):
            try:
                found.append(endpoint.ask(json.loads(prompt), replace(sampling, seed=sampling.seed + i)))
            except RequestFailed as error:
                if error.fatal:
                    raise
                found.append(Answer("", 0, False, str(error)))
        return found

    def generate(_: Any, __: Any, prompts: list[str], sampling: SamplingSettings, *, on_batch: Any) -> None:
        todo: queue.SimpleQueue[int] = queue.SimpleQueue()
        done: queue.SimpleQueue[tuple[int, list[Answer] | Exception]] = queue.SimpleQueue()
        over, in_a_row = threading.Event(), 0
        for i in range(len(prompts)):
            todo.put(i)

        def work() -> None:
            while not over.is_set() and not todo.empty():
                try:
                    i = todo.get_nowait()
                except queue.Empty:
                    return
                try:
                    done.put((i, answers(prompts[i], sampling)))
                except Exception as error:  # the main thread raises it
                    done.put((i, error))

        for _number in range(min(concurrency, len(prompts))):
            # A daemon thread does not keep the process alive while one of its requests hangs.
            threading.Thread(target=work, daemon=True).start()
        try:
            for _number in range(len(prompts)):
                i, result = done.get()
                if isinstance(result, RequestFailed):
                    raise MachineError(f"{result}{_kept()}") from result
                if isinstance(result, Exception):
                    raise result
                on_batch({i: result})
                in_a_row = in_a_row + 1 if all(answer.error for answer in result) else 0
                if in_a_row >= give_up:
                    raise MachineError(
                        f"{in_a_row} requests in a row failed, the last one: {result[0].error}{_kept()}"
                    )
        finally:
            over.set()

    return generate


def _kept() -> str:
    return "; the answers so far are kept, and the same command goes on from there"


def _base_url(address: str) -> str:
    parts = urlsplit(address.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(
            f"{address!r} is not the address of an endpoint: give http://HOST:PORT, or sagemaker:NAME"
        )
    url = address.strip().rstrip("/").removesuffix("/chat/completions")
    return url if parts.path.strip("/") else f"{url}/v1"


def _line(what: Any) -> str:
    """Return the beginning of an error or an answer, on one line."""
    text = " ".join(str(what).split())
    return text if len(text) <= 160 else text[:159] + "…"
