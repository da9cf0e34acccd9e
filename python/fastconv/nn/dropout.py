"""Dropout."""

from __future__ import annotations

import numpy as np

from .._backend.dispatch import namespace
from .._checks import check
from .init import RNG
from .layer import Array, Layer


class Dropout(Layer):
    """In training each value is zero with probability p, else divided by 1 - p; else y = x.

    Without `rng` the random numbers come from `fit`'s seed. Srivastava et al.: Dropout, JMLR 2014
    (here in its inverted form, which leaves evaluation alone).
    """

    def __init__(self, p: float, rng: RNG = None) -> None:
        check("p", p, 0 <= p < 1, "a probability in [0, 1)")
        self.p = p
        self._rng = np.random.default_rng(rng)
        self._owns_rng = rng is not None

    def seed(self, rng: np.random.Generator) -> None:
        """Draw from `rng` from now on, unless the layer was made with its own."""
        if not self._owns_rng:
            self._rng = rng

    def forward(self, x: Array) -> Array:
        if not self.training:
            self._saved = None
            return x
        kept = self._rng.random(x.shape, np.float32) >= self.p
        self._saved = namespace(x).asarray(kept * x.dtype.type(1 / (1 - self.p)))
        y: Array = x * self._saved
        return y

    def backward(self, dy: Array) -> Array:
        dx: Array = dy * self._recall()
        return dx

    def extra_repr(self) -> str:
        return f"{self.p}"
