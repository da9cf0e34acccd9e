"""Elementwise activations and softmax. y has the shape of x."""

from __future__ import annotations

import numpy as np

from .. import ops
from .._checks import check
from ..ops.options import Activation
from .layer import Array, Layer


class ReLU(Layer):
    """y = max(x, 0); the gradient at 0 is 0."""

    activation: Activation = "relu"

    def forward(self, x: Array) -> Array:
        y = self._compute(ops.relu, x)
        self._saved = y if self.training else None
        return y

    def backward(self, dy: Array) -> Array:
        return self._before_activation(dy, self._recall())


class LeakyReLU(Layer):
    """y = x where x > 0, else slope * x; 0 < slope < 1. The gradient at 0 is slope.

    Maas, Hannun, Ng: Rectifier nonlinearities improve neural network acoustic models, 2013.
    """

    def __init__(self, slope: float) -> None:
        check("slope", slope, 0 < slope < 1, "a number in (0, 1)")
        self.slope = slope

    def forward(self, x: Array) -> Array:
        y: Array = np.maximum(x, x * self.slope)
        self._saved = y if self.training else None
        return y

    def backward(self, dy: Array) -> Array:
        dx: Array = np.where(self._recall() > 0, dy, dy * self.slope)
        return dx

    def extra_repr(self) -> str:
        return f"{self.slope}"


class Tanh(Layer):
    """y = tanh(x)."""

    def forward(self, x: Array) -> Array:
        y: Array = np.tanh(x)
        self._saved = y if self.training else None
        return y

    def backward(self, dy: Array) -> Array:
        y = self._recall()
        dx: Array = dy * (1 - y * y)
        return dx


class Sigmoid(Layer):
    """y = 1 / (1 + exp(-x))."""

    def forward(self, x: Array) -> Array:
        y = sigmoid(x)
        self._saved = y if self.training else None
        return y

    def backward(self, dy: Array) -> Array:
        y = self._recall()
        dx: Array = dy * y * (1 - y)
        return dx


class Softmax(Layer):
    """y = exp(x) / sum(exp(x)) along `axis`; train with logits and SoftmaxCrossEntropy instead."""

    def __init__(self, axis: int = 1) -> None:
        self.axis = axis

    def forward(self, x: Array) -> Array:
        y = softmax(x, self.axis)
        self._saved = y if self.training else None
        return y

    def backward(self, dy: Array) -> Array:
        y = self._recall()
        dx: Array = y * (dy - (dy * y).sum(axis=self.axis, keepdims=True))
        return dx

    def extra_repr(self) -> str:
        return f"axis={self.axis}"


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), by the exponential of -|x| alone, which cannot overflow."""
    e = np.exp(-np.abs(x))
    y: Array = np.where(x >= 0, np.ones_like(e), e) / (1 + e)
    return y


def softmax(x: Array, axis: int) -> Array:
    """exp(x) / sum(exp(x)) along `axis`, shifted by the maximum so that it cannot overflow."""
    e: Array = np.exp(x - x.max(axis=axis, keepdims=True))
    e /= e.sum(axis=axis, keepdims=True)
    return e
