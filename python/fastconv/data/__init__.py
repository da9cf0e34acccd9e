"""Image data sets as NumPy arrays.

Every loader returns ((x_train, y_train), (x_test, y_test)): x uint8 (N, C, H, W), y int64 (N,).
"""

from .cifar import cifar10
from .datasets import fashion_mnist, mnist
from .sample import mnist_sample
from .transforms import augment, to_float

__all__ = ["augment", "cifar10", "fashion_mnist", "mnist", "mnist_sample", "to_float"]
