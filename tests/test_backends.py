"""Every operation on the CPU, on emulated CUDA kernels and on a device: one set of tests."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastconv
import reference
import reference_norm
from backends import Arrays, backend
from cases import (
    CONV_CASES,
    LINE_CASES,
    POOL_CASES,
    POOL_LINE_CASES,
    POOL_VOLUME_CASES,
    VOLUME_CASES,
    ConvCase,
    PoolCase,
    random_conv_cases,
    random_pool_cases,
)
from checks import (
    LAYOUTS,
    PASSES,
    Guarded,
    Layout,
    Pass,
    assert_close,
    assert_same_bits,
    at_rank,
    channels_first,
    integer_problem,
    op,
    random_problem,
    to,
)
from fastconv import ops

__all__ = ["backend"]

CONVS = (*CONV_CASES, *LINE_CASES, *VOLUME_CASES, *random_conv_cases(40, seed=31))
POOLS = (*POOL_CASES, *POOL_LINE_CASES, *POOL_VOLUME_CASES, *random_pool_cases(20, seed=32))
GPU = ("implicit", "direct")
ALGORITHMS = {"cpu": ("implicit",), "emu": GPU, "cuda": GPU}
# Enough outputs for the GPU's large tiles, and a weight gradient whose sums are taken in parts.
LARGE = ConvCase("large", (2, 9, 65, 67), (139, 9, 3, 2), padding=((1, 2), (0, 1)))

layout_ = pytest.mark.parametrize("layout", LAYOUTS)
pass_ = pytest.mark.parametrize("which", PASSES)


@pytest.mark.parametrize("case", CONVS, ids=str)
@pass_
@layout_
def test_convolution_of_small_integers_is_exact(
    backend: Arrays, case: ConvCase, which: Pass, layout: Layout
) -> None:
    problem = integer_problem(case)
    want = problem.exact(which, layout)
    got = problem.run(which, "float32", layout, backend.call, out=Guarded(want.shape, "float32"))
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("case", CONV_CASES, ids=str)
@pass_
def test_algorithms_that_serve_every_geometry(backend: Arrays, case: ConvCase, which: Pass) -> None:
    problem = integer_problem(case)
    modes: tuple[tuple[str, Layout], ...] = (("float32", "NHWC"), ("float64", "NCHW"))
    for algorithm, (dtype, layout) in product(ALGORITHMS[backend.name], modes):
        want = problem.exact(which, layout)
        out = Guarded(want.shape, dtype, step=2)
        got = problem.run(which, dtype, layout, backend.call, algorithm=algorithm, out=out)
        np.testing.assert_array_equal(got, want)


@pass_
@layout_
def test_results_larger_than_a_tile_repeat_bit_for_bit(
    backend: Arrays, which: Pass, layout: Layout
) -> None:
    problem = random_problem(LARGE, "float32")
    got = problem.run(which, "float32", layout, backend.call)
    assert_close(got, problem.exact(which, layout), 1.0, problem.reduction[which])
    assert_same_bits(got, problem.run(which, "float32", layout, backend.call))


def test_offsets_beyond_32_bits(backend: Arrays, tmp_path: Path) -> None:
    if backend.name == "cuda":
        pytest.skip("the cells between the images would have to be on the device")
    apart = (1 << 31) + 160  # cells from image to image: most of this file is a hole
    cells = np.memmap(tmp_path / "cells", np.float32, "w+", shape=apart + 160)
    x = np.lib.stride_tricks.as_strided(cells, (2, 4, 5, 8), (4 * apart, 160, 32, 4))
    rng = np.random.default_rng(13)
    x[...] = rng.integers(-4, 5, x.shape)
    w = rng.integers(-4, 5, (3, 4, 2, 3)).astype("float32")
    y = backend.call(fastconv.conv2d, x, w)
    np.testing.assert_array_equal(y, reference.conv(x.astype(float), w.astype(float), None))
    dx = np.lib.stride_tricks.as_strided(cells, x.shape, x.strides)
    fastconv.conv2d_grad_input(y, w, x.shape, out=dx)
    want = reference.conv_grad_input(y.astype(float), w.astype(float), x.shape)
    np.testing.assert_array_equal(dx, want)


def test_parts_of_sums_stay_within_the_workspace(backend: Arrays) -> None:
    problem = integer_problem(LARGE)
    limit = 1 << 24 if backend.name == "cpu" else 200_000  # a part of the sums takes 30 kB
    got = problem.run("weight", "float32", call=backend.call, workspace_limit=limit)
    np.testing.assert_array_equal(got, problem.exact("weight"))


@layout_
def test_bias_and_relu(backend: Arrays, layout: Layout) -> None:
    problem = integer_problem(CONV_CASES[0])
    want = np.maximum(problem.exact("forward", layout), 0)
    got = problem.run("forward", "float32", layout, backend.call, activation="relu")
    np.testing.assert_array_equal(got, want)
    db = backend.call(
        fastconv.conv2d_grad_bias, to(layout, problem.dy).astype("float32"), layout=layout
    )
    np.testing.assert_array_equal(db, problem.dy.sum((0, 2, 3)))


@pytest.mark.parametrize("case", [c for c in CONV_CASES if c.padding == 0], ids=str)
@layout_
def test_transposed_convolution_with_bias_and_relu(
    backend: Arrays, case: ConvCase, layout: Layout
) -> None:
    problem = integer_problem(case)
    bias = np.arange(case.x[1]) - 3.0
    operands = (to(layout, problem.dy), problem.w, bias)
    y = backend.call(
        fastconv.conv_transpose2d,
        *(a.astype("float32") for a in operands),
        activation="relu",
        layout=layout,
        **case.geometry,
    )
    y = channels_first(layout, y)
    want = reference.conv_grad_input(problem.dy, problem.w, y.shape, **case.geometry)
    np.testing.assert_array_equal(y, np.maximum(want + bias[:, None, None], 0))


def special(shape: tuple[int, ...]) -> Any:
    """Many ties, and some NaN and -inf."""
    rng = np.random.default_rng(5)
    x = rng.integers(-3, 4, shape).astype("float32")
    x[rng.random(shape) < 0.03] = np.nan
    x[rng.random(shape) < 0.15] = -np.inf
    return x


@pytest.mark.parametrize("case", POOLS, ids=str)
@layout_
def test_max_pool_and_its_gradient(backend: Arrays, case: PoolCase, layout: Layout) -> None:
    axes = len(case.x) - 2
    x, rank = special(case.x), at_rank(layout, axes)
    want, want_indices = reference.max_pool(x, case.kernel_size, **case.geometry)
    y, indices = backend.call(
        op("max_pool{}d", axes),
        to(layout, x),
        case.kernel_size,
        layout=rank,
        return_indices=True,
        **case.geometry,
    )
    np.testing.assert_array_equal(channels_first(layout, y), want)
    np.testing.assert_array_equal(channels_first(layout, indices), want_indices)
    dy = np.random.default_rng(6).integers(-4, 5, want.shape).astype("float32")
    shape = to(layout, x).shape
    dx = backend.call(
        op("max_pool{}d_grad", axes),
        to(layout, dy),
        indices,
        shape,
        layout=rank,
        out=Guarded(shape, "float32"),
    )
    want_dx = reference.max_pool_grad(dy, want_indices, case.x)
    np.testing.assert_array_equal(channels_first(layout, dx), want_dx)


@pytest.mark.parametrize("case", POOLS, ids=str)
@pytest.mark.parametrize("rectified", [False, True])
@layout_
def test_max_pool_that_tracks_its_source(
    backend: Arrays, case: PoolCase, rectified: bool, layout: Layout
) -> None:
    axes = len(case.x) - 2
    x, geometry = special(case.x), {"layout": at_rank(layout, axes), **case.geometry}
    if rectified:
        x = np.maximum(x, 0)
    want, indices = reference.max_pool(x, case.kernel_size, **case.geometry)
    pool = getattr(ops, f"max_pool{axes}d_offsets")
    grad = getattr(ops, f"max_pool{axes}d_offsets_grad")
    keywords = {"rectified": rectified, **geometry}
    y, offsets = backend.call(pool, to(layout, x), case.kernel_size, **keywords)
    np.testing.assert_array_equal(channels_first(layout, y), want)
    assert (offsets.shape, offsets.dtype) == (y.shape, np.uint8)
    dy = np.random.default_rng(6).integers(-4, 5, want.shape).astype("float32")
    shape, out = to(layout, x).shape, Guarded(to(layout, x).shape, "float32")
    dx = backend.call(grad, to(layout, dy), offsets, shape, case.kernel_size, **geometry, out=out)
    if rectified:
        indices = np.where(want > 0, indices, -1)
    want_dx = reference.max_pool_grad(dy, indices, case.x)
    np.testing.assert_array_equal(channels_first(layout, dx), want_dx)


def test_max_pool_gradient_takes_any_indices_and_refuses_those_outside(backend: Arrays) -> None:
    rng = np.random.default_rng(8)
    dy = rng.integers(-4, 5, (2, 3, 4, 5)).astype("float32")
    indices = rng.integers(-1, 6 * 7, dy.shape)
    dx = backend.call(fastconv.max_pool2d_grad, dy, indices, (2, 3, 6, 7))
    np.testing.assert_array_equal(dx, reference.max_pool_grad(dy, indices, (2, 3, 6, 7)))
    indices[1, 2, 3, 4] = 6 * 7
    with pytest.raises(ValueError, match="indices"):
        backend.call(fastconv.max_pool2d_grad, dy, indices, (2, 3, 6, 7))


@pytest.mark.parametrize("case", [c for c in POOLS if c.dilation == 1], ids=str)
@pytest.mark.parametrize("padded", [True, False], ids=["padded", "real"])
@layout_
def test_average_pool_and_its_gradient(
    backend: Arrays, case: PoolCase, padded: bool, layout: Layout
) -> None:
    axes = len(case.x) - 2
    rng = np.random.default_rng(9)
    keywords = {k: v for k, v in case.geometry.items() if k != "dilation"}
    keywords["count_include_pad"] = padded
    x = rng.standard_normal(case.x)
    want = reference.avg_pool(x, case.kernel_size, **keywords)
    dy = rng.standard_normal(want.shape)
    want_dx = reference.avg_pool_grad(dy, case.x, case.kernel_size, **keywords)

    keywords["layout"] = at_rank(layout, axes)
    x, dy = to(layout, x), to(layout, dy)
    y = backend.call(op("avg_pool{}d", axes), x, case.kernel_size, **keywords)
    assert_close(channels_first(layout, y), want, 8.0, 1)
    dx = backend.call(
        op("avg_pool{}d_grad", axes),
        dy,
        x.shape,
        case.kernel_size,
        **keywords,
        out=Guarded(x.shape, "float64"),
    )
    assert_close(channels_first(layout, dx), want_dx, 8.0, 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@layout_
def test_batch_normalisation_and_its_gradient(backend: Arrays, dtype: str, layout: Layout) -> None:
    rng = np.random.default_rng(10)
    x, dy = (rng.standard_normal((3, 19, 5, 7)).astype(dtype) for _ in range(2))
    weight, bias = (rng.uniform(0.5, 2, 19).astype(dtype) for _ in range(2))
    xs, dys = to(layout, x), to(layout, dy)
    mean, variance = backend.call(ops.batch_moments, xs, layout=layout)
    assert_close(mean, x.astype(float).mean((0, 2, 3)), 64.0, 1)
    assert_close(variance, x.astype(float).var((0, 2, 3)), 64.0, 1)

    eps = 1e-3
    rstd = (1 / np.sqrt(variance + eps)).astype(dtype)
    y = backend.call(ops.batch_norm, xs, mean, rstd * weight, bias, layout=layout)
    assert_close(
        channels_first(layout, y), reference_norm.batch_norm(x, weight, bias, eps), 64.0, 1
    )
    dweight, dbias = (backend.to(np.empty(19, dtype)) for _ in range(2))
    dx = backend.call(
        ops.batch_norm_grad, dys, xs, mean, rstd, weight, dweight, dbias, layout=layout
    )
    results = (channels_first(layout, dx), backend.back(dweight), backend.back(dbias))
    for got, want in zip(results, reference_norm.batch_norm_grad(dy, x, weight, eps), strict=True):
        assert_close(got, want, 64.0, 1)


def test_dense_products_and_elementwise(backend: Arrays) -> None:
    rng = np.random.default_rng(11)
    a, b = (rng.integers(-4, 5, s).astype("float32") for s in ((70, 33), (33, 75)))
    bias = rng.integers(-9, 10, 75).astype("float32")
    c = backend.call(ops.matmul, a, b, bias, activation="relu", out=Guarded((70, 75), "float32"))
    np.testing.assert_array_equal(c, np.maximum(a @ b + bias, 0))
    np.testing.assert_array_equal(backend.call(ops.matmul, b.T, a.T), b.T @ a.T)
    np.testing.assert_array_equal(backend.call(ops.column_sum, a), a.sum(0))
    np.testing.assert_array_equal(backend.call(ops.relu, a), np.maximum(a, 0))
    np.testing.assert_array_equal(backend.call(ops.relu_grad, a, -a), np.where(a < 0, a, 0))
