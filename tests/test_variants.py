"""Every variant of every algorithm is reached by a call, named by explain, and right."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import fastconv
import reference
from checks import Layout, Pass, to
from fastconv import _core


@dataclass(frozen=True)
class Way:
    """A call whose plan has a variant of an algorithm."""

    algorithm: str
    variant: str
    pass_: Pass
    x: tuple[int, ...]  # (N, C, H, W)
    w: tuple[int, ...]
    layout: Layout = "NCHW"
    stride: int = 1
    padding: int = 0
    groups: int = 1

    def __str__(self) -> str:
        return f"{self.algorithm}-{self.variant}-{self.pass_}"

    @property
    def keywords(self) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "groups": self.groups,
            "layout": self.layout,
            "algorithm": self.algorithm,
        }


FEW = (1, 64, 5, 6), (96, 64, 3, 3)
CONVOLUTIONS = [
    Way("implicit", "filter lanes", "forward", (2, 128, 7, 7), (70, 128, 1, 1)),
    Way("implicit", "thinned planes", "forward", (2, 20, 9, 11), (40, 20, 1, 1), stride=2),
    Way("implicit", "thinned planes", "weight", (2, 20, 9, 11), (40, 20, 1, 1), stride=2),
    Way("implicit", "spread planes", "input", (2, 20, 9, 11), (40, 20, 1, 1), stride=2),
    Way("implicit", "filters in place", "forward", *FEW),
    Way("implicit", "pixel rows", "forward", (2, 20, 9, 11), (40, 20, 1, 1), "NHWC"),
    Way("implicit", "pixel rows", "weight", (2, 20, 9, 11), (40, 20, 1, 1), "NHWC"),
    Way("implicit", "pixel patches", "forward", (2, 20, 9, 11), (40, 20, 3, 2), "NHWC"),
    Way("implicit", "pixel patches", "weight", (2, 20, 9, 11), (40, 20, 3, 2), "NHWC"),
    Way("implicit", "plane rows", "weight", (2, 40, 9, 11), (50, 40, 1, 1)),
    Way("implicit", "plane patches", "forward", (2, 20, 19, 11), (40, 20, 3, 2)),
    Way("implicit", "plane patches", "input", (2, 20, 19, 11), (40, 20, 3, 2)),
    Way("implicit", "plane patches", "weight", (2, 20, 9, 11), (40, 20, 3, 2)),
    Way("implicit", "dot products", "weight", (2, 20, 32, 16), (5, 20, 1, 1)),
    Way("implicit", "fill", "input", (2, 20, 9, 11), (40, 20, 1, 1), stride=2),
    Way("im2col", "pixels", "forward", (2, 20, 9, 11), (40, 20, 1, 1)),
    Way("im2col", "patches", "forward", (2, 20, 9, 11), (40, 20, 3, 2)),
    Way("im2col", "patches", "weight", (2, 20, 9, 11), (40, 20, 3, 2)),
    Way("direct", "planes", "forward", (2, 5, 9, 33), (3, 5, 3, 2)),
    Way("direct", "staged planes", "forward", (2, 3, 9, 9), (70, 3, 9, 8)),
    Way("direct", "staged pixels", "forward", (2, 40, 9, 11), (70, 40, 3, 2)),
    Way("direct", "staged pixels", "input", (2, 40, 9, 11), (70, 40, 3, 2), stride=2),
    Way("direct", "dot products", "weight", (2, 5, 9, 33), (2, 5, 3, 2)),
    Way("direct", "staged patches", "weight", (2, 40, 9, 11), (70, 40, 3, 2)),
    Way("direct", "pixels", "forward", (2, 9, 19, 21), (9, 1, 3, 2), "NHWC", groups=9),
    Way("direct", "pixels", "weight", (2, 9, 19, 21), (9, 1, 3, 2), "NHWC", groups=9),
    Way("direct", "small planes", "forward", (2, 9, 9, 11), (9, 1, 3, 2), padding=1, groups=9),
    Way("direct", "small planes", "weight", (1, 9, 9, 11), (9, 1, 3, 2), padding=1, groups=9),
    Way("direct", "3x3 planes", "forward", (2, 9, 19, 21), (9, 1, 3, 3), padding=1, groups=9),
    Way("direct", "3x3 planes", "weight", (2, 9, 19, 21), (9, 1, 3, 3), padding=1, groups=9),
    Way("direct", "rows", "forward", (2, 9, 19, 21), (18, 1, 3, 2), padding=1, groups=9),
    Way("direct", "rows", "weight", (2, 9, 19, 21), (9, 1, 3, 2), padding=1, groups=9),
    Way("direct", "spread planes", "input", (2, 9, 19, 21), (9, 1, 3, 3), stride=2, groups=9),
]
WINOGRAD = [
    Way("winograd", "F(2x2, 3x3) by filters", "forward", (1, 1, 4, 6), (16, 1, 3, 3)),
    Way("winograd", "F(4x4, 3x3) by filters", "input", (1, 1, 4, 6), (16, 1, 3, 3)),
    Way("winograd", "F(2x2, 3x3) by panels", "weight", (1, 1, 4, 6), (16, 1, 3, 3)),
    Way("winograd", "F(4x4, 3x3) by panels", "weight", (1, 1, 4, 6), (16, 1, 3, 3), padding=1),
    Way("winograd", "F(2x2, 5x5) by filters", "forward", (1, 1, 4, 6), (16, 1, 5, 5), padding=1),
    Way("winograd", "F(2x2, 5x5) by panels", "weight", (1, 1, 4, 6), (16, 1, 5, 5), padding=1),
    Way("winograd", "F(2x2, 5x5) by tiles", "input", (1, 1, 13, 14), (16, 1, 5, 5)),
    Way("winograd", "F(4x4, 3x3) by tiles", "forward", (1, 1, 28, 27), (16, 1, 3, 3)),
    Way("winograd", "F(2x2, 5x5) by parts", "weight", (1, 1, 28, 27), (16, 1, 5, 5)),
    Way("winograd", "F(2x2, 5x5) by blocks", "weight", (1, 64, 28, 27), (64, 64, 5, 5), padding=1),
    Way("winograd", "F(2x2, 3x3) by tiles", "forward", (8, 1, 4, 14), (16, 1, 3, 3)),
    Way("winograd", "F(2x2, 3x3) adjoint", "input", (8, 1, 4, 14), (16, 1, 3, 3)),
    Way("winograd", "F(2x2, 5x5) adjoint", "input", (8, 1, 4, 14), (16, 1, 5, 5), padding=1),
    Way("winograd", "F(4x4, 3x3) adjoint", "input", (8, 1, 6, 27), (16, 1, 3, 3)),
    Way("winograd", "F(4x4, 3x3) by parts", "weight", (8, 1, 13, 14), (16, 1, 3, 3), padding=1),
    Way("winograd", "F(4x4, 3x3) by blocks", "weight", (8, 64, 13, 27), (64, 64, 3, 3)),
    Way("winograd", "F(2x2, 3x3) by parts", "weight", (64, 1, 4, 6), (16, 1, 3, 3)),
    Way("winograd", "F(2x2, 3x3) by blocks", "weight", (64, 64, 4, 14), (64, 64, 3, 3)),
]
WAYS = CONVOLUTIONS + WINOGRAD
# Tiles of dot products are worth it where registers are many.
LARGE_TILES = _core.isa() in ("avx512", "neon")


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_variant_is_reached_and_right(way: Way) -> None:
    keywords = way.keywords
    x_shape = way.x if way.layout == "NCHW" else (way.x[0], *way.x[2:], way.x[1])
    plan = fastconv.explain("conv2d", x_shape, way.w, pass_=way.pass_, **keywords)
    if way.algorithm == "implicit" and way.variant == "dot products" and not LARGE_TILES:
        pytest.skip("only where registers are many")
    names = [part.split(" (")[0] for part in plan.variant.split("; ")]
    assert way.variant in names, plan
    rng = np.random.default_rng(2)
    geometry = {key: keywords[key] for key in ("stride", "padding", "groups")}
    x, w = (rng.integers(-3, 4, shape).astype(float) for shape in (way.x, way.w))
    y = reference.conv(x, w, None, **geometry)
    dy = rng.integers(-3, 4, y.shape).astype(float)
    want = {
        "forward": lambda: y,
        "input": lambda: reference.conv_grad_input(dy, w, x.shape, **geometry),
        "weight": lambda: reference.conv_grad_weight(dy, x, w.shape, **geometry),
    }[way.pass_]()
    xf, wf, dyf = (a.astype(np.float32) for a in (x, w, dy))
    xf, dyf = to(way.layout, xf), to(way.layout, dyf)
    got = {
        "forward": lambda: fastconv.conv2d(xf, wf, **keywords),
        "input": lambda: fastconv.conv2d_grad_input(dyf, wf, xf.shape, **keywords),
        "weight": lambda: fastconv.conv2d_grad_weight(dyf, xf, wf.shape, **keywords),
    }[way.pass_]()
    if way.pass_ != "weight":
        want = to(way.layout, want)
    error = 2e-5 if way.algorithm == "winograd" else 0
    np.testing.assert_allclose(got, want, rtol=0, atol=error * np.abs(want).max())


def test_every_variant_has_a_way() -> None:
    known = {(algorithm, variant) for algorithm, variant, _ in _core.conv_variants()}
    reached = {(way.algorithm, way.variant) for way in WAYS}
    assert reached - {("implicit", "fill")} == known
    assert all(reason for _, _, reason in _core.conv_variants())
