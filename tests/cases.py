"""Geometries as data: cases.txt, which the tests in C++ read too, random ones, networks' layers."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import reference
from fastconv.bench import suites

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


@dataclass(frozen=True)
class TransposedCase:
    """One transposed convolution: x is (N, C, *in), w is (C, K/groups, *filter)."""

    name: str
    x: Shape
    w: Shape
    stride: PerAxis = 1
    padding: Padding = 0
    output_padding: PerAxis = 0
    dilation: PerAxis = 1
    groups: int = 1

    def __str__(self) -> str:
        return self.name

    @property
    def geometry(self) -> dict[str, Any]:
        """The keywords that every pass takes."""
        names = ("stride", "padding", "output_padding", "dilation", "groups")
        return {name: getattr(self, name) for name in names}

    @property
    def axes(self) -> list[reference.Axis]:
        """The spatial axes as the oracle resolves them."""
        geometry = self.stride, self.padding, self.output_padding, self.dilation
        return reference.transposed_axes(self.x[2:], self.w[2:], *geometry)

    @property
    def y(self) -> Shape:
        """The result's shape."""
        return self.x[0], self.w[1] * self.groups, *(a.size for a in self.axes)


Case = TypeVar("Case", ConvCase, TransposedCase, PoolCase)


@cache
def _sections() -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """The names and the fields of every section of cases.txt."""
    sections: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for line in Path(__file__).with_name("cases.txt").read_text().splitlines():
        if line.startswith("["):
            problems = sections[line.strip("[]")] = []
        elif line and not line.startswith("#"):
            name, *fields = line.split()
            pairs = (field.partition("=")[::2] for field in fields)
            problems.append((name, {key: _value(text) for key, text in pairs}))
    return sections


def _value(text: str) -> Any:
    """A number, a word, or a tuple of numbers or pairs; a keyword alone is true."""
    if not text or text.isalpha() or "_" in text:
        return text or True
    numbers = [tuple(map(int, part.split(":"))) for part in text.split(",") if part]
    flat = tuple(n[0] if len(n) == 1 else n for n in numbers)
    return flat[0] if text.isdigit() else flat


def read(kind: type[Case], section: str) -> tuple[Case, ...]:
    """The problems of a section."""
    return tuple(kind(name, **fields) for name, fields in _sections()[section])


CONV_CASES = read(ConvCase, "conv")
LINE_CASES = read(ConvCase, "conv of lines")
VOLUME_CASES = read(ConvCase, "conv of volumes")
WINOGRAD_CASES = read(ConvCase, "winograd")
KERNEL_CASES = read(ConvCase, "kernels") + read(ConvCase, "larger kernels")
TRANSPOSED_CASES = read(TransposedCase, "transposed")
POOL_CASES = read(PoolCase, "max-pool")
POOL_LINE_CASES = read(PoolCase, "max-pool of lines")
POOL_VOLUME_CASES = read(PoolCase, "max-pool of volumes")
DEEP_PADS = read(PoolCase, "deep pads")


def network_layers(most_flops: int) -> tuple[ConvCase, ...]:
    """The layers that speed is judged on (bench/problems.json), for one image; the smaller ones."""
    return tuple(
        ConvCase(
            p.name, p.input_shape(1), p.weight_shape, p.stride, p.padding, p.dilation, p.groups
        )
        for p in suites.load()[0]
        if p.flops(1) <= most_flops
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
