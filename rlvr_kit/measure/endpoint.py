"""A model behind an address, measured as a local one is: the same problems, prompt and verifier.

Any server that speaks the OpenAI chat API will do (transformers serve, vLLM, TGI, llama.cpp); a SageMaker endpoint is
asked by cloud/endpoint.py. The messages of the template are sent, and the server makes the prompt of them with the
model's own chat template. An exported model of the kit has one that writes the prompt of its training.
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

#: So many failed requests in a row end an evaluation: the endpoint is broken, not the problem.
GIVE_UP = 8
#: What to do about an answer that no other request will change.
ADVICE = {
    401: "; its key is read from RLVR_KIT_API_KEY",
    403: "; its key is read from RLVR_KIT_API_KEY",
    404: "; is that the address of its API, and --model the name of one of its models?",
}


def openai_endpoint(address: str, model: str, timeout: float = 60.0, retries: int = 5) -> Endpoint:
    """An OpenAI-compatible server. Busy or broken answers (408, 409, 429, 5xx) are asked again, at growing intervals.

    The key, where the server wants one, is the environment variable ``RLVR_KIT_API_KEY``: OpenAI's own variable is
    left alone, so that no such key is sent to another server.

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
        except (openai.OpenAIError, ValueError) as error:  # what calls itself JSON and is none
            raise RequestFailed(
                f"{url} answered something that is no chat completion: {one_line(error)}"
            ) from error
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

    A request that fails for good counts as a wrong answer; the row's ``error`` says why, and the summary's ``failed``
    how many they are. With ``out`` the rows are kept as they come: the same call goes on after an interruption, and
    asks again what failed. A finished evaluation is made anew, since another model may be served there by now.

    Raises:
        UserError: the endpoint cannot be reached, refuses, or fails 8 times in a row; what was answered is kept.

    >>> evaluate_endpoint(load_recipe("cpu"), openai_endpoint(url, "model"), label="served")  # doctest: +SKIP
    """
    template, problems = recipe.template(shots), recipe.test_problems()
    sampling = sampling or recipe.sampling
    if sampling.top_k:
        raise InputError("an OpenAI-compatible endpoint takes no top_k: leave it at 0")
    if out and _is_finished(out, label):
        # Is anyone there? What is known is forgotten only after an answer.
        endpoint.ask(template.messages(problems["question"][0]), replace(sampling, stop=tuple(template.stop)))
        for kind in ("json", "parquet"):
            (out.path / "evals" / f"{label}.{kind}").unlink()
    others: list[str] = []  # under which other names it answers
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
    """Stands where an evaluation has a tokenizer: the endpoint makes the prompt, so what is kept are the messages."""

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
    """A stand-in for ``engine.sampling.generate`` that asks the endpoint, several problems at a time.

    What the endpoint calls its model, where that is not the name that was asked for, is added to ``others``.
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
                except Exception as error:  # handed to the caller, whatever it is
                    done.put((i, error))

        for _number in range(
            min(concurrency, len(prompts))
        ):  # daemons: a request that hangs keeps nobody here
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
    return "; what was answered is kept, and the same command goes on from there"


def _base_url(address: str) -> str:
    address = address.strip()
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, or half an IPv6 address
        usable = False
    if not usable or len(address.split()) != 1:
        raise InputError(
            f"{address!r} is no address of an endpoint: give http://HOST:PORT, or sagemaker:NAME"
        )
    if parts.username or parts.query or parts.fragment:  # it would be kept with the results
        raise InputError(
            "the address of an endpoint holds no user, question mark or #: its key goes into RLVR_KIT_API_KEY"
        )
    url = address.rstrip("/").removesuffix("/chat/completions")
    return url if parts.path.strip("/") else f"{url}/v1"
