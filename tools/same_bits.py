"""Whether two builds of fastconv give the same bits: `same_bits.py PYTHON PYTHON [--calls 2000]`.

Each PYTHON is an interpreter that imports one of the builds, or a folder to put first on its path.
Random calls over all ops, passes, layouts, dtypes, views and algorithms are made by both, on every
instruction set that both have; those whose results differ are listed.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> int:
    """Compare, print what differs, and return 1 if anything does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("builds", nargs=2, help="an interpreter, or a folder for PYTHONPATH")
    parser.add_argument("--calls", type=int, default=2000, help="for each instruction set")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    isas = [json.loads(run(build, "isas")) for build in arguments.builds]
    differ = 0
    for isa in (name for name in isas[0] if name in isas[1]):
        ours, theirs = (
            run(build, str(arguments.seed), str(arguments.calls), FASTCONV_ISA=isa).splitlines()
            for build in arguments.builds
        )
        assert len(ours) == len(theirs) == arguments.calls
        pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b]
        for a, b in pairs:
            print(f"{isa}: {a}\n{' ' * len(isa)}  {b}")
        print(f"{isa}: {len(ours)} calls, {len(pairs)} differ")
        differ += len(pairs)
    return 1 if differ else 0


def run(build: str, *arguments: str, **environment: str) -> str:
    """The output of this file in the build's interpreter."""
    path = Path(build)
    python = sys.executable if path.is_dir() else build
    if path.is_dir():
        environment["PYTHONPATH"] = str(path.resolve())
    command = [python, __file__, "--of-one-build", *arguments]
    done = subprocess.run(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


class Draw:
    """Random calls: each method gives what one is called, and the call."""

    def __init__(self, seed: int) -> None:
        import numpy as np

        self.rng = np.random.default_rng(seed)

    def ints(self, low: int, high: int, size: int) -> tuple[int, ...]:
        return tuple(int(i) for i in self.rng.integers(low, high + 1, size))

    def choice(self, *values: Any) -> Any:
        return values[int(self.rng.integers(len(values)))]

    def array(self, shape: tuple[int, ...], dtype: str, *, channels_last: bool = False) -> Any:
        """Contiguous, or cropped, flipped or stepped along one axis."""
        if channels_last:
            shape = (shape[0], *shape[2:], shape[1])
        axis = int(self.rng.integers(len(shape)))
        kind = self.choice("contiguous", "contiguous", "cropped", "flipped", "stepped")
        size = list(shape)
        size[axis] = {"cropped": size[axis] + 3, "stepped": 2 * size[axis]}.get(kind, size[axis])
        view = [slice(None)] * len(shape)
        view[axis] = {
            "cropped": slice(2, 2 + shape[axis]),
            "flipped": slice(None, None, -1),
            "stepped": slice(None, None, 2),
        }.get(kind, slice(None))
        return self.rng.standard_normal(size).astype(dtype)[tuple(view)]

    def conv(self, axes: int, dtype: str) -> tuple[str, Callable[[], Any]]:
        transposed, which = (
            self.choice("", "", "_transpose"),
            self.choice("", "_grad_input", "_grad_weight", "_grad"),
        )
        groups = self.choice(1, 1, 1, 2, 8)
        c, k = self.choice((1, 1), (1, 2), (3, 5), (16, 16), (33, 70), (64, 48))
        c, k, ones = c * groups, k * groups, (1,) * axes
        taps, stride, dilation = (
            ((3,) * axes, ones, ones)
            if self.choice(True, False)
            else (
                self.ints(1, self.choice(1, 3, 5), axes),
                self.ints(1, 3, axes),
                self.ints(1, 2, axes),
            )
        )
        extents = tuple(
            max(n, (t - 1) * d + 1)
            for n, t, d in zip(self.ints(1, LIMITS[axes], axes), taps, dilation, strict=True)
        )
        layout = self.choice(*LAYOUTS[axes])
        x = self.array((self.choice(1, 3), c, *extents), dtype, channels_last=layout.endswith("C"))
        w = self.array(((c, k // groups) if transposed else (k, c // groups)) + taps, dtype)
        keywords = {
            "stride": stride,
            "padding": self.choice(0, self.ints(0, 2, axes), 0 if transposed else "same"),
            "dilation": dilation,
            "groups": groups,
            "layout": layout,
            "algorithm": self.choice("auto", "auto", "implicit", "direct", "im2col", "winograd"),
        }
        name = f"conv{transposed}{axes}d"
        label = f"{name}{which} {x.shape} {x.strides} {w.shape} {w.strides} {keywords}"
        return label, lambda: self.of_conv(name, which, x, w, k, keywords)

    def of_conv(
        self, name: str, which: str, x: Any, w: Any, k: int, keywords: dict[str, Any]
    ) -> Any:
        import fastconv

        forward, dtype = getattr(fastconv, name), x.dtype
        if which == "":
            bias, relu = self.array((k,), dtype), self.choice(None, "relu")
            return forward(x, w, bias, activation=relu, **keywords)
        dy = self.array(forward(x, w, **{**keywords, "algorithm": "auto"}).shape, dtype)
        op = getattr(fastconv, name + which)
        if which == "_grad_input":
            return op(dy, w, x.shape, **keywords)
        if which == "_grad_weight":
            return op(dy, x, w.shape, **keywords)
        return op(dy, x, w, **keywords)

    def pool(self, axes: int, dtype: str) -> tuple[str, Callable[[], Any]]:
        layout = self.choice(*LAYOUTS[axes])
        shape = self.choice(1, 3), self.choice(1, 5, 19), *self.ints(1, LIMITS[axes], axes)
        x = self.array(shape, dtype, channels_last=layout.endswith("C"))
        kernel, stride = self.ints(1, self.choice(3, 7), axes), self.ints(1, 3, axes)
        padding = tuple(int(self.rng.integers(0, k // 2 + 1)) for k in kernel)
        keywords = {"stride": stride, "padding": padding, "layout": layout, "ceil_mode": True}
        which = self.choice("max", "avg", "sum", "global_avg", "global_max")
        label = f"{which}_pool{axes}d {x.shape} {x.strides} {kernel} {keywords}"
        return label, lambda: self.of_pool(which, axes, x, kernel, keywords)

    def of_pool(
        self, which: str, axes: int, x: Any, kernel: tuple[int, ...], keywords: dict[str, Any]
    ) -> Any:
        import fastconv

        op = getattr(fastconv, f"{which}_pool{axes}d")
        if which.startswith("global"):
            return op(x, layout=keywords["layout"])
        grad = getattr(fastconv, f"{which}_pool{axes}d_grad")
        if which == "max":
            y, indices = op(x, kernel, return_indices=True, **keywords)
            dy = self.array(y.shape, x.dtype)
            return y, indices, grad(dy, indices, x.shape, layout=keywords["layout"])
        y = op(x, kernel, **keywords)
        return y, grad(self.array(y.shape, x.dtype), x.shape, kernel, **keywords)


def calls(seed: int, count: int) -> None:
    """Print a line for each call: the hash of what it gives, and what it is."""
    import numpy as np

    for i in range(count):
        draw = Draw(seed * count + i)
        make = draw.choice(draw.conv, draw.conv, draw.conv, draw.pool)
        label, call = make(draw.choice(1, 2, 2, 3), draw.choice("float32", "float64"))
        try:
            result = call()
            digest = hashlib.sha256()
            for a in result if isinstance(result, tuple) else (result,):
                digest.update(np.ascontiguousarray(a).tobytes())
            print(digest.hexdigest()[:16], label)
        except ValueError as error:
            print("refused", str(error).split(";")[0][:60], label)


LIMITS = {1: 70, 2: 30, 3: 9}  # largest extent, by the number of axes
LAYOUTS = {1: ("NCW", "NWC"), 2: ("NCHW", "NHWC"), 3: ("NCDHW", "NDHWC")}

if __name__ == "__main__":
    if sys.argv[1:2] != ["--of-one-build"]:
        sys.exit(main())
    if sys.argv[2] == "isas":
        from fastconv import _core

        print(json.dumps(_core.available_isas()))
    else:
        calls(int(sys.argv[2]), int(sys.argv[3]))
