"""Long runs, many threads, interrupts and little memory leave networks and kernels as they were."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checks import assert_same_bits, run_python, same_bits
from fastconv import nn, optim


def network(seed: int = 0) -> nn.Sequential:
    """Every kind of layer that has kernels, for x (N, 3, 12, 10)."""
    body = nn.Sequential(
        nn.Conv2d(8, 8, 3, padding=1, bias=False, rng=seed + 1),
        nn.BatchNorm2d(8, activation="relu"),
        nn.Conv2d(8, 8, (1, 3), padding="same", groups=8, rng=seed + 2),
    )
    return nn.Sequential(
        nn.Conv2d(3, 8, (3, 2), stride=(1, 2), padding=1, activation="relu", rng=seed),
        nn.Residual(body),
        nn.MaxPool2d(2),
        nn.ConvTranspose2d(8, 6, 2, stride=2, rng=seed + 3),
        nn.AvgPool2d((2, 3), stride=1),
        nn.Dropout(0.2),
        nn.GlobalAvgPool2d(),
        nn.Flatten(),
        nn.Linear(6, 4, rng=seed + 4),
    )


def samples(seed: int = 0, count: int = 48) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, 3, 12, 10), np.float32), rng.integers(0, 4, count)


def fit(model: nn.Sequential, x: Any, y: Any, **options: Any) -> nn.History:
    settings: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 16,
        "optimizer": optim.Adam(1e-2),
        "loss": nn.SoftmaxCrossEntropy(),
        "seed": 3,
    }
    return model.fit(x, y, **(settings | options))


def state(model: nn.Sequential) -> list[Any]:
    return [s.data.copy() for s in model.state()]


def all_same(first: list[Any], second: list[Any]) -> bool:
    return all(same_bits(a, b) for a, b in zip(first, second, strict=True))


MIXED_CALLS = """
import gc, os, sys
import numpy as np
import fastconv
from fastconv import nn, optim
sys.path.insert(0, {tests!r})
from test_resilience import fit, network, samples

rng = np.random.default_rng(1)
x, y = samples(count=8)

def resident():
    gc.collect()
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

def refused(op, *args, **options):
    try:
        op(*args, **options)
    except (TypeError, ValueError):
        return
    raise AssertionError("expected an error")

def call(i):
    n, c, k = (int(v) for v in rng.integers(1, 9, 3))
    a = rng.standard_normal((n, c, *rng.integers(6, 30, 2)), np.float32)
    w = rng.standard_normal((k, c, *rng.integers(1, 5, 2)), np.float32)
    b = fastconv.conv2d(a, w, padding=2)
    fastconv.conv2d_grad(b, a, w, padding=2, algorithm=("auto", "im2col", "implicit")[i % 3])
    pooled, indices = fastconv.max_pool2d(a, 3, stride=2, return_indices=True)
    fastconv.max_pool2d_grad(pooled, indices, a.shape)
    fastconv.avg_pool2d_grad(fastconv.avg_pool2d(a, 2), a.shape, 2)
    fastconv.conv_transpose2d(b, w, stride=2)
    refused(fastconv.conv2d, a, w[:, :0], out=b)
    refused(fastconv.conv2d, a.tolist(), w)
    if i % 20 == 0:
        fit(network(), x, y, epochs=1, batch_size=4)

calls = 0
def make_calls(rounds):
    global calls
    for i in range(rounds):
        call(i)
        calls += 12

make_calls(170)
before = resident()
make_calls(840)
after = resident()
assert calls >= 12_000
print(f"{{before:.1f}} MiB after 2,000 calls, {{after:.1f}} MiB after 12,000")
assert after - before < 8, (before, after)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read in /proc")
def test_ten_thousand_calls_take_no_more_memory() -> None:
    print(run_python(MIXED_CALLS.format(tests=str(Path(__file__).parent))))


def test_eight_threads_train_at_once() -> None:
    """Each its own network, with the weights and losses that it has alone."""
    expected = []
    for i in range(8):
        model = network(i)
        expected.append((fit(model, *samples(i))["loss"], state(model)))
    found: list[Any] = [None] * 8

    def train(i: int) -> None:
        model = network(i)
        found[i] = (fit(model, *samples(i))["loss"], state(model))

    threads = [threading.Thread(target=train, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (losses, weights), (losses_alone, weights_alone) in zip(found, expected, strict=True):
        assert losses == losses_alone
        assert all_same(weights, weights_alone)


def test_eight_threads_predict_with_one_network_each_its_own_images() -> None:
    model = network().eval()
    x, _ = samples(count=64)
    expected = model.predict(x)
    found: list[Any] = [None] * 8

    def predict(i: int) -> None:
        found[i] = [model.predict(x[8 * i : 8 * i + 8]) for _ in range(20)]

    threads = [threading.Thread(target=predict, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, outputs in enumerate(found):
        for output in outputs:
            np.testing.assert_allclose(output, expected[8 * i : 8 * i + 8], rtol=1e-5, atol=1e-6)
            assert_same_bits(output, outputs[0])


def interrupted(run: Callable[[], Any], seconds: float) -> bool:
    """Whether SIGINT, sent after `seconds`, ended the run."""
    finished = threading.Event()

    def send() -> None:
        if not finished.wait(seconds):
            os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=send)
    try:
        sender.start()
        run()
        finished.set()
        sender.join()
        return False
    except KeyboardInterrupt:
        sender.join()
        return True


@pytest.mark.usefixtures("interruptible")
def test_interrupts_at_any_moment_leave_no_broken_state() -> None:
    x, y = samples(count=256)
    start = state(network())
    reference = network()
    started = time.perf_counter()
    fit(reference, x, y)
    whole = time.perf_counter() - started

    stopped = 0
    for moment in np.linspace(0.02, 0.9, 25):
        model = network()
        stopped += interrupted(partial(fit, model, x, y, epochs=1000), float(moment) * whole)
        assert model.training
        assert model.needs_input_grad
        assert all(layer._recycled is None and layer._saved is None for layer in model.walk())
        assert np.isfinite(model.evaluate(x, y)["loss"])
        for s, data in zip(model.state(), start, strict=True):
            s.data[...] = data
        fit(model, x, y)
        assert all_same(state(model), state(reference))
    assert stopped == 25


LITTLE_MEMORY = """
import resource, sys
import numpy as np
import fastconv
from fastconv import nn, optim
sys.path.insert(0, {tests!r})
from test_resilience import all_same, fit, network, samples, state

x, y = samples()
reference = network()
fit(reference, x, y)
w = np.ones((64, 64, 3, 3), np.float32)
large = np.broadcast_to(np.float32(1), (64, 64, 500, 501))
small = np.ones((1, 64, 9, 8), np.float32)
expected = fastconv.conv2d(small, w)
many = np.broadcast_to(x[:1], (200_000, 3, 12, 10))
model = network()
before = state(model)

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), resource.RLIM_INFINITY))

def no_memory(op, *args, **options):
    try:
        op(*args, **options)
    except MemoryError:
        return
    raise AssertionError("expected a MemoryError")

no_memory(fastconv.conv2d, large, w)
no_memory(fastconv.conv2d_grad_input, large[:, :, 2:, 2:], w, large.shape)
no_memory(fastconv.max_pool2d, large, 1, return_indices=True)
no_memory(fastconv.avg_pool2d, large, 1)
no_memory(nn.Linear, 100_000, 10_000)
no_memory(fit, model, many, np.zeros(len(many), int), batch_size=100_000)
assert all_same(state(model)[:1], before[:1])
assert model.training and model.needs_input_grad
assert np.array_equal(fastconv.conv2d(small, w), expected)
for s, data in zip(model.state(), before, strict=True):
    s.data[...] = data
fit(model, x, y)
assert all_same(state(model), state(reference))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read in /proc")
def test_out_of_memory_is_a_memory_error_and_nothing_worse() -> None:
    run_python(LITTLE_MEMORY.format(tests=str(Path(__file__).parent)))
