"""The commands of sharing, as a person types them: one line on stderr for what that person can put right."""

import subprocess
import sys
from pathlib import Path

from rlvr_kit.paths import PROJECT


def rlvr(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "rlvr_kit", *map(str, arguments)]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)


def test_export_and_push_say_in_one_line_what_is_missing(tmp_path: Path) -> None:
    for arguments, said in (
        (["export", tmp_path / "none", "--out", tmp_path / "out"], "holds no recipe.yaml"),
        (["push", tmp_path, "me/model"], "is not an exported model"),
    ):
        result = rlvr(*arguments)
        assert result.returncode == 1 and said in result.stderr and "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_export_writes_a_folder_and_says_where(run, tmp_path: Path) -> None:
    result = rlvr("export", run.path, "--as", "adapter", "--out", tmp_path / "out")
    assert result.returncode == 0 and result.stderr.splitlines() == [f"exported: {tmp_path / 'out'}"]
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()
