"""The products of tensor cores, tf32, float16 and bfloat16, on emulated kernels and on a device."""

from typing import Any

import numpy as np
import pytest

import fastconv
import reference
from backends import Arrays, backend
from cases import CONV_CASES, LINE_CASES, VOLUME_CASES, ConvCase
from checks import (
    LAYOUTS,
    PASSES,
    Guarded,
    Layout,
    Pass,
    assert_same_bits,
    channels_first,
    integer_problem,
    random_problem,
    refuses,
    to,
)
from fastconv import ops

ml_dtypes = pytest.importorskip("ml_dtypes")

__all__ = ["backend"]

KINDS = ("tf32", "float16", "bfloat16")
DTYPE = {"tf32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
# Significant bits of the operands, and of the result.
BITS = {"tf32": (11, 24), "float16": (11, 11), "bfloat16": (8, 8)}

# Channels in whole chunks of 16 bytes, so that NHWC arrays are copied by chunks; rows, columns and
# terms beyond one tile, one slab and one part, and at odd places in the last one.
CHUNKED = (
    ConvCase("chunks", (2, 16, 9, 11), (24, 16, 3, 2), padding=((1, 2), (0, 1)), stride=(2, 1)),
    ConvCase("dilated", (1, 8, 11, 10), (8, 8, 2, 3), padding=((2, 1), (3, 0)), dilation=(3, 2)),
    ConvCase("grouped", (2, 32, 7, 6), (16, 16, 2, 3), groups=2, padding=((0, 1), (1, 1))),
    ConvCase("tiles", (2, 8, 17, 19), (136, 8, 3, 1), padding=((1, 0), (0, 0))),
)
# The geometry is that of the other kernels, whose tests have all cases.
NAMES = "plain strides four_pads all_at_once groups depthwise_doubled off_every_tile wide_channels"
NAMES += " no_images no_channels no_filters line_strided volume_all_at_once"
ALL_CASES = (*CONV_CASES, *LINE_CASES, *VOLUME_CASES)
CASES = (*(case for case in ALL_CASES if str(case) in NAMES.split()), *CHUNKED)

on_gpu = pytest.mark.parametrize("backend", ["emu", "cuda"], indirect=True)
kind_ = pytest.mark.parametrize("kind", KINDS)
pass_ = pytest.mark.parametrize("which", PASSES)
layout_ = pytest.mark.parametrize("layout", LAYOUTS)


def options(kind: str) -> dict[str, Any]:
    """The keywords that choose tensor cores."""
    return {"precision": "tf32"} if kind == "tf32" else {}


def rounded(a: Any, kind: str) -> Any:
    """The nearest numbers with as many significant bits as an operand of this kind has."""
    mantissa, exponent = np.frexp(a)
    scale = 2.0 ** BITS[kind][0]
    return np.ldexp(np.round(mantissa * scale) / scale, exponent)


@pytest.mark.parametrize("case", CASES, ids=str)
@on_gpu
@kind_
@pass_
@layout_
def test_convolution_of_small_integers_is_rounded_once(
    backend: Arrays, case: ConvCase, kind: str, which: Pass, layout: Layout
) -> None:
    problem, dtype = integer_problem(case), DTYPE[kind]
    want = problem.exact(which, layout).astype(dtype)
    out = Guarded(want.shape, dtype)
    got = problem.run(which, dtype, layout, backend.call, out=out, **options(kind))
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("case", CHUNKED, ids=str)
@on_gpu
@kind_
@pass_
@layout_
def test_random_convolutions_keep_to_the_bound(
    backend: Arrays, case: ConvCase, kind: str, which: Pass, layout: Layout
) -> None:
    """Each product is wrong by its operands' rounding, the sum by float32's, the result by its own.

    The operands are rounded by at most 2**-bits of their size, so that a sum of products is
    wrong by 2**(1 - bits) of the sum of their sizes.
    """
    dtype = DTYPE[kind]
    problem = random_problem(case, np.float32)
    sizes = type(problem)(case, *map(np.abs, (problem.x, problem.w, problem.bias, problem.dy)))
    want, size = problem.exact(which, layout), sizes.exact(which, layout)
    got = problem.run(which, dtype, layout, backend.call, **options(kind)).astype(float)
    operand_bits, result_bits = BITS[kind]
    sums = 2.0 ** (1.1 - operand_bits) + problem.reduction[which] * 2.0**-23
    bound = sums * size + 2.0**-result_bits * np.abs(want)
    assert (np.abs(got - want) <= bound).all()
    assert np.abs(got - want).max() > 2.0 ** -(operand_bits + 6) * np.abs(want).max()


@on_gpu
@kind_
def test_operands_are_rounded_to_nearest_and_sums_are_not(backend: Arrays, kind: str) -> None:
    rng = np.random.default_rng(2)
    a, b = (rng.standard_normal(s).astype(np.float32).astype(float) for s in ((33, 1), (1, 29)))
    operands = (a.astype(DTYPE[kind]), b.astype(DTYPE[kind]))
    got = backend.call(ops.matmul, *operands, **options(kind))
    # One product of 11 bits by 11 is exact in float32.
    want = (rounded(a, kind) * rounded(b, kind)).astype(DTYPE[kind])
    np.testing.assert_array_equal(got, want)
    ones = np.ones((1, 65), DTYPE[kind])
    steps = np.full((65, 1), 2.0**-9, DTYPE[kind])
    steps[0] = 4
    total = backend.call(ops.matmul, ones, steps, **options(kind))
    assert total[0, 0] == DTYPE[kind](4.125)


@pytest.mark.parametrize("case", CHUNKED, ids=str)
@on_gpu
@kind_
@pass_
def test_filters_lie_as_they_like_and_need_no_workspace(
    backend: Arrays, case: ConvCase, kind: str, which: Pass
) -> None:
    problem, dtype = integer_problem(case), DTYPE[kind]
    want = problem.exact(which, "NHWC").astype(dtype)
    for workspace_limit in (0, None):
        got = problem.run(
            which, dtype, "NHWC", backend.call, workspace_limit=workspace_limit, **options(kind)
        )
        np.testing.assert_array_equal(got, want)
    if which == "weight":
        return
    for axes in ((2, 3, 1, 0), (0, 2, 3, 1)):  # HWIO, and filters with their channels last
        lying = np.ascontiguousarray(problem.w.transpose(axes)).transpose(np.argsort(axes))
        view = type(problem)(case, problem.x, problem.w, problem.bias, problem.dy)
        x, dy = (to("NHWC", a).astype(dtype) for a in (view.x, view.dy))
        w = lying.astype(dtype, order="K")
        bias = problem.bias.astype(dtype)
        keywords = {**case.geometry, "layout": "NHWC", **options(kind)}
        if which == "forward":
            got = backend.call(fastconv.conv2d, x, w, bias, **keywords)
        else:
            got = backend.call(fastconv.conv2d_grad_input, dy, w, x.shape, **keywords)
        np.testing.assert_array_equal(got, want)


@on_gpu
@kind_
@pass_
def test_results_repeat_bit_for_bit(backend: Arrays, kind: str, which: Pass) -> None:
    case = ConvCase("parts", (2, 16, 23, 21), (8, 16, 3, 3), padding=1)
    problem = random_problem(case, np.float32)
    first, second = (
        problem.run(which, DTYPE[kind], "NHWC", backend.call, **options(kind)) for _ in range(2)
    )
    assert_same_bits(first, second)


@on_gpu
@kind_
@pytest.mark.parametrize(("m", "n", "k"), [(70, 33, 40), (136, 200, 72), (5, 3, 2)])
def test_matrices_in_any_order(backend: Arrays, kind: str, m: int, n: int, k: int) -> None:
    rng = np.random.default_rng(7)
    a, b, bias = (rng.integers(-4, 5, s).astype(DTYPE[kind]) for s in ((m, k), (k, n), (n,)))
    want = np.maximum(a.astype(float) @ b.astype(float) + bias.astype(float), 0).astype(DTYPE[kind])
    for left in (a, np.asfortranarray(a)):
        for right in (b, np.asfortranarray(b)):
            got = backend.call(
                ops.matmul,
                left,
                right,
                bias,
                activation="relu",
                **options(kind),
                out=Guarded((m, n), DTYPE[kind]),
            )
            np.testing.assert_array_equal(got, want)


@on_gpu
@layout_
@pytest.mark.parametrize("kind", KINDS[1:])
def test_what_else_takes_halves(backend: Arrays, kind: str, layout: Layout) -> None:
    dtype = DTYPE[kind]
    rng = np.random.default_rng(3)
    plain = rng.integers(-9, 10, (2, 5, 7, 6)).astype(float)
    plain[0, 1, 2, 3] = np.nan
    x = to(layout, plain).astype(dtype)
    y, indices = backend.call(
        fastconv.max_pool2d, x, (3, 2), padding=1, layout=layout, return_indices=True
    )
    want, want_indices = reference.max_pool(plain, (3, 2), padding=1)
    np.testing.assert_array_equal(channels_first(layout, y).astype(float), want)
    np.testing.assert_array_equal(channels_first(layout, indices), want_indices)
    dy = rng.integers(-4, 5, y.shape).astype(dtype)
    dx = backend.call(fastconv.max_pool2d_grad, dy, indices, x.shape, layout=layout)
    gradient = channels_first(layout, dy).astype(float)
    want_dx = reference.max_pool_grad(gradient, want_indices, plain.shape)
    np.testing.assert_array_equal(channels_first(layout, dx).astype(float), want_dx)

    mean = backend.call(fastconv.avg_pool2d, dx, 2, layout=layout)  # of two halves: a power of two
    want = reference.avg_pool(want_dx, 2).astype(dtype)
    np.testing.assert_array_equal(channels_first(layout, mean), want)
    spread = backend.call(fastconv.avg_pool2d_grad, mean, x.shape, 2, layout=layout)
    want = reference.avg_pool_grad(want.astype(float), plain.shape, 2).astype(dtype)
    np.testing.assert_array_equal(channels_first(layout, spread), want)

    db = backend.call(fastconv.conv2d_grad_bias, dy, layout=layout)
    np.testing.assert_array_equal(db, gradient.sum((0, 2, 3)).astype(dtype))
    flat = np.ascontiguousarray(dy.reshape(len(dy), -1))
    np.testing.assert_array_equal(backend.call(ops.relu, flat), np.maximum(flat, dtype(0)))
    positive = np.where(flat > dtype(0), flat, dtype(0))
    np.testing.assert_array_equal(backend.call(ops.relu_grad, flat, flat), positive)
    np.testing.assert_array_equal(
        backend.call(ops.add, flat, flat, activation="relu"), 2 * positive
    )
    np.testing.assert_array_equal(backend.call(ops.column_sum, flat), flat.sum(0))


@on_gpu
def test_what_is_refused(backend: Arrays) -> None:
    x, w = np.ones((1, 2, 4, 5)), np.ones((3, 2, 2, 2))
    for dtype in ("float64", "float16"):
        with refuses(ValueError, "precision", "tf32", "float32", dtype):
            backend.call(fastconv.conv2d, x.astype(dtype), w.astype(dtype), precision="tf32")
    with refuses(ValueError, "precision", "tf32", "float64"):
        backend.call(ops.matmul, x[0, 0], x[0, 0].T, precision="tf32")
    with refuses(TypeError, "w", "float16", "bfloat16"):
        half = x.astype("float16")
        backend.call(fastconv.conv2d, half, w.astype(ml_dtypes.bfloat16))
    with refuses(TypeError, "x", "int32", "float16 or bfloat16"):
        backend.call(fastconv.conv2d, x.astype("int32"), w.astype("int32"))
