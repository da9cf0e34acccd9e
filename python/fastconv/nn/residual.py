"""The residual connection."""

from __future__ import annotations

from .. import ops
from .._checks import is_relu
from ..ops.options import Activation
from .layer import Array, Layer


class Residual(Layer):
    """y = activation(body(x) + shortcut(x)); without a shortcut x itself is added.

    `body` and `shortcut` are layers whose outputs have one shape; `activation` is None or "relu".
    He, Zhang, Ren, Sun: Deep residual learning for image recognition, 2016, arXiv 1512.03385.
    """

    def __init__(
        self, body: Layer, shortcut: Layer | None = None, activation: Activation = "relu"
    ) -> None:
        self.body = body
        self.shortcut = shortcut
        is_relu(activation)  # or it is refused
        self.activation = activation

    def forward(self, x: Array) -> Array:
        residual, identity = self.body.forward(x), self._shortcut(x)
        if residual.shape != identity.shape:
            raise ValueError(
                f"body's output has shape {residual.shape} and the shortcut's {identity.shape}, "
                "expected one shape: give Residual a shortcut that makes it so"
            )
        y = self._compute(ops.add, residual, identity, activation=self.activation)
        self._saved = y if self.training else None
        return y

    def backward(self, dy: Array) -> Array | None:
        dy = self._before_activation(dy, self._recall())
        through_body = self.body.backward(dy)
        through_shortcut = dy if self.shortcut is None else self.shortcut.backward(dy)
        if not self.needs_input_grad:
            return None
        return self._compute(ops.add, through_body, through_shortcut, slot="dx")

    def extra_repr(self) -> str:
        inside = [f"{name}={layer!r}" for name, layer in self.children()]
        return ", ".join([*inside, *self._given({"activation": self.activation})])

    def _shortcut(self, x: Array) -> Array:
        return x if self.shortcut is None else self.shortcut.forward(x)
