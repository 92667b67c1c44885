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
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rlvr_kit.errors import InputError, MachineError, UserError
from rlvr_kit.measure.chat_api import (
    Answer,
    Endpoint,
    Messages,
    RequestFailed,
    one_line,
    read_reply,
    request_body,
)
from rlvr_kit.measure.evaluation import Evaluation, evaluate
from rlvr_kit.run_folder import Run
from rlvr_kit.sampling_settings import SamplingSettings

if TYPE_CHECKING:
    from rlvr_kit.recipe import Recipe

#: After so many failed requests in a row the evaluation stops: the cause is the endpoint, not the problems.
GIVE_UP = 8
#: What to do about an answer that no other request will change, by its HTTP status.
ADVICE = {
    401: "; its key is read from RLVR_KIT_API_KEY",
    403: "; its key is read from RLVR_KIT_API_KEY",
    404: "; is that the address of its API, and --model the name of one of its models?",
}


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
    url, key = _base_url(address), os.environ.get("RLVR_KIT_API_KEY", "").strip() or "none"
    if not (key.isascii() and key.isprintable()):  # the client's own error would show it
        raise InputError("RLVR_KIT_API_KEY holds a character that no key can have: copy the key again")
    local = urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
    client = openai.OpenAI(
        base_url=url, api_key=key, timeout=timeout, max_retries=retries,
        http_client=openai.DefaultHttpxClient(trust_env=not local),  # no proxy between this machine and itself
    )  # fmt: skip

    def ask(messages: Messages, sampling: SamplingSettings) -> Answer:
        try:
            reply: Any = client.chat.completions.create(model=model, **request_body(messages, sampling))
        except openai.APITimeoutError as error:
            raise RequestFailed(f"no answer within {timeout:g} s") from error
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            nobody = type(cause).__name__ == "ConnectError"  # of whichever HTTP library the client uses
            what = "cannot be reached" if nobody else "broke off the connection"
            raise RequestFailed(f"{url} {what}: {one_line(cause)}", fatal=nobody) from error
        except openai.APIStatusError as error:
            status, wait = error.status_code, error.response.headers.get("retry-after")
            told = f"{url} answered {status}: {one_line(error.response.text)}{ADVICE.get(status, '')}"
            told += f" (Retry-After: {one_line(wait)})" if wait else ""
            raise RequestFailed(told, fatal=status in ADVICE) from error
        except (openai.OpenAIError, ValueError) as error:  # the answer is labelled JSON, but is not JSON
            raise RequestFailed(f"{url} did not answer with a chat completion: {one_line(error)}") from error
        return read_reply(
            reply.model_dump(warnings=False) if hasattr(reply, "model_dump") else reply, sampling
        )

    return Endpoint(url, model, ask)


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
    if out and _is_finished(out, label):
        # Does the endpoint answer at all? Known answers are deleted only after it has.
        endpoint.ask(template.messages(problems["question"][0]), replace(sampling, stop=tuple(template.stop)))
        for kind in ("json", "parquet"):
            (out.path / "evals" / f"{label}.{kind}").unlink()
    others: list[str] = []  # other names under which the endpoint answers
    files = sorted(Path(endpoint.model).glob("*.safetensors"))
    saved = [endpoint.address, endpoint.model, *(file.stat().st_mtime for file in files)]
    return evaluate(
        SimpleNamespace(name_or_path=endpoint.model, saved=saved, parameters=list), _AsMessages(), problems, template,
        label=label, sampling=sampling, out=out, any_shots=shots is not None,
        generate=_asking(endpoint, concurrency, min(GIVE_UP, len(problems)), others),
        about={
            "model": endpoint.model, "endpoint": endpoint.address, "data": recipe.task, "answered_as": others,
        },
        task=recipe.loaded_task,
    )  # fmt: skip


class _AsMessages:
    """Takes the place of a tokenizer in an evaluation. The endpoint makes the prompt, so the messages are saved."""

    chat_template = "the endpoint's"

    def apply_chat_template(self, messages: Messages, **_: Any) -> str:
        return json.dumps(messages, ensure_ascii=False)


def _is_finished(out: Run, label: str) -> bool:
    """Whether the run holds this evaluation with an answer to every request."""
    try:
        return not out.evaluation(label)[1].get("failed")
    except UserError:
        return False


def _asking(endpoint: Endpoint, concurrency: int, give_up: int, others: list[str]) -> Callable[..., None]:
    """Return a replacement of ``engine.sampling.generate`` that asks the endpoint, several problems at a time.

    When the endpoint calls its model by another name than the one that was asked for, that name goes to ``others``.
    """

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
                names = {
                    answer.by.removesuffix("@main") for answer in result
                }  # transformers serve's revision
                others.extend(names - {"", endpoint.model, *others})
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
    address = address.strip()
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, or half an IPv6 address
        usable = False
    if not usable or len(address.split()) != 1:
        raise InputError(
            f"{address!r} is not the address of an endpoint: give http://HOST:PORT, or sagemaker:NAME"
        )
    if parts.username or parts.query or parts.fragment:  # it would be kept with the results
        raise InputError(
            "the address of an endpoint holds no user, question mark or #: its key goes into RLVR_KIT_API_KEY"
        )
    url = address.rstrip("/").removesuffix("/chat/completions")
    return url if parts.path.strip("/") else f"{url}/v1"
