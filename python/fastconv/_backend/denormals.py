"""Whether kernels flush denormal numbers to zero."""

from __future__ import annotations

from .. import _core


def set_flush_denormal(mode: bool) -> bool:
    """Have kernels on the CPU flush denormal numbers to zero, or not: the default.

    Denormals are the numbers nearest to zero: in float32, those below 1.2e-38. They make some CPUs
    tens of times slower (Intel's; AMD's Zen computes with them as fast as ever), and weights decay
    to them in training. With ``set_flush_denormal(True)`` kernels take them, and write results in
    their range, as zeros.
    It is for the whole process, but holds while a kernel runs alone: the threads that call are
    given their own mode back, and NumPy computes as before. Returns whether this CPU can do it.
    """
    if not isinstance(mode, bool):
        raise TypeError(f"mode must be a bool, got {type(mode).__name__}")
    return _core.set_flush_denormal(mode)


def get_flush_denormal() -> bool:
    """Whether kernels flush denormal numbers to zero."""
    return _core.flush_denormal()
