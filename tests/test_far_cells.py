"""Offsets beyond 32 bits: cells of small arrays that lie 2**31 elements apart, and large views."""

import mmap
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

import fastconv
from checks import LAYOUTS, Layout, at_rank, to

APART = 2**31 + 1024  # elements
MAP_NORESERVE = 0x4000  # Linux's; the module has it from Python 3.13 on
EXTENT = 8  # the largest of an axis whose cells are so far apart

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="needs address space without memory behind it"
)


@cache
def address_space(role: str) -> Any:
    """Room for one operand: pages that were never written take no memory."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    try:
        return mmap.mmap(-1, EXTENT * APART * 8, flags=flags)
    except OSError as error:
        pytest.skip(f"the system gives no address space for {role}: {error}")


def far(a: Any, axis: int, role: str) -> Any:
    """The array with the cells along one axis far apart; those of the others are neighbours."""
    others = [n for i, n in enumerate(a.shape) if i != axis]
    strides = list(np.empty(others, a.dtype).strides)
    strides.insert(axis, APART * a.itemsize)
    memory = np.frombuffer(address_space(role), a.dtype)
    view = np.lib.stride_tricks.as_strided(memory, a.shape, strides)
    view[...] = a
    return view


@dataclass(frozen=True)
class Call:
    """An op, its operands by name, and what it is called with beside them."""

    name: str
    op: Callable[..., Any]
    operands: dict[str, Any]
    keywords: dict[str, Any]

    def __str__(self) -> str:
        return self.name


def integers(*shape: int) -> Any:
    return np.random.default_rng(8).integers(-4, 5, shape).astype(np.float32)


def conv_calls(name: str, x: Any, w: Any, layout: Layout, **geometry: Any) -> list[Call]:
    axes = x.ndim - 2
    keywords = {**geometry, "layout": at_rank(layout, axes)}
    ours = [getattr(fastconv, f"{name}{axes}d{end}") for end in ("", "_grad_input", "_grad_weight")]
    x = to(layout, x)
    dy = ours[0](x, w, **keywords)
    calls = []
    for algorithm in ("auto", "implicit", "im2col", "direct"):
        k = {**keywords, "algorithm": algorithm}
        label = f"{name}{axes}d-{layout}-{geometry.get('groups', 1)}-{algorithm}"
        calls += [
            Call(f"{label}-forward", ours[0], {"x": x, "w": w}, k),
            Call(f"{label}-input", ours[1], {"dy": dy, "w": w}, {**k, "input_shape": x.shape}),
            Call(f"{label}-weight", ours[2], {"dy": dy, "x": x}, {**k, "weight_shape": w.shape}),
        ]
    return calls


def pool_calls(layout: Layout) -> list[Call]:
    x = to(layout, integers(3, 5, 6, 7))
    window: dict[str, Any] = {"kernel_size": (3, 2)}
    keywords: dict[str, Any] = {"layout": layout}
    largest: Any = fastconv.max_pool2d(x, **window, return_indices=True, **keywords)
    y, indices = largest
    shape = {"input_shape": x.shape}
    return [
        Call("max_pool2d", fastconv.max_pool2d, {"x": x}, {**window, **keywords}),
        Call(
            "max_pool2d_grad",
            fastconv.max_pool2d_grad,
            {"dy": y, "indices": indices},
            {**shape, **keywords},
        ),
        Call("avg_pool2d", fastconv.avg_pool2d, {"x": x}, {**window, "stride": 1, **keywords}),
        Call(
            "avg_pool2d_grad",
            fastconv.avg_pool2d_grad,
            {"dy": y},
            {**shape, **window, **keywords, "divisor_override": 1},
        ),
        Call("global_max_pool2d", fastconv.global_max_pool2d, {"x": x}, keywords),
        Call("sum_pool2d", fastconv.sum_pool2d, {"x": x}, {"kernel_size": (6, 7), **keywords}),
        Call("conv2d_grad_bias", fastconv.conv2d_grad_bias, {"dy": x}, keywords),
    ]


CALLS = [
    call
    for layout in LAYOUTS
    for call in (
        *conv_calls("conv", integers(3, 4, 5, 7), integers(6, 4, 3, 2), layout, padding=(1, 0)),
        *conv_calls("conv", integers(2, 4, 6, 7), integers(4, 1, 3, 3), layout, groups=4),
        *conv_calls("conv", integers(2, 2, 3, 5, 4), integers(3, 2, 2, 3, 1), layout),
        *conv_calls("conv_transpose", integers(3, 4, 3, 2), integers(4, 5, 2, 3), layout, stride=2),
        *pool_calls(layout),
    )
]


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_operands_and_results_far_apart(call: Call) -> None:
    """Each operand in turn, and `out`, along each of its axes; the integers make it exact."""
    want = call.op(**call.operands, **call.keywords)
    assert np.abs(want).max() > 0
    for name, a in call.operands.items():
        for axis in range(a.ndim):
            if a.shape[axis] > EXTENT:
                continue
            got = call.op(**{**call.operands, name: far(a, axis, name)}, **call.keywords)
            np.testing.assert_array_equal(got, want, err_msg=f"{name}, axis {axis}")
    for axis in range(want.ndim):
        if want.shape[axis] > EXTENT:
            continue
        out = far(np.full_like(want, np.nan), axis, "out")
        call.op(**call.operands, **call.keywords, out=out)
        np.testing.assert_array_equal(out, want, err_msg=f"out, axis {axis}")


HEIGHT, WIDTH = 2**16 + 7, 2**15 + 1  # more than 2**31 cells in a plane


@pytest.mark.parametrize("layout", LAYOUTS)
def test_planes_of_more_than_2_to_the_31_cells(layout: Layout) -> None:
    """Rows that repeat, each one number higher than the row before; indices count all cells."""
    rows = np.arange(HEIGHT, dtype=np.float32)[:, None]
    x = np.broadcast_to(rows, (1, 3, HEIGHT, WIDTH))
    x = x if layout == "NCHW" else np.moveaxis(x, 1, -1)
    stride = (HEIGHT - 2, WIDTH - 3)  # the four corners
    keywords: dict[str, Any] = {"stride": stride, "layout": layout}

    def corners(upper: float, lower: float) -> Any:
        plane = np.array([[upper, upper], [lower, lower]], np.float32)
        y = np.broadcast_to(plane, (1, 3, 2, 2))
        return y if layout == "NCHW" else np.moveaxis(y, 1, -1)

    last = HEIGHT - 1
    y, indices = fastconv.max_pool2d(x, (2, 3), return_indices=True, **keywords)
    np.testing.assert_array_equal(y, corners(1, last))
    plane = indices[0, 0] if layout == "NCHW" else indices[0, :, :, 0]
    lowest = last * WIDTH
    assert plane.tolist() == [[WIDTH, 2 * WIDTH - 3], [lowest, lowest + WIDTH - 3]]
    sums = fastconv.sum_pool2d(x, (2, 3), **keywords)
    np.testing.assert_array_equal(sums, corners(3, 3 * (2 * last - 1)))
    w = np.ones((1, 1, 2, 3), np.float32).repeat(3, axis=0)
    np.testing.assert_array_equal(fastconv.conv2d(x, w, groups=3, **keywords), sums)
    dw = fastconv.conv2d_grad_weight(np.ones_like(sums), x, w.shape, groups=3, **keywords)
    np.testing.assert_array_equal(dw[:, 0, :, 0], [[2 * (last - 1), 2 + 2 * last]] * 3)


def test_a_sum_over_more_than_2_to_the_31_cells() -> None:
    dy = np.broadcast_to(np.float64(1), (1, 1, HEIGHT, WIDTH))
    assert fastconv.conv2d_grad_bias(dy).tolist() == [HEIGHT * WIDTH]
    assert fastconv.global_avg_pool2d(dy).tolist() == [[[[1]]]]
