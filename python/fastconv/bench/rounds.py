"""Interleaved timing of one case: A B C, A B C, ... and the median over the rounds.

Whatever drifts (clock, temperature, neighbours) then falls on every peer alike.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from .problems import Case, StartProblem
from .process import Peer, WorkerError


@dataclass(frozen=True)
class Timing:
    """One peer on one case. ``rounds``: median seconds of a call, round by round."""

    rounds: tuple[float, ...]
    calls: int
    error: float

    @property
    def seconds(self) -> float:
        return statistics.median(self.rounds)


@dataclass(frozen=True)
class Row:
    """One case: a timing for each peer that served it, a reason for each that did not.

    ``cores_lost``: how many of the cores meant for the benchmark other processes took meanwhile.
    """

    case: Case
    timings: Mapping[str, Timing]
    failures: Mapping[str, str]
    cores_lost: float = 0.0

    @property
    def disturbed(self) -> bool:
        """Whether other work makes the times doubtful."""
        return self.cores_lost > 0.1


def measure(case: Case, workers: Mapping[str, Peer], rounds: int, seconds: float) -> Row:
    """Time the case on every worker in turn, ``seconds`` a turn, ``rounds`` times over.

    A worker that fails is left out of this case; the others go on.
    """
    errors: dict[str, float] = {}
    turns: dict[str, list[tuple[float, int]]] = {}
    failures: dict[str, str] = {}
    for label, worker in workers.items():
        try:
            errors[label] = worker.prepare(case)
            turns[label] = []
        except WorkerError as error:
            failures[label] = str(error)
    for _ in range(rounds):
        for label in list(turns):
            try:
                turns[label].append(workers[label].run(seconds))
            except WorkerError as error:
                failures[label] = str(error)
                del turns[label]
    timings = {
        label: Timing(
            rounds=tuple(median for median, _ in measured),
            calls=sum(calls for _, calls in measured),
            error=errors[label],
        )
        for label, measured in turns.items()
    }
    return Row(case, timings, failures)


def measure_start(
    case: Case, workers: Mapping[str, Peer], rounds: int, seconds: float
) -> list[Row]:
    """A process started afresh in every turn: its import, first and further calls of the case."""
    turns: dict[str, list[tuple[float, float, float]]] = {}
    errors: dict[str, float] = {}
    calls = dict.fromkeys(workers, 0)
    failures: dict[str, str] = {}
    for label in [label for _ in range(rounds) for label in workers]:
        if label in failures:
            continue
        try:
            errors[label], imported, first = workers[label].start_afresh(case)
            further, count = workers[label].run(seconds)
        except WorkerError as error:
            failures[label] = str(error)
            continue
        turns.setdefault(label, []).append((imported, first, further))
        calls[label] += count
    rows = []
    for i, name in enumerate(("import", "first call", "further call")):
        timings = {
            label: Timing(
                rounds=tuple(turn[i] for turn in measured),
                calls=calls[label] if i == 2 else len(measured),
                error=errors[label],
            )
            for label, measured in turns.items()
            if label not in failures
        }
        start = Case(StartProblem(f"start.{name}"), case.batch, "start", case.layout, case.dtype)
        rows.append(Row(start, timings, failures))
    return rows
