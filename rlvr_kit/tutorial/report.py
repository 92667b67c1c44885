"""The report of a run of the notebooks: one HTML page that needs no network.

nbconvert turns each executed notebook into HTML. Pictures are embedded, formulas become MathML, and links between
notebooks become links within the page. The page around them is ``report.html.j2``. The page contains a model's
completions, so scripts and event handlers are removed from what the notebooks show; nothing in it needs them.
"""

import re
from base64 import b64encode
from html import escape
from pathlib import Path
from typing import Any

import nbformat
from bs4 import BeautifulSoup
from jinja2 import Environment, PackageLoader, pass_context
from latex2mathml.converter import convert
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter

from rlvr_kit.measure.signs import Outcome
from rlvr_kit.measure.statistics import share_text
from rlvr_kit.measure.wording import NEXT_STEPS, TITLES
from rlvr_kit.paths import PROJECT
from rlvr_kit.recipe import Recipe

WIDGET = "application/vnd.jupyter.widget-view+json"
#: HTML elements that run or load something by themselves.
ACTIVE = ["script", "iframe", "object", "embed", "base", "link", "meta", "form"]
SHARES = {
    "strict": "Correct, strict",
    "lenient": "Correct, lenient",
    "format": "Well-formed",
    "truncated": "Cut off",
}
#: Columns of the landing page, by evaluation; the second only where notebook 04 has made it.
MODELS = {"base": "Base", "base-uncut": "Base, four times the room", "tuned": "Tuned"}
#: An interval, which should not be broken into two lines.
INTERVAL = re.compile(r"([-+]?[\d.,]+%?) to ([-+]?[\d.,]+%?)")


def headline_text(headline: dict[str, Any]) -> list[str]:
    """Return the figures of headline.json as lines of text.

    >>> headline_text(headline)[1]  # doctest: +SKIP
    '  Correct, strict   5.0% (2.7% to 9.0%)        40.0% (33.5% to 46.9%)'
    """
    rows = [("", *_models(headline).values()), *_table(headline)]
    lines = ["  " + f"{name:<18}" + "".join(f"{cell:<27}" for cell in cells) for name, *cells in rows]
    told = [f"{headline['base']['n']} test problems, with 95 % intervals:", *map(str.rstrip, lines)]
    return [*told, _costs(headline)]


def subject(recipe: Recipe) -> str:
    """Return which model was trained on what.

    >>> subject(load_recipe("cpu"))  # doctest: +SKIP
    'SmolLM2-135M-Instruct on one-step word problems'
    """
    models = {"bundled": "SmolLM2-135M-Instruct", "tiny-random": "A tiny random model"}
    problems = "one-step word problems" if recipe.data.max_steps == 1 else "word problems"
    tasks = {"word_problems": problems, "gsm8k": "GSM8K"}
    return f"{models.get(recipe.model.name, recipe.model.name)} on {tasks.get(recipe.task, recipe.task)}"


def build_report(
    copies: list[Path],
    headline: dict[str, Any],
    conclusion: str,
    curves: Path | None = None,
    result: Outcome | None = None,
) -> str:
    """Return an HTML page: the figures of `headline`, the picture `curves` (a PNG) and the executed notebooks `copies`.

    `conclusion` is the sentence at the top; `result` chooses its title, its colour and the advice below it.

    >>> build_report(copies, headline, "No evidence of a difference.")[:15]  # doctest: +SKIP
    '<!DOCTYPE html>'
    """
    page = Environment(loader=PackageLoader("rlvr_kit.tutorial", "."), autoescape=True).get_template(
        "report.html.j2"
    )
    return page.render(
        headline=headline,
        conclusion=conclusion,
        title=TITLES[result] if result else "What came out",
        next_step=NEXT_STEPS[result] if result else "",
        look=result.replace(" ", "-") if result else "",
        models=list(_models(headline).values()),
        table=_table(headline),
        costs=_costs(headline),
        curves=b64encode(curves.read_bytes()).decode() if curves else None,
        sections=[_section(copy) for copy in copies],
        code_css=HtmlFormatter().get_style_defs(".highlight"),
    )


def _models(headline: dict[str, Any]) -> dict[str, str]:
    return {key: name for key, name in MODELS.items() if key in headline}


def _table(headline: dict[str, Any]) -> list[tuple[str, ...]]:
    sides = [headline[key] for key in _models(headline)]
    return [(name, *(share_text(side[key], side["n"]) for side in sides)) for key, name in SHARES.items()]


def _costs(headline: dict[str, Any]) -> str:
    largest = max(headline["notebooks"], key=lambda cost: cost["peak_memory_gib"])
    text = f"All notebooks: {headline['minutes']} minutes. Most memory, over all processes: "
    text += f"{largest['peak_memory_gib']:.1f} GiB, in {largest['name']}."
    best = headline["best_step"]
    return (
        text
        if best is None
        else f"{text} The tuned model is that of training step {best}, the best on held-out problems."
    )


def _section(copy: Path) -> dict[str, Any]:
    """Return one notebook as a section of the page, with unique ids and with nothing that runs."""
    notebook = nbformat.read(copy, as_version=4)
    notebook.metadata.pop("widgets", None)  # a widget is drawn by JavaScript that comes from a CDN
    _merge_parameters(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = _joined([out for out in cell.outputs if WIDGET not in out.get("data", {})])
    soup = BeautifulSoup(Fragment(template_name="basic").from_notebook_node(notebook)[0], "html.parser")
    for unwanted in (*soup.find_all("a", class_="anchor-link"), *soup.find_all(ACTIVE)):
        unwanted.decompose()
    for tag in soup.find_all(True):
        for name in [name for name in tag.attrs if name.startswith("on") or _is_script(tag[name])]:
            del tag[name]
    for tag in soup.find_all(id=re.compile("^(?!T_)")):  # T_ begins the ids that pandas' styles name
        tag["id"] = f"{copy.stem}--{tag['id']}"
    for link in soup.find_all("a", href=True):
        target, _, part = link["href"].partition("#")
        if not target or target.endswith(".ipynb"):
            link["href"] = f"#{Path(target or copy).stem}" + (f"--{part}" if part else "")
    _tidy_tables(soup)
    headings = [(heading["id"], heading.get_text()) for heading in soup.find_all("h2", id=True)]
    title = soup.h1.get_text() if soup.h1 else copy.stem
    body = _without_places(str(soup), copy.resolve().parent.parent)
    return {"id": copy.stem, "title": title, "headings": headings, "body": body}


def _merge_parameters(notebook: Any) -> None:
    """Leave one cell of parameters, with the values that were used: papermill puts those into a second one."""
    tagged = {tag: cell for cell in notebook.cells for tag in cell.metadata.get("tags", [])}
    if used := tagged.get("injected-parameters"):
        values = dict(line.split(" = ", 1) for line in used.source.splitlines() if " = " in line)
        first = tagged["parameters"]
        first.source = re.sub(
            r"^(\w+) = (.*?)(  #.*)?$",
            lambda line: f"{line[1]} = {values.get(line[1], line[2])}{line[3] or ''}",
            first.source,
            flags=re.MULTILINE,
        )
        notebook.cells.remove(used)


def _tidy_tables(soup: BeautifulSoup) -> None:
    """Keep intervals on one line, and put the name of a table's index beside its columns, not in a row of its own."""
    for text in soup.find_all(string=INTERVAL):
        if text.find_parent("td"):
            text.replace_with(INTERVAL.sub("\\1\u00a0to\u00a0\\2", text))
    for head in soup.select(".dataframe thead"):
        first, *others = head.find_all("tr")
        names = [[cell.get_text(strip=True) for cell in row.find_all("th")] for row in (first, *others)]
        if len(others) == 1 and not names[0][0] and not any(names[1][1:]):
            first.th.string = names[1][0]
            others[0].decompose()


def _joined(outputs: list[Any]) -> list[Any]:
    """Return the pieces of one stream as one text, without what a carriage return has overwritten."""
    joined: list[Any] = []
    for output in outputs:
        if joined and output.output_type == "stream" and joined[-1].get("name") == output.name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    for output in joined:
        if output.output_type == "stream":
            output.text = re.sub(r"[^\n]*\r(?!\n)", "", output.text)
    return joined


def _without_places(body: str, run: Path) -> str:
    """Name the run folder as seen from the project, or else by its name: the page goes to other machines."""
    name = run.relative_to(PROJECT) if run.is_relative_to(PROJECT) else run.name
    return body.replace(str(run), str(name)).replace(f"{PROJECT}/", "")


def _is_script(value: str | list[str]) -> bool:
    return "".join(value).strip().lower().startswith(("javascript:", "vbscript:", "data:text"))


class MathML(IPythonRenderer):
    """Markdown to HTML with formulas as MathML, which browsers draw without any script."""

    def inline_math(self, body: str, display: str = "inline") -> str:
        try:
            return convert(body, display=display)
        except Exception:  # text between two dollar signs is not always a formula
            return f"<code>${escape(body)}$</code>"

    def block_math(self, body: str) -> str:
        return f'<div class="formula">{self.inline_math(body, "block")}</div>'


class Fragment(HTMLExporter):
    """Makes a notebook's HTML, without the page around it."""

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        """Render Markdown as nbconvert does, but with formulas as MathML."""
        attachments = context.get("cell", {}).get("attachments", {})
        images = {"attachments": attachments, "embed_images": True, "path": str(PROJECT / "notebooks")}
        return MarkdownWithMath(renderer=MathML(escape=False, **images)).render(source)
