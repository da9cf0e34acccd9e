"""Ready-made networks, untrained; all end in logits. `build("name")` makes one by name.

`rng` is a seed or a generator for the weights, `classes` the number of outputs. Layers that are
followed by ReLU are initialised by He's rule, the others by Glorot's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .nn import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Layer,
    Linear,
    MaxPool2d,
    Residual,
    Sequential,
)
from .nn.init import RNG
from .ops.options import Activation


def mnist_convnet(rng: RNG = None, *, classes: int = 10) -> Sequential:
    """The convnet of the introductory texts, for (N, 1, 28, 28); 93,322 parameters.

    F. Chollet: Deep Learning with Python, 2017, section 5.1.
    """
    rng = np.random.default_rng(rng)
    return Sequential(
        Conv2d(1, 32, 3, activation="relu", rng=rng),
        MaxPool2d(2),
        Conv2d(32, 64, 3, activation="relu", rng=rng),
        MaxPool2d(2),
        Conv2d(64, 64, 3, activation="relu", rng=rng),
        Flatten(),
        Linear(64 * 3 * 3, 64, activation="relu", rng=rng),
        Linear(64, classes, rng=rng),
        name="mnist_convnet",
    )


def mlp(rng: RNG = None, *, classes: int = 10) -> Sequential:
    """The dense net that the texts set beside it, for (N, 1, 28, 28); 407,050 parameters.

    F. Chollet: Deep Learning with Python, 2017, section 2.1.
    """
    rng = np.random.default_rng(rng)
    return Sequential(
        Flatten(),
        Linear(28 * 28, 512, activation="relu", rng=rng),
        Linear(512, classes, rng=rng),
        name="mlp",
    )


def lenet5(rng: RNG = None, *, classes: int = 10) -> Sequential:
    """LeNet-5 in its usual modern form, for (N, 1, 28, 28); 61,706 parameters.

    LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition, 1998.
    As there: 5 x 5 filters, 6 and 16 of them, averages of 2 x 2, then 120 and 84 units. Otherwise:
    28 x 28 images are padded by the first layer, every map of C3 sees all six of S2, ReLU stands
    for the scaled tanh, the averages have no coefficients of their own, and a dense layer (with
    softmax in the loss) stands for the Gaussian connections.
    """
    rng = np.random.default_rng(rng)
    return Sequential(
        Conv2d(1, 6, 5, padding=2, activation="relu", rng=rng),
        AvgPool2d(2),
        Conv2d(6, 16, 5, activation="relu", rng=rng),
        AvgPool2d(2),
        Flatten(),
        Linear(16 * 5 * 5, 120, activation="relu", rng=rng),
        Linear(120, 84, activation="relu", rng=rng),
        Linear(84, classes, rng=rng),
        name="lenet5",
    )


def alexnet(rng: RNG = None, *, classes: int = 1000) -> Sequential:
    """AlexNet in one tower, for (N, 3, 224, 224); 61,100,840 parameters.

    Krizhevsky: One weird trick for parallelizing convolutional neural networks, 2014, arXiv
    1404.5997, without local response normalisation, as torchvision has it.
    """
    rng = np.random.default_rng(rng)
    return Sequential(
        Conv2d(3, 64, 11, stride=4, padding=2, activation="relu", rng=rng),
        MaxPool2d(3, stride=2),
        Conv2d(64, 192, 5, padding=2, activation="relu", rng=rng),
        MaxPool2d(3, stride=2),
        Conv2d(192, 384, 3, padding=1, activation="relu", rng=rng),
        Conv2d(384, 256, 3, padding=1, activation="relu", rng=rng),
        Conv2d(256, 256, 3, padding=1, activation="relu", rng=rng),
        MaxPool2d(3, stride=2),
        Flatten(),
        Dropout(0.5),
        Linear(256 * 6 * 6, 4096, activation="relu", rng=rng),
        Dropout(0.5),
        Linear(4096, 4096, activation="relu", rng=rng),
        Linear(4096, classes, rng=rng),
        name="alexnet",
    )


_VGG_STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def vgg(
    depth: int = 16, *, batch_norm: bool = False, rng: RNG = None, classes: int = 1000
) -> Sequential:
    """VGG with 11, 13, 16 or 19 layers of weights, for (N, 3, 224, 224).

    Simonyan, Zisserman: Very deep convolutional networks for large-scale image recognition, 2015,
    arXiv 1409.1556, configurations A, B, D and E; 138,357,544 parameters with 16 layers.
    `batch_norm` normalises after each convolution, which keeps its bias, as in torchvision.
    """
    if depth not in _VGG_STAGES:
        raise ValueError(f"depth must be one of {', '.join(map(str, _VGG_STAGES))}, got {depth}")
    rng = np.random.default_rng(rng)
    layers: list[Layer] = []
    channels = 3
    for stage, repeats in enumerate(_VGG_STAGES[depth]):
        width = min(64 << stage, 512)
        for _ in range(repeats):
            activation: Activation = None if batch_norm else "relu"
            layers.append(Conv2d(channels, width, 3, padding=1, activation=activation, rng=rng))
            if batch_norm:
                layers.append(BatchNorm2d(width, activation="relu"))
            channels = width
        layers.append(MaxPool2d(2))
    return Sequential(
        *layers,
        Flatten(),
        Linear(512 * 7 * 7, 4096, activation="relu", rng=rng),
        Dropout(0.5),
        Linear(4096, 4096, activation="relu", rng=rng),
        Dropout(0.5),
        Linear(4096, classes, rng=rng),
        name=f"vgg{depth}{'_bn' if batch_norm else ''}",
    )


_RESNET_STAGES = {18: (2, 2, 2, 2), 20: (3, 3, 3), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


def resnet(depth: int = 18, *, rng: RNG = None, classes: int | None = None) -> Sequential:
    """The residual networks: 20 layers for CIFAR-10; 18, 34 or 50 for ImageNet.

    He, Zhang, Ren, Sun: Deep residual learning for image recognition, 2016, arXiv 1512.03385.
    Where a shortcut changes shape it is a 1 x 1 convolution with batch normalisation (option B; the
    paper's networks for CIFAR-10 pad with zeros instead). In the bottlenecks of 50 layers the 3 x 3
    convolution has the stride, as in torchvision. `classes` is 10 for 20 layers, else 1000; x is
    (N, 3, 32, 32) or (N, 3, 224, 224), or other extents, since an average over the whole maps
    comes before the last layer. 272,474, 11,689,512, 21,797,672 and 25,557,032 parameters.
    """
    if depth not in _RESNET_STAGES:
        expected = ", ".join(map(str, sorted(_RESNET_STAGES)))
        raise ValueError(f"depth must be one of {expected}, got {depth}")
    rng = np.random.default_rng(rng)
    if depth == 20:
        channels, classes = 16, classes or 10
        layers = _conv_norm(3, channels, 3, 1, rng)
    else:
        channels, classes = 64, classes or 1000
        layers = [*_conv_norm(3, channels, 7, 2, rng), MaxPool2d(3, stride=2, padding=1)]
    width = channels
    for stage, repeats in enumerate(_RESNET_STAGES[depth]):
        for i in range(repeats):
            stride = 2 if stage > 0 and i == 0 else 1
            if depth == 50:
                layers.append(_bottleneck_block(channels, width, stride, rng))
                channels = 4 * width
            else:
                layers.append(_basic_block(channels, width, stride, rng))
                channels = width
        width *= 2
    layers += [GlobalAvgPool2d(), Flatten(), Linear(channels, classes, rng=rng)]
    return Sequential(*layers, name=f"resnet{depth}")


def _conv_norm(
    c: int, k: int, size: int, stride: int, rng: RNG, activation: Activation = "relu"
) -> list[Layer]:
    """A convolution that keeps extents but for its stride, then batch normalisation."""
    conv = Conv2d(c, k, size, stride=stride, padding=size // 2, bias=False, rng=rng)
    return [conv, BatchNorm2d(k, activation=activation)]


def _basic_block(c: int, width: int, stride: int, rng: RNG) -> Residual:
    body = (*_conv_norm(c, width, 3, stride, rng), *_conv_norm(width, width, 3, 1, rng, None))
    return Residual(Sequential(*body), _shortcut(c, width, stride, rng))


def _bottleneck_block(c: int, width: int, stride: int, rng: RNG) -> Residual:
    k = 4 * width
    body = (
        *_conv_norm(c, width, 1, 1, rng),
        *_conv_norm(width, width, 3, stride, rng),
        *_conv_norm(width, k, 1, 1, rng, None),
    )
    return Residual(Sequential(*body), _shortcut(c, k, stride, rng))


def _shortcut(c: int, k: int, stride: int, rng: RNG) -> Sequential | None:
    if stride == 1 and c == k:
        return None
    return Sequential(*_conv_norm(c, k, 1, stride, rng, None))


_BUILDERS: dict[str, Callable[..., Sequential]] = {
    "mnist_convnet": mnist_convnet,
    "mlp": mlp,
    "lenet5": lenet5,
    "alexnet": alexnet,
    **{f"vgg{depth}": partial(vgg, depth) for depth in _VGG_STAGES},
    **{f"vgg{depth}_bn": partial(vgg, depth, batch_norm=True) for depth in _VGG_STAGES},
    **{f"resnet{depth}": partial(resnet, depth) for depth in sorted(_RESNET_STAGES)},
}

NAMES = tuple(_BUILDERS)


def input_shape(name: str) -> tuple[int, int, int]:
    """(C, H, W) of the images that `build(name)` is made for."""
    if name in ("mnist_convnet", "mlp", "lenet5"):
        return 1, 28, 28
    return (3, 32, 32) if name == "resnet20" else (3, 224, 224)


def build(name: str, **kwargs: Any) -> Sequential:
    """The model called `name`, one of NAMES, with the keywords of its function."""
    if name not in _BUILDERS:
        raise ValueError(f"model must be one of {', '.join(NAMES)}, got {name!r}")
    return _BUILDERS[name](**kwargs)
