"""Fast convolution and pooling, forward and backward, on NumPy arrays.

>>> import fastconv, numpy as np
>>> x = np.ones((1, 3, 32, 32), np.float32)
>>> w = np.ones((8, 3, 5, 5), np.float32)
>>> fastconv.conv2d(x, w, padding="same").shape
(1, 8, 32, 32)

Layers, optimizers, data sets and models are in fastconv.nn, .optim, .data and .models.
"""

from . import _core
from ._backend.config import show_config
from ._backend.denormals import get_flush_denormal, set_flush_denormal
from ._backend.threads import default_num_threads, get_num_threads, num_threads, set_num_threads
from .ops import *
from .ops import __all__ as __all__

__all__ += (
    "__version__",
    "get_flush_denormal",
    "get_num_threads",
    "num_threads",
    "set_flush_denormal",
    "set_num_threads",
    "show_config",
)
__version__ = _core.__version__
_core.set_num_threads(default_num_threads())
