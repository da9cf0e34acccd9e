"""Times convolutions and max-pools on CuPy arrays and, where PyTorch is installed, by cuDNN.

Device time between two events around several calls, after warming up; the median of some rounds,
ours and the peer's in turn, on the same arrays. GFLOP/s count the multiplications and additions of
the definition, GB/s each cell that must be read or written once. Writes one JSON and prints tables.

usage: gpu_layers.py OUT.json [SECONDS]   as many layers as there is time for, the quick ones first
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import cupy
import numpy as np

import fastconv
from fastconv.bench.problems import ConvProblem, Layout, PoolProblem
from fastconv.bench.suites import QUICK, load

try:
    import torch
except ImportError:
    torch = None

ROUNDS, CALLS = 5, 5
BATCH = 32

Call = Callable[[], Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """What a product is computed in, by both sides."""

    name: str
    dtype: str
    layout: Layout
    precision: str = "fp32"
    algorithm: str = "auto"


KINDS = (
    Kind("fp32", "float32", "NCHW"),
    Kind("fp32 nhwc", "float32", "NHWC"),
    Kind("tf32", "float32", "NHWC", "tf32"),
    Kind("float16", "float16", "NHWC"),
    Kind("bfloat16", "bfloat16", "NHWC"),
)
WGMMA = Kind("wgmma", "float16", "NHWC", algorithm="wgmma")


def kinds() -> tuple[Kind, ...]:
    """Those that this device has."""
    return (*KINDS, WGMMA) if cupy.cuda.Device().compute_capability == "90" else KINDS


def milliseconds(call: Call) -> float:
    """The device time of one call."""
    start, stop = cupy.cuda.Event(), cupy.cuda.Event()
    start.record()
    for _ in range(CALLS):
        call()
    stop.record()
    stop.synchronize()
    elapsed: float = cupy.cuda.get_elapsed_time(start, stop)
    return elapsed / CALLS


def medians(calls: list[Call]) -> list[float]:
    """The device time of each call."""
    for call in calls:
        call()
    rounds = [[milliseconds(call) for call in calls] for _ in range(ROUNDS)]
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def arrays(kind: Kind, *shapes: tuple[int, ...]) -> list[Any]:
    """Normal arrays, laid out as the kind says; each shape has its channels second."""
    dtype: Any = kind.dtype
    if dtype == "bfloat16":
        import ml_dtypes

        dtype = ml_dtypes.bfloat16
    rng = np.random.default_rng(0)
    made = []
    for shape in shapes:
        a = rng.standard_normal(shape, np.float32).astype(dtype)
        made.append(cupy.asarray(a if kind.layout == "NCHW" else np.moveaxis(a, 1, -1).copy()))
    return made


def seen_nchw(a: Any, kind: Kind) -> Any:
    """The same cells with the channels second."""
    return a if kind.layout == "NCHW" else a.transpose(0, 3, 1, 2)


def conv_calls(layer: ConvProblem, kind: Kind) -> dict[str, list[Call]]:
    """For each pass our call and cuDNN's."""
    shapes = layer.input_shape(BATCH), layer.weight_shape, layer.output_shape(BATCH)
    x, w, dy = arrays(kind, *shapes)
    w = seen_nchw(w, kind)
    geometry: dict[str, Any] = {
        name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")
    }
    keywords = {**geometry, "layout": kind.layout}
    keywords |= {"precision": kind.precision, "algorithm": kind.algorithm}
    calls: dict[str, list[Call]] = {
        "forward": [lambda: fastconv.conv2d(x, w, **keywords)],
        "input": [lambda: fastconv.conv2d_grad_input(dy, w, x.shape, **keywords)],
        "weight": [lambda: fastconv.conv2d_grad_weight(dy, x, w.shape, **keywords)],
    }
    if kind == WGMMA:
        del calls["weight"]  # it has none
    if torch is not None:
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = kind.precision == "tf32"
        tx, tw, tdy = map(torch.from_dlpack, (seen_nchw(x, kind), w, seen_nchw(dy, kind)))
        grad = torch.nn.grad
        peers: dict[str, Call] = {
            "forward": lambda: torch.nn.functional.conv2d(tx, tw, **geometry),
            "input": lambda: grad.conv2d_input(tx.shape, tw, tdy, **geometry),
            "weight": lambda: grad.conv2d_weight(tx, tw.shape, tdy, **geometry),
        }
        for name, ours in calls.items():
            ours.append(peers[name])
    return calls


def measure_layer(layer: ConvProblem, kind: Kind) -> list[Row]:
    """One row a pass."""
    rows = []
    for name, calls in conv_calls(layer, kind).items():
        ours, *peer = medians(calls)
        row = {"layer": layer.name, "kind": kind.name, "pass": name, "ms": ours}
        row["gflops"] = layer.flops(BATCH) / ours / 1e6
        if peer:
            row |= {"cudnn_ms": peer[0], "ratio": peer[0] / ours}
        rows.append(row)
    return rows


def measure_pool(pool: PoolProblem, layout: Layout) -> list[Row]:
    """One row for the forward pass with indices, one for the gradient."""
    kind = Kind(layout, "float32", layout)
    (x,) = arrays(kind, pool.input_shape(pool.N))
    window: dict[str, Any] = {"stride": pool.stride, "padding": pool.padding, "layout": layout}
    y, indices = fastconv.max_pool2d(x, pool.kernel, return_indices=True, **window)
    calls: dict[str, Call] = {
        "forward": lambda: fastconv.max_pool2d(x, pool.kernel, return_indices=True, **window),
        "gradient": lambda: fastconv.max_pool2d_grad(y, indices, x.shape, layout=layout),
    }
    rows = []
    for name, call in calls.items():
        ms = medians([call])[0]
        gbytes = pool.bytes(pool.N, 4) / ms / 1e6
        rows.append({"layer": pool.name, "kind": layout, "pass": name, "ms": ms, "gbytes": gbytes})
    return rows


def copy_bandwidth() -> float:
    """GB/s of a copy on the device, bytes read and bytes written."""
    a = cupy.zeros(1 << 26, np.float32)
    b = cupy.empty_like(a)
    return float(2 * a.nbytes) / medians([lambda: cupy.copyto(b, a)])[0] / 1e6


def collect(results: Row, seconds: float) -> None:
    """Fill in what there is time for; what cannot be measured leaves its error."""
    convs, pools = load()
    results["copy_gbytes"] = copy_bandwidth()
    jobs: list[tuple[str, Callable[[], list[Row]]]] = []
    for pool in pools:
        for layout in get_args(Layout):
            jobs.append(("pools", partial(measure_pool, pool, layout)))
    for layer in sorted(convs, key=lambda layer: layer.name not in QUICK):
        for kind in kinds():
            jobs.append(("convs", partial(measure_layer, layer, kind)))
    started = time.monotonic()
    for done, (table, job) in enumerate(jobs):
        if time.monotonic() - started > seconds:
            print(f"no time for {len(jobs) - done} of {len(jobs)}")
            return
        try:
            rows = job()
        except Exception as error:  # a kind that a library lacks must not cost the others
            results["errors"].append(f"{type(error).__name__}: {error}")
            print(results["errors"][-1])
            continue
        results[table] += rows
        for row in rows:
            print(
                "  ".join(f"{v:.3f}" if isinstance(v, float) else f"{v:<12}" for v in row.values())
            )


def summarise(results: Row) -> None:
    """The geometric means over all layers, by kind and pass, and pooling beside a copy."""
    for kind in kinds():
        for name in ("forward", "input", "weight"):
            ratios = [
                row["ratio"]
                for row in results["convs"]
                if (row["kind"], row["pass"]) == (kind.name, name) and "ratio" in row
            ]
            if ratios:
                mean = math.exp(statistics.fmean(map(math.log, ratios)))
                print(f"{kind.name:<10} {name:<8} {mean:.2f} x cuDNN over {len(ratios)} layers")
    for row in results["pools"]:
        share = row["gbytes"] / results["copy_gbytes"]
        print(f"{row['layer']:<20} {row['kind']} {row['pass']:<9} {share:.2f} x copy bandwidth")


def main() -> None:
    """Measure, print and write."""
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 120.0
    peer = f"PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}" if torch else None
    results: Row = {"batch": BATCH, "peer": peer, "convs": [], "pools": [], "errors": []}
    results["fastconv"], results["cupy"] = fastconv.__version__, cupy.__version__
    try:
        collect(results, seconds)
        summarise(results)
    finally:
        Path(sys.argv[1]).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
