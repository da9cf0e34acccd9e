"""Winograd against the float64 oracle, by a bound of its own: it rounds more than a sum."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastconv
from cases import WINOGRAD_CASES, ConvCase
from checks import LAYOUTS, Guarded, Layout, Pass, assert_same_bits, random_problem, run_python, to
from fastconv import _core

# max|ours - exact| / max|exact|: the transforms magnify rounding some tens of times.
BOUND = {"float32": 1e-5, "float64": 2e-14}

PASSES: tuple[Pass, ...] = ("forward", "input", "weight")
case_ = pytest.mark.parametrize("case", WINOGRAD_CASES, ids=str)
which_ = pytest.mark.parametrize("which", PASSES)


@case_
@which_
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.usefixtures("threads")
def test_the_error_is_bounded(case: ConvCase, which: Pass, layout: Layout, dtype: str) -> None:
    problem = random_problem(case, dtype)
    want = problem.exact(which, layout)
    out = Guarded(want.shape, dtype)
    problem.run(which, dtype, layout, algorithm="winograd", out=out.view)
    assert np.abs(out.view - want).max() <= BOUND[dtype] * np.abs(want).max()
    out.check()


@which_
@pytest.mark.parametrize(
    ("taps", "shape"), [(3, (1, 512, 9, 8)), (3, (16, 512, 2, 2)), (5, (1, 512, 9, 8))]
)
def test_the_error_of_a_deep_layer(which: Pass, taps: int, shape: tuple[int, ...]) -> None:
    case = ConvCase("deep", shape, (512, 512, taps, taps), padding=taps // 2)
    problem = random_problem(case, "float32")
    want = problem.exact(which)
    got = problem.run(which, "float32", algorithm="winograd")
    assert np.abs(got - want).max() <= BOUND["float32"] * np.abs(want).max()


# Where sums cancel the largest output says little; the error is held against what it could be.
LIMIT = 5e-6
OPERANDS: dict[str, Callable[[Any], Any]] = {
    "normal": lambda r: r,
    "positive": np.abs,
    "flat": lambda r: 1 + 1e-3 * r,
    "zero sum": lambda r: r - r.mean(axis=(1, 2, 3), keepdims=True),
    "alternating": lambda r: (np.indices(r.shape).sum(0) % 2 * 2 - 1) * (1 + 1e-3 * r),
    "sparse": lambda r: r * (np.abs(r) > 2),
}


@which_
@pytest.mark.parametrize("kind_w", OPERANDS)
@pytest.mark.parametrize("kind_x", OPERANDS)
@pytest.mark.parametrize(("c", "k", "taps"), [(3, 8, 3), (3, 8, 5), (128, 16, 3), (16, 128, 5)])
def test_the_error_is_bounded_where_sums_cancel(
    c: int, k: int, taps: int, kind_x: str, kind_w: str, which: Pass
) -> None:
    rng = np.random.default_rng(6)
    shapes = {"input": (2, k, 14, 17), "weight": (2, c, 14, 17), "forward": (2, c, 14, 17)}
    a = OPERANDS[kind_x](rng.standard_normal(shapes[which])).astype(np.float32)
    shape_b = (2, k, 14, 17) if which == "weight" else (k, c, taps, taps)
    b = OPERANDS[kind_w](rng.standard_normal(shape_b)).astype(np.float32)
    pad, x_shape, w_shape = taps // 2, (2, c, 14, 17), (k, c, taps, taps)

    def run(a: Any, b: Any, algorithm: str) -> Any:
        keywords: dict[str, Any] = {"padding": pad, "algorithm": algorithm}
        if which == "forward":
            return fastconv.conv2d(a, b, **keywords)
        if which == "input":
            return fastconv.conv2d_grad_input(a, b, x_shape, **keywords)
        return fastconv.conv2d_grad_weight(b, a, w_shape, **keywords)

    exact = run(a.astype(float), b.astype(float), "implicit")
    summed = {"forward": (1, 2, 3), "input": (0, 2, 3), "weight": (0, 2, 3)}[which]
    most = np.abs(a).max() * np.abs(b).sum(axis=summed).max()
    assert np.abs(run(a, b, "winograd") - exact).max() <= LIMIT * most


@case_
@which_
def test_every_number_of_threads_gives_the_same_bits(case: ConvCase, which: Pass) -> None:
    results = []
    for count in (1, 2, 3, 5):
        with fastconv.num_threads(count):
            results.append(
                random_problem(case, "float32").run(which, "float32", algorithm="winograd")
            )
    for other in results[1:]:
        assert_same_bits(other, results[0])


def test_any_strides_of_every_operand(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 18, 10, 14), np.float32)
    w = rng.standard_normal((19, 18, 3, 3), np.float32)
    want = fastconv.conv2d(x, w, algorithm="winograd")
    wide = np.zeros((2, 36, 10, 28), np.float32)
    wide[:, ::2, :, ::2] = x
    hwio = np.ascontiguousarray(w.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1)
    out = np.empty(want.shape[::-1], np.float32).T
    fastconv.conv2d(wide[:, ::2, :, ::2], hwio, algorithm="winograd", out=out)
    np.testing.assert_array_equal(out, want)
    flipped = fastconv.conv2d(
        np.ascontiguousarray(x[..., ::-1])[..., ::-1], w[::-1], algorithm="winograd"
    )
    np.testing.assert_array_equal(flipped[:, ::-1], want)


def test_bias_and_relu(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 16, 7, 9), np.float32)
    w = rng.standard_normal((21, 16, 3, 3), np.float32)
    bias = rng.standard_normal(42).astype(np.float32)[::2]
    plain = fastconv.conv2d(x, w, algorithm="winograd")
    got = fastconv.conv2d(x, w, bias, activation="relu", algorithm="winograd")
    np.testing.assert_array_equal(got, np.maximum(plain + bias[:, None, None], 0))


def test_a_nan_reaches_its_tiles_and_no_others(rng: np.random.Generator) -> None:
    x = rng.standard_normal((1, 16, 14, 14), np.float32)
    w = rng.standard_normal((16, 16, 3, 3), np.float32)
    x[0, 3, 6, 6] = np.nan
    nan = np.isnan(fastconv.conv2d(x, w, algorithm="winograd")[0, 0])
    assert nan[4:7, 4:7].all()  # where the definition has it
    assert not nan[8:].any()
    assert not nan[:, 8:].any()


@pytest.mark.parametrize(
    "options",
    [{"stride": 2}, {"dilation": 2}, {"groups": 2}, {"kernel": (3, 5)}, {"kernel": (4, 4)}],
    ids=str,
)
def test_other_geometries_are_refused(options: dict[str, Any]) -> None:
    kernel = options.pop("kernel", (3, 3))
    w = np.ones((16, 16 // options.get("groups", 1), *kernel), np.float32)
    with pytest.raises(ValueError, match=r'"winograd" cannot serve .* "implicit" can'):
        fastconv.conv2d(np.ones((1, 16, 9, 8), np.float32), w, algorithm="winograd", **options)


def test_the_workspace_is_limited() -> None:
    x, w = np.ones((4, 16, 30, 30), np.float32), np.ones((16, 16, 3, 3), np.float32)
    with pytest.raises(ValueError, match='workspace_limit is 1000 bytes, but algorithm "winograd"'):
        fastconv.conv2d(x, w, algorithm="winograd", workspace_limit=1000)
    limited = fastconv.conv2d(x, w, algorithm="winograd", workspace_limit=3 << 20)
    assert_same_bits(limited, fastconv.conv2d(x, w, algorithm="winograd"))
    with pytest.raises(ValueError, match='workspace_limit is 1000 bytes, but algorithm "winograd"'):
        fastconv.conv2d_grad_weight(
            np.ones((4, 16, 28, 28), np.float32),
            x,
            w.shape,
            algorithm="winograd",
            workspace_limit=1000,
        )


def test_auto_takes_it_in_float32_with_enough_channels() -> None:
    x, w = (8, 64, 28, 28), (64, 64, 3, 3)
    assert fastconv.explain("conv2d", x, w).algorithm == "winograd"
    assert fastconv.explain("conv2d", x, w, dtype="float64").algorithm == "direct"
    assert fastconv.explain("conv2d", (8, 3, 28, 28), (64, 3, 3, 3)).algorithm == "direct"
    assert fastconv.explain("conv2d", x, w, pass_="weight").algorithm == "winograd"


def test_the_environment_keeps_it_out_of_auto() -> None:
    code = """
        import fastconv
        print(fastconv.explain("conv2d", (8, 64, 28, 28), (64, 64, 3, 3)).algorithm)
    """
    assert run_python(code, FASTCONV_WINOGRAD="0").strip() == "direct"
    assert run_python(code, FASTCONV_WINOGRAD="1").strip() == "winograd"


PROGRAM = """
import numpy as np
from checks import LAYOUTS, random_problem
from cases import WINOGRAD_CASES
from test_winograd import BOUND, PASSES

for case in WINOGRAD_CASES:
    for which in PASSES:
        for dtype, bound in BOUND.items():
            for layout in LAYOUTS:
                problem = random_problem(case, dtype)
                want = problem.exact(which, layout)
                got = problem.run(which, dtype, layout, algorithm="winograd")
                assert np.abs(got - want).max() <= bound * np.abs(want).max(), (case, which, dtype)
"""


@pytest.mark.parametrize("isa", _core.available_isas())
def test_every_instruction_set(isa: str) -> None:
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    run_python(PROGRAM, FASTCONV_ISA=isa, PYTHONPATH=path)


def test_layouts_agree(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 16, 9, 13), np.float32)
    w = rng.standard_normal((24, 16, 3, 3), np.float32)
    planes = fastconv.conv2d(x, w, padding=1, algorithm="winograd")
    pixels = fastconv.conv2d(to("NHWC", x), w, padding=1, layout="NHWC", algorithm="winograd")
    assert_same_bits(pixels, to("NHWC", planes))
