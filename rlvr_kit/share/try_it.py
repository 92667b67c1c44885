"""Ask a model a question: an answer that arrives token by token and can be stopped, and a text box for JupyterLab."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rlvr_kit.sampling_settings import SamplingSettings, cut_at_stop
from rlvr_kit.tasks.prompts import Template
from rlvr_kit.tasks.task import NUMBERS, Task

if TYPE_CHECKING:
    from ipywidgets import VBox


def stream_answer(
    model: Any,
    tokenizer: Any,
    prompt: str,
    sampling: SamplingSettings,
    stopped: Callable[[], bool] | None = None,
) -> Iterator[str]:
    """Yield the greedy answer so far after each token. It ends early when ``stopped()`` returns true.

    >>> for text in stream_answer(model, tokenizer, prompt, sampling):  # doctest: +SKIP
    ...     print(text, end="\\r")
    """
    tokens = _Tokens()
    inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).to(model.device)

    def write() -> None:
        try:
            model.generate(**inputs, streamer=tokens, do_sample=False, max_new_tokens=sampling.max_new_tokens)
        except _Stopped:
            pass
        finally:
            tokens.end()  # also after an error, so that the reader does not wait for ever

    writer, written = threading.Thread(target=write, daemon=True), list[int]()
    writer.start()
    try:
        while (new := tokens.queue.get()) is not None and not (stopped and stopped()):
            written += new
            text, at_stop = cut_at_stop(tokenizer.decode(written, skip_special_tokens=True), sampling.stop)
            yield text
            if at_stop:
                return
    finally:
        tokens.over.set()
        writer.join()


class _Stopped(Exception):
    """The reader of the answer has stopped reading."""


class _Tokens:
    """Takes the tokens from ``generate`` one by one; the streamer of transformers waits for the end of each word."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[list[int] | None] = queue.SimpleQueue()
        self.over, self.is_prompt = threading.Event(), True

    def put(self, ids: Any) -> None:
        if self.over.is_set():
            raise _Stopped
        if not self.is_prompt:
            self.queue.put(ids.flatten().tolist())
        self.is_prompt = False

    def end(self) -> None:
        self.queue.put(None)


def question_box(
    models: dict[str, Any],
    tokenizer: Any,
    template: Template,
    sampling: SamplingSettings,
    task: Task = NUMBERS,
) -> "VBox":
    """Make a box to type a question into. The named ``models`` answer one after another; Stop ends an answer.

    When the right answer is typed in as well, `task` judges each answer.

    >>> question_box({"base": base, "tuned": tuned}, tokenizer, template, recipe.sampling)  # doctest: +SKIP
    """
    import ipywidgets

    question = ipywidgets.Textarea(placeholder="A question", layout={"width": "60em"})
    gold = ipywidgets.Text(placeholder="The right answer, if you know it")
    ask, stop = ipywidgets.Button(description="Ask"), ipywidgets.Button(description="Stop")
    answers = {name: ipywidgets.Textarea(description=name, layout={"width": "60em"}) for name in models}
    verdicts = {name: ipywidgets.Label() for name in models}
    over = threading.Event()

    def run() -> None:
        try:
            for name, model in models.items():
                prompt = template.render(tokenizer, question.value)
                for text in stream_answer(model, tokenizer, prompt, sampling, over.is_set):
                    answers[name].value = text
                verdict = task.verify(answers[name].value, gold.value).why if gold.value.strip() else ""
                verdicts[name].value = "stopped" if over.is_set() else verdict
        except Exception as error:  # nobody would see an error that a thread raises
            verdicts[name].value = f"{type(error).__name__}: {error}"
        finally:
            ask.disabled = False

    def on_ask(_: Any) -> None:
        over.clear()
        ask.disabled = True
        for box in (*answers.values(), *verdicts.values()):
            box.value = ""
        threading.Thread(target=run, daemon=True).start()  # so that Stop works while an answer is written

    ask.on_click(on_ask)
    stop.on_click(lambda _: over.set())
    rows = [widget for name in models for widget in (answers[name], verdicts[name])]
    return ipywidgets.VBox([question, gold, ipywidgets.HBox([ask, stop]), *rows])
