"""Arrays at chosen places in memory: any strides, marks between the cells, pages beside them that
cannot be read or written.

An access beyond the array on its tight side ends the process; anywhere else a mark that was read
makes results wrong, and a mark that was written over is found by `Placed.check`.
"""

import ctypes
import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

PAGE = mmap.PAGESIZE
NO_ACCESS = 0  # PROT_NONE

_mprotect = ctypes.CDLL(None, use_errno=True).mprotect
_mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


@dataclass(frozen=True)
class Place:
    """How an array lies: `order` has its axes, the outermost first.

    Along axis i its cells are abs(steps[i]) apart, backwards if that is negative, and `crops[i]`
    cells follow that are not the array's. The page after its last cell cannot be accessed if
    `at_end` is set, otherwise the one before its first.
    """

    order: tuple[int, ...]
    steps: tuple[int, ...]
    crops: tuple[int, ...]
    at_end: bool

    def strides(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """From cell to cell along each axis, in cells."""
        strides, inner = [0] * len(shape), 1
        for axis in reversed(self.order):
            strides[axis] = self.steps[axis] * inner
            inner *= max(shape[axis] * abs(self.steps[axis]) + self.crops[axis], 1)
        return tuple(strides)


# What a view may do along an axis: its step, and how many cells are cropped off.
DENSE = (1, 0)
CHANGES = ((1, 1), (1, 3), (2, 0), (3, 0), (-1, 0), (-2, 0), (-1, 2), (2, 1))


def random_place(rng: np.random.Generator, axes: int) -> Place:
    """Axes in any order, often channels last; cropped, stepped or flipped along one axis, along
    all of them alike, or along each by itself."""
    order = np.arange(axes)
    orders = (order, order, np.append(np.delete(order, 1), 1) if axes > 1 else order)
    drawn = CHANGES[rng.integers(len(CHANGES))]
    changes = [DENSE] * axes
    match rng.integers(6):
        case 0 | 1 | 2:
            changes[rng.integers(axes)] = drawn
        case 3:
            changes = [(DENSE, *CHANGES)[i] for i in rng.integers(len(CHANGES) + 1, size=axes)]
        case 4:
            changes = [drawn] * axes
    chosen = rng.integers(4)
    return Place(
        tuple((rng.permutation(order) if chosen == 3 else orders[chosen]).tolist()),
        tuple(step for step, _ in changes),
        tuple(crop for _, crop in changes),
        bool(rng.integers(2)),
    )


class Placed:
    """An array of marks at a place: NaN, or the largest integer; `view` is the array."""

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike, place: Place) -> None:
        strides, kind = place.strides(shape), np.dtype(dtype)
        reach = [
            (n - 1) * stride if min(shape) > 0 else 0
            for n, stride in zip(shape, strides, strict=True)
        ]
        below, above = -sum(min(r, 0) for r in reach), sum(max(r, 0) for r in reach)
        count = below + above + (min(shape) > 0)  # cells from the lowest address to the highest
        room = -(-max(count, 1) * kind.itemsize // PAGE) * PAGE
        memory = mmap.mmap(-1, room + 2 * PAGE)
        start = np.frombuffer(memory, np.uint8).ctypes.data
        for page in (start, start + PAGE + room):
            if _mprotect(page, PAGE, NO_ACCESS):
                raise OSError(ctypes.get_errno(), "mprotect")
        first = below + (room // kind.itemsize - count if place.at_end else 0)
        self.cells: npt.NDArray[Any] = np.frombuffer(memory, kind, room // kind.itemsize, PAGE)
        self.own = np.zeros(self.cells.shape, bool)
        nan = np.frombuffer(b"\xff" * kind.itemsize, kind)[0]  # no sum or product gives these bits
        self.mark = nan if kind.kind == "f" else np.iinfo(kind).max
        self.cells[:] = self.mark
        self.view = _strided(self.cells, first, shape, strides)
        _strided(self.own, first, shape, strides)[...] = True

    def check(self) -> None:
        """Fail unless every cell outside the view is a mark, of the same bits."""
        others = self.cells[~self.own]
        same = others.tobytes() == np.full_like(others, self.mark).tobytes()
        assert same, "written outside the output"


def placed(a: npt.NDArray[Any], place: Place) -> npt.NDArray[Any]:
    """A copy of an array at a place."""
    view = Placed(a.shape, a.dtype, place).view
    view[...] = a
    return view


def _strided(
    cells: npt.NDArray[Any], first: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> npt.NDArray[Any]:
    """The array whose first cell is cells[first]; NumPy holds it against the bounds of `cells`."""
    size = cells.itemsize
    return np.ndarray(shape, cells.dtype, cells, first * size, [n * size for n in strides])
