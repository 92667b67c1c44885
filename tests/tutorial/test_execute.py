"""Fixture notebooks executed headlessly: one run that ends well, one for each way to fail."""

import json
import re
import sys

import boto3
import nbformat
import papermill
import pytest
from bs4 import BeautifulSoup
from moto import mock_aws
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from rlvr_kit import UserError
from rlvr_kit.measure.wording import NEXT_STEPS, TITLES
from rlvr_kit.paths import PROJECT
from rlvr_kit.tutorial.execute import run_notebooks
from rlvr_kit.tutorial.report import build_report, headline_text

PARAMETERS = 'RECIPE = "cpu"\nRUN_DIR = "runs/tutorial"\nSEED = 0'
EVALUATE = """\
import time
import pandas as pd
from rlvr_kit.measure.evaluation import summarize
from rlvr_kit.run_folder import Run
for label, solved in {"base": 4, "tuned": TUNED}.items():
    rows = pd.DataFrame({"problem": range(40), "sample": 0, "gold": "1", "extracted": "1"})
    rows["question"], rows["truncated"] = rows.problem.astype(str), False
    rows["correct"] = rows["lenient_correct"] = rows["format_ok"] = rows.problem < solved
    Run(RUN_DIR).save_evaluation(label, rows, summarize(rows))
for step in range(3):
    Run(RUN_DIR).append_log({"step": step, "reward": 0.1 * step, "seconds": step, "completions": 8 * step})
Run(RUN_DIR).write_summary({"peak_memory_gib": 1.25, "best_step": 3})
time.sleep(0.2)
"""
PICTURE = """\
import matplotlib.pyplot as plt
from tqdm.auto import tqdm
list(tqdm(range(3)))
plt.plot([1, 2])
plt.show()
"""
PROSE = r"""
## Advantage

Each reward against its group, $\hat A_i = \frac{r_i - \bar r}{\sigma}$, or

$$\mathcal L = -\frac{1}{G}\sum_{i=1}^{G} \min(\rho_i \hat A_i, \operatorname{clip}(\rho_i) \hat A_i)$$

It costs `$5` in code, and $\notmath{$ is no formula. See [training](02_train.ipynb#Advantage) and [the paper](https://example.org/paper).
"""


def write_notebook(path, *cells, kernel="python3"):
    cells = [new_markdown_cell("# " + path.stem), new_code_cell(PARAMETERS), *cells]
    cells[1].metadata.tags = ["parameters"]
    for i, cell in enumerate(cells):
        cell.id = f"c{i:02}"
    spec = {"name": kernel, "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": spec}), path)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two notebooks that went well: (run folder, what was printed)."""
    folder = tmp_path_factory.mktemp("tutorial")
    hello = "import sys, os\nprint('prefix', sys.prefix)\nprint('cwd', os.getcwd(), RECIPE, SEED)"
    first = write_notebook(
        folder / "01_first.ipynb", new_markdown_cell(PROSE), new_code_cell(PICTURE), new_code_cell(hello)
    )
    evaluate = new_code_cell(EVALUATE.replace("TUNED", "24"))
    second = write_notebook(folder / "02_train.ipynb", new_markdown_cell("## Advantage"), evaluate)
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda *words, sep=" ": lines.extend(sep.join(words).splitlines()))
        patch.setattr("rlvr_kit.tutorial.execute.SHOWN_EVERY", 0.02)
        patch.setattr("rlvr_kit.tutorial.execute.tqdm.write", lambda line, file: lines.append(line))
        report = run_notebooks("smoke", folder / "runs" / "one", seed=7, notebooks=[first, second])
    assert report == folder / "runs" / "one" / "report.html"
    return report.parent, lines


def test_summary_is_exactly_what_the_evaluations_say(finished):
    run, _ = finished
    summary = json.loads((run / "headline.json").read_text())
    minutes, costs = summary.pop("minutes"), summary.pop("notebooks")
    assert 0 <= minutes < 2 and summary.pop("best_step") == 3
    assert all(cost["name"] and 0 <= cost["minutes"] < 2 for cost in costs) and len(costs) == 2
    assert summary["mcnemar_p"] == pytest.approx(2 * 0.5**20)  # twenty problems gained, none lost
    for side, share in {"base": 0.1, "tuned": 0.6}.items():
        low, high = summary[side].pop("strict_ci")
        assert low < share < high
        assert summary[side] == {"n": 40, "strict": share, "lenient": share, "format": share, "truncated": 0}
    assert summary.keys() == {
        "subject", "recipe", "model", "data", "peak_memory_gib", "base", "tuned", "mcnemar_p"
    }  # fmt: skip
    assert (summary["recipe"], summary["model"], summary["data"]) == ("smoke", "tiny-random", "word_problems")
    # Of all processes, not only of training, whose own summary is left as it was.
    assert summary["peak_memory_gib"] == max(cost["peak_memory_gib"] for cost in costs) > 0.05
    assert json.loads((run / "summary.json").read_text()) == {"peak_memory_gib": 1.25, "best_step": 3}


def test_seconds_of_the_cells_are_left_for_the_page_of_timings(finished):
    run, _ = finished
    timings = json.loads((run / "timings.json").read_text())
    assert timings["recipe"] == "smoke" and timings["machine"]["cores"]
    assert [notebook["name"] for notebook in timings["notebooks"]] == ["01_first", "02_train"]
    assert timings["notebooks"][1]["longest"] >= 0.2  # one of its cells sleeps as long


def test_last_lines_are_the_figures_and_the_report(finished):
    run, lines = finished
    summary = json.loads((run / "headline.json").read_text())
    assert lines[-1].endswith(str(run / "report.html"))
    assert set(headline_text(summary)) < set(lines)
    assert any(line.startswith(f"{TITLES['gain']} A significant gain") for line in lines)
    assert lines[-2] == NEXT_STEPS["gain"]


def test_training_inside_a_cell_is_shown_as_it_goes(finished):
    _, lines = finished
    assert "  training: step 2, reward 0.20" in lines


def test_latest_points_at_the_run(finished):
    run, _ = finished
    assert (run.parent / "latest").resolve() == run


def test_cells_run_in_this_environment_with_the_parameters(finished):
    run, _ = finished
    copy = nbformat.read(run / "notebooks" / "01_first.ipynb", as_version=4)
    printed = "".join(out.text for out in copy.cells[-1].outputs)
    assert f"prefix {sys.prefix}\n" in printed
    assert f"cwd {PROJECT} smoke 7" in printed


def test_report_shows_the_figures_of_the_summary_first(finished):
    run, _ = finished
    page = BeautifulSoup((run / "report.html").read_text(), "html.parser")
    table = page.main.find("table").get_text(" ")
    assert "Of 40 test problems" in table
    for side in json.loads((run / "headline.json").read_text()).values():
        if isinstance(side, dict):
            low, high = side["strict_ci"]
            assert f"{side['strict']:.1%} ({low:.1%} to {high:.1%})" in table
    assert page.main.find("img", src=True).find_next(
        "section"
    )  # the training curves stand before all notebooks
    assert page.main.find(class_="headline").get_text().startswith("A significant gain: 60.0% against 10.0%")


def test_report_shows_each_parameter_once_and_names_no_folder_of_this_machine(finished):
    run, _ = finished
    text = (run / "report.html").read_text()
    [cell] = BeautifulSoup(text, "html.parser").find(id="01_first").find_all(string="RECIPE")[:-1]
    assert 'RECIPE = "smoke"' in cell.find_parent("pre").get_text()
    assert str(run) not in text


def test_report_shows_a_stream_as_a_terminal_does(tmp_path, figures):
    texts = ["answer: ", "Sam|has\n", "50%\r", "100%\n"]
    outputs = [new_output("stream", name="stdout", text=text) for text in texts]
    nbformat.write(new_notebook(cells=[new_code_cell("1", outputs=outputs)]), tmp_path / "stream.ipynb")
    page = BeautifulSoup(build_report([tmp_path / "stream.ipynb"], figures, ""), "html.parser")
    [shown] = page.find_all(class_="output_stdout")
    assert shown.get_text().split() == ["answer:", "Sam|has", "100%"]


def test_report_compares_with_the_base_that_had_room_where_it_was_measured(tmp_path):
    measured = EVALUATE.replace("TUNED", "24").replace('"base": 4,', '"base": 4, "base-uncut": 8,')
    notebook = write_notebook(tmp_path / "room.ipynb", new_code_cell(measured))
    report = run_notebooks("smoke", tmp_path / "run", notebooks=[notebook])
    page = BeautifulSoup(report.read_text(), "html.parser")
    assert [cell.get_text() for cell in page.find("thead").find_all("th")][1:] == [
        "Base", "Base, four times the room", "Tuned",
    ]  # fmt: skip
    assert "four times the room to answer: a significant gain: 60.0% against 20.0%" in page.main.get_text()
    assert "So the gain is not brevity alone." in page.main.get_text()


def test_report_loads_nothing_from_elsewhere(finished):
    run, _ = finished
    text = (run / "report.html").read_text()
    page = BeautifulSoup(text, "html.parser")
    loads = [tag for tag in page.find_all(src=True) if not tag["src"].startswith("data:")]
    assert not loads + page.find_all(["link", "object", "iframe", "base"])
    assert not re.search(r"url\((?!data:)|@import|cdnjs|unpkg|requirejs|MathJax", text)
    assert page.find("img")["src"].startswith("data:image/png;base64,")


def test_report_draws_formulas_without_javascript(finished):
    run, _ = finished
    page = BeautifulSoup((run / "report.html").read_text(), "html.parser")
    inline, block = page.find_all("math")
    assert inline["display"] == "inline" and block["display"] == "block"
    assert {"$5", r"$\notmath{$"} <= {code.get_text() for code in page.find_all("code")}
    assert "widget" not in page.main.get_text()


def test_report_links_lead_somewhere(finished):
    run, _ = finished
    page = BeautifulSoup((run / "report.html").read_text(), "html.parser")
    ids = [tag["id"] for tag in page.find_all(id=True)]
    inside = [link["href"][1:] for link in page.find_all("a") if link["href"].startswith("#")]
    assert len(ids) == len(set(ids))
    assert set(inside) <= set(ids)
    assert "02_train--Advantage" in inside and "01_first--Advantage" in ids
    assert page.nav.get_text().count("Advantage") == 2


FAILURES = {
    "a cell raises": (
        new_code_cell("raise ValueError('bad luck')"),
        "python3",
        r"broken\.ipynb failed at cell c03, .*bad luck.*ValueError: bad luck .*notebooks/broken\.ipynb",
    ),
    "a cell ends the kernel": (
        new_code_cell("import os; os._exit(9)"),
        "python3",
        r"broken\.ipynb failed at cell c03, .*kernel was killed, most often because memory ran out",
    ),
    "there is no such kernel": (new_code_cell("1"), "klingon", r"broken\.ipynb could not start: .*klingon"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_failure_names_notebook_cell_and_error(failure, tmp_path):
    cell, kernel, message = FAILURES[failure]
    cells = [new_code_cell("print('so far')"), cell, new_code_cell("print('never')")]
    notebook = write_notebook(tmp_path / "broken.ipynb", *cells, kernel=kernel)
    with pytest.raises(UserError, match=message) as caught:
        run_notebooks("smoke", tmp_path / "run", notebooks=[notebook, tmp_path / "never.ipynb"])
    assert len(str(caught.value).splitlines()) == 1
    partial = (tmp_path / "run" / "notebooks" / "broken.ipynb").read_text()
    assert ('"so far' in partial) == (kernel == "python3") and '"never' not in partial
    assert not (tmp_path / "run" / "report.html").exists() and not (tmp_path / "latest").is_symlink()


def test_notebook_that_is_not_one(tmp_path):
    (tmp_path / "torn.ipynb").write_text('{"cells": [')
    with pytest.raises(UserError, match=r"torn\.ipynb could not start"):
        run_notebooks("smoke", tmp_path / "run", notebooks=[tmp_path / "torn.ipynb"])


@pytest.mark.parametrize("there", ["notebooks", "log.jsonl", "summary.json", "headline.json"])
def test_folder_of_another_run_is_refused_untouched(there, tmp_path):
    (tmp_path / there).mkdir()
    with pytest.raises(UserError, match=f"holds another run .{there}"):
        run_notebooks("smoke", tmp_path, notebooks=[])
    assert [path.name for path in tmp_path.iterdir()] == [there]


def test_unknown_recipe_leaves_nothing_behind(tmp_path):
    with pytest.raises(UserError, match="smok"):
        run_notebooks("smok", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("solved,outcome", [(24, "gain"), (4, "no difference"), (0, "no difference")])
def test_report_is_titled_by_what_the_run_did(solved, outcome, tmp_path):
    notebook = write_notebook(tmp_path / "same.ipynb", new_code_cell(EVALUATE.replace("TUNED", str(solved))))
    report = run_notebooks("smoke", tmp_path / "run", notebooks=[notebook])
    page = BeautifulSoup(report.read_text(), "html.parser")
    assert page.h1.get_text() == TITLES[outcome]
    assert [kind for kind, words in NEXT_STEPS.items() if words in page.main.get_text()] == [outcome]


def test_report_of_a_loss_says_so(tmp_path):
    better_before = EVALUATE.replace('"base": 4, "tuned": TUNED', '"base": 24, "tuned": 4')
    notebook = write_notebook(tmp_path / "worse.ipynb", new_code_cell(better_before))
    page = BeautifulSoup(
        run_notebooks("smoke", tmp_path / "run", notebooks=[notebook]).read_text(), "html.parser"
    )
    assert page.h1.get_text() == TITLES["loss"] and page.find(class_="headline loss")


@mock_aws
def test_plain_papermill_reads_and_writes_s3(tmp_path):
    bucket = boto3.resource("s3").create_bucket(Bucket="tutorial")
    notebook = write_notebook(tmp_path / "plain.ipynb", new_code_cell("print('seed', SEED)"))
    bucket.upload_file(str(notebook), "plain.ipynb")
    papermill.execute_notebook("s3://tutorial/plain.ipynb", "s3://tutorial/out.ipynb", {"SEED": 5})
    assert b"seed 5" in bucket.Object("out.ipynb").get()["Body"].read()


def test_ctrl_c_is_one_line_that_says_what_is_kept(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    notebook = write_notebook(tmp_path / "slow.ipynb", new_code_cell("1"))
    monkeypatch.setattr(papermill, "execute_notebook", interrupted)
    with pytest.raises(UserError, match=r"stopped in slow\.ipynb, .*run/notebooks keeps") as caught:
        run_notebooks("smoke", tmp_path / "run", notebooks=[notebook])
    assert caught.value.exit_code == 130
