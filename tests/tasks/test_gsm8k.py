"""GSM8K: where it is read from, what is refused, and the real rows where they are at hand."""

import json
import os
import re
import time
from pathlib import Path

import pytest
from datasets import Dataset

from rlvr_kit import UserError
from rlvr_kit.tasks import gsm8k
from rlvr_kit.tasks.gsm8k import load_folder, load_gsm8k
from rlvr_kit.tasks.verifier import verify

GOOD = {"question": "What is 1,000+80?", "answer": "It is 1000+80=<<1000+80=1080>>1,080\n#### 1,080"}
REAL = os.environ.get("RLVR_KIT_GSM8K")
real = pytest.mark.skipif(not REAL, reason="RLVR_KIT_GSM8K names no folder with the real GSM8K")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No data from the environment, no network, an empty Hub cache."""
    for variable in gsm8k.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def write(folder: Path, split: str, rows: list) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    folder.mkdir(exist_ok=True)
    (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that passes for GSM8K: two rows to train on, one to test on."""
    monkeypatch.setattr(gsm8k, "SPLIT_SIZES", {"train": 2, "test": 1})
    folder = write(tmp_path / "small", "train", [GOOD, {**GOOD, "question": "And 80+1,000?"}])
    return write(folder, "test", [{"question": "What is 5-8?", "answer": "5-8=<<5-8=-3>>-3\n#### -3"}])


def test_a_folder_gives_rows_with_their_gold(small: Path) -> None:
    train = load_gsm8k("train", small)
    assert train.column_names == ["question", "answer", "gold"]
    assert train[0] == {**GOOD, "gold": "1080"}
    assert load_gsm8k("test", str(small))["gold"] == ["-3"]


@pytest.mark.parametrize("name", ["{}.parquet", "main/{}-00000-of-00001.parquet"])
def test_parquet_gives_the_same_rows(small: Path, tmp_path: Path, name: str) -> None:
    for split in ("train", "test"):
        file = tmp_path / "parquet" / name.format(split)
        file.parent.mkdir(parents=True, exist_ok=True)
        load_folder(small, split).remove_columns("gold").to_parquet(file)
        assert load_folder(tmp_path / "parquet", split).to_list() == load_folder(small, split).to_list()
    assert load_gsm8k("train", tmp_path / "parquet").to_list() == load_gsm8k("train", small).to_list()


@pytest.mark.parametrize("variable", gsm8k.VARIABLES)
def test_auto_reads_the_folder_of_the_environment(
    small: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(small))
    assert gsm8k.gsm8k_folder() == small
    assert load_gsm8k("train")["gold"] == ["1080", "1080"]


def test_a_relative_folder_starts_at_the_project(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlvr_kit.paths.PROJECT", small.parent)
    monkeypatch.chdir("/")
    assert len(load_gsm8k("train", "small")) == 2


def test_a_variable_that_names_a_wrong_folder_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLVR_KIT_GSM8K", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="train.jsonl.*nowhere"):
        load_gsm8k("test")


@pytest.mark.parametrize(
    ("bad", "where"),
    [
        ('{"question": "Half a li', r"line 2 is not valid JSON"),
        ("", r"line 2 is not valid JSON"),
        ("[1, 2]", r"row 2 needs the texts"),
        ({"question": "No answer?"}, r"row 2 needs the texts"),
        ({"question": 5, "answer": "#### 5"}, r"row 2 needs the texts"),
        ({"question": "How many?", "answer": None}, r"row 2 needs the texts"),
        ({"question": "How many?", "answer": "many\n#### many"}, r"row 2: .*#### many"),
        ({"question": "How many?", "answer": "It is 5."}, r"row 2: .*It is 5"),
    ],
)
def test_a_bad_row_is_named_with_its_file_and_line(small: Path, bad: object, where: str) -> None:
    write(small, "train", [GOOD, bad, GOOD])
    with pytest.raises(UserError, match=rf"train\.jsonl, {where}"):
        load_gsm8k("train", small)
    with pytest.raises(UserError, match=rf"train\.jsonl, {where}"):
        load_folder(small, "train")


def test_a_line_that_is_not_utf8_is_named(small: Path) -> None:
    (small / "test.jsonl").write_bytes(b'{"question": "caf\xe9?", "answer": "#### 1"}\n')
    with pytest.raises(UserError, match=r"test\.jsonl, line 1"):
        load_folder(small, "test")


def test_line_separators_inside_a_text_do_not_split_the_row(small: Path) -> None:
    row = {"question": "One\u2028two\x85three?", "answer": "#### 3"}
    (small / "test.jsonl").write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    assert load_folder(small, "test")["question"] == [row["question"]]


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_file_is_named(small: Path, split: str) -> None:
    (small / f"{split}.jsonl").unlink()
    with pytest.raises(UserError, match=rf"{split}\.jsonl.*{re.escape(str(small))}"):
        load_gsm8k("test", small)


def test_a_broken_parquet_file_is_named(small: Path) -> None:
    (small / "train.jsonl").unlink()
    (small / "train.parquet").write_bytes(b"PAR1 no, not really")
    with pytest.raises(UserError, match=r"train\.parquet cannot be read"):
        load_gsm8k("test", small)


def test_a_wrong_number_of_rows_is_refused_but_only_for_gsm8k(small: Path) -> None:
    write(small, "train", [GOOD])
    with pytest.raises(UserError, match=r"train\.jsonl has 1 rows.*2"):
        load_gsm8k("test", small)
    assert len(load_folder(small, "train")) == 1


def test_a_question_in_both_splits_is_refused(small: Path) -> None:
    write(small, "test", [{**GOOD, "question": " what is  1,000+80?"}])
    with pytest.raises(UserError, match=r"both splits.*1,000\+80"):
        load_gsm8k("train", small)


def test_an_unknown_split_is_refused(small: Path) -> None:
    with pytest.raises(UserError, match="'validation'"):
        load_gsm8k("validation", small)  # type: ignore[arg-type]


def test_without_data_both_ways_to_get_it_are_named() -> None:
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        load_gsm8k("train")
    assert time.monotonic() - start < 2, "offline must fail at once"
    message = str(caught.value)
    assert "\n" not in message
    for part in ("RLVR_KIT_GSM8K", "train.jsonl", "test.jsonl", "Hub", "HF_HUB_OFFLINE"):
        assert part in message


def test_an_unreachable_hub_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    start = time.monotonic()
    with pytest.raises(UserError, match="no answer from the Hub"):
        load_gsm8k("train", "hub")
    assert time.monotonic() - start < 15


def test_the_hubs_copy_is_read_from_its_cache_without_a_network(small: Path, tmp_path: Path) -> None:
    cached = tmp_path / "hub" / "datasets--openai--gsm8k" / "snapshots" / gsm8k.REVISION / "main"
    cached.mkdir(parents=True)
    for split in ("train", "test"):
        rows = load_folder(small, split).remove_columns("gold")
        Dataset.to_parquet(rows, cached / f"{split}-00000-of-00001.parquet")
    assert load_gsm8k("test")["gold"] == ["-3"]


@real
@pytest.mark.parametrize(("split", "rows"), [("train", 7473), ("test", 1319)])
def test_the_real_rows(split: str, rows: int) -> None:
    data = load_gsm8k(split, REAL)
    assert len(data) == len(set(data["question"])) == rows
    for answer, gold in zip(data["answer"], data["gold"], strict=True):
        solution = re.sub("<<.*?>>", "", answer)
        assert verify(solution, gold).correct, solution


@real
def test_the_real_golds_with_commas_and_signs() -> None:
    data = load_gsm8k("train", REAL)
    last_lines = [answer.splitlines()[-1] for answer in data["answer"]]
    assert sum("," in line for line in last_lines) == 79
    assert sum(gold.startswith("-") for gold in data["gold"]) == 3
    assert not any("," in gold for gold in data["gold"])


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_file_is_named(split, tmp_path):
    row = '{"question": "1+1?", "answer": "It is 2.\\n#### 2"}\n'
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text("" if name == split else row)
    with pytest.raises(UserError, match=rf"{split}\.jsonl holds no rows"):
        load_folder(tmp_path, split)
