"""Train and compute with what is installed beside this interpreter, and NumPy alone.

tools/check_wheel.py runs it in a new environment, away from the sources.
"""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import numpy as np

import fastconv
from fastconv import data, models, nn, optim


def check_environment() -> None:
    """fastconv is the installed one, and nothing but NumPy is there to lean on."""
    installed = {d.metadata["Name"] for d in importlib.metadata.distributions()}
    assert installed <= {"fastconv", "numpy", "pip", "setuptools"}, installed
    assert Path(fastconv.__file__).is_relative_to(sys.prefix), fastconv.__file__


def check_operators() -> None:
    """Forward and backward, exact on small integers."""
    x = np.arange(2 * 3 * 7 * 5, dtype=np.float32).reshape(2, 3, 7, 5)
    w = np.ones((4, 3, 3, 2), np.float32)
    y = fastconv.conv2d(x, w, stride=(2, 1))
    image = sum(x[:, :, r : r + 5 : 2, s : s + 4].sum(axis=1) for r in range(3) for s in range(2))
    assert np.array_equal(y, np.stack([image] * 4, axis=1))
    dy = np.ones_like(y)
    dx = fastconv.conv2d_grad_input(dy, w, x.shape, stride=(2, 1))
    assert dx.shape == x.shape
    assert dx.sum() == y.size * w[0].size
    dw = fastconv.conv2d_grad_weight(dy, x, w.shape, stride=(2, 1))
    assert dw.shape == w.shape
    assert (dw * w).sum() == y.sum()
    assert np.array_equal(fastconv.conv2d_grad_bias(dy), [24] * 4)
    pooled, indices = fastconv.max_pool2d(x, 2, return_indices=True)
    back = fastconv.max_pool2d_grad(pooled, indices, x.shape)
    assert back.sum() == pooled.sum()


def check_training() -> None:
    """One epoch on the embedded sample."""
    train, test = data.mnist_sample()
    model = models.mnist_convnet(rng=0)
    loss = nn.SoftmaxCrossEntropy()
    model.fit(*train, epochs=1, batch_size=64, optimizer=optim.Adam(), loss=loss, seed=0)
    accuracy = model.evaluate(*test)["accuracy"]
    assert accuracy > 0.8, accuracy


def check_command_line() -> None:
    """It starts, and says how to get what a command lacks."""

    def run(command: str) -> "subprocess.CompletedProcess[str]":
        line = [sys.executable, "-m", "fastconv", command]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    assert run("info").returncode == 0
    train = run("train")
    assert train.returncode == 1, train
    assert 'pip install "fastconv[train]"' in train.stderr, train.stderr


if __name__ == "__main__":
    check_environment()
    check_operators()
    check_training()
    check_command_line()
    fastconv.show_config()
