"""What a type checker makes of the public functions, as users with mypy --strict see it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fastconv

api = pytest.importorskip("mypy.api")

# Each line that reveals a type says which one.
RIGHT = """
from typing import Any
import numpy as np
from numpy.typing import NDArray
from fastconv import conv1d, conv2d, conv2d_grad, conv2d_grad_input, global_max_pool3d, max_pool2d

x = np.ones((2, 3, 5, 7), np.float32)
w = np.ones((4, 3, 3, 2), np.float32)
bias = np.ones(4, np.float32)
line, volume = np.ones((2, 3, 5)), np.ones((2, 3, 5, 4, 6))
options: dict[str, Any] = {"stride": 1}
reveal_type(conv2d(x, w, bias, padding="same", activation="relu"))  # array
reveal_type(conv2d(x, w, stride=(1, 2), layout="NHWC", algorithm="direct", out=x))  # array
reveal_type(conv2d(x, w, **options))  # Any
reveal_type(conv1d(line, line, padding=((1, 2),), layout="NWC"))  # array
reveal_type(conv2d_grad_input(x, w, [2, 3, 5, 7]))  # array
reveal_type(conv2d_grad(x, x, w, needs=["bias"], out=(None, None, bias))[0])  # array | None
reveal_type(max_pool2d(x, 2))  # array
reveal_type(max_pool2d(x, 2, return_indices=True))  # tuple
reveal_type(global_max_pool3d(volume, return_indices=True))  # tuple

def pool(x: NDArray[np.float64], indices: bool) -> None:
    reveal_type(max_pool2d(x, 2, ceil_mode=True, return_indices=indices))  # array | tuple
"""

WRONG = (
    'conv2d(x, w, layout="NCW")',
    'conv2d(x, w, algorithm="fastest")',
    'conv2d(x, w, precision="fp8")',
    'conv2d(x, w, activation="gelu")',
    "conv2d(x, w, strid=2)",
    'conv2d_grad_input(x, w, x.shape, activation="relu")',
    "conv2d([[1.0]], w)",
    'max_pool2d(x, 2, return_indices="yes")',
)


def mypy(code: str, folder: Path) -> list[str]:
    """What mypy says about each line: [line number and message]."""
    file = folder / "example.py"
    file.write_text(code)
    cache = folder / "cache"
    settings = ["--strict", "--no-error-summary", "--hide-error-context", f"--cache-dir={cache}"]
    output, errors, _ = api.run([*settings, "--config-file=", str(file)])
    assert not errors
    return [line.split(":", 1)[1] for line in output.splitlines()]


def spelled(text: str) -> str:
    """The message with "array" for each array's type, and "tuple" for one with a tuple's."""
    text = re.sub(r"tuple\[(int|Any)(, (int|Any|\.\.\.))*\]", "shape", text)
    while "numpy.ndarray[" in text:
        text = re.sub(r"(numpy\.[\w.]+)\[[^\[\]]*\]", r"\1", text)
    return text.replace("numpy.ndarray", "array").replace("tuple[array, Any]", "tuple")


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package that is tested is the one that mypy reads."""
    monkeypatch.setenv("MYPYPATH", str(Path(fastconv.__file__).parents[1]))


@pytest.mark.usefixtures("found")
def test_types(tmp_path: Path) -> None:
    lines = mypy(RIGHT, tmp_path)
    wanted = {
        number: comment
        for number, line in enumerate(RIGHT.splitlines(), 1)
        if "reveal_type" in line
        for comment in [line.rpartition("# ")[2]]
    }
    assert len(lines) == len(wanted), lines
    for line, (number, kind) in zip(lines, wanted.items(), strict=True):
        place, _, text = line.partition(" note: ")
        assert place == f"{number}:", line
        assert spelled(text) == f'Revealed type is "{kind}"', text


@pytest.mark.usefixtures("found")
def test_wrong_calls_are_errors(tmp_path: Path) -> None:
    head = RIGHT.partition("options:")[0]
    lines = [line for line in mypy(head + "\n".join(WRONG), tmp_path) if "error:" in line]
    first = head.count("\n") + 1
    assert {int(line.split(":")[0]) for line in lines} == set(range(first, first + len(WRONG)))
