"""Layers, losses and training over `fastconv`'s operators: no autograd, no tensor class.

Each layer is a forward and a backward pass over arrays; `Sequential` chains them and trains.
"""

from . import init
from .activations import ReLU, Sigmoid, Softmax
from .conv import Conv2d
from .dropout import Dropout
from .flatten import Flatten
from .layer import Layer, Parameter
from .linear import Linear
from .losses import BinaryCrossEntropy, Loss, MeanSquaredError, SoftmaxCrossEntropy
from .pool import MaxPool2d
from .sequential import Sequential
from .training import Callback, History

__all__ = [
    "BinaryCrossEntropy",
    "Callback",
    "Conv2d",
    "Dropout",
    "Flatten",
    "History",
    "Layer",
    "Linear",
    "Loss",
    "MaxPool2d",
    "MeanSquaredError",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "SoftmaxCrossEntropy",
    "init",
]
