"""Arrays of other libraries, where these are installed: read in place through DLPack."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastconv
from cases import CONV_CASES
from checks import LAYOUTS, Layout, assert_same_bits, integer_problem, to
from fastconv._backend import dispatch

CASE = next(case for case in CONV_CASES if case.name == "all_at_once")
PROBLEM = integer_problem(CASE)


def library(name: str) -> Any:
    """The library, or a skip that names it."""
    return pytest.importorskip(name, reason=f"{name} is not installed")


def torch_tensor(a: Any) -> Any:
    return library("torch").from_numpy(a.copy())


def jax_array(a: Any) -> Any:
    return library("jax.numpy").asarray(a)


def strict_array(a: Any) -> Any:
    return library("array_api_strict").asarray(a.copy())


PRODUCERS: tuple[Callable[[Any], Any], ...] = (torch_tensor, jax_array, strict_array)
producer_ = pytest.mark.parametrize("produce", PRODUCERS, ids=lambda f: f.__name__)


@producer_
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_operand_may_come_from_another_library(
    produce: Callable[[Any], Any], layout: Layout
) -> None:
    """JAX arrays are read-only and float32, the others writable."""
    x, w, bias, dy = (
        produce(a.astype(np.float32))
        for a in (to(layout, PROBLEM.x), PROBLEM.w, PROBLEM.bias, to(layout, PROBLEM.dy))
    )
    keywords = {**CASE.geometry, "layout": layout}
    y = fastconv.conv2d(x, w, bias, **keywords)
    assert type(y) is np.ndarray
    np.testing.assert_array_equal(y, PROBLEM.exact("forward", layout))
    dx, dw, db = fastconv.conv2d_grad(dy, x, w, **keywords)
    np.testing.assert_array_equal(dx, PROBLEM.exact("input", layout))
    np.testing.assert_array_equal(dw, PROBLEM.exact("weight"))
    np.testing.assert_array_equal(db, fastconv.conv2d_grad_bias(np.asarray(dy), layout=layout))


@producer_
def test_pools_and_transposed_convolutions_take_them_too(produce: Callable[[Any], Any]) -> None:
    a = PROBLEM.x.astype(np.float32)
    x = produce(a)
    pooled, indices = fastconv.max_pool2d(x, (2, 3), return_indices=True)
    want = fastconv.max_pool2d(a, (2, 3), return_indices=True)
    assert_same_bits(pooled, want[0])
    assert_same_bits(indices, want[1])
    assert_same_bits(fastconv.avg_pool2d(x, (2, 3)), fastconv.avg_pool2d(a, (2, 3)))
    assert_same_bits(fastconv.global_avg_pool2d(x), fastconv.global_avg_pool2d(a))
    w = np.arange(4 * 3 * 2 * 3, dtype=np.float32).reshape(4, 3, 2, 3)
    up = fastconv.conv_transpose2d(x, produce(w), stride=2)
    assert_same_bits(up, fastconv.conv_transpose2d(a, w, stride=2))
    integers = produce(np.arange(48, dtype=np.int32).reshape(1, 2, 4, 6) % 7)
    largest: Any = fastconv.max_pool2d(integers, 2)
    assert largest.dtype == np.int32


@producer_
def test_nothing_is_copied(produce: Callable[[Any], Any]) -> None:
    x = produce(PROBLEM.x.astype(np.float32))
    _, (seen,) = dispatch.resolve("x", x)
    assert np.shares_memory(seen, np.from_dlpack(x))


def strided(t: Any) -> Any:
    """Every second row and a turn of the axes."""
    return t[:, :, ::2].transpose(2, 3)


def broadcast(t: Any) -> Any:
    """One image seen three times."""
    return t[:1].expand(3, *t.shape[1:])


@pytest.mark.parametrize("view", [strided, broadcast])
def test_views_of_tensors(view: Callable[[Any], Any]) -> None:
    t = view(library("torch").from_numpy(PROBLEM.x.astype(np.float32)))
    w = np.ones((2, t.shape[1], 2, 3), np.float32)
    full = np.ascontiguousarray(t.numpy())
    assert not t.is_contiguous()
    assert_same_bits(fastconv.conv2d(t, w), fastconv.conv2d(full, w))
    assert_same_bits(fastconv.avg_pool2d(t, 2), fastconv.avg_pool2d(full, 2))


VIEWS: dict[str, Callable[[Any], Any]] = {
    "reversed": lambda a: a[::-1, :, ::-1, ::-1],
    "broadcast": lambda a: np.broadcast_to(a[:1], a.shape),
    "transposed": lambda a: a.transpose(0, 1, 3, 2),
    "unaligned": lambda a: (
        np.concatenate([[0], a.view(np.uint8).ravel()])
        .astype(np.uint8)[1:]
        .view(np.float32)
        .reshape(a.shape)
    ),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_views_through_dlpack_alone(view: Callable[[Any], Any]) -> None:
    """Negative, zero and odd strides, which PyTorch does not have."""
    a = view(PROBLEM.x.astype(np.float32))
    x = library("array_api_strict").asarray(a, copy=False)
    w = np.ones((2, 4, 2, 3), np.float32)
    assert_same_bits(fastconv.conv2d(x, w), fastconv.conv2d(np.ascontiguousarray(a), w))
    assert_same_bits(fastconv.avg_pool2d(x, 2), fastconv.avg_pool2d(np.ascontiguousarray(a), 2))


def test_a_tensor_that_wants_gradients_is_refused_with_the_reason() -> None:
    t = library("torch").ones(1, 2, 3, 4, requires_grad=True)
    with pytest.raises(TypeError, match=r"x cannot be read through DLPack: .*grad"):
        fastconv.avg_pool2d(t, 2)


def test_types_that_numpy_does_not_have_are_refused() -> None:
    torch = library("torch")
    t = torch.ones(1, 2, 3, 4, dtype=torch.bfloat16)
    with pytest.raises(TypeError, match="x cannot be read through DLPack"):
        fastconv.avg_pool2d(t, 2)
