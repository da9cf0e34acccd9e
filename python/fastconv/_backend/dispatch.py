"""From a call's arrays to the backend that serves them: a namespace and the kernels for it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _core
from . import gpu
from .memory import new_array


@dataclass(frozen=True, slots=True)
class Backend:
    """An array namespace and the kernels that take its arrays."""

    xp: Any
    kernels: Any

    def describe(self, array: Any) -> np.ndarray[Any, Any]:
        """The array's place in memory, as a NumPy array that need not be readable."""
        described: np.ndarray[Any, Any]
        described = array if self.xp is np else self.kernels.describe(array)
        return described

    def same_cells(self, a: Any, b: Any) -> bool:
        """Whether two arrays are the same cells of memory, in the same places."""
        if a is b:
            return True
        if not (isinstance(a, self.xp.ndarray) and isinstance(b, self.xp.ndarray)):
            return False
        places = [self.describe(array).__array_interface__["data"][0] for array in (a, b)]
        return places[0] == places[1] and (a.shape, a.strides) == (b.shape, b.strides)


CPU = Backend(np, _core)

_OPTIONAL = "bias"
_CPU_DEVICE = 1  # DLPack's kDLCPU; the pinned host memory of CUDA (3) is read the same way
_HOST_DEVICES = (_CPU_DEVICE, 3)
_CUDA_DEVICE = 2


def cuda() -> Backend:
    """The CUDA backend; a RuntimeError says what it lacks: module, CuPy, driver or device."""
    gpu_kernels = gpu.kernels()
    return Backend(gpu.load_cupy(), gpu_kernels)


def resolve(names: str, *arrays: Any) -> tuple[Backend, Sequence[Any]]:
    """The backend of a call's arrays and the arrays as it takes them; a bias may be None.

    NumPy and CuPy arrays are taken as they are, other producers of DLPack zero-copy, by their
    device. `names` are the arguments', "x, w, bias", for error messages; the optional bias is last.
    """
    given = arrays[:-1] if arrays[-1] is None and names.endswith(_OPTIONAL) else arrays
    for value in given:
        if type(value) is not np.ndarray:
            break
    else:  # nearly always
        return CPU, arrays
    named = list(zip(names.split(", "), arrays, strict=True))
    if any(_on_gpu(value) for value in arrays):
        return cuda(), [gpu.as_cupy(name, value) for name, value in named]
    return CPU, [_as_numpy(name, value) for name, value in named]


def _on_gpu(value: Any) -> bool:
    cupy = sys.modules.get("cupy")  # who has no CuPy array need not import it
    if cupy is not None and isinstance(value, cupy.ndarray):
        return True
    if isinstance(value, np.ndarray | np.generic) or not hasattr(value, "__dlpack_device__"):
        return False
    return bool(value.__dlpack_device__()[0] == _CUDA_DEVICE)


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
            f"{name} is on DLPack device type {device}, which fastconv has no kernels for: "
            "copy the array to the CPU"
        )
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError) as error:
        raise TypeError(f"{name} cannot be read through DLPack: {error}") from error


def namespace(x: Any) -> Any:
    """The array namespace (numpy or cupy) of an array."""
    return resolve("x", x)[0].xp


def output(
    out: Any, backend: Backend, shape: tuple[int, ...], dtype: Any, names: str, *inputs: Any
) -> Any:
    """A new array, or the caller's `out` once it is known to share no memory with the inputs.

    `names` are the inputs' as for `resolve`. The kernels' bindings check shape and dtype of `out`.
    """
    if out is None:
        return new_array(backend.xp, shape, dtype, "out")
    if type(out) is not backend.xp.ndarray and (
        not isinstance(out, backend.xp.ndarray) or isinstance(out, np.ma.MaskedArray)
    ):
        library = "NumPy" if backend.xp is np else "CuPy"
        raise TypeError(f"out must be a {library} array, got {type(out).__name__}")
    place, places = out, inputs
    if backend.xp is not np:
        place = backend.describe(out)
        places = tuple(value if value is None else backend.describe(value) for value in inputs)
    for i, value in enumerate(places):  # their extents are apart: the usual case, and cheap to see
        if value is None or not np.may_share_memory(place, value):
            continue
        if _share_memory(place, value):
            name = names.split(", ")[i]
            raise ValueError(f"out shares memory with {name}: pass an array of its own")
    return out


def _share_memory(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    try:
        return np.shares_memory(a, b, max_work=100_000)  # type: ignore[arg-type]  # any int >= -1
    except np.exceptions.TooHardError:
        return True  # too entangled to tell: as good as shared
