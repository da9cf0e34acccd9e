"""The benchmark's rounds, with workers that only remember, and its worker processes."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from fastconv.bench import environment, process, rounds, table
from fastconv.bench.problems import Case, ConvProblem

CONV = ConvProblem("a.conv", "a", (3,), C=5, H=11, W=9, K=7, R=4, S=3, stride=3, padding=1)


class FakeWorker:
    """Answers with the given turns; an exception among them is raised."""

    def __init__(self, name: str, log: list[str], turns: Sequence[float | Exception]) -> None:
        self._name = name
        self._log = log
        self._turns = iter(turns)

    def prepare(self, case: Case) -> float:
        self._log.append(f"prepare {self._name}")
        return 1e-7

    def start_afresh(self, case: Case) -> tuple[float, float, float]:
        self._log.append(f"start {self._name}")
        return 1e-7, 0.5, 0.25

    def run(self, seconds: float) -> tuple[float, int]:
        self._log.append(self._name)
        turn = next(self._turns)
        if isinstance(turn, Exception):
            raise turn
        return turn, 10


def test_rounds_are_interleaved_and_the_median_counts() -> None:
    log: list[str] = []
    workers = {
        "a": FakeWorker("a", log, [3.0, 1.0, 2.0]),
        "b": FakeWorker("b", log, [5.0, 9.0, 4.0]),
        "c": FakeWorker("c", log, [7.0, 7.0, 8.0]),
    }
    row = rounds.measure(Case(CONV, 3, "forward"), workers, 3, 0.1)
    assert log == ["prepare a", "prepare b", "prepare c", *"abcabcabc"]
    assert {label: timing.seconds for label, timing in row.timings.items()} == {
        "a": 2.0,
        "b": 5.0,
        "c": 7.0,
    }
    assert row.timings["b"] == rounds.Timing((5.0, 9.0, 4.0), 30, 1e-7)


def test_a_peer_that_fails_is_left_out_of_the_case_only() -> None:
    log: list[str] = []
    workers = {
        "a": FakeWorker("a", log, [1.0, process.WorkerError("it died"), 3.0]),
        "b": FakeWorker("b", log, [5.0, 6.0, 7.0]),
    }
    row = rounds.measure(Case(CONV, 3, "forward"), workers, 3, 0.1)
    assert "".join(log[2:]) == "ababb"
    assert row.timings["b"].seconds == 6.0
    assert row.failures == {"a": "it died"}
    assert list(table.failures(row)) == ["a: left out of a.conv N=3 forward: it died"]


def test_a_start_is_a_new_process_every_time() -> None:
    log: list[str] = []
    workers = {
        "a": FakeWorker("a", log, [3.0, 1.0, 2.0]),
        "b": FakeWorker("b", log, [5.0, process.WorkerError("it died")]),
    }
    rows = rounds.measure_start(Case(CONV, 3, "forward"), workers, 3, 0.1)
    assert " ".join(log) == "start a a start b b start a a start b b start a a"
    assert [row.case.problem.name for row in rows] == [
        "start.import",
        "start.first call",
        "start.further call",
    ]
    assert [row.timings["a"].seconds for row in rows] == [0.5, 0.25, 2.0]
    assert rows[2].timings["a"] == rounds.Timing((3.0, 1.0, 2.0), 30, 1e-7)
    assert all("b" not in row.timings and row.failures == {"b": "it died"} for row in rows)


def test_libraries_are_not_held_to_a_lesser_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    variables = process.environment(3)
    assert "OPENBLAS_CORETYPE" not in variables
    assert variables["OPENBLAS_NUM_THREADS"] == "3"
    assert environment.describe({}, 3, [])["variables"]["OPENBLAS_CORETYPE"] == "Haswell (removed)"


SCRIPT = """
import json, os, sys
def send(**answer):
    print(json.dumps(answer), flush=True)
send(version="0", details={})
for line in sys.stdin:
    if json.loads(line)["do"] == "prepare":
        send(error=0.5)
    else:
        print("something broke", file=sys.stderr, flush=True)
        os.abort()
"""


@pytest.fixture
def crashing() -> Iterator[process.WorkerProcess]:
    """A worker that answers prepare, and dies of run."""
    started = process.WorkerProcess([sys.executable, "-c", SCRIPT])
    yield started
    started.close()


def test_a_crash_is_one_line_and_the_worker_comes_back(crashing: process.WorkerProcess) -> None:
    case = Case(CONV, 3, "forward")
    for _ in range(2):
        assert crashing.prepare(case) == 0.5
        with pytest.raises(process.WorkerError, match=r"died \(SIGABRT\): something broke"):
            crashing.run(0.1)
    with pytest.raises(process.WorkerError, match="not running"):
        crashing.run(0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_is_stopped_between_requests(crashing: process.WorkerProcess) -> None:
    crashing.prepare(Case(CONV, 3, "forward"))
    assert crashing._process is not None
    state = ""
    while state != "T":  # the signal may take a moment to arrive
        stat = Path(f"/proc/{crashing._process.pid}/stat").read_text(encoding="ascii")
        state = stat.rpartition(")")[2].split()[0]
        assert state in "RST"


def test_a_missing_library_is_named() -> None:
    missing = process.WorkerProcess(process.command("nonesuch", 1, "auto"))
    with pytest.raises(process.WorkerError, match=r"ModuleNotFoundError.*nonesuch"):
        missing.start()


def test_a_failed_request_leaves_the_worker_alive() -> None:
    numpy = process.WorkerProcess(process.command("numpy", 1, "auto"), process.environment(1))
    try:
        assert numpy.start()["version"] == np.__version__
        with pytest.raises(process.WorkerError, match="AttributeError"):
            numpy.ask(do="peak", dtype="float32")
        assert numpy.prepare(Case(CONV, 3, "weight")) < 1e-6
    finally:
        numpy.close()


RUNNER = """
import sys
from fastconv.bench.peers import Unsupported

class Runner:
    def __init__(self, threads, algorithm):
        self.version, self.details = "7", {"imported": "fastconv" in sys.modules}
"""


@pytest.mark.parametrize("place", ["clone", "here"])
def test_runners_are_found_in_the_clone_and_the_current_folder(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a copy of the package, in benchmarks/peers; they need no fastconv."""
    here, runners = tmp_path / "here", tmp_path / place / "benchmarks" / "peers"
    here.mkdir()
    runners.mkdir(parents=True)
    (runners / "new_peer.py").write_text(RUNNER, encoding="utf-8")
    package = tmp_path / "clone" / "python" / "fastconv"
    shutil.copytree(process._PACKAGE / "bench", package / "bench")
    monkeypatch.setattr(process, "_PACKAGE", package)
    monkeypatch.chdir(here)
    new = process.WorkerProcess(process.command("new", 1, "auto"))
    try:
        greeting = new.start()
    finally:
        new.close()
    assert greeting["version"] == "7"
    assert not greeting["details"]["imported"]


SPIN = """
import time
while time.process_time() < 0.5:
    pass
print(1, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_processor_time_of_others_is_seen() -> None:
    """Half a second of it, however long it takes among others; a clock tick is 10 ms."""
    with subprocess.Popen([sys.executable, "-c", SPIN], stdout=subprocess.PIPE) as other:
        start = time.monotonic()
        unknown, known = environment.Neighbours([]), environment.Neighbours([other.pid])
        assert other.stdout is not None
        other.stdout.read(1)
        left, used = known.cores(), unknown.cores()  # what others use in between counts for `used`
        seconds = time.monotonic() - start
        other.kill()
    assert (used - left) * seconds > 0.4
