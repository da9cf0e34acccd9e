"""Geometries as data, shared by the tests of the forward pass and of the gradients.

All are asymmetric where they can be (H != W, R != S, strides, dilations and pads that differ by
axis and side), so that a swapped pair of numbers cannot pass.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import reference

Shape = tuple[int, ...]
PerAxis = int | tuple[int, ...]
Padding = int | str | tuple[int, ...] | tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ConvCase:
    """One convolution: x is (N, C, H, W), w is (K, C/groups, R, S); or of another rank."""

    name: str
    x: Shape
    w: Shape
    stride: PerAxis = 1
    padding: Padding = 0
    dilation: PerAxis = 1
    groups: int = 1

    def __str__(self) -> str:
        return self.name

    @property
    def geometry(self) -> Mapping[str, Any]:
        """The keywords that every pass takes."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    @property
    def axes(self) -> list[reference.Axis]:
        """The spatial axes as the oracle resolves them."""
        return reference.axes_of(self.x[2:], self.w[2:], self.stride, self.padding, self.dilation)

    @property
    def y(self) -> Shape:
        """The output's shape."""
        return self.x[0], self.w[0], *(a.out for a in self.axes)


@dataclass(frozen=True)
class PoolCase:
    """One pooling of x (N, C, H, W), or of another rank."""

    name: str
    x: Shape
    kernel_size: PerAxis
    stride: PerAxis | None = None
    padding: Padding = 0
    dilation: PerAxis = 1
    ceil_mode: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def geometry(self) -> Mapping[str, Any]:
        """The keywords that max_pool2d takes beside kernel_size."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "ceil_mode": self.ceil_mode,
        }

    @property
    def axes(self) -> list[reference.Axis]:
        """The spatial axes as the oracle resolves them."""
        k = self.kernel_size
        window = (k,) * (len(self.x) - 2) if isinstance(k, int) else k
        return reference.axes_of(
            self.x[2:],
            window,
            window if self.stride is None else self.stride,
            self.padding,
            self.dilation,
            ceil_mode=self.ceil_mode,
        )


CONV_CASES = (
    ConvCase("plain", (2, 3, 7, 9), (4, 3, 3, 2)),
    ConvCase("one_image", (1, 5, 19, 26), (7, 5, 2, 3)),
    ConvCase("many_images", (9, 2, 5, 4), (3, 2, 2, 3)),
    ConvCase("one_channel", (2, 1, 9, 8), (6, 1, 3, 4)),
    ConvCase("one_filter", (2, 6, 5, 8), (1, 6, 2, 3)),
    ConvCase("strides", (2, 5, 11, 8), (7, 5, 3, 4), stride=(2, 3)),
    ConvCase("stride_beyond_filter", (2, 3, 14, 17), (5, 3, 2, 3), stride=(4, 5)),
    ConvCase("equal_pads", (2, 3, 6, 7), (4, 3, 3, 2), padding=2),
    ConvCase("pads_per_axis", (2, 3, 6, 7), (4, 3, 3, 2), padding=(2, 1)),
    ConvCase("four_pads", (1, 3, 6, 9), (5, 3, 4, 3), padding=((0, 1), (2, 3))),
    ConvCase("pads_beyond_filter", (2, 2, 5, 3), (3, 2, 2, 3), padding=((4, 0), (1, 5))),
    ConvCase("valid", (2, 3, 7, 5), (4, 3, 2, 3), stride=(1, 2), padding="valid"),
    ConvCase("same", (2, 3, 7, 9), (4, 3, 4, 3), padding="same"),
    ConvCase("same_strided", (2, 3, 8, 11), (4, 3, 5, 4), stride=(3, 2), padding="same"),
    ConvCase("same_lower", (2, 3, 8, 11), (4, 3, 5, 4), stride=(3, 2), padding="same_lower"),
    ConvCase("same_dilated", (1, 2, 9, 10), (3, 2, 2, 4), padding="same", dilation=(3, 1)),
    ConvCase("same_stride_beyond_filter", (2, 3, 9, 8), (4, 3, 1, 2), (4, 3), "same"),
    ConvCase("short_rows", (2, 19, 15, 13), (35, 19, 3, 3), stride=2, padding=(1, 0)),
    ConvCase("short_rows_far", (2, 17, 23, 21), (33, 17, 4, 3), (2, 3), ((1, 0), (2, 1)), (3, 2)),
    ConvCase("dilations", (2, 3, 9, 13), (4, 3, 3, 2), dilation=(2, 5)),
    ConvCase("outer_taps_in_padding", (1, 2, 3, 4), (3, 2, 3, 3), 1, (5, 6), (5, 6)),
    ConvCase("all_at_once", (3, 4, 12, 15), (6, 2, 3, 4), (3, 2), ((1, 2), (3, 0)), (2, 1), 2),
    ConvCase("groups", (2, 9, 5, 8), (6, 3, 2, 3), padding=1, groups=3),
    ConvCase("depthwise", (2, 6, 9, 7), (6, 1, 3, 2), (1, 2), ((1, 0), (0, 1)), groups=6),
    ConvCase("depthwise_doubled", (2, 5, 6, 8), (10, 1, 3, 4), dilation=(2, 1), groups=5),
    ConvCase("depthwise_all", (2, 7, 11, 13), (7, 1, 3, 4), (2, 3), ((1, 2), (0, 3)), (3, 2), 7),
    ConvCase("depthwise_same", (1, 37, 9, 70), (37, 1, 5, 3), padding="same", groups=37),
    ConvCase("depthwise_3x3", (2, 19, 23, 20), (19, 1, 3, 3), stride=2, padding=1, groups=19),
    ConvCase("depthwise_3x3_even", (1, 18, 8, 38), (18, 1, 3, 3), 2, ((1, 0), (0, 2)), groups=18),
    ConvCase("depthwise_3x3_dense", (2, 35, 7, 33), (35, 1, 3, 3), 1, ((2, 1), (0, 1)), groups=35),
    ConvCase("depthwise_3x3_short", (2, 21, 14, 13), (21, 1, 3, 3), 1, ((1, 0), (2, 1)), groups=21),
    ConvCase("depthwise_3x3_short_strided", (3, 5, 11, 15), (5, 1, 3, 3), 2, 1, groups=5),
    ConvCase("depthwise_3x3_pairs", (3, 35, 7, 7), (35, 1, 3, 3), 1, 1, groups=35),
    ConvCase(
        "depthwise_3x3_pairs_two", (5, 19, 6, 7), (19, 1, 3, 3), 2, ((0, 1), (1, 2)), groups=19
    ),
    ConvCase("depthwise_3x3_pairs_doubled", (2, 3, 5, 6), (6, 1, 3, 3), 1, 1, groups=3),
    ConvCase("depthwise_3x3_wide", (1, 3, 4, 69), (3, 1, 3, 3), 1, ((0, 1), (2, 0)), groups=3),
    ConvCase("one_by_one", (2, 5, 4, 7), (3, 5, 1, 1)),
    ConvCase("one_by_one_panels", (3, 7, 14, 15), (29, 7, 1, 1)),
    ConvCase("one_by_one_chunks", (2, 40, 31, 57), (19, 40, 1, 1)),
    ConvCase("one_by_one_blocks", (1, 130, 20, 27), (260, 130, 1, 1)),
    ConvCase("one_by_one_halved", (2, 9, 20, 27), (17, 9, 1, 1), stride=2),
    ConvCase("one_by_one_tiles", (2, 70, 5, 9), (37, 70, 1, 1)),
    ConvCase("one_by_one_many_filters", (3, 65, 7, 9), (300, 65, 1, 1), stride=2),
    ConvCase("one_by_one_rows", (2, 66, 5, 31), (35, 66, 1, 1), stride=2),
    ConvCase("one_by_one_strided", (2, 5, 7, 8), (3, 5, 1, 1), (2, 3), (0, 1)),
    ConvCase("row_filter", (2, 3, 4, 11), (4, 3, 1, 7), padding=(0, 2)),
    ConvCase("column_filter", (2, 3, 11, 4), (4, 3, 7, 1), padding=(2, 0)),
    ConvCase("one_row", (3, 4, 1, 9), (5, 4, 1, 3), stride=(1, 2)),
    ConvCase("one_column", (3, 4, 9, 1), (5, 4, 3, 1)),
    ConvCase("one_output", (3, 4, 5, 7), (6, 4, 5, 7)),
    ConvCase("filter_fills_padded_input", (2, 3, 3, 4), (4, 3, 6, 9), 1, ((1, 2), (2, 3))),
    ConvCase("first_layer", (1, 3, 23, 30), (17, 3, 7, 5), stride=(2, 3), padding=(3, 2)),
    ConvCase("off_every_tile", (3, 19, 13, 11), (37, 19, 3, 5), padding=(1, 2)),
    ConvCase("columns_in_blocks", (1, 40, 6, 450), (5, 40, 3, 4), (2, 1), (1, 2)),
    ConvCase("long_rows", (2, 2, 8, 75), (20, 2, 2, 3), 1, ((1, 0), (2, 3)), (3, 2)),
    ConvCase("long_rows_strided", (1, 3, 11, 127), (33, 3, 3, 5), (2, 3), (1, 2)),
    ConvCase("few_pixels", (1, 70, 9, 11), (110, 70, 3, 3), stride=2, padding=((1, 0), (0, 1))),
    ConvCase("many_filters", (2, 35, 9, 23), (260, 35, 3, 3), stride=2, padding=(1, 0)),
    ConvCase("wide_channels", (1, 67, 5, 6), (65, 67, 2, 3)),
    ConvCase("no_images", (0, 3, 7, 9), (4, 3, 3, 2), padding=(1, 2)),
    ConvCase("no_channels", (2, 0, 7, 9), (4, 0, 3, 2), stride=(2, 1)),
    ConvCase("no_filters", (2, 3, 7, 9), (0, 3, 3, 2)),
)

LINE_CASES = (
    ConvCase("line", (2, 3, 19), (4, 3, 5)),
    ConvCase("line_strided", (3, 5, 37), (7, 5, 4), 3, ((2, 1),)),
    ConvCase("line_padded", (2, 4, 9), (6, 4, 3), padding=(2,)),
    ConvCase("line_same", (2, 3, 20), (4, 3, 6), 2, "same"),
    ConvCase("line_same_lower", (2, 3, 20), (4, 3, 6), 2, "same_lower"),
    ConvCase("line_dilated", (2, 17, 41), (19, 17, 3), 2, ((4, 0),), 5),
    ConvCase("line_groups", (2, 6, 33), (9, 2, 3), 1, 1, 2, 3),
    ConvCase("line_depthwise", (2, 7, 70), (7, 1, 5), (2,), ((0, 3),), groups=7),
    ConvCase("line_one_by_one", (3, 18, 65), (21, 18, 1)),
    ConvCase("line_causal", (1, 2, 8), (3, 2, 2), 1, ((4, 0),), 4),
    ConvCase("line_in_blocks", (2, 33, 1600), (5, 33, 3)),
    ConvCase("line_no_images", (0, 3, 9), (4, 3, 2)),
    ConvCase("line_no_channels", (2, 0, 9), (4, 0, 2)),
)

VOLUME_CASES = (
    ConvCase("volume", (2, 3, 5, 7, 9), (4, 3, 2, 3, 4)),
    ConvCase("volume_strided", (2, 5, 8, 9, 11), (7, 5, 3, 2, 4), (3, 1, 2)),
    ConvCase("volume_padded", (1, 3, 4, 6, 5), (4, 3, 3, 2, 4), 1, ((1, 0), (0, 2), (3, 1))),
    ConvCase("volume_same", (2, 2, 5, 8, 7), (3, 2, 4, 3, 2), (2, 3, 1), "same"),
    ConvCase("volume_same_lower", (2, 2, 5, 8, 7), (3, 2, 4, 3, 2), (2, 3, 1), "same_lower"),
    ConvCase("volume_dilated", (2, 3, 9, 7, 8), (4, 3, 3, 2, 3), 1, (2, 0, 1), (3, 4, 2)),
    ConvCase("volume_all_at_once", (2, 4, 7, 9, 8), (6, 2, 2, 3, 2), (3, 2, 1), 1, (2, 1, 3), 2),
    ConvCase("volume_depthwise", (2, 5, 6, 7, 20), (5, 1, 2, 3, 3), (1, 2, 2), 1, groups=5),
    ConvCase("volume_depthwise_doubled", (1, 3, 4, 5, 6), (6, 1, 3, 1, 2), (2, 1, 3), groups=3),
    ConvCase("volume_one_by_one", (2, 17, 3, 4, 6), (19, 17, 1, 1, 1)),
    ConvCase("volume_one_by_one_strided", (2, 5, 3, 6, 7), (3, 5, 1, 1, 1), (2, 3, 1)),
    ConvCase("volume_one_by_one_tiles", (2, 64, 3, 6, 7), (40, 64, 1, 1, 1), (2, 3, 1)),
    ConvCase("volume_3x3x3", (2, 17, 5, 6, 8), (18, 17, 3, 3, 3), 1, 1),
    ConvCase("volume_of_images", (2, 16, 6, 12, 13), (17, 16, 1, 3, 3), 1, (0, 1, 1)),
    ConvCase("volume_no_images", (0, 3, 4, 5, 6), (4, 3, 2, 3, 2)),
    ConvCase("volume_no_filters", (2, 3, 4, 5, 6), (0, 3, 2, 3, 2)),
)

POOL_CASES = (
    PoolCase("plain", (2, 3, 9, 8), (3, 2)),
    PoolCase("two_by_two", (3, 5, 8, 14), 2),
    PoolCase("two_by_two_odd_edges", (3, 5, 9, 13), 2),
    PoolCase("overlapping", (2, 3, 11, 8), (3, 4), stride=(1, 2)),
    PoolCase("stride_beyond_window", (2, 3, 13, 11), (2, 3), stride=(4, 5)),
    PoolCase("pads_per_axis", (2, 3, 7, 9), (2, 5), stride=(2, 1), padding=(1, 2)),
    PoolCase("four_pads", (2, 3, 7, 9), (3, 4), stride=(2, 3), padding=((1, 0), (0, 2))),
    PoolCase("same", (2, 3, 7, 10), (2, 3), stride=(2, 3), padding="same"),
    PoolCase("same_lower", (2, 3, 8, 10), (3, 4), stride=(1, 3), padding="same_lower"),
    PoolCase("dilations", (2, 3, 9, 13), (3, 2), stride=(1, 2), dilation=(2, 5)),
    PoolCase("ceil", (2, 3, 8, 11), (3, 2), stride=(2, 4), ceil_mode=True),
    PoolCase("ceil_padded", (2, 3, 8, 7), (3, 2), (3, 2), ((1, 0), (0, 1)), 1, True),
    PoolCase("ceil_dilated", (1, 2, 10, 9), (2, 3), (3, 2), (1, 0), (3, 2), True),
    PoolCase("only_padding_met", (2, 3, 2, 3), (2, 2), 1, (3, 2), (5, 4)),
    PoolCase("one_cell_window", (2, 3, 5, 4), 1),
    PoolCase("window_fills_input", (2, 7, 4, 6), (4, 6)),
    PoolCase("one_row", (2, 3, 1, 9), (1, 3), stride=(1, 2)),
    PoolCase("off_every_tile", (3, 37, 13, 11), (3, 2), (2, 1)),
    PoolCase("no_images", (0, 3, 7, 9), (3, 2)),
    PoolCase("no_channels", (2, 0, 7, 9), (3, 2)),
)


POOL_LINE_CASES = (
    PoolCase("line", (2, 3, 19), 3),
    PoolCase("line_overlapping", (2, 5, 71), 4, 2, ((1, 2),)),
    PoolCase("line_ceil", (2, 3, 20), (3,), (2,), (1,), 1, True),
    PoolCase("line_strided", (3, 2, 100), 5, 7, 2),
    PoolCase("line_same", (2, 37, 11), 4, 1, "same"),
    PoolCase("line_no_images", (0, 3, 9), 2),
)

DEEP_PADS = (  # beyond half the window: averages alone
    PoolCase("deep_pads", (2, 3, 5, 7), (2, 3), 1, ((3, 5), (4, 9))),
    PoolCase("deep_pads_strided", (2, 17, 6, 9), 2, 2, ((5, 2), (2, 6))),
    PoolCase("deep_pads_ceil", (2, 3, 4, 5), (3, 2), (3, 4), ((4, 0), (1, 7)), 1, True),
)

POOL_VOLUME_CASES = (
    PoolCase("volume", (2, 3, 5, 7, 9), (2, 3, 4)),
    PoolCase("volume_2x2x2", (2, 19, 4, 6, 10), 2),
    PoolCase(
        "volume_overlapping", (2, 3, 6, 7, 20), (3, 2, 3), (1, 2, 2), ((1, 0), (0, 1), (1, 1))
    ),
    PoolCase("volume_ceil", (1, 2, 5, 8, 7), (2, 3, 2), (2, 2, 3), (1, 1, 0), 1, True),
    PoolCase("volume_same_lower", (2, 3, 5, 6, 7), (2, 4, 3), (1, 2, 3), "same_lower"),
    PoolCase("volume_strided", (2, 3, 9, 8, 7), (2, 1, 3), (3, 4, 4)),
    PoolCase("volume_no_channels", (2, 0, 4, 5, 6), (2, 3, 2)),
)


def random_conv_cases(count: int, seed: int, axes: int = 2) -> tuple[ConvCase, ...]:
    """Geometries drawn over every option at once; those without an output are drawn again."""
    rng = np.random.default_rng(seed)

    cases: list[ConvCase] = []
    while len(cases) < count:
        groups = int(rng.choice([1, 1, 2, 3]))
        c, k = (groups * n for n in _ints(rng, 1, 6))
        pads = tuple(_pair(rng, 0, 3) for _ in range(axes))
        words: list[Padding] = ["valid", "same", "same_lower", pads]
        case = ConvCase(
            name=f"random{len(cases)}",
            x=(int(rng.integers(1, 4)), c, *_ints(rng, 1, 14, axes)),
            w=(k, c // groups, *_ints(rng, 1, 5, axes)),
            stride=_ints(rng, 1, 4, axes),
            padding=words[rng.integers(len(words))],
            dilation=_ints(rng, 1, 3, axes),
            groups=groups,
        )
        if min(case.y) > 0:
            cases.append(case)
    return tuple(cases)


def random_pool_cases(
    count: int, seed: int, axes: int = 2, *, dilated: bool = True
) -> tuple[PoolCase, ...]:
    """Poolings drawn over every option at once; those without an output are drawn again."""
    rng = np.random.default_rng(seed)

    cases: list[PoolCase] = []
    while len(cases) < count:
        window, dilation = _ints(rng, 1, 4, axes), _ints(rng, 1, 3 if dilated else 1, axes)
        largest = [((k - 1) * d + 1) // 2 for k, d in zip(window, dilation, strict=True)]
        case = PoolCase(
            name=f"random{len(cases)}",
            x=(*_ints(rng, 1, 4), *_ints(rng, 1, 14, axes)),
            kernel_size=window,
            stride=_ints(rng, 1, 4, axes),
            padding=tuple(_pair(rng, 0, half) for half in largest),
            dilation=dilation,
            ceil_mode=bool(rng.integers(2)),
        )
        if min(a.out for a in case.axes) > 0:
            cases.append(case)
    return tuple(cases)


def _ints(rng: np.random.Generator, low: int, high: int, count: int = 2) -> tuple[int, ...]:
    return tuple(rng.integers(low, high + 1, count).tolist())


def _pair(rng: np.random.Generator, low: int, high: int) -> tuple[int, int]:
    first, second = _ints(rng, low, high)
    return first, second
