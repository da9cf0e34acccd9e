"""The helpers that the layers call: matmul, relu, relu_grad and column_sum of fastconv.ops."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest

from checks import DTYPES, Guarded, assert_close, refuses, same_bits
from fastconv import num_threads, ops

dtype_ = pytest.mark.parametrize("dtype", DTYPES)

SIZES = [  # m, k, n of (m, k) @ (k, n)
    (5, 7, 3),
    (1, 1, 1),
    (1, 67, 10),
    (64, 33, 1),
    (13, 1, 17),
    (65, 129, 31),
    (200, 300, 130),
    (3, 40, 1100),
    (0, 3, 4),
    (3, 4, 0),
    (4, 0, 3),
]


def integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Any:
    """Values whose sums of products are exact in float32."""
    return rng.integers(-4, 5, shape).astype(dtype)


def product(a: Any, b: Any) -> Any:
    """The matrix product without a BLAS."""
    return np.einsum("mk,kn->mn", a.astype(float), b.astype(float))


@pytest.mark.parametrize(("m", "k", "n"), SIZES)
@dtype_
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.usefixtures("threads")
def test_matmul(
    m: int,
    k: int,
    n: int,
    dtype: str,
    activation: Literal["relu"] | None,
    with_bias: bool,
    rng: np.random.Generator,
) -> None:
    a, b = integers(rng, (m, k), dtype), integers(rng, (k, n), dtype)
    bias = integers(rng, (n,), dtype) if with_bias else None
    out = Guarded((m, n), dtype)
    got = ops.matmul(a, b, bias, activation=activation, out=out.view)
    want = product(a, b) + (0 if bias is None else bias)
    assert got is out.view
    np.testing.assert_array_equal(got, np.maximum(want, 0) if activation else want)
    out.check()


@pytest.mark.parametrize("out_step", [1, 2])
@pytest.mark.parametrize("view_b", ["plain", "transposed", "stepped", "reversed", "broadcast"])
@pytest.mark.parametrize("view_a", ["plain", "transposed", "stepped", "reversed", "broadcast"])
def test_matmul_of_any_strides(
    view_a: str, view_b: str, out_step: int, rng: np.random.Generator
) -> None:
    def view(kind: str, rows: int, columns: int) -> Any:
        if kind == "transposed":
            return integers(rng, (columns, rows), "float32").T
        if kind == "stepped":
            return integers(rng, (2 * rows, 3 * columns), "float32")[::2, ::3]
        if kind == "reversed":
            return integers(rng, (rows, columns), "float32")[::-1, ::-1]
        if kind == "broadcast":
            return np.broadcast_to(integers(rng, (1, columns), "float32"), (rows, columns))
        return integers(rng, (rows, columns), "float32")

    a, b = view(view_a, 19, 23), view(view_b, 23, 37)
    out = Guarded((19, 37), "float32", step=out_step)
    ops.matmul(a, b, out=out.view)
    np.testing.assert_array_equal(out.view, product(a, b))
    out.check()


@dtype_
def test_matmul_error_on_random_data(dtype: str, rng: np.random.Generator) -> None:
    a, b = (
        rng.standard_normal((70, 333)).astype(dtype),
        rng.standard_normal((333, 45)).astype(dtype),
    )
    assert_close(ops.matmul(a, b), product(a, b), 1.0, 333)


@pytest.mark.parametrize(("m", "k", "n"), [(64, 576, 64), (1, 3000, 500), (500, 64, 1)])
def test_matmul_has_the_same_bits_on_any_number_of_threads(
    m: int, k: int, n: int, rng: np.random.Generator
) -> None:
    a, b = rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)
    results = []
    for count in (1, 2, 3, 4):
        with num_threads(count):
            results.append(ops.matmul(a, b))
    assert all(same_bits(result, results[0]) for result in results)


def test_matmul_with_nan_in_an_unwritten_output_is_not_read(rng: np.random.Generator) -> None:
    a, b = integers(rng, (4, 0), "float32"), integers(rng, (0, 3), "float32")
    out = np.full((4, 3), np.nan, np.float32)
    ops.matmul(a, b, np.array([1, -2, 3], np.float32), activation="relu", out=out)
    np.testing.assert_array_equal(out, [[1, 0, 3]] * 4)


@dtype_
@pytest.mark.parametrize("shape", [(3, 5), (0,), (2, 3, 5, 7), (200_001,)])
@pytest.mark.usefixtures("threads")
def test_relu_and_its_gradient(
    dtype: str, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    x, dy = integers(rng, shape, dtype), integers(rng, shape, dtype)
    y = ops.relu(x)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    assert y.dtype == dtype
    np.testing.assert_array_equal(ops.relu_grad(dy, y), np.where(y > 0, dy, 0))


def test_relu_passes_nan_on() -> None:
    y = ops.relu(np.array([np.nan, -1, 2, -np.inf, np.inf], np.float32))
    np.testing.assert_array_equal(y, [np.nan, 0, 2, 0, np.inf])


@pytest.mark.parametrize("order", [(0, 3, 1, 2), (3, 1, 0, 2)])
def test_elementwise_results_lie_as_their_operands(order: tuple[int, ...]) -> None:
    rng = np.random.default_rng(5)
    a, b = (rng.standard_normal((2, 3, 4, 5), np.float32).transpose(order) for _ in range(2))
    for y, expected in (
        (ops.relu(a), np.maximum(a, 0)),
        (ops.relu_grad(a, b), np.where(b > 0, a, 0)),
        (ops.add(a, np.ascontiguousarray(b), activation="relu"), np.maximum(a + b, 0)),
    ):
        np.testing.assert_array_equal(y, expected)
        assert y.strides == a.strides
    out = np.empty_like(a)
    assert ops.add(a, b, out=out) is out
    np.testing.assert_array_equal(out, a + b)
    plain = np.empty(a.shape, np.float32)
    assert ops.relu_grad(a, b, out=plain) is plain
    np.testing.assert_array_equal(plain, np.where(b > 0, a, 0))


def test_relu_gradient_is_zero_where_the_output_is_not_positive() -> None:
    y = np.array([0.0, -0.0, 1e-30, 3.0, 0.0], np.float32)
    dy = np.array([1, 2, 3, np.nan, np.nan], np.float32)
    np.testing.assert_array_equal(ops.relu_grad(dy, y), [0, 0, 3, np.nan, 0])


def test_relu_writes_in_place(rng: np.random.Generator) -> None:
    x, dy = integers(rng, (33, 7), "float32"), integers(rng, (33, 7), "float32")
    want, want_gradient = np.maximum(x, 0), np.where(x > 0, dy, 0)
    assert ops.relu(x, out=x) is x
    np.testing.assert_array_equal(x, want)
    assert ops.relu_grad(dy, x, out=dy) is dy
    np.testing.assert_array_equal(dy, want_gradient)


def test_relu_of_any_strides(rng: np.random.Generator) -> None:
    x = integers(rng, (6, 5, 4), "float32")[::-2].transpose(2, 0, 1)
    dy = integers(rng, (4, 3, 10), "float32")[..., ::2]
    y = ops.relu(x)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    np.testing.assert_array_equal(ops.relu_grad(dy, y), np.where(y > 0, dy, 0))


@dtype_
@pytest.mark.parametrize("shape", [(64, 10), (1, 7), (7, 1), (1000, 33), (0, 5), (5, 0)])
@pytest.mark.usefixtures("threads")
def test_column_sum(dtype: str, shape: tuple[int, int], rng: np.random.Generator) -> None:
    a = integers(rng, shape, dtype)
    out = Guarded(shape[1:], dtype)
    got = ops.column_sum(a, out=out.view)
    assert got is out.view
    np.testing.assert_array_equal(got, a.sum(axis=0))
    out.check()


def test_column_sum_of_any_strides(rng: np.random.Generator) -> None:
    a = integers(rng, (30, 44), "float32")
    for view in (a.T, a[::-3, ::2], np.broadcast_to(a[0], (9, 44))):
        np.testing.assert_array_equal(ops.column_sum(view), view.sum(axis=0))


A, B = np.ones((3, 4), np.float32), np.ones((4, 5), np.float32)
TANH: Any = "tanh"


@pytest.mark.parametrize(
    ("call", "kind", "parts"),
    [
        (lambda: ops.matmul(A, A), ValueError, ("(3, 4)",)),
        (lambda: ops.matmul(A[0], B), ValueError, ("a", "(4,)")),
        (lambda: ops.matmul(A, B[None]), ValueError, ("b", "(1, 4, 5)")),
        (lambda: ops.matmul(A, B.astype(float)), TypeError, ("b", "float64", "float32")),
        (lambda: ops.matmul(A.astype(int), B), TypeError, ("a", "int64", "float32")),
        (lambda: ops.matmul(A, B, A[0]), ValueError, ("bias", "(4,)", "(5,)")),
        (lambda: ops.matmul(A, B, activation=TANH), ValueError, ("activation", "tanh", "relu")),
        (lambda: ops.matmul(A, B, out=A), ValueError, ("out",)),
        (lambda: ops.relu(A.astype(int)), TypeError, ("x", "int64", "float32")),
        (lambda: ops.relu_grad(A, B), ValueError, ("y", "(4, 5)", "(3, 4)")),
        (lambda: ops.relu_grad(A, A.astype(float)), TypeError, ("y", "float64", "float32")),
        (lambda: ops.column_sum(A[0]), ValueError, ("a", "(4,)")),
        (lambda: ops.column_sum(A, out=A[0, :3].copy()), ValueError, ("out", "(3,)", "(4,)")),
    ],
)
def test_wrong_input(call: Any, kind: type[Exception], parts: tuple[str, ...]) -> None:
    with refuses(kind, *parts):
        call()


OVERLAPS: list[tuple[str, Callable[[Any, Any, Any], Any]]] = [
    ("x", lambda x, other, out: ops.relu(x, out=out)),
    ("dy", lambda x, other, out: ops.relu_grad(x, other, out=out)),
    ("y", lambda x, other, out: ops.relu_grad(other, x, out=out)),
    ("a", lambda x, other, out: ops.add(x, other, out=out)),
    ("b", lambda x, other, out: ops.add(other, x, out=out)),
]
overlapping_ = pytest.mark.parametrize(("name", "call"), OVERLAPS, ids=[n for n, _ in OVERLAPS])


@overlapping_
@pytest.mark.parametrize("shift", [1, -1])
def test_out_may_not_lie_across_an_input(
    name: str, call: Callable[[Any, Any, Any], Any], shift: int, rng: np.random.Generator
) -> None:
    memory = rng.standard_normal(9, np.float32)
    before, ends = memory.copy(), (memory[:-1], memory[1:])
    x, out = ends if shift == 1 else ends[::-1]
    with pytest.raises(ValueError, match=f"out shares memory with {name}"):
        call(x, np.ones_like(x), out)
    with pytest.raises(ValueError, match=f"out shares memory with {name}"):
        call(x, np.ones_like(x), x[::-1])
    np.testing.assert_array_equal(memory, before)


@overlapping_
@pytest.mark.parametrize("view", [np.array, np.transpose])
def test_out_may_be_an_input(
    name: str, call: Callable[[Any, Any, Any], Any], view: Any, rng: np.random.Generator
) -> None:
    x = view(rng.standard_normal((4, 5), np.float32))
    other = rng.standard_normal(x.shape, np.float32)
    want = call(x.copy(), other, None)
    same = x[...]
    assert call(x, other, same) is same
    np.testing.assert_array_equal(x, want)


def test_batch_norm_writes_over_no_input() -> None:
    x, values = np.ones((2, 3, 4, 5), np.float32), np.ones(3, np.float32)
    with pytest.raises(ValueError, match="out shares memory with x"):
        ops.batch_norm(x, values, values, values, out=x)
    whole = np.ones((2, 3, 4, 5), np.float32)
    with pytest.raises(ValueError, match="out shares memory with scale"):
        ops.batch_norm(x, values, whole[0, 0, 0, :3], values, out=whole)
    dweight = whole[0, 0, 0, :3]
    with pytest.raises(ValueError, match="out shares memory with dweight"):
        ops.batch_norm_grad(x, x, values, values, values, dweight, values, out=whole)


@pytest.mark.parametrize("window", [2, 17])  # by bytes, and by indices
def test_max_pool_offsets_takes_lists_and_holds_out_against_offsets(
    window: int, rng: np.random.Generator
) -> None:
    x = rng.standard_normal((2, 3, 2 * window, 2 * window), np.float32)
    y, offsets = ops.max_pool2d_offsets(x, window)
    assert offsets.dtype == (np.uint8 if window == 2 else np.int64)
    dy = rng.standard_normal(y.shape, np.float32)
    want = ops.max_pool2d_offsets_grad(dy, offsets, x.shape, window)
    got = ops.max_pool2d_offsets_grad(dy, offsets, list(x.shape), [window, window])
    np.testing.assert_array_equal(got, want)
    memory = np.zeros(x.size, np.int64)
    place, out = memory.view(offsets.dtype)[: offsets.size], memory.view(np.float32)[: x.size]
    place[...] = offsets.ravel()
    with pytest.raises(ValueError, match=r"out shares memory with (offsets|indices)"):
        ops.max_pool2d_offsets_grad(
            dy, place.reshape(offsets.shape), x.shape, window, out=out.reshape(x.shape)
        )
    with pytest.raises(ValueError, match="input_shape must have 4 entries"):
        ops.max_pool2d_offsets_grad(dy, offsets, x.shape[1:], window)


def test_max_pool_offsets_by_indices_writes_into_out(rng: np.random.Generator) -> None:
    x = rng.standard_normal((1, 2, 34, 34), np.float32)
    y, offsets = ops.max_pool2d_offsets(x, 17)
    out = np.empty_like(y), np.empty_like(offsets)
    got = ops.max_pool2d_offsets(x, 17, out=out)
    assert got[0] is out[0]
    assert got[1] is out[1]
    np.testing.assert_array_equal(out[0], y)
    np.testing.assert_array_equal(out[1], offsets)
