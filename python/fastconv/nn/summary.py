"""The table that `Sequential.summary` returns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np

from .layer import Array, Layer, evaluating
from .training import Trainable

Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = dict[Layer, tuple[Shape, Shape]]  # of input and output
Row: TypeAlias = tuple[str, str, str, str]


def table(model: Trainable, input_shape: Sequence[int]) -> str:
    """One row a layer, from a forward pass of one sample of zeros, and the totals."""
    shapes: Shapes = {}
    with evaluating(model), _noting(model, shapes):
        model.forward(np.zeros((1, *input_shape), model.dtype))
    rows: list[Row] = [("layer", "output shape", "parameters", "MFLOPs")]
    for name, layer in model.children():
        rows += _rows(layer, name, shapes)
    leaves = [layer for layer in model.walk() if not layer.children()]
    flops = sum(layer.flops(*shapes[layer]) for layer in leaves)
    rows.append(_row(f"{model.name}, total", shapes[model][1], _count(model), flops))

    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [_line(row, widths) for row in rows]
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


@contextmanager
def _noting(model: Layer, shapes: Shapes) -> Iterator[None]:
    """While the block runs, every layer's forward pass notes its shapes."""

    def noting(layer: Layer) -> None:
        forward = layer.forward

        def noted(x: Array) -> Array:
            y = forward(x)
            shapes[layer] = (x.shape, y.shape)
            return y

        vars(layer)["forward"] = noted  # on the instance, before its class's

    layers = list(model.walk())
    for layer in layers:
        noting(layer)
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["forward"]


def _rows(layer: Layer, name: str, shapes: Shapes, depth: int = 0) -> Iterator[Row]:
    """The row of a layer; of one made of layers, theirs below it, indented."""
    inner = layer.children()
    label = "  " * depth + ("" if name.isdecimal() else f"{name}: ")
    if not inner:
        flops = layer.flops(*shapes[layer])
        yield _row(f"{label}{layer!r}", shapes[layer][1], _count(layer), flops)
        return
    yield f"{label}{type(layer).__name__}", _extents(shapes[layer][1]), "", ""
    for child_name, child in inner:
        yield from _rows(child, child_name, shapes, depth + 1)


def _count(layer: Layer) -> int:
    return sum(p.data.size for p in layer.parameters())


def _extents(shape: Shape) -> str:
    return " x ".join(map(str, shape[1:]))


def _row(label: str, shape: Shape, parameters: int, flops: int) -> Row:
    return label, _extents(shape), f"{parameters:,}", f"{flops / 1e6:,.2f}"


def _line(row: Row, widths: list[int]) -> str:
    """Words to the left, numbers to the right."""
    aligned = [f"{cell:<{width}}" for cell, width in zip(row[:2], widths[:2], strict=True)]
    aligned += [f"{cell:>{width}}" for cell, width in zip(row[2:], widths[2:], strict=True)]
    return "  ".join(aligned).rstrip()
