"""explain says what a call would do, without doing it."""

import dataclasses
from typing import Any

import numpy as np
import pytest

import fastconv
from cases import CONV_CASES, ConvCase
from checks import ALGORITHMS, DTYPES, PASSES, Layout, Pass, run_python

X, W = (2, 3, 7, 9), (4, 3, 3, 2)


@pytest.mark.parametrize("case", CONV_CASES, ids=str)
@pytest.mark.parametrize("pass_", PASSES)
def test_every_geometry_has_a_plan_with_an_algorithm_to_name(case: ConvCase, pass_: Pass) -> None:
    plan = fastconv.explain("conv2d", case.x, case.w, pass_=pass_, **case.geometry)
    assert plan.algorithm in {*ALGORITHMS, "winograd"} - {"auto"}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pass_", PASSES)
def test_the_text_says_what_was_asked_and_what_was_chosen(pass_: Pass, dtype: str) -> None:
    plan = fastconv.explain("conv2d", X, W, pass_=pass_, dtype=dtype, stride=(1, 2))
    text = str(plan)
    for part in (plan.algorithm, dtype, str(X), str(W), "(2, 4, 5, 4)"):
        assert part in text


def test_a_plan_is_a_frozen_value() -> None:
    plan = fastconv.explain("conv2d", X, W)
    assert dataclasses.is_dataclass(plan)
    assert plan == fastconv.explain("conv2d", X, W)
    assert plan != fastconv.explain("conv2d", X, W, stride=(1, 2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.algorithm = "auto"  # type: ignore[misc]


@pytest.mark.parametrize("case", CONV_CASES, ids=str)
def test_the_choice_does_not_depend_on_the_number_of_threads(case: ConvCase) -> None:
    chosen = set()
    for count in (1, 2, 3):
        with fastconv.num_threads(count):
            chosen.add(fastconv.explain("conv2d", case.x, case.w, **case.geometry).algorithm)
    assert len(chosen) == 1


@pytest.mark.parametrize(
    ("layout", "x"), [("NCHW", (2, 3, 7, 9)), ("NHWC", (2, 7, 9, 3))], ids=["NCHW", "NHWC"]
)
def test_layouts(layout: Layout, x: tuple[int, ...]) -> None:
    assert fastconv.explain("conv2d", x, W, layout=layout).algorithm in ALGORITHMS


def test_numpy_names_of_dtypes_are_taken() -> None:
    plan = fastconv.explain("conv2d", X, W, dtype="float64")
    for dtype in (np.float64, np.dtype(np.float64)):
        assert fastconv.explain("conv2d", X, W, dtype=dtype) == plan


@pytest.mark.parametrize(
    "huge", [{"padding": 2**31 - 1}, {"stride": 2**31 - 1}, {"dilation": 2**30}]
)
def test_huge_geometry_is_explained_or_refused(huge: dict[str, Any]) -> None:
    try:
        plan = fastconv.explain("conv2d", X, W, **huge)
    except (ValueError, MemoryError):
        return
    assert plan.algorithm in ALGORITHMS


@pytest.mark.parametrize("preference", sorted({*ALGORITHMS, "winograd"} - {"auto"}))
def test_the_algorithm_of_the_environment_is_a_preference(preference: str) -> None:
    """auto takes it where it serves, with the same bits, and falls back where it does not."""
    code = """
        import fastconv, numpy as np
        rng = np.random.default_rng(0)
        x = rng.standard_normal((2, 5, 13, 11), np.float32)
        for width in (3, 2):
            w = rng.standard_normal((5, 5, 3, width), np.float32)
            plan = fastconv.explain("conv2d", x.shape, w.shape)
            y = fastconv.conv2d(x, w)
            named = fastconv.conv2d(x, w, algorithm=plan.algorithm)
            assert y.tobytes() == named.tobytes()
            print(plan.algorithm)
    """
    square, oblong = run_python(code, FASTCONV_ALGORITHM=preference).split()
    assert square == preference  # every algorithm serves 3x3
    assert (oblong == preference) == (preference in ALGORITHMS)
