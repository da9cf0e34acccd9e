"""Flatten, the step from images to dense layers."""

from __future__ import annotations

import math

from .layer import Array, Layer


class Flatten(Layer):
    """(N, ...) to (N, product of the rest), in C order; a view where the strides allow it."""

    def forward(self, x: Array) -> Array:
        self._saved = x.shape if self.training else None
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))

    def backward(self, dy: Array) -> Array:
        dx: Array = dy.reshape(self._recall())
        return dx
