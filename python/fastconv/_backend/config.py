"""What this build of fastconv is and runs on."""

from __future__ import annotations

from .. import _core
from . import gpu


def config() -> dict[str, str]:
    """Version, compiler, ISA, BLAS, threads, denormals and GPU support, each in words."""
    offered = ", ".join(_core.available_isas())
    return {
        "fastconv": f"{_core.__version__}, built by {_core.COMPILER}",
        "ISA in use": f"{_core.isa()} (this CPU and build offer: {offered})",
        "BLAS": _core.blas_version(),
        "threads": str(_core.num_threads()),
        "denormals": "flushed to zero" if _core.flush_denormal() else "computed with",
        "CUDA": _cuda(),
    }


def _cuda() -> str:
    """Whether arrays on a GPU can be used, or what is missing."""
    try:
        gpu.load_module()
        return f"ready, CuPy {gpu.load_cupy().__version__}"
    except RuntimeError as error:
        return str(error)


def show_config() -> None:
    """Print version, compiler, instruction sets, BLAS, threads, denormals and GPU support."""
    for name, value in config().items():
        print(f"{name + ':':<12} {value}")
