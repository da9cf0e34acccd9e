"""The backends that the tests run on: the CPU, emulated CUDA kernels, CUDA kernels on a device.

`emu` has the CUDA kernels compiled for the CPU (tests/emulator) on NumPy arrays, in the mode
that FASTCONV_EMULATOR names (machine.hpp); `cmake --workflow --preset emulator` builds the module.
"""

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checks import Guarded
from fastconv._backend import dispatch, gpu

FOLDER = os.environ.get("FASTCONV_EMULATOR_BUILD", "emulator")  # in build/, or anywhere
BUILT = Path(__file__).parents[1] / "build" / FOLDER / "tests" / "emulator"
# Backends that must not be skipped, as in "emu cuda": a job that is there for them sets this.
REQUIRED = os.environ.get("FASTCONV_TEST_BACKENDS", "").split()


def emulator() -> Any:
    """The module `_cudaemu`; the test is skipped where it has not been built."""
    if "_cudaemu" in sys.modules:
        return sys.modules["_cudaemu"]
    found = sorted(BUILT.glob("_cudaemu*.so"))
    if not found:
        absent("emu", "not built: cmake --workflow --preset emulator")
    spec = importlib.util.spec_from_file_location("_cudaemu", found[-1])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["_cudaemu"] = module
    return module


def emulated_kernels() -> gpu.Kernels:
    """The CUDA kernels on NumPy arrays."""
    return gpu.Kernels(
        emulator(), lambda: 0, np.empty, lambda value: value, lambda array: array.ctypes.data
    )


def device_kernels() -> None:
    """Skip the test where CUDA kernels cannot run."""
    try:
        dispatch.cuda()
    except RuntimeError as error:
        absent("cuda", str(error))


def absent(name: str, reason: str) -> None:
    """Skip the test, or fail it where the backend was asked for."""
    if name in REQUIRED:
        pytest.fail(f"{name}: {reason}")
    pytest.skip(f"{name}: {reason}")


class Arrays:
    """Calls operations on arrays of one backend."""

    def __init__(self, name: str) -> None:
        self.name = name

    def to(self, value: Any) -> Any:
        """A NumPy array as the backend's; anything else as it is."""
        if self.name != "cuda" or not isinstance(value, np.ndarray):
            return value
        cupy = gpu.load_cupy()
        return cupy.asarray(value)

    def back(self, value: Any) -> Any:
        """The backend's arrays as NumPy's."""
        if isinstance(value, tuple):
            return tuple(map(self.back, value))
        return value.get() if hasattr(value, "get") else value

    def call(
        self, function: Callable[..., Any], *args: Any, out: Guarded | None = None, **keywords: Any
    ) -> Any:
        """The result of a call; with `out` it is written there, and nothing else is."""
        moved = [self.to(a) for a in args]
        if out is None:
            return self.back(function(*moved, **keywords))
        if self.name != "cuda":
            result = function(*moved, out=out.view, **keywords)
        else:
            buffer = self.to(out.buffer)
            inside = buffer[out.inside].reshape(out.view.shape)
            function(*moved, out=inside, **keywords)
            out.buffer[...] = self.back(buffer)
            result = out.view
        out.check()
        return result


@pytest.fixture(params=["cpu", "emu", "cuda"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Arrays:
    """Run the test on each backend."""
    name = request.param
    if name == "emu":
        kernels = emulated_kernels()
        monkeypatch.setattr(dispatch, "CPU", dispatch.Backend(np, kernels))
    elif name == "cuda":
        device_kernels()
    return Arrays(name)
