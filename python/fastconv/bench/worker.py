"""One peer in a process of its own: requests on stdin, answers on stdout, a JSON line each.

    {"do": "prepare", "case": {...}}   operands, one call, a check -> {"error": 1e-7, "first": 0.1}
    {"do": "run", "seconds": 0.1}      time the prepared call      -> {"median": 1e-3, "calls": 99}
    {"do": "peak", "dtype": "float32"} peak arithmetic (fastconv)  -> {"gflops": 540.0}
    {"do": "bandwidth"}                of the memory, by copies    -> {"gbs": 40.0}

A request that fails is answered {"failed": reason}; between requests the worker is blocked in read.
"""

import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TextIO

import numpy as np

from . import peers, reference
from .problems import Case, DType, TrainProblem

#: A result further than this from the reference is wrong, and is not timed.
TOLERANCE = {"float32": 1e-3, "float64": 1e-10}


#: Steps of training that are checked. The second loss has seen every gradient; later ones depend on
#: every rounding, because RMSprop divides small gradients by their size.
CHECKED_STEPS = 2


class Worker:
    def __init__(self, runner: peers.Runner, threads: int) -> None:
        self._runner = runner
        self._threads = threads
        self._call: peers.Call = lambda: None
        self._steps = 1

    def prepare(self, case: dict[str, Any]) -> dict[str, Any]:
        self._call = lambda: None  # the last case's memory goes before this one's comes
        parsed = Case.from_json(case)
        self._call, error, first = prepare(self._runner, parsed)
        self._steps = parsed.steps
        if error > TOLERANCE[parsed.dtype]:
            raise ArithmeticError(f"wrong result: its error is {error:.1e}")
        return {"error": error, "first": first}

    def run(self, seconds: float) -> dict[str, Any]:
        times = time_calls(self._call, seconds)
        return {"median": statistics.median(times) / self._steps, "calls": len(times) * self._steps}

    def peak(self, dtype: DType) -> dict[str, Any]:
        return {"gflops": self._runner.peak(dtype)}  # type: ignore[attr-defined]

    def bandwidth(self) -> dict[str, Any]:
        return {"gbs": copy_bandwidth(self._threads) * 1e-9}


def prepare(runner: peers.Runner, case: Case) -> tuple[peers.Call, float, float]:
    """(the call to time, the error of what it returns, seconds from operands to first result)"""
    if isinstance(case.problem, TrainProblem) and case.problem.steps > CHECKED_STEPS:
        few = replace(case, problem=replace(case.problem, steps=CHECKED_STEPS))
        _, error, first = prepare(runner, few)
        return peers.bind(runner, case, peers.make_operands(case)), error, first
    operands = peers.make_operands(case)
    start = time.perf_counter()
    call = peers.bind(runner, case, operands)
    result = call()
    first = time.perf_counter() - start
    return call, reference.error(case, operands, runner.to_numpy(case, result)), first


def copy_bandwidth(threads: int, size: int = 2**26, rounds: int = 8) -> float:
    """Bytes a second, read and written, of NumPy's copies in as many threads; the best round."""
    source, target = np.ones((threads, size // threads)), np.zeros((threads, size // threads))
    times = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            start = time.perf_counter()
            list(pool.map(np.copyto, target, source))  # releases the GIL
            times.append(time.perf_counter() - start)
    return 2 * source.nbytes / min(times)


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
    start = time.perf_counter()
    try:
        runner = peers.create(peer, threads, algorithm)
    except Exception as error:
        _send(answers, {"failed": _one_line(error)})
        return
    seconds = time.perf_counter() - start
    gc.freeze()
    gc.disable()
    python = ".".join(map(str, sys.version_info[:3]))
    details = runner.details | {"python": python}
    _send(answers, {"version": runner.version, "details": details, "import": seconds})
    serve(Worker(runner, threads), sys.stdin, answers)


def _send(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _one_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    kind = "" if isinstance(error, (peers.Unsupported, ArithmeticError)) else type(error).__name__
    return ": ".join(part for part in (kind, text[0] if text else "") if part)
