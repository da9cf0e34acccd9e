"""Convolution and pooling on arrays, forward and backward: each function is one call of a kernel.

Letters: x[N, C, H, W], w[K, C/groups, R, S], y[N, K, P, Q]; dx, dw, db, dy are gradients. With
``layout="NHWC"`` x and y have their channels last; w keeps its shape. Lines (1d) are
x[N, C, W] with w[K, C/groups, S], volumes (3d) x[N, C, D, H, W] with w[K, C/groups, T, R, S]. The
arguments that several functions share:

stride, dilation
    An int or one per spatial axis.
padding
    An int, one per axis, one (before, after) pair per axis, "valid" (none), "same" (the output has
    ceil(in / stride) cells, an odd pad goes after, as in TensorFlow, Keras and JAX) or
    "same_lower" (before, as in ONNX).
groups
    C and K fall into so many groups that do not mix; groups = C is a depthwise convolution.
algorithm
    "auto"; "implicit" (one matrix product that gathers the patches while packing), "winograd" (3x3
    filters without stride), "direct" (patches read from a small copy of the input) or "im2col"
    (patches stored, multiplied by BLAS); on a GPU of compute capability 9.0, "wgmma" (float16 and
    bfloat16 with channels last, all but the weight gradient). Winograd rounds more: its error
    in float32 is below 5e-6 of max|x| * sum|w|, what such operands could give at most (about 1e-5
    of the largest output, more where sums cancel), and a NaN or Inf reaches a whole tile of 4x4
    outputs. The environment variable FASTCONV_ALGORITHM is what "auto" prefers;
    FASTCONV_WINOGRAD=0 keeps Winograd out of "auto".
precision
    "fp32": never less than the arrays' own. "tf32", for float32 arrays on a GPU: the operands are
    rounded to 11 significant bits, multiplied on tensor cores and summed in float32.
workspace_limit
    The scratch memory a call may use, in bytes: it runs on fewer threads, "auto" by another
    algorithm, to stay within.
out
    Where to write the result: the exact shape and dtype, any strides, no memory shared with an
    input. Without it the result is a new array.

A gradient is that of the sum of the result times dy, which has the result's shape; its other
arguments are those of the forward call. Sums over a batch are always taken in the same order.

Arrays are NumPy's or CuPy's, float32 or float64, all of one call the same, with any strides. CuPy's
may be float16 or bfloat16 (ml_dtypes), which tensor cores multiply and whose sums are float32's.
TypeError and ValueError name the argument, what came and what was expected; nothing has been
written then.
Results do not depend on the number of threads.
"""

from ._batch_norm import batch_moments as batch_moments
from ._batch_norm import batch_norm as batch_norm
from ._batch_norm import batch_norm_grad as batch_norm_grad
from ._dense import add as add
from ._dense import column_sum as column_sum
from ._dense import matmul as matmul
from ._dense import relu as relu
from ._dense import relu_grad as relu_grad
from ._max_pool_offsets import max_pool1d_offsets as max_pool1d_offsets
from ._max_pool_offsets import max_pool1d_offsets_grad as max_pool1d_offsets_grad
from ._max_pool_offsets import max_pool2d_offsets as max_pool2d_offsets
from ._max_pool_offsets import max_pool2d_offsets_grad as max_pool2d_offsets_grad
from ._max_pool_offsets import max_pool3d_offsets as max_pool3d_offsets
from ._max_pool_offsets import max_pool3d_offsets_grad as max_pool3d_offsets_grad
from .avg_pool import *
from .conv import *
from .conv_transpose import *
from .max_pool import *
from .plan import *

# What fastconv itself offers.
__all__: tuple[str, ...] = (
    "Plan",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool1d_grad",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_grad",
    "adaptive_avg_pool3d",
    "adaptive_avg_pool3d_grad",
    "avg_pool1d",
    "avg_pool1d_grad",
    "avg_pool2d",
    "avg_pool2d_grad",
    "avg_pool3d",
    "avg_pool3d_grad",
    "conv1d",
    "conv1d_grad",
    "conv1d_grad_bias",
    "conv1d_grad_input",
    "conv1d_grad_weight",
    "conv2d",
    "conv2d_grad",
    "conv2d_grad_bias",
    "conv2d_grad_input",
    "conv2d_grad_weight",
    "conv3d",
    "conv3d_grad",
    "conv3d_grad_bias",
    "conv3d_grad_input",
    "conv3d_grad_weight",
    "conv_transpose1d",
    "conv_transpose1d_grad",
    "conv_transpose1d_grad_bias",
    "conv_transpose1d_grad_input",
    "conv_transpose1d_grad_weight",
    "conv_transpose2d",
    "conv_transpose2d_grad",
    "conv_transpose2d_grad_bias",
    "conv_transpose2d_grad_input",
    "conv_transpose2d_grad_weight",
    "conv_transpose3d",
    "conv_transpose3d_grad",
    "conv_transpose3d_grad_bias",
    "conv_transpose3d_grad_input",
    "conv_transpose3d_grad_weight",
    "explain",
    "global_avg_pool1d",
    "global_avg_pool1d_grad",
    "global_avg_pool2d",
    "global_avg_pool2d_grad",
    "global_avg_pool3d",
    "global_avg_pool3d_grad",
    "global_max_pool1d",
    "global_max_pool1d_grad",
    "global_max_pool2d",
    "global_max_pool2d_grad",
    "global_max_pool3d",
    "global_max_pool3d_grad",
    "max_pool1d",
    "max_pool1d_grad",
    "max_pool2d",
    "max_pool2d_grad",
    "max_pool3d",
    "max_pool3d_grad",
    "sum_pool1d",
    "sum_pool1d_grad",
    "sum_pool2d",
    "sum_pool2d_grad",
    "sum_pool3d",
    "sum_pool3d_grad",
)
