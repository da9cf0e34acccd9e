"""Markdown from the JSON files that run_all.sh wrote: python benchmarks/tables.py FOLDER

FOLDER/README.md gets every summary, FOLDER/layers.md every layer; the short tables in README.md and
docs/benchmarks.md, between their "results" comments, are replaced.
"""

import argparse
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fastconv.bench.report import ALL, BEST, OURS
from fastconv.bench.table import EPOCH

ROOT = Path(__file__).parents[1]
NAMES = {
    OURS: "fastconv",
    "numpy": "NumPy",
    "torch": "PyTorch",
    "torch:channels_last": "PyTorch channels_last",
    "onnxruntime": "ONNX Runtime",
    "jax": "JAX",
    "keras": "Keras",
    BEST: "fastest of them",
}
PASSES = {"forward": "forward", "input": "input gradient", "weight": "filter gradient"}
PASSES |= {f"max-pool {name}": f"max-pool {title}" for name, title in PASSES.items()}
NETS = {"mnist": "MNIST convnet", "lenet5": "LeNet-5", "alexnet": "AlexNet", "vgg16": "VGG-16"}
NETS |= {"resnet50": "ResNet-50", "mobilenetv2": "MobileNetV2"}

Run = dict[str, Any]
Runs = dict[str, Run]


def load(folder: Path) -> Runs:
    """The runs in a folder by file name without its suffix."""
    files = sorted(folder.glob("*.json"))
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def markdown(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose columns but the first are figures."""
    rule = ["---", *["---:"] * (len(titles) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (titles, rule, *rows))


def number(value: float | None, scale: float = 1) -> str:
    """Three significant digits."""
    if value is None:
        return ""
    value *= scale
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f}"


def threads(run: Run) -> str:
    count = run["settings"]["threads"]
    return f"{count} thread{'s' * (count > 1)}"


def setting(run: Run) -> str:
    """Layout and threads."""
    return f"{run['settings']['layout']}, {threads(run)}"


def means(runs: Sequence[Run], group: str = ALL) -> str:
    """Geometric means of the ratios, a line for each pass of each run."""
    peers = [peer for peer in NAMES if any(peer in run["results"][0]["ratio"] for run in runs)]
    lines = []
    for run in runs:
        found = [mean for mean in run["geometric_means"] if mean["group"] == group]
        for kind in dict.fromkeys(mean["kind"] for mean in found):
            by_peer = {mean["peer"]: mean for mean in found if mean["kind"] == kind}
            least = by_peer.get(BEST)
            cells = [number(by_peer.get(peer, {}).get("geometric_mean")) for peer in peers]
            where = f"{number(least['least'])} ({least['least_case']})" if least else ""
            lines.append([f"{PASSES.get(kind, kind)}, {setting(run)}", *cells, where])
    return markdown(["", *(NAMES[peer] for peer in peers), "least against the fastest"], lines)


def networks(run: Run) -> str:
    """Times summed over each network's layers: fastconv's ms and the ratio to the fastest peer."""
    cells: dict[tuple[str, int], dict[str, str]] = {}
    for total in run["networks"]:
        if total["peer"] == BEST:
            text = f"{number(total['ours_seconds'], 1e3)} ms, x {number(total['ratio'])}"
            cells.setdefault((total["net"], total["batch"]), {})[total["kind"]] = text
    kinds = [kind for kind in PASSES if any(kind in row for row in cells.values())]
    rows = [
        [f"{NETS[net]}, batch {batch}", *(row.get(kind, "") for kind in kinds)]
        for (net, batch), row in cells.items()
    ]
    return markdown([setting(run), *(PASSES[kind] for kind in kinds)], rows)


def products(runs: Sequence[Run]) -> str:
    """GFLOP/s of matrix products, the share of the peak, and the ratios."""
    peers = [peer for peer in runs[0]["results"][0]["ratio"] if peer != BEST]
    rows = []
    for run in runs:
        isa = re.search(r"isa (\w+)", run["environment"]["versions"][OURS])
        where = f"{threads(run)}, {isa[1] if isa else ''}"
        for result in run["results"]:
            rows.append(
                [
                    f"{result['layer'].removeprefix('gemm.')}, {where}",
                    number(result["gflops"][OURS]),
                    f"{number(result['percent_of_peak'])} %",
                    *(number(result["ratio"][peer]) for peer in peers),
                ]
            )
    return markdown(["", "GFLOP/s", "of peak", *(f"x {NAMES[peer]}" for peer in peers)], rows)


def training(run: Run) -> str:
    """An epoch of the MNIST convnet by each library."""
    (result,) = run["results"]
    ours = result["timings"][OURS]["seconds"]
    rows = []
    for peer, timing in result["timings"].items():
        step, epoch = timing["seconds"], timing["seconds"] * EPOCH / result["batch"]
        ratio = number(step / ours) if peer != OURS else ""
        rows.append([NAMES[peer], number(step, 1e3), number(epoch), ratio])
    return markdown(["", "ms a step", "s an epoch", "ratio"], rows)


def starting(run: Run) -> str:
    """What a library costs before it computes anything large."""
    times = {result["layer"]: result["timings"] for result in run["results"]}
    rows = [
        [
            NAMES[peer],
            number(times["start.import"][peer]["seconds"], 1e3),
            number(times["start.first call"][peer]["seconds"], 1e3),
            number(times["start.further call"][peer]["seconds"], 1e6),
        ]
        for peer in times["start.import"]
    ]
    return markdown(["", "import, ms over NumPy's", "first call, ms", "further call, µs"], rows)


def layers(run: Run) -> str:
    """Every case of a run."""
    peers = [peer for peer in NAMES if peer in run["results"][0]["ratio"]]
    rows = [
        [
            f"{result['layer']}, N={result['batch']}, {result['pass']}",
            number(result["timings"].get(OURS, {}).get("seconds"), 1e3),
            number(result["gflops"].get(OURS)),
            number(result["percent_of_peak"]),
            *(number(result["ratio"][peer]) for peer in peers),
            f"{result['timings'][OURS]['error']:.0e}" if OURS in result["timings"] else "",
        ]
        for result in run["results"]
    ]
    return markdown(
        ["", "ms", "GFLOP/s", "% of peak", *(f"x {NAMES[peer]}" for peer in peers), "error"], rows
    )


def machine(runs: Runs) -> str:
    """Where and with what the runs were made, once."""
    versions: dict[str, str] = {}
    for run in runs.values():
        versions |= run["environment"]["versions"]
    environment = next(iter(runs.values()))["environment"]
    limits = (
        f"{threads(run)}: {run['peak_gflops']:.0f} GFLOP/s, {run['bandwidth_gbs']:.0f} GB/s"
        for run in pick(runs, "gemm", "gemm-1")
    )
    disturbed = sum(row["cores_lost"] > 0.1 for run in runs.values() for row in run["results"])
    cases = sum(len(run["results"]) for run in runs.values())
    facts = {
        "CPU": environment["CPU"],
        "system": environment["system"],
        "measured limits": "; ".join(limits),
        "versions": "; ".join(f"{NAMES.get(k, k)} {v}" for k, v in versions.items()),
        "variables": ", ".join(f"{k}={v}" for k, v in environment["variables"].items()) or "none",
        "date": environment["date"],
        "cases that lost cores to other work": f"{disturbed} of {cases}",
    }
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items() if fact)


def pick(runs: Runs, *names: str) -> list[Run]:
    return [runs[name] for name in names if name in runs]


CONVS = ("conv-nchw", "conv-nhwc", "conv-nchw-1")
POOLS = ("pool-nchw", "pool-nhwc")
GEMMS = ("gemm", "gemm-1", "gemm-avx2")


def sections(runs: Runs) -> dict[str, str]:
    """Every table by its title; those whose run is missing are left out."""
    found: dict[str, str] = {}
    if convs := pick(runs, *CONVS):
        found["Convolution, geometric means"] = means(convs)
        for group in dict.fromkeys(mean["group"] for mean in convs[0]["geometric_means"]):
            if group != ALL:
                found[f"Layers {group}"] = means(convs, group)
        for run in convs:
            found[f"Networks, {setting(run)}"] = networks(run)
    if pools := pick(runs, *POOLS):
        found["Max-pool, geometric means"] = means(pools)
    if gemms := pick(runs, *GEMMS):
        found["Matrix products"] = products(gemms)
    if "train" in runs:
        found["Training the MNIST convnet, batch 64"] = training(runs["train"])
    if "start" in runs:
        found["A very small convolution in a fresh process"] = starting(runs["start"])
    return found


def replace_results(file: Path, text: str) -> None:
    """Put the text between the file's "results" comments."""
    old = file.read_text(encoding="utf-8")
    new, count = re.subn(
        r"(<!-- results -->\n).*?(<!-- end of results -->)",
        lambda match: f"{match[1]}\n{text}\n\n{match[2]}",
        old,
        flags=re.DOTALL,
    )
    if count != 1:
        raise ValueError(f"{file} has {count} pairs of results comments, expected one")
    file.write_text(new, encoding="utf-8")


def links(folder: Path, up: str) -> str:
    """Links to the results in this folder and of other machines, from a file `up` below ROOT."""
    others = sorted(path.parent for path in folder.parent.glob("*/README.md"))
    folders = [folder, *(other for other in others if other != folder)]
    names = [path.relative_to(ROOT).as_posix() for path in folders]
    return ", ".join(f"[{name}]({up}{name}/README.md)" for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    runs = load(folder)
    if not runs:
        raise SystemExit(f"no JSON files in {folder}")
    ratio = "Figures are a library's time over fastconv's: above 1, fastconv is the faster."
    parts = [f"## {title}\n\n{text}" for title, text in sections(runs).items()]
    head = f"# Results: {folder.name}\n\n{machine(runs)}\n\n{ratio}"
    (folder / "README.md").write_text("\n\n".join([head, *parts]) + "\n", encoding="utf-8")
    parts = [f"## {name}\n\n{layers(run)}" for name, run in runs.items() if run["results"]]
    (folder / "layers.md").write_text(
        "\n\n".join(["# Every case", *parts]) + "\n", encoding="utf-8"
    )

    cpu, date = (next(iter(runs.values()))["environment"][key] for key in ("CPU", "date"))
    found = sections(runs)
    short = [text for title, text in found.items() if "means" in title or "Training" in title]
    lead = f"Measured on {date[:10]}, {cpu}. {ratio}"
    link = f"All figures: {links(folder, '')}."
    replace_results(ROOT / "README.md", "\n\n".join([lead, *short, link]))
    long = [f"### {title}\n\n{text}" for title, text in found.items()]
    link = f"Every case, with pictures: {links(folder, '../')}."
    replace_results(ROOT / "docs" / "benchmarks.md", "\n\n".join([lead, *long, link]))


if __name__ == "__main__":
    main()
