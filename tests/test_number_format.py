"""bfloat16 is taken where it was measured to be clearly faster, and the measurement is kept where that is possible."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from rlvr_kit import number_format
from rlvr_kit.number_format import pick_dtype, product_speeds

on_a_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's number format is not timed")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.setenv("RLVR_KIT_CACHE", str(tmp_path / "cache"))
    product_speeds.cache_clear()
    yield tmp_path / "cache"
    product_speeds.cache_clear()


@on_a_cpu
@pytest.mark.parametrize(
    ("bfloat16", "expected"), [(430.0, torch.bfloat16), (140.0, torch.float32), (2.5, torch.float32)]
)
def test_auto_takes_bfloat16_only_where_it_is_clearly_faster(
    bfloat16: float, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        number_format, "product_speeds", lambda *shape: {"float32": 107.0, "bfloat16": bfloat16}
    )
    assert pick_dtype() == expected
    assert (pick_dtype("float32"), pick_dtype("bfloat16")) == (torch.float32, torch.bfloat16)
    assert pick_dtype(config=LlamaConfig(hidden_size=32, intermediate_size=64)) == torch.float32


def test_the_speeds_are_timed_once_and_read_by_the_next_process(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, speeds = torch.get_num_threads(), product_speeds()
    assert min(speeds.values()) > 0 and torch.get_num_threads() == threads
    [kept] = json.loads((cache / "product_speeds.json").read_text()).values()
    assert kept == speeds
    product_speeds.cache_clear()  # as a process that starts later
    monkeypatch.setattr(torch.nn.functional, "linear", lambda *_: pytest.fail("timed again"))
    assert product_speeds() == speeds
    with pytest.raises(pytest.fail.Exception):  # other sizes are another measurement
        product_speeds(64, 64)


@pytest.mark.parametrize("text", ["", "[]", '{"half a', '{"this machine": 3}', '{"x": {"float32": "fast"}}'])
def test_a_damaged_cache_is_measured_again(text: str, cache: Path) -> None:
    cache.mkdir()
    (cache / "product_speeds.json").write_text(text)
    speeds = product_speeds()
    assert speeds in json.loads((cache / "product_speeds.json").read_text()).values()


def test_a_cache_that_cannot_be_written_is_no_error(cache: Path) -> None:
    cache.write_text("a file in the way")
    assert min(product_speeds().values()) > 0
