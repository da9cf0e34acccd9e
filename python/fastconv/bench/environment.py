"""The machine and the settings a run was made under."""

import os
import platform
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

#: Settings that change what is measured, reported where they are set.
_PREFIXES = ("FASTCONV_", "OPENBLAS_", "OMP_", "KMP_", "GOMP_", "MKL_", "ONEDNN_", "DNNL_")


def describe(
    peers: Mapping[str, Mapping[str, Any]], threads: int, command: Sequence[str]
) -> dict[str, Any]:
    """CPU, cores, threads, versions, date, command line; ``peers`` are the workers' greetings."""
    return {
        "CPU": f"{cpu_name()}, {cores()} cores usable",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "threads": threads,
        "load": f"{load():.2f} before the run",
        "versions": {
            label: greeting["version"] + _details(greeting["details"])
            for label, greeting in peers.items()
        },
        "variables": {
            # Those that the workers do not see (process.environment) are told apart.
            name: value + (" (removed)" if name.startswith("OPENBLAS_") else "")
            for name, value in sorted(os.environ.items())
            if name.startswith(_PREFIXES)
        },
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join(command),
    }


def cpu_name() -> str:
    """The CPU's model name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load() -> float:
    """Processes that wanted to run, averaged over the last minute; 0 where it is not known."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return 0.0


class Neighbours:
    """The cores that processes other than these used since it was made; 0 where /proc is not."""

    def __init__(self, pids: Iterable[int | None]) -> None:
        self._stats = [Path(f"/proc/{pid}/stat") for pid in (os.getpid(), *pids) if pid]
        self._start = time.monotonic()
        self._before = self._ticks()

    def cores(self) -> float:
        seconds = (self._ticks() - self._before) / os.sysconf("SC_CLK_TCK")
        return max(0.0, seconds / (time.monotonic() - self._start))

    def _ticks(self) -> int:
        """Clock ticks that all CPUs were busy, less those of our processes."""
        try:
            user, nice, system, _, _, *interrupts = _fields(Path("/proc/stat"), "cpu")[:8]
        except OSError:
            return 0
        ours = 0
        for stat in self._stats:
            with suppress(OSError):  # a worker may have died
                ours += sum(_fields(stat, ")")[11:13])  # utime and stime, all threads
        return user + nice + system + sum(interrupts) - ours


def _fields(path: Path, after: str) -> list[int]:
    """The numbers of the first line behind its last ``after``; 0 for what is not a number."""
    line = path.read_text(encoding="ascii", errors="replace").splitlines()[0]
    words = line.rpartition(after)[2].split()
    return [int(word) if word.isdecimal() else 0 for word in words]


def _details(details: Mapping[str, str]) -> str:
    return f" ({', '.join(f'{name} {value}' for name, value in details.items())})"
