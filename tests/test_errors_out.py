"""A wrong `out` is refused, and any refused call leaves `out` as it was."""

from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import fastconv
from calls import DY, INDICES, POOLED, W, X, conv, grad_input, grad_weight, pool, pool_grad
from checks import assert_same_bits, refuses

WRITERS: dict[
    str, tuple[Any, tuple[int, ...]]
] = {  # every function that takes out, with the shape it expects
    "conv2d": (conv, DY.shape),
    "conv2d_grad_input": (grad_input, X.shape),
    "conv2d_grad_weight": (grad_weight, W.shape),
    "conv2d_grad_bias": (
        lambda **keywords: lambda: fastconv.conv2d_grad_bias(DY, **keywords),
        (4,),
    ),
    "max_pool2d": (pool, POOLED.shape),
    "max_pool2d_grad": (pool_grad, X.shape),
}
writer_ = pytest.mark.parametrize(("call", "shape"), WRITERS.values(), ids=WRITERS.keys())


@writer_
def test_a_right_out_is_accepted(call: Any, shape: tuple[int, ...]) -> None:
    """So that the refusals below are for the reason they name."""
    out = np.full(shape, np.nan, np.float32)
    assert call(out=out)() is out
    assert np.isfinite(out).all()


@writer_
def test_shape(call: Any, shape: tuple[int, ...]) -> None:
    wrong = (shape[0] + 1, *shape[1:])
    with refuses(ValueError, "out", str(shape), str(wrong)):
        call(out=np.empty(wrong, np.float32))()


@writer_
def test_broadcasting_is_not_applied(call: Any, shape: tuple[int, ...]) -> None:
    with refuses(ValueError, "out", str((1, *shape))):
        call(out=np.empty((1, *shape), np.float32))()


@writer_
def test_dtype(call: Any, shape: tuple[int, ...]) -> None:
    with refuses((TypeError, ValueError), "out", "float64", "float32"):
        call(out=np.empty(shape))()


@writer_
def test_byte_order(call: Any, shape: tuple[int, ...]) -> None:
    with refuses((TypeError, ValueError), "out"):
        call(out=np.empty(shape, np.dtype(np.float32).newbyteorder()))()


@writer_
def test_not_an_array(call: Any, shape: tuple[int, ...]) -> None:
    with refuses(TypeError, "out", "list"):
        call(out=np.empty(shape, np.float32).tolist())()


@writer_
def test_read_only(call: Any, shape: tuple[int, ...]) -> None:
    out = np.zeros(shape, np.float32)
    out.flags.writeable = False
    with refuses(ValueError, "out", "read-only"):
        call(out=out)()
    assert not out.any()


@writer_
def test_unaligned(call: Any, shape: tuple[int, ...]) -> None:
    raw = np.zeros(4 * int(np.prod(shape)) + 1, np.uint8)
    with refuses(ValueError, "out", "unaligned"):
        call(out=raw[1:].view(np.float32).reshape(shape))()
    assert not raw.any()


@writer_
def test_strides_that_overlap(call: Any, shape: tuple[int, ...]) -> None:
    if len(shape) == 1:
        strides: tuple[int, ...] = (0,)
    else:
        strides = (0, *np.empty(shape, np.float32).strides[1:])
    out = as_strided(np.zeros(shape, np.float32), shape, strides)
    with refuses(ValueError, "out", "overlap"):
        call(out=out)()
    assert not out.any()


@pytest.mark.parametrize("strides", [(4, 24, 72, 12), (288, 72, 4, 4), (288, 72, 8, 4)])
def test_other_strides_that_overlap(strides: tuple[int, ...]) -> None:
    """Cells that meet although no stride is zero; the last two only in part of the array."""
    out = as_strided(np.zeros(2000, np.float32), DY.shape, strides)
    cells = {sum(i * s for i, s in zip(at, strides, strict=True)) for at in np.ndindex(DY.shape)}
    assert len(cells) < out.size
    with refuses(ValueError, "out", "overlap"):
        conv(out=out)()


def test_strides_that_interleave_without_overlap_are_fine() -> None:
    """Neither axis contains the other, yet no two cells meet."""
    strides = (4 * 500, 4 * 100, 4 * 7, 4 * 3)  # 7p + 3q: no two of p < 3, q < 6 meet
    out = as_strided(np.full(2000, np.nan, np.float32), DY.shape, strides)
    conv(out=out)()
    np.testing.assert_array_equal(out, conv()())


@pytest.mark.parametrize("operand", ["x", "w", "bias"])
def test_memory_shared_with_an_operand(operand: str) -> None:
    buffer = np.ones(4000, np.float32)
    arrays: dict[str, Any] = {"x": X.copy(), "w": W.copy(), "bias": np.ones(4, np.float32)}
    size = arrays[operand].size
    arrays[operand] = buffer[:size].reshape(arrays[operand].shape)
    out = buffer[size - 1 : size - 1 + DY.size].reshape(DY.shape)  # one cell in common
    with refuses(ValueError, "out", operand, "memory"):
        fastconv.conv2d(**arrays, out=out)
    assert (buffer == 1).all()


def test_interleaved_with_an_operand_shares_no_memory() -> None:
    """Their address ranges overlap, their cells do not: exact bounds are checked."""
    buffer = np.ones(2 * DY.size, np.float32)
    w, out = buffer[0 : 2 * W.size : 2].reshape(W.shape), buffer[1::2].reshape(DY.shape)
    fastconv.conv2d(X, w, out=out)
    np.testing.assert_array_equal(out, fastconv.conv2d(X, W))


def test_gradients_check_shared_memory_too() -> None:
    x = X.copy()
    with refuses(ValueError, "out", "x", "memory"):
        fastconv.conv2d_grad_weight(DY, x, W.shape, out=x.ravel()[:72].reshape(W.shape))
    with refuses(ValueError, "out", "dy", "memory"):
        fastconv.conv2d_grad_bias(x, out=x[0, :, 0, 0])
    with refuses(ValueError, "out", "x", "memory"):
        fastconv.max_pool2d(x, 2, out=x[:, :, :2, :3])
    with refuses(ValueError, "out", "dy", "memory"):
        fastconv.max_pool2d_grad(x[:, :, :2, :3], INDICES, X.shape, out=x)
    assert_same_bits(x, X)


@pytest.mark.parametrize("shared", [(0, 1), (1, 2), (0, 2)])
def test_the_outs_of_one_call_share_no_memory(shared: tuple[int, int]) -> None:
    buffer = np.zeros(1000, np.float32)
    shapes = (X.shape, W.shape, (4,))
    out: list[Any] = [None, None, None]
    for i in shared:
        out[i] = buffer[: int(np.prod(shapes[i]))].reshape(shapes[i])
    with refuses(ValueError, "out"):
        fastconv.conv2d_grad(DY, X, W, out=tuple(out))
    assert not buffer.any()


@pytest.mark.parametrize("gradient", [0, 1], ids=["input", "weight"])
def test_no_out_shares_memory_with_an_operand_of_another_gradient(gradient: int) -> None:
    """dx over x would be read as x by the gradient of the filters, which comes next."""
    operands = X.copy(), W.copy()
    out: list[Any] = [None, None, None]
    out[gradient] = operands[gradient]
    with refuses(ValueError, "out", "memory"):
        fastconv.conv2d_grad(DY, *operands, out=tuple(out))
    assert_same_bits(operands[0], X)
    assert_same_bits(operands[1], W)


def test_one_wrong_out_of_three_leaves_the_others_as_they_were() -> None:
    dx, dw, db = np.zeros(X.shape, np.float32), np.zeros(W.shape), np.zeros(4, np.float32)
    with refuses((TypeError, ValueError), "out", "float64", "float32"):
        fastconv.conv2d_grad(DY, X, W, out=(dx, dw, db))  # dw is float64
    assert not dx.any()
    assert not db.any()


@pytest.mark.parametrize("out", [(None, None), [None] * 4, np.empty(3, np.float32)], ids=repr)
def test_conv2d_grad_takes_three_outs(out: Any) -> None:
    with refuses((TypeError, ValueError), "out"):
        fastconv.conv2d_grad(DY, X, W, out=out)


REFUSED: dict[str, tuple[Any, tuple[int, ...]]] = {
    "channels": (lambda **out: conv(w=W[:, :2], **out), DY.shape),
    "dtype": (lambda **out: conv(w=W.astype(float), **out), DY.shape),
    "bias": (lambda **out: conv(bias=np.ones(3, np.float32), **out), DY.shape),
    "algorithm": (lambda **out: conv(algorithm="fft", **out), DY.shape),
    "activation": (lambda **out: conv(activation="gelu", **out), DY.shape),
    "workspace": (lambda **out: conv(algorithm="im2col", workspace_limit=1, **out), DY.shape),
    "dy_of_input": (lambda **out: grad_input(dy=DY[:, :, :2], **out), X.shape),
    "dy_of_weight": (lambda **out: grad_weight(dy=DY[:1], **out), W.shape),
    "pool_padding": (lambda **out: pool(padding=2, **out), POOLED.shape),
    "index": (lambda **out: pool_grad(indices=np.full_like(INDICES, 35), **out), X.shape),
}


@pytest.mark.parametrize(("call", "shape"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refused_call_leaves_out_as_it_was(call: Any, shape: tuple[int, ...]) -> None:
    out = np.random.default_rng(4).standard_normal(shape).astype(np.float32)
    before = out.copy()
    with pytest.raises((TypeError, ValueError)):
        call(out=out)()
    assert_same_bits(out, before)
