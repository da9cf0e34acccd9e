"""algorithm="wgmma": convolutions by the instructions of compute capability 9.0, on an emulated
device and on one that has them."""

from typing import Any

import numpy as np
import pytest

import fastconv
from backends import Arrays, backend
from cases import ConvCase
from checks import Guarded, Pass, assert_same_bits, integer_problem, random_problem, refuses
from test_tensor_cores import BITS, DTYPE

__all__ = ["backend"]

# One case for each thing that a copy or a tile can get wrong: fewer channels than a line has, and
# more; filters beyond 64, and beyond 128; several tiles of pixels; windows that leave the image at
# every side.
CASES = (
    ConvCase("point", (2, 16, 9, 11), (24, 16, 1, 1)),
    ConvCase("square", (2, 40, 9, 7), (72, 40, 3, 3), padding=1),
    ConvCase("strides", (1, 16, 13, 12), (24, 16, 3, 5), stride=(2, 1), padding=((1, 2), (3, 0))),
    ConvCase("dilated", (2, 72, 12, 11), (8, 72, 3, 2), (1, 2), ((2, 1), (3, 0)), (2, 3)),
    ConvCase("small", (3, 8, 5, 6), (8, 8, 2, 3)),
    ConvCase("tiles", (2, 8, 17, 19), (136, 8, 3, 1), padding=((1, 0), (0, 0))),
    ConvCase("sparse", (2, 8, 11, 13), (16, 8, 2, 2), stride=(3, 4), dilation=(1, 2)),
    ConvCase("line", (2, 8, 21), (16, 8, 4), stride=3, padding=((1, 3),)),
    ConvCase("odd_filters", (1, 24, 6, 10), (13, 24, 2, 3), padding=((0, 1), (2, 0))),
)  # fmt: skip

on_gpu = pytest.mark.parametrize("backend", ["emu", "cuda"], indirect=True)
kind_ = pytest.mark.parametrize("kind", ["float16", "bfloat16"])
pass_ = pytest.mark.parametrize("which", ["forward", "input"])
case_ = pytest.mark.parametrize("case", CASES, ids=str)


def run(
    backend: Arrays, problem: Any, which: Pass, dtype: Any, layout: str = "NHWC", **keywords: Any
) -> Any:
    """The result by wgmma; skipped on a device that lacks it."""
    try:
        return problem.run(which, dtype, layout, backend.call, algorithm="wgmma", **keywords)
    except RuntimeError as error:
        if "compute capability 9.0" not in str(error):
            raise
        pytest.skip(str(error))


def served(case: ConvCase, which: Pass) -> bool:
    """Whether the channels that are summed over come in whole chunks."""
    return case.w[1 if which == "forward" else 0] % 8 == 0


@case_
@on_gpu
@kind_
@pass_
def test_small_integers_are_rounded_once(
    backend: Arrays, case: ConvCase, kind: str, which: Pass
) -> None:
    problem, dtype = integer_problem(case), DTYPE[kind]
    if not served(case, which):
        with refuses(ValueError, "wgmma", "multiples of 8", "implicit"):
            run(backend, problem, which, dtype)
        return
    want = problem.exact(which, "NHWC").astype(dtype)
    got = run(backend, problem, which, dtype, out=Guarded(want.shape, dtype))
    np.testing.assert_array_equal(got, want)


@case_
@on_gpu
@kind_
@pass_
def test_random_values_keep_to_the_bound(
    backend: Arrays, case: ConvCase, kind: str, which: Pass
) -> None:
    """The operands are exact, the sum is wrong by float32's rounding, the result by its own."""
    if not served(case, which):
        return
    dtype = DTYPE[kind]
    problem = random_problem(case, dtype)
    sizes = type(problem)(case, *map(np.abs, (problem.x, problem.w, problem.bias, problem.dy)))
    want, size = problem.exact(which, "NHWC"), sizes.exact(which, "NHWC")
    got = run(backend, problem, which, dtype).astype(float)
    bound = problem.reduction[which] * 2.0**-23 * size + 2.0 ** -BITS[kind][1] * np.abs(want)
    assert (np.abs(got - want) <= bound).all()
    assert_same_bits(got, run(backend, problem, which, dtype).astype(float))


@on_gpu
@kind_
def test_bias_and_relu_in_one_pass_and_nan_stays(backend: Arrays, kind: str) -> None:
    dtype = DTYPE[kind]
    problem = integer_problem(CASES[1])
    want = np.maximum(problem.exact("forward", "NHWC"), 0)
    got = run(backend, problem, "forward", dtype, activation="relu")
    np.testing.assert_array_equal(got, want.astype(dtype))
    x = problem.x.copy()
    x[1, 39, 4, 3] = np.nan  # one pixel: nine windows see it
    spoiled = type(problem)(problem.case, x, problem.w, problem.bias, problem.dy)
    nan = np.isnan(run(backend, spoiled, "forward", dtype).astype(float))
    assert nan[1, 3:6, 2:5].all()
    assert nan.sum() == 9 * 72


@on_gpu
def test_arrays_lie_as_they_like_within_the_rules(backend: Arrays) -> None:
    """x is a part of a larger array; filters with their channels last are read where they are."""
    problem = integer_problem(CASES[2])
    case, dtype = problem.case, np.float16
    want = problem.exact("forward", "NHWC").astype(dtype)
    run(backend, problem, "forward", dtype)  # skips where it must
    n, c, h, w = case.x
    wide = np.full((n, h + 1, w + 3, c + 8), np.nan, dtype)
    wide[:, 1:, 2:-1, 8:] = problem.x.transpose(0, 2, 3, 1)
    filters = np.ascontiguousarray(problem.w.transpose(0, 2, 3, 1)).astype(dtype)

    def conv(wide: Any, filters: Any, bias: Any, **keywords: Any) -> Any:  # views of the device's
        part, seen = wide[:, 1:, 2:-1, 8:], filters.transpose(0, 3, 1, 2)
        keywords = {**case.geometry, "layout": "NHWC", "algorithm": "wgmma", **keywords}
        return fastconv.conv2d(part, seen, bias, **keywords)

    apart = Guarded(want.shape, dtype, step=2)
    bias = problem.bias.astype(dtype)
    got = backend.call(conv, wide, filters, bias, workspace_limit=0, out=apart)
    np.testing.assert_array_equal(got, want)


@on_gpu
def test_what_is_refused(backend: Arrays) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 9, 11, 16)).astype(np.float16)
    w = rng.standard_normal((8, 16, 3, 2)).astype(np.float16)
    run(backend, integer_problem(CASES[0]), "forward", np.float16)  # skips where it must

    def conv(x: Any, w: Any, view: Any = ..., **keywords: Any) -> None:
        keywords = {"layout": "NHWC", "algorithm": "wgmma", **keywords}
        backend.call(lambda x, w: fastconv.conv2d(x[view], w, **keywords), x, w)

    with refuses(ValueError, "float16 and bfloat16"):
        conv(x.astype(np.float32), w.astype(np.float32))
    y = fastconv.conv2d(x.astype(np.float32), w.astype(np.float32), layout="NHWC")
    for grad in (fastconv.conv2d_grad_input, fastconv.conv_transpose2d):
        shape = (x.shape,) if grad is fastconv.conv2d_grad_input else ()
        with refuses(ValueError, "float16 and bfloat16"):
            operands = (y, w.astype(np.float32), *shape)
            backend.call(grad, *operands, layout="NHWC", algorithm="wgmma")
    # Reversed rows, channels apart, and channels that begin within 16 bytes.
    for view, channels in ((np.s_[:, ::-1], 16), (np.s_[..., ::2], 8), (np.s_[..., 4:-4], 8)):
        with refuses(ValueError, "channels last", "implicit"):
            conv(x, w[:, :channels], view=view)
    with refuses(ValueError, "channels last", "implicit"):
        conv(x.transpose(0, 3, 1, 2).copy(), w, layout="NCHW")
    with refuses(ValueError, "workspace_limit is 1 bytes", "1536"):
        conv(x, w, workspace_limit=1)
    with refuses(ValueError, "one group", "direct"):
        conv(x, w[:, :8], groups=2)
    with refuses(ValueError, "multiples of 8"):
        conv(x[..., :12], w[:, :12])
    for too_far in ({"stride": 9}, {"padding": 129}, {"dilation": (128, 1), "padding": 128}):
        with refuses(ValueError, "strides of at most 8"):
            conv(x, w, **too_far)
    with refuses(ValueError, "forward pass or an input gradient"):
        backend.call(
            fastconv.conv2d_grad_weight, x[:, :7, :10, :8], x, w.shape, layout="NHWC",
            algorithm="wgmma",
        )  # fmt: skip
    with refuses(ValueError, "lines or images"):
        backend.call(
            fastconv.conv3d, x[None], w[:, :, None, :, :], layout="NDHWC", algorithm="wgmma"
        )


def test_cpus_have_none() -> None:
    x, w = np.ones((1, 8, 4, 5), np.float32), np.ones((3, 8, 2, 2), np.float32)
    with refuses(ValueError, "wgmma", "GPU", "implicit"):
        fastconv.conv2d(x, w, algorithm="wgmma")
