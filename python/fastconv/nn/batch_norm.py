"""Batch normalisation."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from .. import ops
from .._backend.geometry import check_layout
from .._checks import check, is_relu, positive
from ..ops.options import Activation, Images
from . import init
from .layer import Array, Buffer, Layer, Parameter


class BatchNorm2d(Layer):
    """y = activation((x - mean) / sqrt(variance + eps) * weight + bias), each channel by itself.

    x and y are (N, channels, H, W), or channels last with layout="NHWC". In training mode mean and
    (biased) variance are those of the batch, and

        running = (1 - momentum) * running + momentum * batch

    tracks both, the variance in its unbiased form; in evaluation mode, and while frozen, the layer
    uses these running statistics. They are saved with the weights. One value a channel is a
    ValueError in training mode. `activation` is None or "relu", computed by the same kernel call.

    Ioffe, Szegedy: Batch Normalization, 2015, arXiv 1502.03167.
    """

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        activation: Activation = None,
        layout: Images = "NCHW",
        dtype: DTypeLike = "float32",
    ) -> None:
        check("eps", eps, eps > 0, "a number > 0")
        check("momentum", momentum, 0 <= momentum <= 1, "a number in [0, 1]")
        check_layout(layout, 2)
        size, kind = positive("channels", channels), init.floating(dtype)
        self.weight = Parameter("weight", np.ones(size, kind))
        self.bias = Parameter("bias", np.zeros(size, kind))
        self.running_mean = Buffer("running_mean", np.zeros(size, kind))
        self.running_var = Buffer("running_var", np.ones(size, kind))
        self.eps = eps
        self.momentum = momentum
        is_relu(activation)  # or it is refused
        self.activation = activation
        self.layout = layout

    def forward(self, x: Array) -> Array:
        channels = self.weight.data.size
        axis = 3 if self.layout == "NHWC" else 1
        if x.ndim != 4 or x.shape[axis] != channels:
            raise ValueError(
                f"x has shape {x.shape} ({self.layout}), expected 4 axes and {channels} channels"
            )
        of_batch = self.training and self.weight.trainable
        if of_batch:
            mean, variance = self._track(x, x.size // channels)
        else:
            mean, variance = self.running_mean.data, self.running_var.data
        rstd = 1 / (variance + self.eps) ** 0.5
        y = self._compute(
            ops.batch_norm,
            *(x, mean, self.weight.data * rstd, self.bias.data),
            activation=self.activation,
            layout=self.layout,
        )
        self._saved = (x, y, mean, rstd, of_batch) if self.training else None
        return y

    def backward(self, dy: Array) -> Array:
        x, y, mean, rstd, of_batch = self._recall()
        dy = self._before_activation(dy, y)
        weight, bias = self.weight, self.bias
        if of_batch:
            return self._compute(
                ops.batch_norm_grad,
                *(dy, x, mean, rstd, weight.data, weight.grad, bias.grad),
                layout=self.layout,
            )
        zero = np.zeros_like(mean)  # frozen: y is linear in x
        return self._compute(
            ops.batch_norm,
            *(dy, zero, weight.data * rstd, zero),
            layout=self.layout,
            slot="dx",
        )

    def extra_repr(self) -> str:
        options = {
            "eps": self.eps,
            "momentum": self.momentum,
            "activation": self.activation,
            "layout": self.layout,
        }
        return ", ".join([f"{self.weight.data.size}", *self._given(options)])

    def _track(self, x: Array, values: int) -> tuple[Array, Array]:
        """The batch's mean and biased variance, of `values` a channel, once they are tracked."""
        if values < 2:
            raise ValueError(
                f"x has shape {x.shape}, so {values} value for each channel, expected at least 2 "
                "in training mode: use a larger batch, or eval()"
            )
        mean, variance = ops.batch_moments(x, layout=self.layout)
        unbiased = variance * (values / (values - 1))
        for running, batch in ((self.running_mean, mean), (self.running_var, unbiased)):
            running.data *= 1 - self.momentum
            running.data += self.momentum * batch
        return mean, variance
