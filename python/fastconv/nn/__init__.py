"""Layers, losses and training over `fastconv`'s operators: no autograd, no tensor class.

Each layer is a forward and a backward pass over arrays; `Sequential` chains them and trains.
"""

from . import init
from .activations import LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from .batch_norm import BatchNorm2d
from .conv import Conv1d, Conv2d, Conv3d, ConvTranspose2d
from .dropout import Dropout
from .flatten import Flatten
from .layer import Buffer, Layer, Parameter
from .linear import Linear
from .losses import BinaryCrossEntropy, Loss, MeanSquaredError, SoftmaxCrossEntropy
from .pool import AdaptiveAvgPool2d, AvgPool2d, GlobalAvgPool2d, MaxPool2d
from .residual import Residual
from .sequential import Sequential
from .training import Callback, History

__all__ = [
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm2d",
    "BinaryCrossEntropy",
    "Buffer",
    "Callback",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose2d",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2d",
    "History",
    "Layer",
    "LeakyReLU",
    "Linear",
    "Loss",
    "MaxPool2d",
    "MeanSquaredError",
    "Parameter",
    "ReLU",
    "Residual",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "SoftmaxCrossEntropy",
    "Tanh",
    "init",
]
