"""A worker process seen from the benchmark: started when needed, stopped while others run."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from .problems import Case

_PACKAGE = Path(__file__).parents[1]

# The worker imports fastconv.bench without the package around it: an interpreter which has the peer
# but no fastconv can run it, and the import of fastconv is left to its own runner, which is timed.
_START = """
import importlib, sys, types
package, peer, threads, algorithm = sys.argv[1:]
sys.modules["fastconv"] = types.ModuleType("fastconv")
sys.modules["fastconv"].__path__ = [package]
worker = importlib.import_module("fastconv.bench.worker")
del sys.modules["fastconv"]
worker.main(peer, int(threads), algorithm)
"""

_THREAD_VARIABLES = (
    "FASTCONV_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

#: Where processes cannot be stopped, long enough for idle pools to fall asleep.
_PAUSE_SECONDS = 0.25


class WorkerError(RuntimeError):
    """A request failed; the message is one line."""


class Peer(Protocol):
    """What ``rounds`` needs of a worker."""

    def prepare(self, case: Case) -> float: ...

    def run(self, seconds: float) -> tuple[float, int]: ...

    def start_afresh(self, case: Case) -> tuple[float, float, float]: ...


def command(peer: str, threads: int, algorithm: str, python: str = sys.executable) -> list[str]:
    """The command line of a worker for ``peer``."""
    return [python, "-c", _START, str(_PACKAGE), peer, str(threads), algorithm]


def environment(threads: int) -> dict[str, str]:
    """This process's environment with every library held to ``threads`` threads.

    OPENBLAS_CORETYPE and the like, which hold OpenBLAS to a lesser CPU, are left out: every library
    is to run at its best.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
    return kept | {name: str(threads) for name in _THREAD_VARIABLES}


class WorkerProcess:
    """A worker that runs only while it answers: SIGSTOP holds it, and its threads, between.

    Idle thread pools spin for a while before they sleep, and would take the cores from whoever
    is timed next. A worker that died is started again by the next ``prepare``.
    """

    def __init__(self, command: list[str], environment: dict[str, str] | None = None) -> None:
        self._command = command
        self._environment = environment
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> dict[str, Any]:
        """Start the process; its greeting: version and details."""
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._process = self._spawn()
        try:
            greeting = self._answer(self._process)
        except WorkerError:
            self.close()
            raise
        self._pause(self._process)
        return greeting

    def _spawn(self) -> "subprocess.Popen[str]":
        # A process group of its own keeps Ctrl-C for the parent. When the parent dies, the group
        # is orphaned, and POSIX has the kernel end its stopped members (SIGHUP, SIGCONT).
        try:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                text=True,
                encoding="utf-8",
                env=self._environment,
                process_group=0 if os.name == "posix" else None,
            )
        except OSError:
            self._stderr.close()
            raise

    @property
    def pid(self) -> int | None:
        """The process's id, None while there is none."""
        return self._process.pid if self._process else None

    def prepare(self, case: Case) -> float:
        """Set the case up; the error of the peer's result."""
        if self._process is None:
            self.start()
        return float(self.ask(do="prepare", case=case.to_json())["error"])

    def start_afresh(self, case: Case) -> tuple[float, float, float]:
        """End the process and start another: (error, seconds to import, to the first result)."""
        self.close()
        greeting = self.start()
        answer = self.ask(do="prepare", case=case.to_json())
        return float(answer["error"]), float(greeting["import"]), float(answer["first"])

    def run(self, seconds: float) -> tuple[float, int]:
        """Time the prepared case for ``seconds``: (median seconds of a call, calls)."""
        answer = self.ask(do="run", seconds=seconds)
        return float(answer["median"]), int(answer["calls"])

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send one request; WorkerError if it fails or the worker dies."""
        process = self._process
        if process is None:
            raise WorkerError("the worker is not running")
        assert process.stdin is not None
        try:
            self._resume(process)
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        except OSError:
            raise self._death(process) from None
        answer = self._answer(process)
        self._pause(process)
        return answer

    def close(self) -> None:
        """End the process at once, whatever it is doing."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, self._stderr):
            assert pipe is not None
            with suppress(BrokenPipeError):  # a request that was never read
                pipe.close()

    def _answer(self, process: "subprocess.Popen[str]") -> dict[str, Any]:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise self._death(process)
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            self._pause(process)
            raise WorkerError(answer["failed"])
        return answer

    def _death(self, process: "subprocess.Popen[str]") -> WorkerError:
        """Clear the dead worker away; how it died, with the last line it wrote."""
        code = process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        self.close()
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        return WorkerError(f"the worker died ({how})" + (f": {lines[-1]}" if lines else ""))

    @staticmethod
    def _resume(process: "subprocess.Popen[str]") -> None:
        if hasattr(signal, "SIGCONT"):
            process.send_signal(signal.SIGCONT)

    @staticmethod
    def _pause(process: "subprocess.Popen[str]") -> None:
        if hasattr(signal, "SIGSTOP"):
            process.send_signal(signal.SIGSTOP)
        else:
            time.sleep(_PAUSE_SECONDS)
