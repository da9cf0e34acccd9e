"""conv2d and its gradients against the oracle: every geometry, layout, dtype, thread count."""

import numpy as np
import pytest

import fastconv
from cases import CONV_CASES, ConvCase, network_layers, random_conv_cases
from checks import (
    ALGORITHMS,
    DTYPES,
    ERROR_FACTOR,
    LAYOUTS,
    PASSES,
    Guarded,
    Layout,
    Pass,
    assert_close,
    assert_same_bits,
    integer_problem,
    random_problem,
)

pass_ = pytest.mark.parametrize("which", PASSES)
algorithm_ = pytest.mark.parametrize("algorithm", ALGORITHMS)
layout_ = pytest.mark.parametrize("layout", LAYOUTS)
dtype_ = pytest.mark.parametrize("dtype", DTYPES)
case_ = pytest.mark.parametrize("case", CONV_CASES, ids=str)


@case_
@pass_
@algorithm_
@layout_
@dtype_
@pytest.mark.usefixtures("threads")
def test_small_integers_are_exact_and_only_the_output_is_written(
    case: ConvCase, which: Pass, algorithm: str, layout: Layout, dtype: str
) -> None:
    problem = integer_problem(case)
    want = problem.exact(which, layout)
    out = Guarded(want.shape, dtype)
    got = problem.run(which, dtype, layout, algorithm=algorithm, out=out.view)
    assert got is out.view
    np.testing.assert_array_equal(got, want)
    out.check()


@pass_
@dtype_
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.usefixtures("threads")
def test_filters_of_a_megabyte_over_few_pixels(which: Pass, dtype: str, stride: int) -> None:
    case = ConvCase("large_filters", (1, 510, 3 * stride, 5), (530, 510, 1, 1), stride=stride)
    problem = integer_problem(case)
    got = problem.run(which, dtype, "NHWC")
    np.testing.assert_array_equal(got, problem.exact(which, "NHWC"))


@pass_
@algorithm_
@layout_
@pytest.mark.parametrize("case", random_conv_cases(60, seed=2), ids=str)
def test_random_geometries(case: ConvCase, which: Pass, algorithm: str, layout: Layout) -> None:
    problem = integer_problem(case)
    want = problem.exact(which, layout)
    out = Guarded(want.shape, "float32", step=2)
    problem.run(which, "float32", layout, algorithm=algorithm, out=out.view)
    np.testing.assert_array_equal(out.view, want)
    out.check()


@case_
@pass_
@algorithm_
@dtype_
def test_error_on_random_data(case: ConvCase, which: Pass, algorithm: str, dtype: str) -> None:
    problem = random_problem(case, dtype)
    got = problem.run(which, dtype, algorithm=algorithm)
    assert got.dtype == dtype
    assert_close(got, problem.exact(which), ERROR_FACTOR[algorithm], problem.reduction[which])


@case_
@algorithm_
@layout_
def test_the_three_passes_are_adjoint(case: ConvCase, algorithm: str, layout: Layout) -> None:
    """<conv(x, w), dy> = <x, grad_input(dy, w)> = <w, grad_weight(dy, x)>, without the oracle."""
    problem = random_problem(case, "float64")
    x, w, dy = problem.x, problem.w, problem.dy
    if layout == "NHWC":
        x, dy = np.moveaxis(x, 1, -1), np.moveaxis(dy, 1, -1)
    keywords = {**case.geometry, "layout": layout, "algorithm": algorithm}
    y = fastconv.conv2d(x, w, **keywords)
    dx = fastconv.conv2d_grad_input(dy, w, x.shape, **keywords)
    dw = fastconv.conv2d_grad_weight(dy, x, w.shape, **keywords)

    products = np.abs(y * dy).sum() + np.abs(x * dx).sum() + np.abs(w * dw).sum()
    tolerance = 1e-13 * products
    assert np.sum(x * dx) == pytest.approx(np.sum(y * dy), rel=0, abs=tolerance)
    assert np.sum(w * dw) == pytest.approx(np.sum(y * dy), rel=0, abs=tolerance)


@case_
@pass_
def test_auto_equals_the_algorithm_that_explain_names(case: ConvCase, which: Pass) -> None:
    problem = random_problem(case, "float32")
    plan = fastconv.explain("conv2d", case.x, case.w, pass_=which, **case.geometry)
    named = problem.run(which, "float32", algorithm=plan.algorithm)
    assert_same_bits(problem.run(which, "float32"), named)


@pass_
@layout_
def test_the_result_is_a_fresh_contiguous_array(which: Pass, layout: Layout) -> None:
    problem = integer_problem(CONV_CASES[0])
    first, second = (problem.run(which, "float32", layout) for _ in range(2))
    assert type(first) is np.ndarray
    assert first.flags.c_contiguous
    assert first.flags.writeable
    assert not np.shares_memory(first, second)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_operands_are_left_as_they_were(layout: Layout, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 5, 6, 5), np.float32)  # C = 5 in either layout
    w = rng.standard_normal((4, 5, 3, 2), np.float32)
    bias = rng.standard_normal(4, np.float32)
    before = [a.copy() for a in (x, w, bias)]
    y = fastconv.conv2d(x, w, bias, padding=1, activation="relu", layout=layout)
    dy = y.copy()
    fastconv.conv2d_grad(y, x, w, padding=1, layout=layout)
    for array, copy in zip((x, w, bias, y), (*before, dy), strict=True):
        assert_same_bits(array, copy)


@pytest.mark.parametrize("case", network_layers(10_000_000), ids=str)
@pass_
@layout_
def test_layers_of_networks(case: ConvCase, which: Pass, layout: Layout) -> None:
    """The shapes that speed is judged on; Winograd, where "auto" takes it, rounds."""
    problem = integer_problem(case)
    want = problem.exact(which, layout)
    got = problem.run(which, "float32", layout)
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()
