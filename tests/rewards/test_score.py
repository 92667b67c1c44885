"""Scoring JSON lines: the same rows with verdicts, bad rows by line number, and fast."""

import io
import json
import subprocess
import sys
import time

import pytest

from rlvr_kit import UserError
from rlvr_kit.paths import PROJECT
from rlvr_kit.rewards.score import score_file, score_lines


def score(*lines: str) -> tuple[int, list[dict], str]:
    out, err = io.StringIO(), io.StringIO()
    code = score_lines(lines, out, err)
    return code, [json.loads(line) for line in out.getvalue().splitlines()], err.getvalue()


def row(**fields) -> str:
    return json.dumps(fields) + "\n"


def test_rows_come_back_with_their_verdicts_and_all_else():
    code, (right, lenient), summary = score(
        row(completion="9 * 2 = 18\n#### $18", gold="18", id=7, note={"a": [1]}),
        row(completion="It is 18.", gold="18"),
    )
    assert code == 0
    assert right == {
        "completion": "9 * 2 = 18\n#### $18", "gold": "18", "id": 7, "note": {"a": [1]}, "format_ok": True,
        "correct": True, "lenient_correct": True, "extracted": "18", "why": "right number: 18",
    }  # fmt: skip
    assert (lenient["format_ok"], lenient["correct"], lenient["lenient_correct"]) == (False, False, True)
    correct = summary.splitlines()[0]
    assert correct.split()[:2] == ["correct", "50.0%"] and "n=2" in correct and "95 %" in correct


@pytest.mark.parametrize(
    "fields",
    [{"gold": "1,080"}, {"gold": 1080}, {"gold": 1080.0}, {"answer": "1080"}, {"answer": "2*540\n#### 1,080"},
     {"gold": "1080", "answer": "not looked at"}],
)  # fmt: skip
def test_the_gold_may_be_a_number_a_text_or_a_worked_solution(fields):
    code, rows, _ = score(row(completion="It is.\n#### 1080", **fields))
    assert code == 0 and rows[0]["correct"]


@pytest.mark.parametrize(
    "line, problem",
    [
        ("{", "property name"),
        ("18", "must be a JSON object"),
        ('{"gold": "18"}', "'completion'"),
        ('{"completion": 18, "gold": "18"}', "'completion'"),
        ('{"completion": "x"}', "'gold'"),
        ('{"completion": "x", "gold": null}', "'gold'"),
        ('{"completion": "x", "gold": true}', "'gold'"),
        ('{"completion": "x", "gold": "eighteen"}', "'eighteen' is not one plain number"),
        ('{"completion": "x", "answer": "9*2\\n#### 18 eggs"}', "must end with a line"),
        ("[" * 100_000, "recursion"),
        ('{"completion": "x", "gold": ' + "1" * 5000 + "}", "digits"),
        ("\x00", "Expecting value"),
    ],
    ids=lambda value: value[:40],
)
def test_a_bad_row_is_named_by_its_line_and_the_rest_go_on(line, problem):
    good = row(completion="It is.\n#### 18", gold="18")
    code, rows, report = score(good, "\n", line + "\n", good)
    assert code == 1 and len(rows) == 2
    assert report.startswith("line 3: ") and problem in report.splitlines()[0]
    assert "2 rows judged, 1 could not be" in report


def test_nothing_to_judge_is_no_success():
    assert score()[0] == 1
    assert "0 rows judged" in score("\n")[2]


def test_hostile_text_goes_through_as_ascii():
    text = "\ud800\u202e\x00\u2028\n#### 18"
    code, (verdict,), _ = score(row(completion=text, gold="18"))
    assert code == 0 and verdict["completion"] == text


def test_a_file_of_any_bytes_is_read_to_its_end(tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    good = row(completion="It is.\n#### 18", gold="18").encode()
    file.write_bytes(
        b"\xef\xbb\xbf" + good + b'{"completion": "\xff\\n#### 18", "gold": "18"}\n' + b"\xff\n" + good
    )
    assert score_file(str(file)) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3 and out.isascii()
    assert err.startswith("line 3: ") and "3 rows judged, 1 could not be" in err


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_a_file_that_cannot_be_read_is_one_clear_line(name, tmp_path):
    with pytest.raises(UserError, match=f"cannot read .*{name}: "):
        score_file(str(tmp_path / name))


def test_stdin_is_read_for_a_dash():
    code = "from rlvr_kit.rewards.score import score_file; raise SystemExit(score_file('-'))"
    rows = row(completion="It is.\n#### 18", gold="18") * 2
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, input=rows, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.count('"correct": true') == 2


def test_a_hundred_thousand_rows_in_five_seconds():
    work = "She sells 16 - 3 - 4 = 9 eggs a day, for $2 each.\nThat makes 9 * 2 = $18 every day.\n"
    ends = ["#### 18", "#### $18.00.", "The answer is 18 dollars.", "#### 18\n#### 18"]
    lines = [row(completion=work + end, gold="18") for end in ends] * 5_000

    def seconds() -> float:
        start = time.process_time()
        assert score_lines(lines, io.StringIO(), io.StringIO()) == 0
        return time.process_time() - start

    assert min(seconds() for _ in range(3)) < 1.0  # they are a fifth of the hundred thousand
