"""The keywords that functions share: their types, for type checkers, and their defaults.

A public function takes them as ``**options``, and `listing` shows them one by one in help().
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any, Generic, Literal, NoReturn, Protocol, TypeAlias, TypedDict, TypeVar, cast

from .. import _core
from .._backend.geometry import (
    LAYOUTS,
    AxisArgument,
    Ints,
    PaddingArgument,
    check_layout,
    conv_geometry,
    integer,
    pool_geometry,
    transposed_geometry,
)

Lines: TypeAlias = Literal["NCW", "NWC"]
Images: TypeAlias = Literal["NCHW", "NHWC"]
Volumes: TypeAlias = Literal["NCDHW", "NDHWC"]
Layout: TypeAlias = Lines | Images | Volumes
Activation: TypeAlias = Literal["relu"] | None
Algorithm: TypeAlias = Literal["auto", "implicit", "winograd", "direct", "im2col", "wgmma"]
Precision: TypeAlias = Literal["fp32", "tf32"]


class Array(Protocol):
    """NumPy's and CuPy's arrays; another library's, which offers __dlpack__, comes back as these.

    So a type checker wants np.from_dlpack(tensor) of what at run time may be the tensor itself.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def strides(self) -> tuple[int, ...]: ...
    @property
    def ndim(self) -> int: ...
    @property
    def dtype(self) -> Any: ...
    def __dlpack__(self) -> Any: ...


A = TypeVar("A", bound=Array)  # one library's in one call: NumPy in, NumPy out
L = TypeVar("L")  # the layouts of a rank
Out = TypeVar("Out")  # what `out` is, if it is given
Op = TypeVar("Op", bound=Callable[..., Any])

Three: TypeAlias = tuple[A | None, A | None, A | None]


class Options(TypedDict, Generic[L, Out], total=False):
    """Those of every function."""

    layout: L
    out: Out | None


class ConvOptions(Options[L, Out], total=False):
    """Those of every pass of a convolution."""

    stride: AxisArgument
    padding: PaddingArgument
    dilation: AxisArgument
    groups: int
    algorithm: Algorithm
    precision: Precision
    workspace_limit: int | None


class ForwardOptions(ConvOptions[L, Out], total=False):
    """Those of a convolution."""

    activation: Activation


class TransposedOptions(ConvOptions[L, Out], total=False):
    """Those of every pass of a transposed convolution."""

    output_padding: AxisArgument


class TransposedForwardOptions(TransposedOptions[L, Out], total=False):
    """Those of a transposed convolution."""

    activation: Activation


class PoolOptions(Options[L, Out], total=False):
    """Those of every pool with a window."""

    stride: AxisArgument | None
    padding: PaddingArgument
    ceil_mode: bool


class MaxPoolOptions(PoolOptions[L, Out], total=False):
    """Those of max-pooling."""

    dilation: AxisArgument


class AvgPoolOptions(PoolOptions[L, Out], total=False):
    """Those of average pooling."""

    count_include_pad: bool
    divisor_override: int | None


_FIRST: Any = (
    object()
)  # the rank's layout with the channels first, which no user can name otherwise


def plain_options(
    axes: int, *, layout: Layout = _FIRST, out: Any = None, **unknown: object
) -> tuple[str, Any]:
    """(layout, out)."""
    if unknown:
        _refuse(unknown)
    return LAYOUTS[axes][0] if layout is _FIRST else layout, out


def conv_call(
    axes: int,
    x: Ints,
    w: Ints,
    transposed: tuple[AxisArgument] | None = None,
    /,
    *,
    stride: AxisArgument = 1,
    padding: PaddingArgument = 0,
    dilation: AxisArgument = 1,
    groups: int = 1,
    layout: Layout = _FIRST,
    algorithm: Algorithm = "auto",
    precision: Precision = "fp32",
    workspace_limit: int | None = None,
    out: Any = None,
    **unknown: object,
) -> tuple[_core.ConvGeometry, Ints, Algorithm, Precision, int | None, Any]:
    """The geometry, the shape of the output, how to compute it, and out.

    `transposed` has the output_padding of a transposed convolution.
    """
    if unknown:
        _refuse(unknown)
    name = LAYOUTS[axes][0] if layout is _FIRST else layout
    if transposed is not None:
        geometry, shape = transposed_geometry(
            axes, x, w, stride, padding, transposed[0], dilation, groups, name
        )
    else:
        geometry, shape = conv_geometry(axes, x, w, stride, padding, dilation, groups, name)
    return geometry, shape, algorithm, precision, workspace_limit, out


def transposed_call(
    axes: int, x: Ints, w: Ints, /, *, output_padding: AxisArgument = 0, **options: Any
) -> tuple[_core.ConvGeometry, Ints, Algorithm, Precision, int | None, Any]:
    """The same for a transposed convolution."""
    return conv_call(axes, x, w, (output_padding,), **options)


def sum_pool_call(
    axes: int,
    x: Ints,
    kernel_size: AxisArgument,
    dilation: AxisArgument = 1,
    /,
    *,
    stride: AxisArgument | None = None,
    padding: PaddingArgument = 0,
    ceil_mode: bool = False,
    layout: Layout = _FIRST,
    out: Any = None,
    **unknown: object,
) -> tuple[_core.PoolGeometry, Ints, tuple[bool, int], Any]:
    """The geometry, the shape of the output, by what to divide, and out."""
    if unknown:
        _refuse(unknown)
    names = LAYOUTS[axes][0] if layout is _FIRST else layout
    geometry, shape = pool_geometry(
        axes, x, kernel_size, stride, padding, dilation, ceil_mode, names
    )
    return geometry, shape, (True, 1), out


def avg_pool_call(
    axes: int,
    x: Ints,
    kernel_size: AxisArgument,
    /,
    *,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    **options: Any,
) -> tuple[_core.PoolGeometry, Ints, tuple[bool, int], Any]:
    """The same for averages."""
    divisor = 0  # none: by the cells of the window
    if divisor_override is not None:
        divisor = integer(divisor_override, "divisor_override")
        if divisor == 0:
            raise ValueError("divisor_override must not be 0, got 0: pass None to divide by cells")
    geometry, shape, _, out = sum_pool_call(axes, x, kernel_size, **options)
    return geometry, shape, (bool(count_include_pad), divisor), out


def max_pool_call(
    axes: int,
    x: Ints,
    kernel_size: AxisArgument,
    /,
    *,
    dilation: AxisArgument = 1,
    **options: Any,
) -> tuple[_core.PoolGeometry, Ints, Any]:
    """The geometry, the shape of the output, and out."""
    geometry, shape, _, out = sum_pool_call(axes, x, kernel_size, dilation, **options)
    return geometry, shape, out


def channel_axis(a: Any, layout: str, axes: int, name: str = "dy") -> int:
    """The axis of a's channels, once it is known to have all axes of the layout."""
    channels_last = check_layout(layout, axes)
    if a.ndim != axes + 2:
        hint = ": add a batch axis with x[None]" if (name, a.ndim) == ("x", axes + 1) else ""
        raise ValueError(f"{name} must have {axes + 2} axes ({layout}), got shape {a.shape}{hint}")
    return -1 if channels_last else 1


def _refuse(unknown: dict[str, object]) -> NoReturn:
    """A TypeError for keywords that no such function has."""
    name = next(iter(unknown))
    near = difflib.get_close_matches(name, _ORDER, 1)
    hint = f"did you mean {near[0]!r}?" if near else "help() lists the function's keywords"
    raise TypeError(f"unexpected keyword argument {name!r}: {hint}")


# Keywords as help() lists them.
_ORDER = (
    *("needs", "stride", "padding", "output_padding", "dilation", "groups", "ceil_mode"),
    *("count_include_pad", "divisor_override", "layout", "activation", "return_indices"),
    *("rectified", "algorithm", "precision", "workspace_limit", "out"),
)


def listing(axes: int, *sources: Callable[..., Any], **defaults: Any) -> Callable[[Op], Op]:
    """Let a function's signature list what stands behind its ``**options``.

    These are the keywords of the sources, and those in `defaults`, which also replace defaults.
    """
    defaults = {"layout": LAYOUTS[axes][0], **defaults}

    def decorate(op: Op) -> Op:
        signature = inspect.signature(op)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        found = {p.name: p for p in own}
        for source in sources:
            taken = inspect.signature(source).parameters.values()
            found |= {p.name: p for p in taken if p.kind is p.KEYWORD_ONLY}
        for name, value in defaults.items():
            bare = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY)
            found[name] = found.get(name, bare).replace(default=value)
        ordered = sorted(found.values(), key=_place)
        cast(Any, op).__signature__ = signature.replace(parameters=ordered)
        return op

    return decorate


def _place(parameter: inspect.Parameter) -> int:
    return _ORDER.index(parameter.name) if parameter.kind is parameter.KEYWORD_ONLY else -1
