"""The float64 oracle of batch normalisation, from its definition. Arrays are x[N,C,*in]."""

from typing import Any

import numpy as np
import numpy.typing as npt

from reference import Array, per_channel


def batch_norm(
    x: npt.NDArray[Any], weight: npt.NDArray[Any], bias: npt.NDArray[Any], eps: float
) -> Array:
    """y (N, C, *in): each channel less its mean, over its standard deviation, scaled, shifted."""
    axes = x.ndim - 2
    y: Array = _normalised(x, eps) * per_channel(weight, axes) + per_channel(bias, axes)
    return y


def batch_norm_grad(
    dy: npt.NDArray[Any], x: npt.NDArray[Any], weight: npt.NDArray[Any], eps: float
) -> tuple[Array, Array, Array]:
    """dx, dweight, dbias of sum(y * dy), by the chain rule through mean and variance."""
    x, dy = x.astype(np.float64), dy.astype(np.float64)
    over = (0, *range(2, x.ndim))
    values = x.size // x.shape[1]
    deviation = x - x.mean(axis=over, keepdims=True)
    variance = (deviation**2).mean(axis=over, keepdims=True)
    dxn = dy * per_channel(weight, x.ndim - 2)
    dvariance = (dxn * deviation).sum(axis=over, keepdims=True) * -0.5 * (variance + eps) ** -1.5
    ddeviation = dxn * (variance + eps) ** -0.5 + dvariance * 2 * deviation / values
    dx = ddeviation - ddeviation.mean(axis=over, keepdims=True)
    return dx, (dy * _normalised(x, eps)).sum(axis=over), dy.sum(axis=over)


def _normalised(x: npt.NDArray[Any], eps: float) -> Array:
    """Each channel with mean 0 and, but for eps, biased variance 1."""
    x = x.astype(np.float64)
    over = (0, *range(2, x.ndim))
    normalised: Array = x - x.mean(axis=over, keepdims=True)
    normalised /= np.sqrt((normalised**2).mean(axis=over, keepdims=True) + eps)
    return normalised
