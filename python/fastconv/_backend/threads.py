"""How many threads a kernel may use."""

from __future__ import annotations

import operator
import os
from pathlib import Path
from types import TracebackType
from typing import SupportsIndex

from .. import _core


def _checked(n: SupportsIndex, name: str) -> int:
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"{name} must be an int, got {type(n).__name__}")
    count = operator.index(n)
    if not 1 <= count <= _core.MAX_THREADS:
        raise ValueError(f"{name} must be in [1, {_core.MAX_THREADS}], got {count}")
    return count


def set_num_threads(n: int) -> None:
    """Set how many threads kernels use, for the whole process; more than the cores is allowed.

    Results do not depend on it.
    """
    _core.set_num_threads(_checked(n, "n"))


def get_num_threads() -> int:
    """The number of threads that a call from this thread would use."""
    return _core.num_threads()


class num_threads:
    """``with num_threads(n):`` limits calls from this thread, and only from it, to n threads."""

    def __init__(self, n: int) -> None:
        self._n = _checked(n, "n")
        self._before: list[int] = []

    def __enter__(self) -> None:
        self._before.append(_core.exchange_thread_limit(self._n))

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _core.exchange_thread_limit(self._before.pop())


def _from_environment() -> int | None:
    for name in ("FASTCONV_NUM_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(name, "").strip()
        if (
            name == "OMP_NUM_THREADS"
        ):  # a list is one entry per nesting level; other junk is OpenMP's affair
            value = value.split(",")[0]
            if not value.isdecimal() or int(value) < 1:
                continue
        if value:
            if not value.isdecimal() or not 1 <= int(value) <= _core.MAX_THREADS:
                raise ValueError(
                    f"the environment variable {name} must be an integer in "
                    f"[1, {_core.MAX_THREADS}], got {value!r}"
                )
            return int(value)
    return None


def _cgroup_cpus() -> float:
    """The CPU quota of this process's control group and those above it, in CPUs (cgroups(7))."""
    least = float("inf")
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return least
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = Path("/sys/fs/cgroup/cpu" if controllers else "/sys/fs/cgroup")
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            try:
                if controllers:
                    quota = (folder / "cpu.cfs_quota_us").read_text()
                    period = (folder / "cpu.cfs_period_us").read_text()
                else:
                    quota, period = (folder / "cpu.max").read_text().split()
                if quota.strip() not in ("max", "-1"):
                    least = min(least, int(quota) / int(period))
            except (OSError, ValueError):
                pass
            if folder == root:
                break
    return least


def default_num_threads() -> int:
    """The least of the CPUs of this process, its CPU quota, and what the environment says."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    wanted = _from_environment()
    available = max(1, int(min(cpus, _cgroup_cpus())))
    return min(wanted, available) if wanted else available
