"""From a call's arrays to the backend that serves them: a namespace and the kernels for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _core


@dataclass(frozen=True, slots=True)
class Backend:
    """An array namespace and the kernels that take its arrays."""

    xp: Any
    kernels: Any


CPU = Backend(np, _core)

_OPTIONAL = "bias"
_CPU_DEVICE = 1  # DLPack's kDLCPU; the pinned host memory of CUDA (3) is read the same way
_HOST_DEVICES = (_CPU_DEVICE, 3)


def resolve(**arrays: Any) -> tuple[Backend, list[Any]]:
    """The backend of a call's arrays and the arrays as it takes them; a bias may be None.

    NumPy arrays are taken as they are, other producers of DLPack zero-copy. Keywords are the
    arguments' names, for error messages.
    """
    for name, value in arrays.items():
        if type(value) is not np.ndarray and not (value is None and name == _OPTIONAL):
            return CPU, [_as_numpy(name, value) for name, value in arrays.items()]
    return CPU, list(arrays.values())


def _as_numpy(name: str, value: Any) -> np.ndarray[Any, Any] | None:
    if value is None and name == _OPTIONAL:
        return None
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array: fill it first, {name}.filled(0)")
    if isinstance(value, np.ndarray):
        return np.asarray(value)
    if not hasattr(value, "__dlpack__") or isinstance(value, np.generic):
        came = "None" if value is None else type(value).__name__
        raise TypeError(
            f"{name} must be a NumPy array or offer __dlpack__, got {came}: "
            "convert it with np.asarray"
        )
    device, _ = value.__dlpack_device__()
    if device not in _HOST_DEVICES:
        raise RuntimeError(
            f"{name} is on DLPack device type {device}, and this build of fastconv has no CUDA "
            f"module: copy the array to the CPU"
        )
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError) as error:
        raise TypeError(f"{name} cannot be read through DLPack: {error}") from error


def namespace(x: Any) -> Any:
    """The array namespace (numpy) of an array."""
    return resolve(x=x)[0].xp


def output(out: Any, backend: Backend, shape: tuple[int, ...], dtype: Any, **inputs: Any) -> Any:
    """A new array, or the caller's `out` once it is known to share no memory with the inputs.

    The kernels' bindings check the shape and dtype of `out`.
    """
    if out is None:
        return backend.xp.empty(shape, dtype)
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise TypeError(f"out must be a NumPy array, got {type(out).__name__}")
    for name, value in inputs.items():
        if value is not None and _share_memory(out, value):
            raise ValueError(f"out shares memory with {name}: pass an array of its own")
    return out


def _share_memory(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    if not np.may_share_memory(a, b):  # their extents are apart: the usual case, and cheap to see
        return False
    try:
        return np.shares_memory(a, b, max_work=100_000)  # type: ignore[arg-type]  # any int >= -1
    except np.exceptions.TooHardError:
        return True  # too entangled to tell: as good as shared
