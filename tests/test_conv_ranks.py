"""conv1d and conv3d with their gradients: every case against the oracle, and what they share with
conv2d."""

import inspect
import re
from typing import Any

import numpy as np
import pytest

import fastconv
import reference
from cases import LINE_CASES, VOLUME_CASES, ConvCase
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
    at_rank,
    integer_problem,
    op,
    random_problem,
    to,
)

CASES = (*LINE_CASES, *VOLUME_CASES)
OPS = sorted({n.replace("2d", "{}d") for n in fastconv.__all__ if "2d" in n})

case_ = pytest.mark.parametrize("case", CASES, ids=str)
pass_ = pytest.mark.parametrize("which", PASSES)
layout_ = pytest.mark.parametrize("layout", LAYOUTS)
algorithm_ = pytest.mark.parametrize("algorithm", ALGORITHMS)


@case_
@pass_
@algorithm_
@layout_
@pytest.mark.parametrize("dtype", DTYPES)
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


@pytest.mark.parametrize("case", [c for c in CASES if c.groups == c.w[0]], ids=str)
@pytest.mark.parametrize("which", ["forward", "input"])
@layout_
def test_direct_kernels(case: ConvCase, which: Pass, layout: Layout) -> None:
    problem = integer_problem(case)
    got = problem.run(which, "float32", layout, algorithm="direct")
    np.testing.assert_array_equal(got, problem.exact(which, layout))


@case_
@pass_
def test_error_on_random_data(case: ConvCase, which: Pass) -> None:
    problem = random_problem(case, "float32")
    got = problem.run(which, "float32")
    assert_close(got, problem.exact(which), ERROR_FACTOR["auto"], problem.reduction[which])


@case_
@layout_
def test_all_gradients_at_once(case: ConvCase, layout: Layout) -> None:
    problem, axes = integer_problem(case), len(case.x) - 2
    dx, dw, db = op("conv{}d_grad", axes)(
        to(layout, problem.dy),
        to(layout, problem.x),
        problem.w,
        layout=at_rank(layout, axes),
        **case.geometry,
    )
    np.testing.assert_array_equal(dx, problem.exact("input", layout))
    np.testing.assert_array_equal(dw, problem.exact("weight"))
    np.testing.assert_array_equal(db, reference.conv_grad_bias(problem.dy))


@layout_
@pytest.mark.parametrize("case", LINE_CASES, ids=str)
@pass_
def test_a_line_is_an_image_of_one_row(case: ConvCase, layout: Layout, which: Pass) -> None:
    """Not only equal: the same kernels, bit by bit, on a view."""
    line = random_problem(case, "float32")
    pads = line.case.axes[0].before, line.case.axes[0].after
    stride, dilation = case.axes[0].stride, case.axes[0].dilation
    image = ConvCase(
        case.name,
        (*case.x[:2], 1, case.x[2]),
        (*case.w[:2], 1, case.w[2]),
        (1, stride),
        ((0, 0), pads),
        (1, dilation),
        case.groups,
    )
    rows: list[Any] = [a[..., None, :] for a in (line.x, line.w, line.dy)]
    same = type(line)(image, rows[0], rows[1], line.bias, rows[2])
    got = line.run(which, "float32", layout)
    want = same.run(which, "float32", layout)
    assert_same_bits(got, want.reshape(got.shape))


@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize("name", OPS)
def test_signatures_and_docstrings_are_of_the_rank(name: str, axes: int) -> None:
    image, other = op(name, 2), op(name, axes)
    assert other.__name__ == name.format(axes)
    assert other.__module__ == image.__module__
    parameters = inspect.signature(other).parameters
    assert list(parameters) == list(inspect.signature(image).parameters)
    assert parameters["layout"].default == at_rank("NCHW", axes)
    for word in (
        ("2d", "images", "NCHW", " H, W", "P, Q", "R, S") if axes == 1 else ("2d", "images")
    ):
        assert word not in other.__doc__
    with pytest.raises(TypeError, match=rf"{other.__name__}\(\)"):
        other(never=1)


# The keywords behind **options, in the order of the documentation, with their defaults.
CONV = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "layout": "NCHW"}
HOW = {"algorithm": "auto", "precision": "fp32", "workspace_limit": None}
POOL: dict[str, Any] = {"stride": None, "padding": 0}
TRANSPOSED = {"stride": 1, "padding": 0, "output_padding": 0, **CONV}
AVERAGE = {**POOL, "ceil_mode": False, "count_include_pad": True, "divisor_override": None}
KEYWORDS: dict[str, dict[str, Any]] = {
    "conv{}d": {**CONV, "activation": None, **HOW, "out": None},
    "conv{}d_grad_input": {**CONV, **HOW, "out": None},
    "conv{}d_grad": {
        "needs": ("input", "weight", "bias"),
        **CONV,
        **HOW,
        "out": (None, None, None),
    },
    "conv{}d_grad_bias": {"layout": "NCHW", "out": None},
    "conv_transpose{}d": {**TRANSPOSED, "activation": None, **HOW, "out": None},
    "conv_transpose{}d_grad_weight": {**TRANSPOSED, **HOW, "out": None},
    "max_pool{}d": {
        **POOL,
        "dilation": 1,
        "ceil_mode": False,
        "layout": "NCHW",
        "return_indices": False,
        "out": None,
    },
    "avg_pool{}d": {**AVERAGE, "layout": "NCHW", "out": None},
    "sum_pool{}d_grad": {**POOL, "ceil_mode": False, "layout": "NCHW", "out": None},
    "global_max_pool{}d": {"layout": "NCHW", "return_indices": False, "out": None},
}


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("name", KEYWORDS)
def test_signatures_list_every_keyword_with_its_default(name: str, axes: int) -> None:
    parameters = inspect.signature(op(name, axes)).parameters.values()
    shown = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    wanted = {**KEYWORDS[name], "layout": at_rank("NCHW", axes)}
    assert list(shown.items()) == list(wanted.items())
    assert all(p.kind is not p.VAR_KEYWORD for p in parameters)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("name", OPS)
def test_help_is_a_hundred_columns_wide_and_of_its_rank(name: str, axes: int) -> None:
    doc = inspect.getdoc(op(name, axes))
    assert doc is not None
    assert max(map(len, doc.splitlines())) <= 100
    letters = {1: "Q", 2: "P and Q", 3: "Z, P and Q"}[axes]
    if name == "adaptive_avg_pool{}d":
        assert re.search(rf"[ ,\n]{letters}\sbeing", doc), doc
    other_letters = {1: r"\b[PHRDTZ]\b", 2: r"\b[DTZ]\b", 3: r"\(N, C, (W|H, W)\)"}[axes]
    assert not re.search(other_letters, doc), doc


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("keyword", ["strid", "_axes"])
def test_unknown_keywords_are_refused(name: str, axes: int, keyword: str) -> None:
    call = op(name, axes)
    arrays = [np.ones((2,) * (axes + 2), np.float32)] * 3
    needed = [p for p in inspect.signature(call).parameters.values() if p.default is p.empty]
    values: dict[str, Any] = {"input_shape": (2,) * (axes + 2), "weight_shape": (2,) * (axes + 2)}
    values |= {"kernel_size": 1, "output_size": 1}
    given = [values.get(p.name, arrays[0]) for p in needed]
    with pytest.raises(TypeError, match=rf"unexpected keyword argument '{keyword}'"):
        call(*given, **{keyword: 1})


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("name", ["conv{}d", "conv{}d_grad_bias", "max_pool{}d"])
def test_each_rank_refuses_the_layouts_and_arrays_of_the_others(name: str, axes: int) -> None:
    arguments: dict[str, tuple[Any, ...]] = {
        "conv{}d": (np.ones((2,) * (axes + 2), np.float32),),
        "conv{}d_grad_bias": (),
        "max_pool{}d": (1,),
    }
    call, rest = op(name, axes), arguments[name]
    right = np.ones((2,) * (axes + 2), np.float32)
    call(right, *rest)
    for other in {1, 2, 3} - {axes}:
        with pytest.raises(ValueError, match="layout"):
            call(right, *rest, layout=at_rank("NCHW", other))
        with pytest.raises(ValueError, match=f"must have {axes + 2} axes"):
            call(np.ones((2,) * (other + 2), np.float32), *rest)


@pytest.mark.parametrize("case", CASES, ids=str)
@pass_
def test_explain_names_the_algorithm_of_auto(case: ConvCase, which: Pass) -> None:
    name = f"conv{len(case.x) - 2}d"
    plan = fastconv.explain(name, case.x, case.w, pass_=which, **case.geometry)
    assert str(plan).startswith(f"{name} {which}")
    assert plan.output_shape == case.y
    problem = random_problem(case, "float32")
    named = problem.run(which, "float32", algorithm=plan.algorithm)
    assert_same_bits(problem.run(which, "float32"), named)


def test_one_spatial_axis_takes_a_pair_only_in_a_tuple() -> None:
    x, w = np.ones((1, 2, 9), np.float32), np.ones((3, 2, 3), np.float32)
    assert fastconv.conv1d(x, w, padding=((2, 1),)).shape == (1, 3, 10)
    assert fastconv.conv1d(x, w, padding=(2,)).shape == (1, 3, 11)
    with pytest.raises(ValueError, match=r"\(\(2, 1\),\)"):
        fastconv.conv1d(x, w, padding=(2, 1))


VIEWS_OF_DEPTH = {
    "cropped": lambda a: np.concatenate([a, a + 9, a + 5], axis=3)[:, :, :, : a.shape[3]],
    "stepped": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "flipped": lambda a: np.ascontiguousarray(a[:, ::-1])[:, ::-1],
}


@pytest.mark.parametrize("algorithm", ["auto", "implicit"])
@pytest.mark.parametrize("view", VIEWS_OF_DEPTH)
@pytest.mark.parametrize("n", [1, 2])
def test_pointwise_volumes_of_one_row_are_read_where_they_lie(
    n: int, view: str, algorithm: str
) -> None:
    """Channels last, height 1, depth above 1: the next depth is not where a row would go on."""
    rng = np.random.default_rng(5)
    x = rng.integers(-4, 5, (n, 3, 1, 37, 32)).astype(np.float32)
    w = rng.integers(-4, 5, (20, 32, 1, 1, 1)).astype(np.float32)
    keywords: dict[str, Any] = {"layout": "NDHWC", "algorithm": algorithm}
    y = np.einsum("ndhwc,kcxyz->ndhwk", x, w)
    seen = VIEWS_OF_DEPTH[view](x)
    np.testing.assert_array_equal(seen, x)
    np.testing.assert_array_equal(fastconv.conv3d(seen, w, **keywords), y)
    back = np.ascontiguousarray(w.swapaxes(0, 1))
    np.testing.assert_array_equal(fastconv.conv3d_grad_input(seen, back, y.shape, **keywords), y)
    np.testing.assert_array_equal(fastconv.conv_transpose3d(seen, back, **keywords), y)
