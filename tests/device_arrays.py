"""A stand-in for CuPy: arrays that refuse to be mixed with NumPy's, as those of a device do.

The cells are NumPy's, in host memory; every operation checks that all arrays are of this kind.
"""

from types import ModuleType
from typing import Any

import numpy as np


class DeviceArray(np.ndarray[Any, Any]):
    """An array of the stand-in."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> Any:
        out = keywords.pop("out", None)
        arrays = (*inputs, *(out or ()))
        _check(arrays)
        if out is not None:
            keywords["out"] = tuple(map(plain, out))
        result = getattr(ufunc, method)(*map(plain, inputs), **keywords)
        return out[0] if out is not None else _device(result)

    def __array_function__(self, function: Any, types: Any, args: Any, keywords: Any) -> Any:
        _check(args[0] if args and isinstance(args[0], list | tuple) else args)
        return _device(function(*_plain_all(args), **{k: plain(v) for k, v in keywords.items()}))

    def __setitem__(self, key: Any, value: Any) -> None:
        _check((value,))
        plain(self)[_plain_all(key)] = plain(value)

    def __getitem__(self, key: Any) -> Any:
        _check(key if isinstance(key, tuple) else (key,))
        return _device(plain(self)[_plain_all(key)])

    def get(self) -> Any:
        """The cells as NumPy's."""
        return plain(self).copy()


def _check(values: Any) -> None:
    for value in values:
        if type(value) is np.ndarray and value.ndim > 0:
            raise TypeError("a NumPy array where a device array was expected")


def plain(value: Any) -> Any:
    """The same cells as a NumPy array; anything else as it is."""
    return value.view(np.ndarray) if isinstance(value, DeviceArray) else value


def _plain_all(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_plain_all, value))
    return plain(value)


def _device(value: Any) -> Any:
    return value.view(DeviceArray) if isinstance(value, np.ndarray) else value


class _Namespace(ModuleType):
    """NumPy's functions, with results on the device."""

    ndarray = DeviceArray

    def asarray(self, value: Any) -> Any:
        """A copy on the device."""
        return value if isinstance(value, DeviceArray) else np.array(value).view(DeviceArray)

    def __getattr__(self, name: str) -> Any:
        function = getattr(np, name)
        if not callable(function):
            return function

        def call(*args: Any, **keywords: Any) -> Any:
            return _device(function(*args, **keywords))

        return call


namespace = _Namespace("stand_in_for_cupy")
