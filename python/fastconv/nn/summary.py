"""The table that `Sequential.summary` returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .layer import Layer, evaluating

if TYPE_CHECKING:
    from .sequential import Sequential


def table(model: Sequential, input_shape: Sequence[int]) -> str:
    """One row a layer, from a forward pass of one sample of zeros, and the totals."""
    rows = [("layer", "output shape", "parameters", "MFLOPs")]
    flops = 0
    x = np.zeros((1, *input_shape), model.dtype)
    with evaluating(model):
        for layer in model.layers:
            x = layer.forward(x)
            flops += layer.flops(x.shape)
            rows.append(_row(repr(layer), x.shape[1:], layer, layer.flops(x.shape)))
    rows.append(_row(f"{model.name}, total", x.shape[1:], model, flops))

    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [_line(row, widths) for row in rows]
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def _row(label: str, shape: tuple[int, ...], layer: Layer, flops: int) -> tuple[str, str, str, str]:
    parameters = sum(p.data.size for p in layer.parameters())
    return label, " x ".join(map(str, shape)), f"{parameters:,}", f"{flops / 1e6:,.2f}"


def _line(row: tuple[str, str, str, str], widths: list[int]) -> str:
    """Words to the left, numbers to the right."""
    aligned = [f"{cell:<{width}}" for cell, width in zip(row[:2], widths[:2], strict=True)]
    aligned += [f"{cell:>{width}}" for cell, width in zip(row[2:], widths[2:], strict=True)]
    return "  ".join(aligned)
