"""Pictures of the JSON files that run_all.sh wrote: python benchmarks/pictures.py FOLDER

roofline.png: each layer's speed against its arithmetic intensity, under the measured roofs.
speedup.png: geometric means and network totals, a bar for each library.
"""

import argparse
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastconv.bench.report import ALL, BEST, OURS
from tables import NAMES, NETS, PASSES, Run, load, setting, threads

COLOURS = {
    "numpy": "#9e9e9e",
    "torch": "#e08214",
    "torch:channels_last": "#b35806",
    "onnxruntime": "#8073ac",
    "jax": "#35978f",
    BEST: "#08306b",
}


def roofline(run: Run, path: Path) -> None:
    """A panel for each pass: dots are layers, lines the limits of memory and arithmetic."""
    passes = [p for p in PASSES if any(result["pass"] == p for result in run["results"])]
    figure = Figure(figsize=(4.3 * len(passes), 4), layout="constrained")
    panels = figure.subplots(1, len(passes), sharey=True, squeeze=False)[0]
    for axes, pass_ in zip(panels, passes, strict=True):
        results = [result for result in run["results"] if result["pass"] == pass_]
        intensity = [result["flops"] / result["bytes"] for result in results]
        for peer, marker in ((BEST, "x"), (OURS, "o")):
            speeds = [_speed(result, peer) for result in results]
            axes.scatter(
                intensity,
                speeds,
                s=16,
                marker=marker,
                linewidths=1,
                color="#08306b" if peer == OURS else "#e08214",
                label="fastest other library" if peer == BEST else OURS,
            )
        _roofs(axes, run, min(intensity), max(intensity))
        axes.set(xscale="log", yscale="log", title=PASSES[pass_], xlabel="FLOPs / byte")
        axes.grid(which="major", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    panels[0].set_ylabel("GFLOP/s (direct)")
    panels[0].legend(loc="lower right", fontsize=8)
    figure.suptitle(f"{run['environment']['CPU']}: {setting(run)}", fontsize=10)
    figure.savefig(path, dpi=110)


def _roofs(axes: Axes, run: Run, low: float, high: float) -> None:
    peak, bandwidth = run["peak_gflops"], run["bandwidth_gbs"]
    ridge = peak / bandwidth
    axes.plot(
        [low, ridge, high], [low * bandwidth, peak, peak], color="black", linestyle=":", linewidth=1
    )
    axes.annotate(f"{peak:.0f} GFLOP/s", (high, peak), ha="right", va="bottom", fontsize=7)
    axes.annotate(
        f"{bandwidth:.0f} GB/s", (low, low * bandwidth), ha="left", va="bottom", fontsize=7
    )


def _speed(result: dict[str, Any], peer: str) -> float:
    """GFLOP/s; of the fastest other library, where that is asked for."""
    speeds = result["gflops"]
    if peer != BEST:
        return float(speeds.get(peer) or float("nan"))
    others = (speed for label, speed in speeds.items() if label.partition(":")[0] != OURS)
    return max(others, default=float("nan"))


def speedups(runs: dict[str, Run], path: Path) -> None:
    """Bars of the ratios: by pass, and for the networks at their largest batch, forward."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    bars: dict[str, dict[str, float]] = {}
    for run in runs.values():
        for mean in run["geometric_means"]:
            if mean["group"] == ALL and run["results"][0]["kind"] in ("conv", "max_pool"):
                title = f"{PASSES[mean['kind']]}\n{setting(run)}"
                bars.setdefault(title, {})[mean["peer"]] = mean["geometric_mean"]
    _bars(left, bars, "geometric means over the layers")
    bars = {}
    for total in runs["conv-nchw"]["networks"]:
        if total["kind"] == "forward" and total["batch"] > 1:
            title = f"{NETS[total['net']]}\nbatch {total['batch']}"
            bars.setdefault(title, {})[total["peer"]] = total["ratio"]
    _bars(right, bars, f"whole networks, forward, {setting(runs['conv-nchw'])}")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
    figure.suptitle("time of each library / time of fastconv", fontsize=11)
    figure.savefig(path, dpi=110)


def _bars(axes: Axes, bars: dict[str, dict[str, float]], title: str) -> None:
    peers = [peer for peer in COLOURS if any(peer in ratios for ratios in bars.values())]
    width = 0.8 / len(peers)
    for i, peer in enumerate(peers):
        rows = [(y, ratios[peer]) for y, ratios in enumerate(bars.values()) if peer in ratios]
        places = [y + (i - (len(peers) - 1) / 2) * width for y, _ in rows]
        lengths = [ratio for _, ratio in rows]
        axes.barh(places, lengths, width, color=COLOURS[peer], label=NAMES[peer])
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(xscale="log", title=title)
    axes.set_yticks(range(len(bars)), list(bars), fontsize=7)
    ticks = [0.5, 1, 2, 5, 10, 20, 50, 100]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.invert_yaxis()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    runs = load(folder)
    if "conv-nchw" in runs:
        layers = runs["conv-nchw"]
        alike = (run for run in runs.values() if threads(run) == threads(layers))
        peak = max(run["peak_gflops"] for run in alike)  # one reading may be disturbed
        roofline(layers | {"peak_gflops": peak}, folder / "roofline.png")
        speedups(runs, folder / "speedup.png")


if __name__ == "__main__":
    main()
