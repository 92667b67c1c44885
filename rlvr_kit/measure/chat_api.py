"""One request to an OpenAI-style chat API: what is sent, and whether the reply is an answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rlvr_kit.errors import UserError
from rlvr_kit.sampling_settings import SamplingSettings, cut_at_stop

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Answer:
    """The answer to one problem, in the form that an evaluation takes. ``error`` says why there is none.

    ``by`` is the model's name in the server's reply, or "" when the reply has none.
    """

    text: str
    tokens: int
    truncated: bool
    error: str = ""
    by: str = ""


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
        (choice,) = reply["choices"]
        content, finish = choice["message"]["content"], choice["finish_reason"]
        usage, by = reply.get("usage"), reply.get("model")
    except (TypeError, KeyError, ValueError, AttributeError):
        content, finish = False, None
    if content is None:  # a tool call, a refusal, or reasoning that was cut off
        raise RequestFailed(f"the endpoint's answer holds no text (finish_reason {one_line(finish)})")
    if not isinstance(content, str):
        raise RequestFailed(f"the endpoint did not answer with a chat completion: {one_line(reply)}")
    # JSON can hold half a surrogate pair, which cannot be written to a text file.
    text, stopped = cut_at_stop(content.encode("utf-8", "replace").decode("utf-8"), sampling.stop)
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else 0
    tokens = tokens if isinstance(tokens, int) and 0 <= tokens < 2**31 else 0
    return Answer(text, tokens, finish == "length" and not stopped, by=by if isinstance(by, str) else "")


def one_line(what: Any) -> str:
    """Return the beginning of an error or an answer on one line, with "?" for each unprintable character."""
    text = "".join(c if c.isprintable() else "?" for c in " ".join(str(what).split()))
    return text if len(text) <= 160 else text[:159] + "…"
