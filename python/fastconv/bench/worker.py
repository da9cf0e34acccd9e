"""One peer in a process of its own: requests on stdin, answers on stdout, a JSON line each.

    {"do": "prepare", "case": {...}}   operands, one call, a check -> {"error": 1e-7}
    {"do": "run", "seconds": 0.1}      time the prepared call      -> {"median": 1e-3, "calls": 99}
    {"do": "peak", "dtype": "float32"} peak arithmetic (fastconv)  -> {"gflops": 540.0}

A request that fails is answered {"failed": reason}; between requests the worker is blocked in read.
"""

import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from . import peers, reference
from .problems import Case, ConvProblem, DType

#: A result further than this from the reference is wrong, and is not timed.
TOLERANCE = {"float32": 1e-3, "float64": 1e-10}


class Worker:
    def __init__(self, runner: peers.Runner) -> None:
        self._runner = runner
        self._call: peers.Call = lambda: None

    def prepare(self, case: dict[str, Any]) -> dict[str, Any]:
        self._call = lambda: None  # the last case's memory goes before this one's comes
        parsed = Case.from_json(case)
        self._call, error = prepare(self._runner, parsed)
        if error > TOLERANCE[parsed.dtype]:
            raise ArithmeticError(f"wrong result: its error is {error:.1e}")
        return {"error": error}

    def run(self, seconds: float) -> dict[str, Any]:
        times = time_calls(self._call, seconds)
        return {"median": statistics.median(times), "calls": len(times)}

    def peak(self, dtype: DType) -> dict[str, Any]:
        return {"gflops": self._runner.peak(dtype)}  # type: ignore[attr-defined]


def prepare(runner: peers.Runner, case: Case) -> tuple[peers.Call, float]:
    """The call to time, and the error of what it returns."""
    if isinstance(case.problem, ConvProblem):
        conv = peers.conv_operands(case, case.problem)
        call = runner.conv(case, case.problem, conv)
        result = runner.to_numpy(case, call())
        return call, reference.conv_error(case, case.problem, conv, result)
    pool = peers.pool_operands(case, case.problem)
    call = runner.max_pool(case, case.problem, pool)
    result = runner.to_numpy(case, call())
    return call, reference.pool_error(case, case.problem, pool, result)


def time_calls(call: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of each call, for at least ``seconds`` in all.

    The first call warms the caches and is not counted, unless it alone takes that long.
    """
    clock = time.perf_counter
    start = clock()
    call()
    stop = clock()
    if stop - start >= seconds:
        return [stop - start]
    times = []
    end = stop + seconds
    while stop < end:
        start = clock()
        call()
        stop = clock()
        times.append(stop - start)
    return times


def serve(worker: Worker, requests: TextIO, answers: TextIO) -> None:
    """Answer requests until stdin closes."""
    for line in requests:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("do"))(**request)
        except Exception as error:  # whatever a library raises becomes one line of the report
            answer = {"failed": _one_line(error)}
        _send(answers, answer)


def main(peer: str, threads: int, algorithm: str) -> None:
    """Greet with the peer's version (or why it is not to be had), then serve."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints goes to stderr
    try:
        runner = peers.create(peer, threads, algorithm)
    except Exception as error:
        _send(answers, {"failed": _one_line(error)})
        return
    gc.freeze()
    gc.disable()
    python = ".".join(map(str, sys.version_info[:3]))
    details = runner.details | {"python": python}
    _send(answers, {"version": runner.version, "details": details})
    serve(Worker(runner), sys.stdin, answers)


def _send(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _one_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    kind = "" if isinstance(error, (peers.Unsupported, ArithmeticError)) else type(error).__name__
    return ": ".join(part for part in (kind, text[0] if text else "") if part)
