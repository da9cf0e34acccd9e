"""What a run says as a whole: ratios, geometric means, network totals; and all of it as JSON.

A ratio is a peer's time over fastconv's: above 1, fastconv is the faster.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .problems import Case, ConvProblem
from .rounds import Row, Timing

SCHEMA = 2
OURS = "fastconv"
BEST = "best peer"


@dataclass
class Report:
    """A run, complete or cut short.

    ``peak``, ``bandwidth``: the machine's GFLOP/s and GB/s as measured, None if not to be had.
    """

    environment: Mapping[str, Any]
    settings: Mapping[str, Any]
    peers: Sequence[str]
    peak: float | None = None
    bandwidth: float | None = None
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    complete: bool = False

    def rivals(self) -> list[str]:
        """The peers, and, if they are several libraries, the fastest of them for each case."""
        peers = [label for label in self.peers if label != OURS]
        return [*peers, BEST] if sum(not is_ours(label) for label in peers) > 1 else peers


@dataclass(frozen=True)
class Mean:
    """One line of the summary: ratios to one peer over a group of cases of one kind and pass."""

    kind: str
    group: str
    peer: str
    cases: int
    geometric_mean: float
    least: float
    least_case: str


@dataclass(frozen=True)
class NetworkTotal:
    """One network at one batch size: times summed over its layers, each ``count`` times."""

    net: str
    batch: int
    kind: str
    peer: str
    layers: int
    ours_seconds: float
    peer_seconds: float

    @property
    def ratio(self) -> float:
        return self.peer_seconds / self.ours_seconds


def is_ours(label: str) -> bool:
    """Whether a label is fastconv, by whichever algorithm ("fastconv:im2col")."""
    return label.partition(":")[0] == OURS


def kind(case: Case) -> str:
    """Cases that are averaged together: a pass of convolution or max-pool, products, steps."""
    return f"max-pool {case.pass_}" if case.kind == "max_pool" else case.pass_


ALL = "all"
#: Groups of convolution layers that have a mean of their own.
GROUPS: Mapping[str, Callable[[ConvProblem], bool]] = {
    ALL: lambda p: True,
    "3x3 s1, C, K >= 64, >= 14x14": lambda p: (
        (p.R, p.S, p.stride, p.dilation, p.groups) == (3, 3, 1, 1, 1)
        and min(p.C, p.K) >= 64
        and min(p.P, p.Q) >= 14
    ),
    "1x1": lambda p: p.R == p.S == 1,
    "C <= 4": lambda p: p.C <= 4,
    "depthwise": lambda p: p.groups == p.C > 1,
}


def groups(case: Case) -> list[str]:
    """The groups that a case belongs to."""
    problem = case.problem
    if not isinstance(problem, ConvProblem):
        return [ALL]
    return [name for name, has in GROUPS.items() if has(problem)]


def rival(row: Row, peer: str) -> Timing | None:
    """The peer's timing of a case; for BEST the fastest of the other libraries'."""
    if peer != BEST:
        return row.timings.get(peer)
    others = [timing for label, timing in row.timings.items() if not is_ours(label)]
    return min(others, key=lambda timing: timing.seconds, default=None)


def ratio(row: Row, peer: str) -> float | None:
    """The peer's time over ours, None where either is missing."""
    ours, other = row.timings.get(OURS), rival(row, peer)
    return other.seconds / ours.seconds if ours and other else None


def gflops(row: Row, label: str) -> float | None:
    """GFLOP/s by direct-convolution FLOPs, whatever the algorithm; None for pooling."""
    timing = row.timings.get(label)
    return row.case.flops / timing.seconds * 1e-9 if timing and row.case.flops else None


def geometric_mean(values: Iterable[float]) -> float:
    logs = [math.log(value) for value in values]
    return math.exp(math.fsum(logs) / len(logs))


def means(report: Report) -> Iterator[Mean]:
    """Over layers and batch sizes, each layer once whatever its count."""
    rows = [row for row in report.rows if row.case.kind != "start"]
    for kind_ in dict.fromkeys(kind(row.case) for row in rows):
        for group in GROUPS:
            members = [r for r in rows if kind(r.case) == kind_ and group in groups(r.case)]
            for peer in report.rivals():
                ratios = {
                    f"{row.case.problem.name} N={row.case.batch}": value
                    for row in members
                    if (value := ratio(row, peer)) is not None
                }
                if ratios:
                    least = min(ratios, key=ratios.__getitem__)
                    mean = geometric_mean(ratios.values())
                    yield Mean(kind_, group, peer, len(ratios), mean, ratios[least], least)


def network_totals(report: Report) -> Iterator[NetworkTotal]:
    """Over the convolutions of each network that both sides were timed on."""
    rows = [row for row in report.rows if isinstance(row.case.problem, ConvProblem)]
    groups = dict.fromkeys((row.case.problem.net, row.case.batch, row.case.pass_) for row in rows)
    for net, batch, pass_ in groups:
        for peer in report.rivals():
            pairs = [
                (row.case.problem.count, ours.seconds, other.seconds)
                for row in rows
                if (row.case.problem.net, row.case.batch, row.case.pass_) == (net, batch, pass_)
                and (ours := row.timings.get(OURS))
                and (other := rival(row, peer))
            ]
            if pairs:
                ours_seconds = math.fsum(count * ours for count, ours, _ in pairs)
                peer_seconds = math.fsum(count * other for count, _, other in pairs)
                layers = sum(count for count, _, _ in pairs)
                yield NetworkTotal(net, batch, pass_, peer, layers, ours_seconds, peer_seconds)


def to_json(report: Report) -> dict[str, Any]:
    """Everything, as plain values; docs/benchmarks.md describes the schema."""
    return {
        "schema": SCHEMA,
        "complete": report.complete,
        "environment": dict(report.environment),
        "settings": dict(report.settings),
        "peak_gflops": report.peak,
        "bandwidth_gbs": report.bandwidth,
        "results": [_row_json(row, report) for row in report.rows],
        "geometric_means": [asdict(mean) for mean in means(report)],
        "networks": [asdict(total) | {"ratio": total.ratio} for total in network_totals(report)],
        "notes": report.notes,
    }


def dumps(report: Report) -> str:
    """The JSON text, a line for each case and mean, so that files can be read and compared."""
    entries = []
    for name, value in to_json(report).items():
        if isinstance(value, list) and value:
            lines = ",\n".join(f"  {json.dumps(_rounded(entry))}" for entry in value)
            entries.append(f' "{name}": [\n{lines}\n ]')
        else:
            entries.append(f' "{name}": {json.dumps(_rounded(value))}')
    return "{\n" + ",\n".join(entries) + "\n}\n"


def _rounded(value: Any) -> Any:
    """Floats to five significant digits."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {name: _rounded(entry) for name, entry in value.items()}
    return [_rounded(entry) for entry in value] if isinstance(value, list) else value


def _row_json(row: Row, report: Report) -> dict[str, Any]:
    case = row.case
    ours = gflops(row, OURS)
    return {
        "layer": case.problem.name,
        "net": case.problem.net,
        "count": case.problem.count,
        "batch": case.batch,
        "kind": case.kind,
        "pass": case.pass_,
        "layout": case.layout,
        "dtype": case.dtype,
        "flops": case.flops,
        "bytes": case.bytes,
        "gflops": {label: gflops(row, label) for label in row.timings},
        "percent_of_peak": 100 * ours / report.peak if ours and report.peak else None,
        "ratio": {peer: ratio(row, peer) for peer in report.rivals()},
        "timings": {
            label: {
                "seconds": timing.seconds,
                "rounds": list(timing.rounds),
                "calls": timing.calls,
                "error": timing.error,
            }
            for label, timing in row.timings.items()
        },
        "failures": dict(row.failures),
        "cores_lost": row.cores_lost,
    }
