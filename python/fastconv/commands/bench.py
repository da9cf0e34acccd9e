"""``fastconv bench``: options, and the run from the list of cases to the report."""

import argparse
import errno
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .._backend.extras import require
from ..bench import environment, process, table
from ..bench.peers import elsewhere, names
from ..bench.problems import Case
from ..bench.process import WorkerError, WorkerProcess
from ..bench.report import OURS, Report, dumps
from ..bench.rounds import measure, measure_start
from ..bench.suites import PASSES, SMALLEST, SUITES, select

_EPILOG = """\
Each library runs in a process of its own, all with the same number of threads; while one is
timed the others are stopped, because idle thread pools spin and would share its cores. Rounds go
A B C, A B C, ..., and a time is the median over the rounds of the median call of a turn. GFLOP/s
count direct-convolution FLOPs, whatever the algorithm. x PEER is the peer's time over fastconv's.
The error is max|result - exact| / max|exact| on up to 512 elements of the result, against float64
sums (long double for float64); a result off by more than 1e-3 (1e-10) is not timed. NumPy's
method is im2col and batched matmul, SciPy's is the FFT. OPENBLAS_* variables are kept from the
processes, so that OpenBLAS takes the kernels of this CPU.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``fastconv bench``."""
    parser.description = "Time convolution and what belongs to it against other libraries."
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    _add_selection(parser.add_argument_group("what to time"))
    _add_method(parser.add_argument_group("how to time it"))
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    output.add_argument("--plot", type=Path, metavar="FILE", help="draw the speed of each layer")


def _add_selection(group: "argparse._ArgumentGroup") -> None:
    add = group.add_argument
    add(
        "suite",
        nargs="*",
        metavar="SUITE",
        help="; ".join(f"{name}: {what}" for name, what in SUITES.items()) + " (conv)",
    )
    add("--net", nargs="+", default=[], metavar="GLOB", help="networks: vgg16, 'mob*', ...")
    add("--problem", nargs="+", default=[], metavar="GLOB", help="layers: 'resnet50.conv3*', ...")
    add("--pass", dest="pass_", choices=[*PASSES, "all"], default="forward", help="(forward)")
    add("--layout", choices=["NCHW", "NHWC"], default="NCHW", help="axes of x and y (NCHW)")
    add("--dtype", choices=["float32", "float64"], default="float32", help="(float32)")
    add("--batch", nargs="+", type=_positive, default=[], metavar="N", help="instead of the list's")
    add("--quick", action="store_true", help="a few layers of every kind, in under a minute")


def _add_method(group: "argparse._ArgumentGroup") -> None:
    add = group.add_argument
    add(
        "--peers",
        nargs="*",
        metavar="PEER",
        help=f"of {', '.join(name for name in names() if name != OURS)}, or fastconv:ALGORITHM "
        "or torch:channels_last (default: all that are installed)"
        + (elsewhere() and f"; {elsewhere()}"),
    )
    add(
        "--python-for",
        action="append",
        default=[],
        metavar="PEER=PYTHON",
        help="run a peer in this interpreter, which needs NumPy and the peer only",
    )
    add("--algorithm", default="auto", help="fastconv's (auto)")
    add("--threads", type=_positive, metavar="N", help="for every library (all usable cores)")
    add("--rounds", type=_positive, metavar="N", help="turns of each peer (5; 3 if --quick)")
    add("--min-time", type=_seconds, metavar="SECONDS", help="of a turn (0.1; 0.05 if --quick)")


def run(args: argparse.Namespace) -> int:
    """Measure, print and write what the options ask for.

    Returns the exit status: 1 if fastconv failed on a case, 130 after Ctrl-C. Raises ValueError if
    no case matches or an option cannot be understood, and OSError if an output cannot be written.
    """
    suites = args.suite or ["conv"]
    if unknown := [suite for suite in suites if suite not in SUITES]:
        raise ValueError(f"suite is {unknown[0]!r}, expected some of {', '.join(SUITES)}")
    cases = select(
        suites,
        nets=args.net,
        names=args.problem,
        batches=args.batch,
        passes=PASSES if args.pass_ == "all" else (args.pass_,),
        layout=args.layout,
        dtype=args.dtype,
        quick=args.quick,
    )
    if not cases and "start" not in suites:
        raise ValueError("no layer matches --net and --problem: their names are in problems.json")
    _check_outputs(args)
    args.threads = args.threads or environment.cores()
    args.rounds = args.rounds or (3 if args.quick else 5)
    args.min_time = args.min_time or (0.05 if args.quick else 0.1)
    report = Report({}, _settings(args), [])
    workers: dict[str, WorkerProcess] = {}
    try:
        greetings = _start(args, workers, report)
        _describe(args, workers, greetings, report)
        _measure(args, cases, workers, report)
        if "start" in suites:
            _measure_start(args, workers, report)
        report.complete = True
    except KeyboardInterrupt:
        report.notes.append("interrupted: what follows was measured before")
        print(f"\n{report.notes[-1]}")
    finally:
        for worker in workers.values():
            worker.close()
    _finish(args, report)
    if not report.complete:
        return 130
    return 1 if any(OURS in row.failures for row in report.rows) else 0


def _check_outputs(args: argparse.Namespace) -> None:
    """Find out now, not after the run, that a result could not be written."""
    for path in (args.json, args.plot):
        if path is not None and not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
    if args.plot is not None:
        require("matplotlib.figure", "bench")
        if args.plot.suffix not in (".png", ".svg", ".pdf"):
            raise ValueError(f"--plot is {str(args.plot)!r}, expected a .png, .svg or .pdf file")


def _start(
    args: argparse.Namespace, workers: dict[str, WorkerProcess], report: Report
) -> dict[str, Mapping[str, Any]]:
    """Start every worker that can be had, ours first; their greetings."""
    known, pythons = names(), _pythons(args.python_for)
    wanted = args.peers
    if wanted is None:
        wanted = [name for name in known if name != OURS]
        wanted += ["torch:channels_last"] * ("torch" in known and args.layout == "NCHW")
        report.notes += filter(None, [elsewhere()])
    greetings: dict[str, Mapping[str, Any]] = {}
    for label in dict.fromkeys([OURS, *wanted]):
        name, _, algorithm = label.partition(":")
        if name not in known:
            raise ValueError(f"--peers has {name!r}, {_expected()}")
        algorithm = args.algorithm if label == OURS else algorithm or "auto"
        python = pythons.get(name, sys.executable)
        command = process.command(name, args.threads, algorithm, python)
        worker = WorkerProcess(command, process.environment(args.threads))
        workers[label] = worker
        try:
            greetings[label] = worker.start()
        except (WorkerError, OSError) as error:
            if label == OURS:
                raise RuntimeError(f"fastconv cannot be timed: {error}") from None
            del workers[label]
            report.notes.append(f"{label}: left out: {error}")
    return greetings


def _describe(
    args: argparse.Namespace,
    workers: Mapping[str, WorkerProcess],
    greetings: Mapping[str, Mapping[str, Any]],
    report: Report,
) -> None:
    """The head of the report: the machine, its limits, the libraries."""
    report.peers = list(workers)
    report.environment = environment.describe(greetings, args.threads, ["fastconv", *sys.argv[1:]])
    report.peak = float(workers[OURS].ask(do="peak", dtype=args.dtype)["gflops"])
    report.bandwidth = float(workers[OURS].ask(do="bandwidth")["gbs"])
    print(table.header(report))
    for note in report.notes:
        print(note)
    print(f"\n{args.layout}, {args.dtype}")


def _measure(
    args: argparse.Namespace,
    cases: Sequence[Case],
    workers: Mapping[str, WorkerProcess],
    report: Report,
) -> None:
    """Fill the report case by case, printing as it grows."""
    lines = table.Table([case.problem.name for case in cases], report.peers)
    if cases:
        print(lines.heading(), flush=True)
    for case in cases:
        neighbours = environment.Neighbours(worker.pid for worker in workers.values())
        row = measure(case, workers, args.rounds, args.min_time)
        spare = (os.cpu_count() or 1) - args.threads
        row = replace(row, cores_lost=max(0.0, neighbours.cores() - spare))
        report.rows.append(row)
        print(lines.line(row, report.peak), *table.failures(row), sep="\n", flush=True)


def _measure_start(
    args: argparse.Namespace, workers: Mapping[str, WorkerProcess], report: Report
) -> None:
    """What starting costs; this alone starts the workers again and again."""
    case = Case(SMALLEST, 1, "forward", args.layout, args.dtype)
    rows = measure_start(case, workers, args.rounds, args.min_time)
    lines = table.Table([row.case.problem.name for row in rows], report.peers)
    print(lines.heading(), *(lines.line(row, report.peak) for row in rows), sep="\n", flush=True)
    print(*table.failures(rows[0]), sep="\n", flush=True)
    report.rows += rows


def _finish(args: argparse.Namespace, report: Report) -> None:
    """The summary and the files."""
    if report.rows:
        print(f"\n{table.summary(report)}")
    if args.json is not None:
        partial = args.json.with_name(args.json.name + ".part")
        partial.write_text(dumps(report), encoding="utf-8")
        os.replace(partial, args.json)
        print(f"wrote {args.json}")
    if args.plot is not None and any(row.case.kind in ("conv", "max_pool") for row in report.rows):
        from ..bench.plot import draw

        draw(report, args.plot)
        print(f"wrote {args.plot}")


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    keys = ("layout", "dtype", "threads", "algorithm", "rounds", "min_time")
    return {key: getattr(args, key) for key in keys}


def _pythons(options: Sequence[str]) -> dict[str, str]:
    pairs = [option.partition("=") for option in options]
    for peer, equals, python in pairs:
        if not (peer and equals and python):
            raise ValueError(f"--python-for has {peer + equals + python!r}, expected PEER=PYTHON")
        if peer not in names():
            raise ValueError(f"--python-for has {peer!r}, {_expected()}")
    return {peer: python for peer, _, python in pairs}


def _expected() -> str:
    return "; ".join(filter(None, [f"expected some of {', '.join(names())}", elsewhere()]))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value
