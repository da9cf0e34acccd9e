"""Types of the compiled CPU kernels. Arrays are positional; outputs are written in place."""

from collections.abc import Sequence
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

_Array: TypeAlias = NDArray[Any]  # float32 or float64, all of one call the same
_Indices: TypeAlias = NDArray[np.int64]
_Offsets: TypeAlias = NDArray[np.uint8]
_Padding: TypeAlias = str | Sequence[tuple[int, int]]

__version__: str
MAX_THREADS: int
COMPILER: str

@final
class ConvGeometry:
    def __init__(
        self,
        x_shape: Sequence[int],
        w_shape: Sequence[int],
        stride: Sequence[int],
        padding: _Padding,
        dilation: Sequence[int],
        groups: int,
        layout: str,
    ) -> None: ...
    @property
    def input_shape(self) -> tuple[int, ...]: ...
    @property
    def output_shape(self) -> tuple[int, ...]: ...
    @property
    def flops(self) -> float: ...

@final
class PoolGeometry:
    def __init__(
        self,
        x_shape: Sequence[int],
        kernel_size: Sequence[int],
        stride: Sequence[int],
        padding: _Padding,
        dilation: Sequence[int],
        ceil_mode: bool,
        layout: str,
    ) -> None: ...
    @property
    def output_shape(self) -> tuple[int, ...]: ...

def transposed_geometry(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    stride: Sequence[int],
    padding: _Padding,
    output_padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    layout: str,
) -> ConvGeometry: ...
def adaptive_geometry(
    x_shape: Sequence[int], output_size: Sequence[int], layout: str
) -> PoolGeometry: ...
def conv_fprop(
    geometry: ConvGeometry,
    x: _Array,
    w: _Array,
    bias: _Array | None,
    y: _Array,
    relu: bool,
    algorithm: str,
    precision: str,
    workspace_limit: int | None,
    /,
) -> None: ...
def conv_dgrad(
    geometry: ConvGeometry,
    dy: _Array,
    w: _Array,
    dx: _Array,
    algorithm: str,
    precision: str,
    workspace_limit: int | None,
    /,
) -> None: ...
def conv_wgrad(
    geometry: ConvGeometry,
    dy: _Array,
    x: _Array,
    dw: _Array,
    algorithm: str,
    precision: str,
    workspace_limit: int | None,
    /,
) -> None: ...
def conv_bgrad(dy: _Array, db: _Array, channels_last: bool, /) -> None: ...
def conv_grad(
    geometry: ConvGeometry,
    dy: _Array,
    x: _Array,
    w: _Array,
    dx: _Array | None,
    dw: _Array | None,
    db: _Array | None,
    algorithm: object,
    precision: object,
    workspace_limit: object,
    /,
) -> None: ...
def conv_transpose_grad(
    geometry: ConvGeometry,
    dy: _Array,
    x: _Array,
    w: _Array,
    dx: _Array | None,
    dw: _Array | None,
    db: _Array | None,
    algorithm: object,
    precision: object,
    workspace_limit: object,
    /,
) -> None: ...
def conv_transpose_fprop(
    geometry: ConvGeometry,
    x: _Array,
    w: _Array,
    bias: _Array | None,
    y: _Array,
    relu: bool,
    algorithm: str,
    precision: str,
    workspace_limit: int | None,
    /,
) -> None: ...
def conv_transpose_dgrad(
    geometry: ConvGeometry,
    dy: _Array,
    w: _Array,
    dx: _Array,
    algorithm: str,
    precision: str,
    workspace_limit: int | None,
    /,
) -> None: ...
def conv_transpose_wgrad(
    geometry: ConvGeometry,
    dy: _Array,
    x: _Array,
    dw: _Array,
    algorithm: str,
    precision: str,
    workspace_limit: int | None,
    /,
) -> None: ...
def max_pool_fprop(
    geometry: PoolGeometry, x: _Array, y: _Array, indices: _Indices | None, /
) -> None: ...
def max_pool_dgrad(
    dy: _Array, indices: _Indices, dx: _Array, channels_last: bool, fresh: bool, /
) -> None: ...
def max_pool_offsets_fprop(
    geometry: PoolGeometry, x: _Array, y: _Array, offsets: _Offsets, rectified: bool, /
) -> None: ...
def max_pool_offsets_dgrad(
    geometry: PoolGeometry, dy: _Array, offsets: _Offsets, dx: _Array, /
) -> None: ...
def avg_pool_fprop(
    geometry: PoolGeometry, x: _Array, y: _Array, count_padding: bool, divisor: int, /
) -> None: ...
def avg_pool_dgrad(
    geometry: PoolGeometry, dy: _Array, dx: _Array, count_padding: bool, divisor: int, /
) -> None: ...
def batch_moments(x: _Array, mean: _Array, variance: _Array, channels_last: bool, /) -> None: ...
def batch_norm_fprop(
    x: _Array,
    mean: _Array,
    scale: _Array,
    bias: _Array,
    y: _Array,
    relu: bool,
    channels_last: bool,
    /,
) -> None: ...
def batch_norm_grad(
    dy: _Array,
    x: _Array,
    mean: _Array,
    rstd: _Array,
    weight: _Array,
    dx: _Array,
    dweight: _Array,
    dbias: _Array,
    channels_last: bool,
    /,
) -> None: ...
def matmul(
    a: _Array, b: _Array, bias: _Array | None, c: _Array, relu: bool, precision: str, /
) -> None: ...
def column_sum(a: _Array, sums: _Array, /) -> None: ...
def relu_fprop(x: _Array, y: _Array, /) -> None: ...
def relu_dgrad(dy: _Array, y: _Array, dx: _Array, /) -> None: ...
def add(a: _Array, b: _Array, y: _Array, relu: bool, /) -> None: ...
def plan_conv(
    geometry: ConvGeometry,
    pass_: str,
    float32: bool,
    algorithm: object,
    workspace_limit: object,
    /,
) -> tuple[str, str, list[tuple[str, str]], int]: ...  # algorithm, reason, variants, bytes
def conv_variants() -> list[tuple[str, str, str]]: ...  # algorithm, variant, reason
def num_threads() -> int: ...
def set_num_threads(threads: int, /) -> None: ...
def exchange_thread_limit(threads: int, /) -> int: ...
def flush_denormal() -> bool: ...
def set_flush_denormal(wanted: bool, /) -> bool: ...
def isa() -> str: ...
def available_isas() -> list[str]: ...
def blas_version() -> str: ...
def measure_peak(dtype: str, threads: int, /) -> float: ...
