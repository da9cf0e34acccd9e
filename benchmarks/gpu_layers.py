"""Times conv2d on CuPy arrays and, where PyTorch is installed, cuDNN: one JSON and a table.

Device time between two events around several calls, after warming up; the median of some rounds,
ours and the peer's in turn. GFLOP/s count the multiplications and additions of the definition.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cupy
import numpy as np

import fastconv
from fastconv.bench.problems import ConvProblem
from fastconv.bench.suites import load

ROUNDS, CALLS = 5, 10
SECONDS = 100.0  # for all layers together
BATCH = 8


def milliseconds(call: Callable[[], Any]) -> float:
    """The device time of one call."""
    start, stop = cupy.cuda.Event(), cupy.cuda.Event()
    start.record()
    for _ in range(CALLS):
        call()
    stop.record()
    stop.synchronize()
    elapsed: float = cupy.cuda.get_elapsed_time(start, stop)
    return elapsed / CALLS


def passes(layer: ConvProblem) -> dict[str, tuple[Callable[[], Any], Callable[[], Any] | None]]:
    """For each pass our call and cuDNN's, on the same arrays."""
    rng = np.random.default_rng(0)
    shapes = layer.input_shape(BATCH), layer.weight_shape, layer.output_shape(BATCH)
    x, w, dy = (cupy.asarray(rng.standard_normal(s, np.float32)) for s in shapes)
    geometry: dict[str, Any] = {
        name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")
    }
    ours: dict[str, Callable[[], Any]] = {
        "forward": lambda: fastconv.conv2d(x, w, **geometry),
        "input": lambda: fastconv.conv2d_grad_input(dy, w, x.shape, **geometry),
        "weight": lambda: fastconv.conv2d_grad_weight(dy, x, w.shape, **geometry),
    }
    try:
        import torch
    except ImportError:
        return {name: (call, None) for name, call in ours.items()}
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False  # as exact as ours
    tx, tw, tdy = map(torch.from_dlpack, (x, w, dy))
    grad = torch.nn.grad
    peers: dict[str, Callable[[], Any]] = {
        "forward": lambda: torch.nn.functional.conv2d(tx, tw, **geometry),
        "input": lambda: grad.conv2d_input(tx.shape, tw, tdy, **geometry),
        "weight": lambda: grad.conv2d_weight(tx, tw.shape, tdy, **geometry),
    }
    return {name: (ours[name], peers[name]) for name in ours}


def measure(layer: ConvProblem) -> list[dict[str, Any]]:
    """One row a pass."""
    rows = []
    for name, (ours, peer) in passes(layer).items():
        calls = [call for call in (ours, peer) if call is not None]
        for call in calls:
            call()
        rounds = [[milliseconds(call) for call in calls] for _ in range(ROUNDS)]
        medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
        rows.append(
            {
                "layer": layer.name,
                "pass": name,
                "ms": medians[0],
                "gflops": layer.flops(BATCH) / medians[0] / 1e6,
                "cudnn_ms": medians[1] if peer is not None else None,
            }
        )
    return rows


def main() -> None:
    """Measure as many layers as there is time for."""
    started = time.monotonic()
    rows: list[dict[str, Any]] = []
    print(f"{'layer':<28} {'pass':<8} {'ms':>9} {'GFLOP/s':>9} {'x cuDNN':>8}")
    for layer in load()[0]:
        if time.monotonic() - started > SECONDS:
            print("no time for the rest")
            break
        for row in measure(layer):
            rows.append(row)
            ratio = f"{row['cudnn_ms'] / row['ms']:8.2f}" if row["cudnn_ms"] else "       -"
            print(
                f"{row['layer']:<28} {row['pass']:<8} {row['ms']:9.3f} {row['gflops']:9.0f} {ratio}"
            )
    Path(sys.argv[1]).write_text(json.dumps({"batch": BATCH, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
