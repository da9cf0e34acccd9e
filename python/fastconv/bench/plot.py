"""The report as a picture: a dot for each peer's speed on each layer, on one logarithmic axis.

On that axis the distance between two dots is the ratio of their times, so both the absolute speed
and who is ahead, and by how much, can be read off a row.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from .._backend.extras import require
from .problems import ConvProblem, PoolProblem, Problem
from .report import OURS, Report, geometric_mean, is_ours, kind, ratio, rival
from .rounds import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW, PANEL, LABELS, HEAD, TITLE, FOOT = 0.17, 3.4, 2.5, 0.95, 0.5, 0.45  # inches
AHEAD, BEHIND, OUR_COLOUR = "#1b7837", "#c0392b", "#08306b"
STYLES = {
    OURS: ("o", OUR_COLOUR),
    "numpy": ("o", "#9e9e9e"),
    "scipy": ("^", "#9e9e9e"),
    "torch": ("s", "#e08214"),
    "torch:channels_last": ("D", "#e08214"),
}
FURTHER_STYLES = (("D", "#8073ac"), ("v", "#35978f"), ("p", "#4393c3"))

Column = tuple[str, int]  # a pass, and the place of the batch size among the layer's batch sizes


def draw(report: Report, path: Path) -> None:
    """Write the picture of the layers; the format is the suffix's. Needs matplotlib."""
    figures = require("matplotlib.figure", "bench")
    convs = [row for row in report.rows if row.case.kind == "conv"]
    pools = [row for row in report.rows if row.case.kind == "max_pool"]
    blocks = [rows for rows in (convs, pools) if rows]
    cells = [_by_column(rows) for rows in blocks]
    columns = sorted({column for block in cells for column in block})
    heights = [_places(rows)[1] for rows in blocks]
    width = LABELS + PANEL * len(columns)
    top = HEAD + sum(TITLE + ROW * height + FOOT for height in heights)
    figure = figures.Figure(figsize=(width, top))
    figure_height, top = top, top - HEAD
    for rows, by_column, height in zip(blocks, cells, heights, strict=True):
        bottom = top - TITLE - ROW * height
        for index, column in enumerate(columns):
            if column in by_column:
                box = LABELS + PANEL * index, bottom, PANEL - 0.65, ROW * height
                scale = width, figure_height, width, figure_height
                axes = figure.add_axes([inch / of for inch, of in zip(box, scale, strict=True)])
                labelled = index == 0 or column == min(by_column)
                _panel(axes, report, rows, by_column[column], labelled)
        top = bottom - FOOT
    _head(figure, report)
    figure.savefig(path, dpi=110)


def _head(figure: "Figure", report: Report) -> None:
    """What was measured, how to read it, and the legend."""
    inch = 1 / figure.get_figheight()
    settings = report.settings
    title = f"{settings['layout']}, {settings['dtype']}, {settings['threads']} threads"
    cpu = report.environment["CPU"]
    reading = "numbers, and the line between dots: time of the fastest peer / time of fastconv"
    figure.text(0.01, 1 - 0.2 * inch, f"Speed by layer: {title}", fontsize=11, va="center")
    figure.text(0.01, 1 - 0.42 * inch, f"{cpu}; {reading}", fontsize=7, va="center")
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(),
        loc="center left",
        bbox_to_anchor=(0, 1 - 0.7 * inch),
        ncols=len(report.peers) + 1,
        frameon=False,
        columnspacing=1.2,
        fontsize=8,
    )


def _by_column(rows: Sequence[Row]) -> dict[Column, list[Row]]:
    """Rows by pass and batch size. Sizes are counted from the largest: networks differ in them."""
    batches: dict[str, set[int]] = {}
    for row in rows:
        batches.setdefault(row.case.problem.name, set()).add(row.case.batch)
    columns: dict[Column, list[Row]] = {}
    for row in rows:
        larger = sum(batch > row.case.batch for batch in batches[row.case.problem.name])
        columns.setdefault((row.case.pass_, -larger), []).append(row)
    return columns


def _places(rows: Sequence[Row]) -> tuple[dict[str, float], float]:
    """Where each layer goes, from the top down with a gap between networks; and the height."""
    places: dict[str, float] = {}
    at, net = 0.0, ""
    for row in rows:
        problem = row.case.problem
        if problem.name in places:
            continue
        if problem.net != net:
            at, net = at + 1.3, problem.net
        places[problem.name] = at
        at += 1
    return places, at + 0.3


def _panel(
    axes: "Axes", report: Report, rows: Sequence[Row], cells: Sequence[Row], labelled: bool
) -> None:
    """One pass and batch size: a line for each layer of ``rows``, dots for those in ``cells``."""
    places, height = _places(rows)
    for peer, (marker, colour) in _styles(report).items():
        dots = [(speed, row) for row in cells if (speed := _speed(row, peer))]
        axes.plot(
            [speed for speed, _ in dots],
            [places[row.case.problem.name] for _, row in dots],
            linestyle="none",
            marker=marker,
            markersize=5 if peer == OURS else 4,
            color=colour,
            markerfacecolor=colour if peer == OURS else "white",
            zorder=4 if peer == OURS else 3,
            label=peer,
        )
    for row in cells:
        _gap(axes, report, row, places[row.case.problem.name])
    if isinstance(cells[0].case.problem, ConvProblem) and report.peak:
        axes.axvline(report.peak, color="black", linestyle=":", linewidth=1, label="measured peak")
    axes.set_title(_panel_title(report, cells), fontsize=9, pad=6)
    axes.set_ylim(height - 0.5, -0.2)
    axes.set_yticks(list(places.values()), [_label(row.case.problem) for row in _unique(rows)])
    axes.tick_params(axis="y", length=0, labelsize=7, labelleft=labelled)
    if labelled:
        _network_names(axes, rows, places)
    _speed_axis(axes, report, rows)


def _speed_axis(axes: "Axes", report: Report, rows: Sequence[Row]) -> None:
    """Logarithmic, and the same for every panel of the block."""
    convolution = isinstance(rows[0].case.problem, ConvProblem)
    speeds = [speed for row in rows for peer in report.peers if (speed := _speed(row, peer))]
    if convolution and report.peak:
        speeds.append(report.peak)
    low, high = min(speeds) / 1.3, max(speeds) * 1.3
    decades = [10.0**power for power in range(-4, 6)]
    ticks = [decade for decade in decades if low <= decade <= high]
    if len(ticks) < 3:
        ticks = [step * decade for decade in decades for step in (1, 2, 5)]
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(ticks)
    axes.set_xlim(low, high)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(axis="x", labelsize=8, labeltop=True, top=True)
    axes.set_xlabel("GFLOP/s (direct)" if convolution else "GB/s", fontsize=8)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("left", "right"):
        axes.spines[side].set_visible(False)


def _gap(axes: "Axes", report: Report, row: Row, y: float) -> None:
    """Row by row: from our dot to the fastest peer's, and the ratio of the times."""
    rivals = [peer for peer in report.rivals() if not is_ours(peer)]
    ours = _speed(row, OURS)
    axes.axhline(y, color="#eeeeee", linewidth=0.6, zorder=0)
    if not (rivals and ours):
        return
    other, times = rival(row, rivals[-1]), ratio(row, rivals[-1])
    if other is None or times is None:
        return
    colour = AHEAD if times >= 1 else BEHIND
    axes.plot([ours, ours / times], [y, y], color=colour, linewidth=2, alpha=0.55, zorder=2)
    axes.annotate(
        f"{times:.2f}" if times < 10 else f"{times:.0f}",
        (1.02, y),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize=7,
        color=colour,
    )


def _network_names(axes: "Axes", rows: Sequence[Row], places: Mapping[str, float]) -> None:
    firsts: dict[str, float] = {}
    for row in rows:
        firsts.setdefault(row.case.problem.net, places[row.case.problem.name])
    for net, y in firsts.items():
        axes.annotate(
            net,
            (-0.02, y - 1),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="center",
            fontsize=8,
            fontweight="bold",
        )


def _speed(row: Row, peer: str) -> float | None:
    """GFLOP/s, or GB/s for max-pool, counting each array once."""
    timing = row.timings.get(peer)
    if timing is None:
        return None
    work = row.case.flops or row.case.bytes
    return work / timing.seconds * 1e-9


def _styles(report: Report) -> dict[str, tuple[str, str]]:
    further = cycle(FURTHER_STYLES)
    return {peer: STYLES[peer] if peer in STYLES else next(further) for peer in report.peers}


def _panel_title(report: Report, cells: Sequence[Row]) -> str:
    case = cells[0].case
    batches = "/".join(str(batch) for batch in sorted({row.case.batch for row in cells}))
    text = f"{kind(case)}, batch {batches}"
    rivals = [peer for peer in report.rivals() if not is_ours(peer)]
    ratios = [value for row in cells if rivals and (value := ratio(row, rivals[-1]))]
    return f"{text}: mean ratio {geometric_mean(ratios):.2f}" if ratios else text


def _unique(rows: Sequence[Row]) -> list[Row]:
    return list({row.case.problem.name: row for row in rows}.values())


def _label(problem: Problem) -> str:
    """conv3_1b  3x3/2  128→128  56x56: filter and stride, channels, input."""
    short = problem.name.partition(".")[2]
    if isinstance(problem, ConvProblem):
        window, channels = f"{problem.R}x{problem.S}", f"{problem.C}→{problem.K}"
    else:
        assert isinstance(problem, PoolProblem)
        window, channels = f"{problem.kernel}x{problem.kernel}", str(problem.C)
    stride = f"/{problem.stride}" if problem.stride > 1 else ""
    return f"{short}   {window}{stride}  {channels}  {problem.H}x{problem.W}"
