"""set_flush_denormal: what kernels make of denormal numbers, and whose threads it touches."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

import fastconv
from checks import assert_same_bits, refuses
from fastconv import ops

TINY = np.float32(1e-39)  # a denormal of float32, whose least normal number is 1.2e-38
ONE = np.float32(1)


@pytest.fixture(autouse=True)
def switch_off_again() -> Iterator[None]:
    """Each test begins and ends with the default."""
    assert not fastconv.get_flush_denormal()
    yield
    fastconv.set_flush_denormal(False)


def flush() -> None:
    """Switch it on, or skip the test where the CPU has no such mode."""
    if not fastconv.set_flush_denormal(True):
        pytest.skip("this CPU has no mode that flushes denormals")


def full(shape: tuple[int, ...], value: np.float32) -> Any:
    """An array of one value."""
    return np.full(shape, value, np.float32)


X, W = full((2, 16, 9, 8), TINY), full((16, 16, 3, 3), ONE)
DY = full((2, 16, 7, 6), TINY)
C = full((16,), ONE)


def forward(algorithm: Any) -> Any:
    """A convolution of denormals."""
    return fastconv.conv2d(X, W, algorithm=algorithm)


def grad_input(algorithm: Any) -> Any:
    """An input gradient of denormals."""
    return fastconv.conv2d_grad_input(DY, W, X.shape, algorithm=algorithm)


def grad_weight(algorithm: Any) -> Any:
    """A weight gradient of denormals."""
    return fastconv.conv2d_grad_weight(DY, full(X.shape, ONE), W.shape, algorithm=algorithm)


# Each takes denormals and gives what is not zero where they are not flushed.
CALLS: dict[str, Callable[[], Any]] = {
    **{
        f"{call.__name__}, {algorithm}": partial(call, algorithm)
        for call in (forward, grad_input, grad_weight)
        for algorithm in ("auto", "im2col", "implicit", "winograd", "direct")
    },
    "depthwise": lambda: fastconv.conv2d(X, W[:, :1], groups=16),
    "transposed": lambda: fastconv.conv_transpose2d(DY, W),
    "line": lambda: fastconv.conv1d(X[..., 0], W[..., 0]),
    "volume": lambda: fastconv.conv3d(X[:, :, None], W[:, :, None]),
    "average": lambda: fastconv.avg_pool2d(X, 2),
    "average's gradient": lambda: fastconv.avg_pool2d_grad(X, (2, 16, 18, 16), 2),
    "batch norm": lambda: ops.batch_norm(X, 0 * C, C, 0 * C),
    "product": lambda: ops.matmul(X[0, 0], full((8, 5), ONE)),
    "sum": lambda: ops.add(X, X),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_denormals_are_computed_with_unless_they_are_flushed(call: Callable[[], Any]) -> None:
    kept = call()
    assert (kept != 0).all()
    flush()
    np.testing.assert_array_equal(call(), np.zeros_like(kept))
    fastconv.set_flush_denormal(False)
    assert_same_bits(call(), kept)


def test_normal_numbers_are_what_they_were() -> None:
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal(X.shape, np.float32), rng.standard_normal(W.shape, np.float32)
    before = fastconv.conv2d(x, w)
    flush()
    assert_same_bits(fastconv.conv2d(x, w), before)


def computes_with_denormals() -> bool:
    """Whether this thread does: by NumPy's arithmetic."""
    return bool((X * ONE != 0).all() and (X + X != 0).all())


def test_the_calling_thread_has_its_own_mode_back() -> None:
    flush()
    assert computes_with_denormals()
    fastconv.conv2d(X, W)
    assert computes_with_denormals()


def test_the_calling_thread_has_its_own_mode_back_after_an_error() -> None:
    indices = np.full(DY.shape, 10**6)
    flush()
    with refuses(ValueError, "indices"):
        fastconv.max_pool2d_grad(DY, indices, X.shape)  # the kernel finds it
    assert computes_with_denormals()
    with refuses(ValueError, "workspace_limit"):
        fastconv.conv2d(X, W, algorithm="im2col", workspace_limit=1)
    assert computes_with_denormals()


def test_the_same_bits_on_any_number_of_threads() -> None:
    """Values on both sides of the least normal number."""
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((8, 32, 40, 40)) * 1e-38).astype(np.float32)
    w = rng.standard_normal((32, 32, 3, 3), np.float32)
    for wanted in (False, True, False):
        if wanted:
            flush()
        else:
            fastconv.set_flush_denormal(False)
        for algorithm in ("implicit", "winograd", "direct"):
            results = []
            for count in (1, 2, 3, 4):
                with fastconv.num_threads(count):
                    results.append(fastconv.conv2d(x, w, algorithm=algorithm))
            for result in results:
                assert_same_bits(result, results[0])


def test_it_holds_for_calls_of_every_thread() -> None:
    flush()
    zeros: list[bool] = []
    kept: list[bool] = []

    def work() -> None:
        zeros.append(not fastconv.conv2d(X, W).any())
        kept.append(computes_with_denormals())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert zeros == kept == [True] * 4


def test_a_thread_made_while_it_was_on_does_not_stay_so() -> None:
    """Threads begin with the mode of the one that makes them."""
    flush()
    with fastconv.num_threads(9):
        fastconv.conv2d(full((64, 16, 9, 8), TINY), W)
        fastconv.set_flush_denormal(False)
        assert (fastconv.conv2d(full((64, 16, 9, 8), TINY), W) != 0).all()


@pytest.mark.parametrize("mode", [1, None, "on", np.True_])
def test_the_mode_is_a_bool(mode: Any) -> None:
    with refuses(TypeError, "mode", type(mode).__name__):
        fastconv.set_flush_denormal(mode)


def test_show_config_tells(capsys: pytest.CaptureFixture[str]) -> None:
    fastconv.show_config()
    assert "denormals:   computed with" in capsys.readouterr().out
    flush()
    fastconv.show_config()
    assert "denormals:   flushed to zero" in capsys.readouterr().out
