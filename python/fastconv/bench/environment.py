"""The machine and the settings a run was made under."""

import os
import platform
import shlex
from collections.abc import Mapping, Sequence
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
            name: value for name, value in sorted(os.environ.items()) if name.startswith(_PREFIXES)
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


def _details(details: Mapping[str, str]) -> str:
    return f" ({', '.join(f'{name} {value}' for name, value in details.items())})"
