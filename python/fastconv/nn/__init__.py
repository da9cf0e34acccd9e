"""Layers, losses and training over `fastconv`'s operators: no autograd, no tensor class.

Each layer is a forward and a backward pass over arrays; `Sequential` chains them and trains.
"""

from . import init
from .activations import LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from .batch_norm import BatchNorm2d
from .conv import Conv2d
from .dropout import Dropout
from .flatten import Flatten
from .layer import Buffer, Layer, Parameter
from .linear import Linear
from .losses import BinaryCrossEntropy, Loss, MeanSquaredError, SoftmaxCrossEntropy
from .pool import MaxPool2d
from .residual import Residual
from .sequential import Sequential
from .training import Callback, History

__all__ = [
    "BatchNorm2d",
    "BinaryCrossEntropy",
    "Buffer",
    "Callback",
    "Conv2d",
    "Dropout",
    "Flatten",
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
