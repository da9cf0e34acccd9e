"""The report as aligned plain text: a header, a line a case as it is measured, a summary."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .report import BEST, OURS, Report, gflops, means, network_totals, ratio
from .rounds import Row

_MISSING = "-"

#: Images of MNIST's training set.
EPOCH = 60_000


class Table:
    """Columns wide enough for the names and peers to come, so that lines can be printed one by one.

    Times are in ms; % is of the measured peak; x is a peer's time over fastconv's; the error is
    fastconv's. A line that ends in ~ was measured while other processes took cores.
    """

    def __init__(self, names: Sequence[str], peers: Sequence[str]) -> None:
        self._peers = list(peers)
        self._rivals = [peer for peer in peers if peer != OURS]
        self._name = max(map(len, ["layer", *names]))

    def heading(self) -> str:
        titles = [f"{peer} ms" for peer in self._peers]
        titles += ["GFLOP/s", "% peak", *(f"x {peer}" for peer in self._rivals), "error"]
        return self._line("layer", "N", "pass", titles)

    def line(self, row: Row, peak: float | None) -> str:
        ours, speed = row.timings.get(OURS), gflops(row, OURS)
        times = (row.timings.get(peer) for peer in self._peers)
        cells = [_number(timing.seconds * 1e3 if timing else None) for timing in times]
        cells.append(_number(speed))
        cells.append(_fixed(100 * speed / peak if speed and peak else None, 1))
        cells += [_fixed(ratio(row, peer), 2) for peer in self._rivals]
        cells.append(_MISSING if ours is None else f"{ours.error:.0e}")
        line = self._line(row.case.problem.name, str(row.case.batch), row.case.pass_, cells)
        return f"{line} ~" if row.disturbed else line

    def _line(self, name: str, batch: str, pass_: str, cells: Sequence[str]) -> str:
        widths = [max(9, len(peer) + 3) for peer in self._peers] + [7, 6]
        widths += [max(6, len(peer) + 2) for peer in self._rivals] + [6]
        columns = (f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        return "  ".join([f"{name:<{self._name}}", f"{batch:>3}", f"{pass_:<7}", *columns])


def header(report: Report) -> str:
    """Where, when and with what the run is made."""
    lines = [f"{name + ':':<11} {_plain(value)}" for name, value in report.environment.items()]
    if report.peak:
        lines.append(f"{'peak:':<11} {report.peak:.0f} GFLOP/s, multiply-adds in registers")
    if report.bandwidth:
        lines.append(f"{'memory:':<11} {report.bandwidth:.0f} GB/s, large copies, read and written")
    return "\n".join(lines)


def failures(row: Row) -> Iterator[str]:
    """A line for each peer that did not serve the case."""
    for label, reason in row.failures.items():
        case = row.case
        yield f"{label}: left out of {case.problem.name} N={case.batch} {case.pass_}: {reason}"


def summary(report: Report) -> str:
    """Geometric means and least ratios by pass and peer, then the networks' totals."""
    mean_rows = [
        (
            m.kind,
            m.group,
            m.peer,
            str(m.cases),
            _fixed(m.geometric_mean, 2),
            _fixed(m.least, 2),
            m.least_case,
        )
        for m in means(report)
    ]
    total_rows = [
        (
            total.net,
            str(total.batch),
            total.kind,
            str(total.layers),
            total.peer,
            _number(total.ours_seconds * 1e3),
            _number(total.peer_seconds * 1e3),
            _fixed(total.ratio, 2),
        )
        for total in network_totals(report)
        if total.peer != BEST
    ]
    parts = []
    if mean_rows:
        titles = ["pass", "layers", "peer", "cases", "mean", "least", "at"]
        parts += ["ratio to each peer: geometric mean over layers and batch sizes, each once"]
        parts += [*_aligned(titles, mean_rows, "<<<>>><"), ""]
    if total_rows:
        titles = ["network", "N", "pass", "layers", "peer", "fastconv ms", "peer ms", "ratio"]
        parts += ["networks: times summed over their layers, each as often as the network has it"]
        parts += [*_aligned(titles, total_rows, "<><><>>>"), ""]
    for row in report.rows:
        if row.case.kind == "train":
            parts += [f"an epoch of {EPOCH:,} images: {_epochs(row)}", ""]
    if disturbed := sum(row.disturbed for row in report.rows):
        parts.append(
            f"{disturbed} of {len(report.rows)} cases, marked ~, were timed while other work took "
            "cores: their times are doubtful, repeat them on a quiet machine"
        )
    return "\n".join(parts).rstrip()


def _epochs(row: Row) -> str:
    scale = EPOCH / row.case.batch
    pairs = ((label, timing.seconds * scale) for label, timing in row.timings.items())
    return ", ".join(f"{label} {seconds:.2f} s" for label, seconds in pairs)


def _aligned(titles: Sequence[str], rows: Iterable[Sequence[str]], sides: str) -> list[str]:
    table = [titles, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)
        ).rstrip()
        for row in table
    ]


def _number(value: float | None) -> str:
    """Three significant digits or all before the point: 0.0123, 1.23, 12.3, 1234."""
    if value is None:
        return _MISSING
    for limit, digits in ((0.1, 4), (1, 3), (10, 2), (100, 1)):
        if abs(value) < limit:
            return f"{value:.{digits}f}"
    return f"{value:.0f}"


def _fixed(value: float | None, digits: int) -> str:
    return _MISSING if value is None else f"{value:.{digits}f}"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(entry)}" for name, entry in value.items())
    return str(value)
