"""Losses: means over the batch, with the gradient for the prediction.

`forward(prediction, target)` returns a float; `backward()` returns dloss/dprediction of the last
forward pass, in the prediction's shape and dtype. Predictions are float32 or float64.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from .._backend.dispatch import resolve
from .activations import sigmoid
from .layer import Array


class Loss(ABC):
    """Base of all losses."""

    _gradient: Array | None = None

    @abstractmethod
    def forward(self, prediction: Array, target: Array) -> float:
        """The mean loss."""

    def backward(self) -> Array:
        """dloss/dprediction of the last forward pass."""
        if self._gradient is None:
            raise RuntimeError(f"{type(self).__name__}.backward needs forward() first")
        return self._gradient

    def __call__(self, prediction: Array, target: Array) -> float:
        return self.forward(prediction, target)


class SoftmaxCrossEntropy(Loss):
    """-log softmax(prediction)[target], the mean over the batch.

    prediction: logits (N, classes). target: integer class labels (N,) in [0, classes).
    Computed as logsumexp(prediction) - prediction[target], which neither overflows nor takes log 0.
    """

    def forward(self, prediction: Array, target: Array) -> float:
        backend, (prediction, target) = resolve("prediction, target", prediction, target)
        _check_labels(prediction, target)
        xp, batch = backend.xp, len(target)
        labelled = xp.arange(batch), target
        with np.errstate(invalid="ignore"):  # inf - inf is NaN, which the loss shows
            shifted = prediction - prediction.max(axis=1, keepdims=True)
            gradient = xp.exp(shifted)
            sums = gradient.sum(axis=1, keepdims=True)
            losses = xp.log(sums[:, 0]) - shifted[labelled]
            gradient /= sums
        gradient[labelled] -= 1
        gradient /= batch
        self._gradient = gradient
        return float(losses.sum()) / batch


class BinaryCrossEntropy(Loss):
    """-t log s - (1 - t) log(1 - s) with s = sigmoid(prediction), the mean over all elements.

    prediction: logits of any shape. target: the same shape, values in [0, 1], any real dtype.
    Computed as max(x, 0) - x t + log(1 + exp(-|x|)), which does not overflow.
    """

    def forward(self, prediction: Array, target: Array) -> float:
        backend, (prediction, target) = resolve("prediction, target", prediction, target)
        t = _check_elementwise(prediction, target)
        xp = backend.xp
        if not bool(((t >= 0) & (t <= 1)).all()):
            raise ValueError(f"target has values in [{t.min()}, {t.max()}], expected [0, 1]")
        losses = xp.maximum(prediction, 0) - prediction * t
        losses += xp.log1p(xp.exp(-xp.abs(prediction)))
        self._gradient = (sigmoid(prediction) - t) / prediction.size
        return float(losses.mean())


class MeanSquaredError(Loss):
    """(prediction - target)², the mean over all elements.

    prediction and target: any one shape; the target of any real dtype.
    """

    def forward(self, prediction: Array, target: Array) -> float:
        _, (prediction, target) = resolve("prediction, target", prediction, target)
        difference = prediction - _check_elementwise(prediction, target)
        self._gradient = difference * (2 / prediction.size)
        return float((difference * difference).mean())


def _check_prediction(prediction: Array) -> None:
    if prediction.dtype not in (np.float32, np.float64):
        raise TypeError(f"prediction has dtype {prediction.dtype}, expected float32 or float64")
    if prediction.size == 0:
        raise ValueError(
            f"prediction has shape {prediction.shape}, expected a batch of at least one"
        )


def _check_labels(prediction: Array, target: Array) -> None:
    _check_prediction(prediction)
    if prediction.ndim != 2:
        raise ValueError(f"prediction has shape {prediction.shape}, expected (batch, classes)")
    if target.dtype.kind not in "iu":
        raise TypeError(f"target has dtype {target.dtype}, expected integer class labels")
    batch, classes = prediction.shape
    if target.shape != (batch,):
        raise ValueError(
            f"target has shape {target.shape}, expected ({batch},) for a prediction of shape "
            f"{prediction.shape}: one class label a row, not one-hot"
        )
    low, high = int(target.min()), int(target.max())
    if low < 0 or high >= classes:
        raise ValueError(f"target has labels from {low} to {high}, expected 0 to {classes - 1}")


def _check_elementwise(prediction: Array, target: Array) -> Array:
    """The target, checked, in the prediction's dtype."""
    _check_prediction(prediction)
    if target.shape != prediction.shape:
        raise ValueError(
            f"target has shape {target.shape}, expected the prediction's {prediction.shape}"
        )
    if target.dtype.kind not in "biuf":
        raise TypeError(f"target has dtype {target.dtype}, expected real numbers")
    return target.astype(prediction.dtype, copy=False)
