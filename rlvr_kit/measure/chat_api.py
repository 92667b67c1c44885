"""One question to an OpenAI-style chat API: what is sent, and which of the many things that come back is an answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rlvr_kit.errors import UserError
from rlvr_kit.sampling_settings import SamplingSettings, cut_at_stop

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Answer:
    """What came back for one problem, in the form that an evaluation takes. ``error``: why nothing came back.

    ``by`` is the name under which the server says that it answered; "" where it says none.
    """

    text: str
    tokens: int
    truncated: bool
    error: str = ""
    by: str = ""


class RequestFailed(UserError):
    """A request has no usable answer. ``fatal``: neither will any other have one (wrong address, no rights)."""

    def __init__(self, reason: str, fatal: bool = False) -> None:
        super().__init__(reason)
        self.fatal = fatal


@dataclass(frozen=True)
class Endpoint:
    """An address, the name under which it serves a model, and a function that asks it one thing.

    ``ask(messages, sampling)`` returns an Answer or raises RequestFailed, after retries of its own.
    """

    address: str
    model: str
    ask: Callable[[Messages, SamplingSettings], Answer]


def request_body(messages: Messages, sampling: SamplingSettings) -> dict[str, Any]:
    """The fields of a chat completion request, other than the name of the model."""
    body = {"messages": messages, "temperature": sampling.temperature, "max_tokens": sampling.max_new_tokens}
    if sampling.temperature:
        body |= {"top_p": sampling.top_p, "seed": sampling.seed}
    return body | ({"stop": list(sampling.stop)} if sampling.stop else {})


def read_reply(reply: Any, sampling: SamplingSettings) -> Answer:
    """The answer in a chat completion. Raises RequestFailed, with how it begins, for anything else (HTML, say)."""
    try:
        (choice,) = reply["choices"]
        content, finish = choice["message"]["content"], choice["finish_reason"]
        usage, by = reply.get("usage"), reply.get("model")
    except (TypeError, KeyError, ValueError, AttributeError):
        content, finish = False, None
    if content is None:  # a call of a tool, a refusal, or reasoning that never came to its end
        raise RequestFailed(f"the endpoint's answer holds no text (finish_reason {one_line(finish)})")
    if not isinstance(content, str):
        raise RequestFailed(f"the endpoint answered something that is no chat completion: {one_line(reply)}")
    # JSON can carry half a surrogate pair, which no file of text can hold.
    text, stopped = cut_at_stop(content.encode("utf-8", "replace").decode("utf-8"), sampling.stop)
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else 0
    tokens = tokens if isinstance(tokens, int) and 0 <= tokens < 2**31 else 0
    return Answer(text, tokens, finish == "length" and not stopped, by=by if isinstance(by, str) else "")


def one_line(what: Any) -> str:
    """The beginning of an error or an answer, on one line; what no terminal should be sent becomes a question mark."""
    text = "".join(c if c.isprintable() else "?" for c in " ".join(str(what).split()))
    return text if len(text) <= 160 else text[:159] + "…"
