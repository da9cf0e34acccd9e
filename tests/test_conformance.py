"""Every op and every gradient beside PyTorch's autograd, in float64 on random geometries.

Run by `pytest -m conformance` where PyTorch is installed; FASTCONV_SEED draws other geometries.
Padding that differs by side, which PyTorch does not have, is given to it as cells of the input or
cut from its output.

Where fastconv departs from PyTorch on purpose, nothing is compared:

- a maximum over padding alone, which dilation makes possible: index -1 and no gradient here, an
  index outside the plane there;
- several NaN in a window of a maximum: the first here, the last there (no NaN is drawn);
- an average over a window larger than a volume, an error there whatever the padding;
- averages padded by more than half their window, a ValueError there (none is drawn).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import reference
from checks import FIRST_SEED, at_rank, channels_first, op, to

torch = pytest.importorskip("torch", reason="the conformance suite compares with PyTorch")
F = torch.nn.functional

pytestmark = pytest.mark.conformance

GEOMETRIES = 100  # of each family and number of axes
TOLERANCE = 1e-12  # of the largest magnitude: float64, sums of at most some thousand terms
compared: list[str] = []  # one entry for each geometry
excluded: list[str] = []  # one entry for each that was drawn and left out


class Draw:
    """Random geometry over some spatial axes."""

    def __init__(self, seed: int, axes: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.axes = axes
        self.layout: Any = self.choice("NCHW", "NHWC")

    def choice(self, *options: Any) -> Any:
        return options[self.rng.integers(len(options))]

    def integer(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def per_axis(self, low: int, high: int) -> tuple[int, ...]:
        return tuple(self.integer(low, high) for _ in range(self.axes))

    def pairs(self, high: int) -> tuple[tuple[int, int], ...]:
        return tuple((self.integer(0, high), self.integer(0, high)) for _ in range(self.axes))

    def padding(self) -> Any:
        return self.choice("valid", "same", "same_lower", self.integer(0, 2), self.pairs(3))

    def normal(self, *shape: int) -> Any:
        return self.rng.standard_normal(shape)

    def spatial(self) -> tuple[int, ...]:
        return self.per_axis(1, {1: 40, 2: 13, 3: 7}[self.axes])

    def call(self, name: str, *arguments: Any, **keywords: Any) -> Any:
        """Ours, in the drawn layout, from and to channels first; dw, a filter, stays as it is."""
        moved = [self._there(a) for a in arguments]
        result = op(name, self.axes)(*moved, layout=at_rank(self.layout, self.axes), **keywords)
        if name.startswith("conv") and name.endswith("_grad"):
            return channels_first(self.layout, result[0]), *result[1:]
        if isinstance(result, tuple):
            return tuple(channels_first(self.layout, r) for r in result)
        return channels_first(self.layout, result)

    def _there(self, a: Any) -> Any:
        """Inputs are marked by Image; filters, biases and scalars stay as they are."""
        if isinstance(a, Image):
            return to(self.layout, a.array) if a.array is not None else a.shape_in(self.layout)
        return a


class Image:
    """An array (or the shape of one) that has the layout's axes."""

    def __init__(self, array: Any = None, shape: tuple[int, ...] = ()) -> None:
        self.array, self.shape = array, shape

    def shape_in(self, layout: str) -> tuple[int, ...]:
        n, c, *spatial = self.shape
        return (n, c, *spatial) if layout == "NCHW" else (n, *spatial, c)


def tensor(a: Any) -> Any:
    return torch.tensor(a, requires_grad=True)


def agree(ours: Any, theirs: Any, what: str) -> None:
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape, what
    scale = max(1.0, float(np.abs(theirs).max(initial=0)))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * scale, err_msg=what)


def f_pads(axes: list[reference.Axis]) -> list[int]:
    """Padding as F.pad orders it: the last axis first."""
    return [pad for axis in reversed(axes) for pad in (axis.before, axis.after)]


def conv(draw: Draw) -> str | None:
    groups = draw.choice(1, 1, 2, 3)
    c, k = groups * draw.integer(1, 5), groups * draw.integer(1, 5)
    x = draw.normal(draw.integer(1, 3), c, *draw.spatial())
    w = draw.normal(k, c // groups, *draw.per_axis(1, 4))
    geometry: dict[str, Any] = {
        "stride": draw.per_axis(1, 3),
        "padding": draw.padding(),
        "dilation": draw.per_axis(1, 3),
        "groups": groups,
    }
    axes = reference.axes_of(
        x.shape[2:], w.shape[2:], geometry["stride"], geometry["padding"], geometry["dilation"]
    )
    if min(a.out for a in axes) < 1:
        return "no output"
    bias, dy = draw.normal(k), draw.normal(len(x), k, *(a.out for a in axes))
    tx, tw, tb = tensor(x), tensor(w), tensor(bias)
    theirs = getattr(F, f"conv{draw.axes}d")(
        F.pad(tx, f_pads(axes)), tw, tb, geometry["stride"], 0, geometry["dilation"], groups
    )
    theirs.backward(torch.tensor(dy))
    geometry["algorithm"] = draw.choice("auto", "auto", "im2col", "implicit", "direct")
    agree(draw.call("conv{}d", Image(x), w, bias, **geometry), theirs, "y")
    dx, dw, db = draw.call("conv{}d_grad", Image(dy), Image(x), w, **geometry)
    for ours, of, name in ((dx, tx, "dx"), (dw, tw, "dw"), (db, tb, "db")):
        agree(ours, of.grad, name)
    return None


def conv_transpose(draw: Draw) -> str | None:
    groups = draw.choice(1, 1, 2, 3)
    c, k = groups * draw.integer(1, 5), groups * draw.integer(1, 5)
    x = draw.normal(draw.integer(1, 3), c, *draw.per_axis(1, {1: 20, 2: 7, 3: 4}[draw.axes]))
    w = draw.normal(c, k // groups, *draw.per_axis(1, 4))
    stride, dilation, padding = draw.per_axis(1, 3), draw.per_axis(1, 3), draw.padding()
    same = padding in ("same", "same_lower")
    limits = [1 if same else max(s, d) for s, d in zip(stride, dilation, strict=True)]
    extra = tuple(draw.integer(0, limit - 1) for limit in limits)
    axes = reference.transposed_axes(x.shape[2:], w.shape[2:], stride, padding, extra, dilation)
    if min(a.size for a in axes) < 1:
        return "no output"
    bias, dy = draw.normal(k), draw.normal(len(x), k, *(a.size for a in axes))
    tx, tw, tb = tensor(x), tensor(w), tensor(bias)
    if same:  # cells that no tap reaches
        extra = tuple(max(0, a.before + a.size + a.after - full(a)) for a in axes)
    theirs = getattr(F, f"conv_transpose{draw.axes}d")(
        tx, tw, tb, stride, 0, extra, groups, dilation
    )[(..., *(a.interior for a in axes))]
    theirs.backward(torch.tensor(dy))
    geometry: dict[str, Any] = {
        "stride": stride,
        "padding": padding,
        "output_padding": 0 if same else extra,
        "dilation": dilation,
        "groups": groups,
        "algorithm": draw.choice("auto", "auto", "im2col", "implicit", "direct"),
    }
    agree(draw.call("conv_transpose{}d", Image(x), w, bias, **geometry), theirs, "y")
    dx, dw, db = draw.call("conv_transpose{}d_grad", Image(dy), Image(x), w, **geometry)
    for ours, of, name in ((dx, tx, "dx"), (dw, tw, "dw"), (db, tb, "db")):
        agree(ours, of.grad, name)
    return None


def full(a: reference.Axis) -> int:
    """What a transposed axis has before anything is cut or added."""
    return (a.out - 1) * a.stride + (a.taps - 1) * a.dilation + 1


def pool_geometry(draw: Draw, x: Any, *, dilated: bool) -> tuple[Any, Any, list[reference.Axis]]:
    """A window, keywords that PyTorch takes too, and the axes."""
    window = draw.per_axis(1, 4)
    geometry: dict[str, Any] = {
        "stride": draw.choice(None, draw.per_axis(1, 4)),
        "padding": tuple(draw.integer(0, k // 2) for k in window),
        "ceil_mode": bool(draw.integer(0, 1)),
    }
    if dilated:
        geometry["dilation"] = draw.per_axis(1, 3)
    axes = reference.axes_of(
        x.shape[2:],
        window,
        geometry["stride"] or window,
        geometry["padding"],
        geometry.get("dilation", 1),
        ceil_mode=geometry["ceil_mode"],
    )
    return window, geometry, axes


def max_pool(draw: Draw) -> str | None:
    x = draw.normal(draw.integer(1, 3), draw.integer(1, 20), *draw.spatial())
    if draw.integer(0, 1):
        x = np.round(x)  # ties
    window, geometry, axes = pool_geometry(draw, x, dilated=True)
    if min(a.out for a in axes) < 1:
        return "no output"
    y, indices = draw.call("max_pool{}d", Image(x), window, return_indices=True, **geometry)
    if (indices < 0).any():
        return "maximum over padding alone"
    tx = tensor(x)
    theirs, their_indices = getattr(F, f"max_pool{draw.axes}d")(
        tx, window, return_indices=True, **geometry
    )
    agree(y, theirs, "y")
    np.testing.assert_array_equal(indices, their_indices.numpy())
    dy = draw.normal(*y.shape)
    theirs.backward(torch.tensor(dy))
    dx = draw.call("max_pool{}d_grad", Image(dy), Image(indices), Image(shape=x.shape))
    agree(dx, tx.grad, "dx")
    return None


def averages(draw: Draw, ours: str, theirs: dict[str, Any], **ours_too: Any) -> str | None:
    x = draw.normal(draw.integer(1, 3), draw.integer(1, 20), *draw.spatial())
    window, geometry, axes = pool_geometry(draw, x, dilated=False)
    if min(a.out for a in axes) < 1:
        return "no output"
    if draw.axes == 3 and any(a.taps > a.size for a in axes):
        return "average of a window larger than a volume"
    tx = tensor(x)
    over = max(2, draw.axes)  # PyTorch's avg_pool1d has no divisor_override: a line is an image
    given = {k: v for k, v in geometry.items() if v is not None}
    image, image_window = tx, window
    if draw.axes == 1:
        image, image_window = tx[:, :, None], (1, *window)
        one = {"stride": 1, "padding": 0}
        given = {k: (one[k], *v) if k in one else v for k, v in given.items()}
    y = getattr(F, f"avg_pool{over}d")(image, image_window, **given, **theirs)
    y = y[:, :, 0] if draw.axes == 1 else y
    got = draw.call(ours, Image(x), window, **geometry, **ours_too)
    agree(got, y, "y")
    dy = draw.normal(*got.shape)
    y.backward(torch.tensor(dy))
    grad = draw.call(
        ours + "_grad", Image(dy), Image(shape=x.shape), window, **geometry, **ours_too
    )
    agree(grad, tx.grad, "dx")
    return None


def avg_pool(draw: Draw) -> str | None:
    options = {
        "count_include_pad": bool(draw.integer(0, 1)),
        "divisor_override": draw.choice(None, None, draw.integer(1, 9)),
    }
    return averages(draw, "avg_pool{}d", options, **options)


def sum_pool(draw: Draw) -> str | None:
    return averages(draw, "sum_pool{}d", {"divisor_override": 1})


def adaptive_avg_pool(draw: Draw) -> str | None:
    x = draw.normal(draw.integer(1, 3), draw.integer(1, 20), *draw.spatial())
    size = draw.choice(1, draw.integer(2, 5), draw.per_axis(1, 9))
    tx = tensor(x)
    theirs = getattr(F, f"adaptive_avg_pool{draw.axes}d")(tx, size)
    agree(draw.call("adaptive_avg_pool{}d", Image(x), size), theirs, "y")
    dy = draw.normal(*theirs.shape)
    theirs.backward(torch.tensor(dy))
    dx = draw.call("adaptive_avg_pool{}d_grad", Image(dy), Image(shape=x.shape))
    agree(dx, tx.grad, "dx")
    return None


def global_avg_pool(draw: Draw) -> str | None:
    x = draw.normal(draw.integer(1, 3), draw.integer(1, 40), *draw.spatial())
    tx = tensor(x)
    theirs = tx.mean(tuple(range(2, x.ndim)), keepdim=True)
    agree(draw.call("global_avg_pool{}d", Image(x)), theirs, "y")
    dy = draw.normal(*theirs.shape)
    theirs.backward(torch.tensor(dy))
    dx = draw.call("global_avg_pool{}d_grad", Image(dy), Image(shape=x.shape))
    agree(dx, tx.grad, "dx")
    return None


def global_max_pool(draw: Draw) -> str | None:
    x = draw.normal(draw.integer(1, 3), draw.integer(1, 40), *draw.spatial())
    tx = tensor(x)
    theirs = getattr(F, f"adaptive_max_pool{draw.axes}d")(tx, 1)
    y, indices = draw.call("global_max_pool{}d", Image(x), return_indices=True)
    agree(y, theirs, "y")
    dy = draw.normal(*theirs.shape)
    theirs.backward(torch.tensor(dy))
    dx = draw.call("global_max_pool{}d_grad", Image(dy), Image(indices), Image(shape=x.shape))
    agree(dx, tx.grad, "dx")
    return None


FAMILIES: tuple[Callable[[Draw], str | None], ...] = (
    conv,
    conv_transpose,
    max_pool,
    avg_pool,
    sum_pool,
    adaptive_avg_pool,
    global_avg_pool,
    global_max_pool,
)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_forward_and_every_gradient(family: Callable[[Draw], str | None], axes: int) -> None:
    done, seed = 0, 10 * FIRST_SEED + 1000 * axes
    while done < GEOMETRIES:
        seed += 1
        try:
            left_out = family(Draw(seed, axes))
        except Exception as error:
            error.add_note(f"{family.__name__}, {axes} axes, seed {seed}")
            raise
        if left_out is None:
            compared.append(family.__name__)
            done += 1
        elif left_out != "no output":
            excluded.append(left_out)


def test_the_count(capsys: pytest.CaptureFixture[str]) -> None:
    """At least 2,000 geometries, if all families above were run."""
    whole = 3 * len(FAMILIES) * GEOMETRIES
    assert whole >= 2000
    assert len(compared) % GEOMETRIES == 0
    with capsys.disabled():
        left_out = {name: excluded.count(name) for name in sorted(set(excluded))}
        print(f"\nconformance, seed {FIRST_SEED}: {len(compared)} of {whole} geometries agree")
        print(f"left out: {left_out}")
