"""Arrays as they come: any strides, alignment, subclasses and producers of DLPack."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastconv
from cases import CONV_CASES
from checks import LAYOUTS, PASSES, Layout, Pass, integer_problem, to

CASE = next(case for case in CONV_CASES if case.name == "all_at_once")
PROBLEM = integer_problem(CASE)


def filler(a: Any) -> float:
    """What no call may read: NaN, or for an array of indices one that no plane has."""
    return np.nan if a.dtype.kind == "f" else 10**6


def transposed(a: Any) -> Any:
    """The same values with the axes in the opposite order in memory."""
    return np.ascontiguousarray(a.transpose()).transpose()


def every_second(a: Any) -> Any:
    """Every second cell along each axis of a larger array; none of its other cells may be read."""
    larger = np.full([2 * n for n in a.shape], filler(a), a.dtype)
    view = larger[tuple(slice(None, None, 2) for _ in a.shape)]
    view[...] = a
    return view


def reversed_axes(a: Any) -> Any:
    """Negative strides along every axis."""
    back = (slice(None, None, -1),) * a.ndim
    return np.ascontiguousarray(a[back])[back]


def mixed_strides(a: Any) -> Any:
    """A negative stride on the outermost axis, a step on the innermost, a gap in between."""
    shape = (a.shape[0], a.shape[1] + 3, *a.shape[2:-1], 3 * a.shape[-1])
    larger = np.full(shape, filler(a), a.dtype)
    view = larger[::-1, 1 : 1 + a.shape[1], ..., ::3]
    view[...] = a
    return view


def unaligned(a: Any) -> Any:
    """Data that starts one byte past an aligned address."""
    raw = np.zeros(a.nbytes + 1, np.uint8)
    view = raw[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    assert not view.flags.aligned
    return view


def field_of_records(a: Any) -> Any:
    """A field of packed records: strides that are no multiple of the item size."""
    records = np.zeros(a.shape, np.dtype([("tag", "u1"), ("value", a.dtype), ("rest", "u2")]))
    records["value"] = a
    view = records["value"]
    assert view.strides[-1] % a.itemsize
    return view


def read_only(a: Any) -> Any:
    """An array that must not be written."""
    view = a.copy()
    view.flags.writeable = False
    return view


def fortran_order(a: Any) -> Any:
    """Column-major memory."""
    return np.asfortranarray(a)


VIEWS = (
    transposed,
    every_second,
    reversed_axes,
    mixed_strides,
    unaligned,
    field_of_records,
    read_only,
    fortran_order,
)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_operands_of_any_strides(
    view: Callable[[Any], Any], which: Pass, layout: Layout, dtype: str
) -> None:
    x, w, dy = (
        view(a.astype(dtype)) for a in (to(layout, PROBLEM.x), PROBLEM.w, to(layout, PROBLEM.dy))
    )
    keywords = {**CASE.geometry, "layout": layout}
    if which == "forward":
        got = fastconv.conv2d(x, w, PROBLEM.bias.astype(dtype), **keywords)
    elif which == "input":
        got = fastconv.conv2d_grad_input(dy, w, x.shape, **keywords)
    else:
        got = fastconv.conv2d_grad_weight(dy, x, w.shape, **keywords)
    np.testing.assert_array_equal(got, PROBLEM.exact(which, layout))


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_max_pool_of_any_strides(view: Callable[[Any], Any], layout: Layout) -> None:
    x = to(layout, PROBLEM.x).astype(np.float32)
    want = fastconv.max_pool2d(x, (3, 2), return_indices=True, layout=layout)
    got = fastconv.max_pool2d(view(x), (3, 2), return_indices=True, layout=layout)
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(got[1], want[1])
    dx = fastconv.max_pool2d_grad(view(got[0]), view(got[1]), x.shape, layout=layout)
    np.testing.assert_array_equal(
        dx, fastconv.max_pool2d_grad(want[0], want[1], x.shape, layout=layout)
    )


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (3,), (0, 1, 2, 3)])
def test_broadcast_operands(axes: tuple[int, ...], rng: np.random.Generator) -> None:
    """Stride 0 along some axes of every operand."""

    def broadcast(shape: tuple[int, ...]) -> Any:
        thin = [1 if axis in axes else n for axis, n in enumerate(shape)]
        return np.broadcast_to(rng.integers(-4, 5, thin).astype(np.float32), shape)

    x, w, dy = broadcast(CASE.x), broadcast(CASE.w), broadcast(CASE.y)
    y = fastconv.conv2d(x, w, **CASE.geometry)
    np.testing.assert_array_equal(y, fastconv.conv2d(x.copy(), w.copy(), **CASE.geometry))
    thin = fastconv.conv2d_grad(dy, x, w, **CASE.geometry)
    full = fastconv.conv2d_grad(dy.copy(), x.copy(), w.copy(), **CASE.geometry)
    for got, want in zip(thin, full, strict=True):
        np.testing.assert_array_equal(got, want)


class Exporter:
    """An array of another library: nothing but the DLPack protocol."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **keywords: Any) -> Any:
        return self.array.__dlpack__(**keywords)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


def test_producers_of_dlpack_are_answered_with_numpy() -> None:
    x, w, dy = (Exporter(a) for a in (PROBLEM.x, PROBLEM.w, PROBLEM.dy))
    y = fastconv.conv2d(x, w, Exporter(PROBLEM.bias), **CASE.geometry)
    assert type(y) is np.ndarray
    np.testing.assert_array_equal(y, PROBLEM.exact("forward"))
    dx, dw, _ = fastconv.conv2d_grad(dy, x, w, **CASE.geometry)
    np.testing.assert_array_equal(dx, PROBLEM.exact("input"))
    np.testing.assert_array_equal(dw, PROBLEM.exact("weight"))


def test_subclasses_of_ndarray_are_answered_with_plain_arrays(tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "x", np.float64, "w+", shape=CASE.x)
    mapped[...] = PROBLEM.x
    y = fastconv.conv2d(mapped, PROBLEM.w, PROBLEM.bias, **CASE.geometry)
    assert type(y) is np.ndarray
    np.testing.assert_array_equal(y, PROBLEM.exact("forward"))
