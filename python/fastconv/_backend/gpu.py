"""The CUDA backend: CuPy and the kernels for its arrays, looked for when first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

Array = Any
NO_MODULE = (
    "this build of fastconv has no CUDA module: install a wheel that has it, or build one with the "
    "environment variable FASTCONV_CUDA=ON (or pypi, which brings its own nvcc)"
)
NO_CUPY = (
    'GPU arrays go through CuPy, which is not installed: pip install "fastconv[cuda13]" '
    "(or cupy-cuda13x)"
)


class Kernels:
    """The functions of a CUDA module under their names and signatures in `_core`.

    The module gets each array as a NumPy array that describes it, pointer, shape, strides and
    dtype: the data lie on the device and NumPy never reads them. Before the arguments go the
    stream and an allocator, whose memory lives until the kernels have been launched; CuPy's pool
    hands it on in the order of the stream.
    """

    def __init__(
        self,
        module: Any,
        stream: Callable[[], int],
        empty: Callable[[int, type[np.uint8]], Array],
        describe: Callable[[Any], Any],
        pointer: Callable[[Array], int],
    ) -> None:
        self.describe = describe
        self._module = module
        self._stream = stream
        self._empty = empty
        self._pointer = pointer

    def __getattr__(self, name: str) -> Callable[..., Any]:
        op = getattr(self._module, name, None)
        if op is None:
            raise NotImplementedError(f"fastconv has no CUDA kernel for {name} yet")

        def call(*arguments: Any) -> Any:
            scratch = []

            def allocate(size: int) -> int:
                scratch.append(self._empty(size, np.uint8))
                return self._pointer(scratch[-1])

            return op(self._stream(), allocate, *map(self.describe, arguments))

        setattr(self, name, call)
        return call


def load_module() -> ModuleType:
    """`_cuda`, once there is a device for it; a RuntimeError says what is missing."""
    try:
        module = importlib.import_module("fastconv._cuda")
    except ModuleNotFoundError as error:
        raise RuntimeError(NO_MODULE) from error
    module.require_device()
    return module


def load_cupy() -> Any:
    """CuPy; a RuntimeError says how to get it."""
    try:
        return importlib.import_module("cupy")
    except ModuleNotFoundError as error:
        raise RuntimeError(NO_CUPY) from error


def current_stream() -> int:
    """The stream that CuPy's own calls would go to now."""
    stream: int = load_cupy().cuda.get_current_stream().ptr
    return stream


@cache
def kernels() -> Kernels:
    """The kernels for CuPy arrays."""
    module, cupy = load_module(), load_cupy()

    def describe(value: Any) -> Any:
        if not isinstance(value, cupy.ndarray):
            return value
        return module.describe(value.data.ptr, value.shape, value.strides, value.dtype, value)

    return Kernels(
        module, lambda: current_stream(), cupy.empty, describe, lambda array: int(array.data.ptr)
    )


def as_cupy(name: str, value: Any) -> Any:
    """A GPU array as CuPy's, without a copy; a bias may be None."""
    cupy = load_cupy()
    if value is None or isinstance(value, cupy.ndarray):
        return value
    if isinstance(value, np.ndarray) or not hasattr(value, "__dlpack__"):
        raise TypeError(
            f"{name} is a {type(value).__name__}, other arrays of this call are on a GPU: move it "
            "with cupy.asarray"
        )
    try:
        return cupy.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError) as error:
        raise TypeError(f"{name} cannot be read through DLPack: {error}") from error
