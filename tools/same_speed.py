"""How fast two builds of fastconv are beside each other: `same_speed.py BEFORE AFTER`.

Each is a folder for PYTHONPATH. The layers of bench/problems.json are timed in a process of each
build, in turn, with the other one idle: every pass, both layouts. A ratio is the time before over
the time after, medians of the rounds, so above 1 is faster. The least of them are timed again.
"""

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PASSES = ("forward", "input", "weight")
LAYOUTS = ("NCHW", "NHWC")
AGAIN = 0.93  # ratios below this are measured again


class Worker:
    """A process of one build, which times what it is told."""

    def __init__(self, folder: str, threads: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", str(threads)],
            env={**os.environ, "PYTHONPATH": str(Path(folder).resolve())},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, request: Any) -> float:
        """Seconds of one call, the median over about min_time seconds."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        print(json.dumps(request), file=stdin, flush=True)
        return float(stdout.readline())


def prepare(problem: dict[str, Any], batch: int, pass_: str, layout: str) -> Callable[[], Any]:
    """A call of one pass of a layer, its result in memory of its own."""
    import numpy as np

    import fastconv

    rng = np.random.default_rng(0)
    keywords = {k: problem.get(k, 1) for k in ("stride", "padding", "dilation", "groups")}
    w_shape = problem["K"], problem["C"] // keywords["groups"], problem["R"], problem["S"]
    x = rng.standard_normal((batch, problem["C"], problem["H"], problem["W"]), np.float32)
    w = rng.standard_normal(w_shape, np.float32)
    if layout == "NHWC":
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    keywords["layout"] = layout
    y = fastconv.conv2d(x, w, **keywords)
    out = np.empty_like({"forward": y, "input": x, "weight": w}[pass_])
    return {
        "forward": lambda: fastconv.conv2d(x, w, **keywords, out=out),
        "input": lambda: fastconv.conv2d_grad_input(y, w, x.shape, **keywords, out=out),
        "weight": lambda: fastconv.conv2d_grad_weight(y, x, w_shape, **keywords, out=out),
    }[pass_]


def work(threads: int) -> None:
    """Answer requests, each with a median time."""
    import fastconv

    fastconv.set_num_threads(threads)
    for line in sys.stdin:
        *request, min_time = json.loads(line)
        call = prepare(*request)
        call()
        times: list[float] = []
        end = time.perf_counter() + min_time
        while not times or time.perf_counter() < end:
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        print(statistics.median(times), flush=True)


def ratio(workers: list[Worker], request: Any, rounds: int) -> float:
    """The time before over the time after."""
    times = [[worker.ask(request) for worker in workers] for _ in range(rounds)]
    before, after = (float(statistics.median(side)) for side in zip(*times, strict=True))
    return before / after


def main() -> int:
    """Print the mean and the least ratios of every pass and layout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("builds", nargs=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--min-time", type=float, default=0.02, help="seconds of a round")
    parser.add_argument("--every", type=int, default=1, help="time each n-th layer")
    parser.add_argument("--match", default="", help="time what has this regular expression")
    arguments = parser.parse_args()
    workers = [Worker(folder, arguments.threads) for folder in arguments.builds]
    folder = Path(__file__).parents[1] / "python" / "fastconv" / "bench"
    layers = json.loads((folder / "problems.json").read_text())["conv"]
    cases = [(layer, batch) for layer in layers for batch in layer["batches"]]
    ratios = {}
    for layout in LAYOUTS:
        for pass_ in PASSES:
            for layer, batch in cases[:: arguments.every]:
                request = (layer, batch, pass_, layout, arguments.min_time)
                name = f"{layer['name']} batch {batch} {pass_} {layout}"
                if not re.search(arguments.match, name):
                    continue
                ratios[name] = ratio(workers, request, arguments.rounds)
                for _ in range(3):
                    if ratios[name] < AGAIN:  # as it may be by chance: the best of three holds
                        again = ratio(workers, request, 2 * arguments.rounds + 1)
                        ratios[name] = max(ratios[name], again)
            some = [value for name, value in ratios.items() if name.endswith(f"{pass_} {layout}")]
            if some:
                print(f"{pass_} {layout}: {len(some)} layers, {mean(some):.3f}", flush=True)
    print(f"all: {len(ratios)}, {mean(list(ratios.values())):.3f}; the least:")
    least = sorted(ratios.items(), key=lambda item: item[1])
    for name, value in least[:10]:
        print(f"  {value:.3f}  {name}")
    return 1 if least[0][1] < AGAIN else 0


def mean(ratios: list[float]) -> float:
    """The geometric one."""
    return math.exp(statistics.fmean(map(math.log, ratios)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(int(sys.argv[2]))
    else:
        sys.exit(main())
