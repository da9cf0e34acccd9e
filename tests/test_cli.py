"""The command line itself: usage, `fastconv info`, and what is loaded when."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastconv
from fastconv import models
from fastconv.commands import main as cli
from fastconv.commands import train


def test_choices_are_what_is_there() -> None:
    assert set(train.COMPARED) < set(cli.MODELS) < set(models.NAMES)
    assert tuple(train.SOURCES) == cli.DATA
    assert tuple(train.DEFAULT_LR) == cli.OPTIMIZERS


@pytest.mark.parametrize(
    "args",
    [
        ["--epochs", "0"],
        ["--epochs", "two"],
        ["--lr", "nan"],
        ["--lr", "-1"],
        ["--seed", "-1"],
        ["--data", "imagenet"],
        ["--compare", "--model", "mlp"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["train", *args])
    assert caught.value.code == 2
    assert args[0] in capsys.readouterr().err


def test_info(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mnist").mkdir()
    monkeypatch.setenv("FASTCONV_DATA", str(tmp_path))
    assert cli.main(["info"]) == 0
    output = capsys.readouterr().out
    assert fastconv.__version__ in output
    assert re.search(r"^  matplotlib +\d+\.", output, re.MULTILINE)
    assert re.search(rf"^  mnist +\$FASTCONV_DATA, {tmp_path}/mnist$", output, re.MULTILINE)
    monkeypatch.setenv("FASTCONV_DATA", str(tmp_path / "none"))
    assert cli.main(["info"]) == 0
    assert "none is not a folder" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"fastconv {fastconv.__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom fastconv.commands.main import main\n"
        "try: main(['train', '--help'])\nexcept SystemExit: print(*sys.modules)"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    loaded = output.splitlines()[-1].split()
    assert "fastconv._core" in loaded
    heavy = {"matplotlib", "rich", "pooch", "safetensors", "PIL", "fastconv.nn", "fastconv.data"}
    assert heavy.isdisjoint(loaded)


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "fastconv", "info"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")
