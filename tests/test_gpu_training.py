"""The same training on the CPU and on CUDA kernels: losses step by step."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import device_arrays
from backends import Arrays, backend, emulator
from fastconv import data, models, nn, optim
from fastconv._backend import gpu

__all__ = ["backend"]

STEPS, BATCH = 20, 4

# Both round in float32, in orders of their own; the losses are around 2. SGD, because a rule that
# divides by a running mean square turns the rounding of gradients near zero into whole steps.
BOUND = 1e-5


class Losses(nn.Callback):
    """The loss of every single step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_batch_end(self, epoch: int, step: int, metrics: dict[str, float]) -> None:
        mean = metrics["loss"]
        self.values.append(mean * (step + 1) - sum(self.values))


def losses(device: str) -> list[float]:
    """Train the MNIST net from one seed for some steps."""
    (x, y), _ = data.mnist_sample()
    chosen = np.random.default_rng(1).permutation(len(x))[: STEPS * BATCH]
    model: Any = models.mnist_convnet(rng=0)
    for parameter in model.parameters():
        if parameter.data.ndim == 1:
            # Away from 0, where a black background would sit on the kink of ReLU: there Winograd's
            # rounding, 1e-9 in place of 0, decides whether a gradient passes.
            parameter.data += 0.1
    model.to(device)
    recorder = Losses()
    model.fit(
        x[chosen],
        y[chosen],
        epochs=1,
        batch_size=BATCH,
        optimizer=optim.SGD(0.01, momentum=0.9),
        loss=nn.SoftmaxCrossEntropy(),
        seed=0,
        callbacks=[recorder],
    )
    return recorder.values


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA backend with arrays that refuse NumPy's, and emulated kernels."""
    kernels = gpu.Kernels(
        emulator(), lambda: 0, np.empty, device_arrays.plain, lambda array: array.ctypes.data
    )
    monkeypatch.setitem(sys.modules, "cupy", device_arrays.namespace)
    monkeypatch.setattr(gpu, "kernels", lambda: kernels)


@pytest.fixture(scope="module")
def on_cpu() -> list[float]:
    """The losses on the CPU, whatever backend the tests then put in its place."""
    return losses("cpu")


def test_the_mnist_net_learns_alike(on_cpu: list[float], backend: Arrays) -> None:
    ours = losses("cuda" if backend.name == "cuda" else "cpu")
    assert len(ours) == STEPS
    differences = np.abs(np.subtract(ours, on_cpu))
    assert differences.max() <= BOUND, f"losses differ by {differences}"
    if backend.name == "cpu":
        assert ours == on_cpu
    assert np.mean(ours[-5:]) < np.mean(ours[:5])


@pytest.mark.usefixtures("stand_in")
def test_no_numpy_array_is_mixed_into_training_on_a_device(tmp_path: Path) -> None:
    (x, y), _ = data.mnist_sample()
    model = models.mnist_convnet(rng=0).to("cuda")
    history = model.fit(
        x[:6],
        y[:6],
        epochs=1,
        batch_size=4,
        optimizer=optim.Adam(1e-3),
        loss=nn.SoftmaxCrossEntropy(),
        validation_data=(x[10:12], y[10:12]),
        seed=0,
    )
    assert np.isfinite(history["loss"]).all()
    answer = model.predict(x[:2])
    assert type(answer) is np.ndarray
    model.save(tmp_path / "model.safetensors")
    model.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(model.predict(x[:2]), answer)
    model.to("cpu")
    assert all(type(state.data) is np.ndarray for state in model.state())
    np.testing.assert_allclose(model.predict(x[:2]), answer, atol=1e-5)
