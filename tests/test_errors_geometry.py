"""Wrong geometry and wrong words: one line that names the argument and says what is allowed."""

from typing import Any

import numpy as np
import pytest

import fastconv
from calls import Call, Kind, W, X, conv, explain, grad, grad_input, pool, refused
from checks import refuses

GEOMETRY = (
    refused(conv(padding="full"), ValueError, "padding", "full", "same", "valid", "same_lower"),
    refused(conv(padding="SAME"), ValueError, "padding", "SAME", "same"),
    refused(conv(padding=(1, 2, 3, 4)), ValueError, "padding", "4", "((", "))"),
    refused(conv(padding=[1, 1, 2, 2]), ValueError, "padding", "4", "((", "))"),
    refused(conv(padding=-1), ValueError, "padding", "-1"),
    refused(conv(padding=((0, 0), (1, -2))), ValueError, "padding", "-2"),
    refused(conv(padding=(1, 1, 1)), ValueError, "padding", "3", "2"),
    refused(conv(padding=(1,)), ValueError, "padding", "1", "2"),
    refused(conv(padding=((1, 2), (3,))), ValueError, "padding"),
    refused(conv(padding=((1, 2), 3)), (TypeError, ValueError), "padding"),
    refused(conv(padding=1.0), TypeError, "padding", "1.0"),
    refused(conv(padding=True), TypeError, "padding", "True"),
    refused(conv(padding=None), TypeError, "padding", "None"),
    refused(conv(stride=0), ValueError, "stride", "0"),
    refused(conv(stride=(1, -1)), ValueError, "stride", "-1"),
    refused(conv(stride=(1, 1, 1)), ValueError, "stride", "(1, 1, 1)"),
    refused(conv(stride=(1,)), ValueError, "stride", "(1,)"),
    refused(conv(stride=True), TypeError, "stride", "True"),
    refused(conv(stride=2.0), TypeError, "stride", "2.0"),
    refused(conv(stride=(1, 2.0)), TypeError, "stride", "2.0"),
    refused(conv(stride=None), TypeError, "stride", "None"),
    refused(conv(stride="2"), TypeError, "stride"),
    refused(conv(dilation=0), ValueError, "dilation", "0"),
    refused(conv(dilation=True), TypeError, "dilation", "True"),
    refused(conv(dilation=1.5), TypeError, "dilation", "1.5"),
    refused(conv(groups=0), ValueError, "groups", "0"),
    refused(conv(groups=-1), ValueError, "groups", "-1"),
    refused(conv(groups=1.0), TypeError, "groups", "1.0"),
    refused(conv(groups=True), TypeError, "groups", "True"),
    refused(pool(kernel_size=0), ValueError, "kernel_size", "0"),
    refused(pool(kernel_size=2.0), TypeError, "kernel_size", "2.0"),
    refused(pool(kernel_size=True), TypeError, "kernel_size", "True"),
    refused(pool(kernel_size=(2, 2, 2)), ValueError, "kernel_size", "(2, 2, 2)"),
    refused(pool(stride=(0, 1)), ValueError, "stride", "0"),
    refused(pool(kernel_size=3, padding=2), ValueError, "padding", "2", "3"),
    refused(pool(kernel_size=(3, 2), padding=((0, 0), (0, 2))), ValueError, "padding", "2"),
    refused(pool(padding="full"), ValueError, "padding", "full"),
)

WORDS = (
    refused(conv(layout="NCWH"), ValueError, "layout", "NCWH", "NCHW", "NHWC"),
    refused(pool(layout="CHW"), ValueError, "layout", "CHW", "NCHW", "NHWC"),
    refused(conv(layout=None), (TypeError, ValueError), "layout"),
    refused(conv(algorithm="fft"), ValueError, "algorithm", "fft", "auto", "im2col"),
    refused(grad_input(algorithm="fft"), ValueError, "algorithm", "fft", "im2col"),
    refused(conv(algorithm=None), (TypeError, ValueError), "algorithm"),
    refused(conv(activation="gelu"), ValueError, "activation", "gelu", "relu"),
    refused(conv(precision="fp8"), ValueError, "precision", "fp8", "fp32"),
    refused(conv(precision="tf32"), ValueError, "precision", "tf32", "fp32"),
    refused(grad(needs=("weights",)), ValueError, "needs", "weights", "weight"),
    refused(grad(needs=None), (TypeError, ValueError), "needs"),
    refused(conv(workspace_limit=-1), ValueError, "workspace_limit", "-1"),
    refused(conv(workspace_limit=1e6), TypeError, "workspace_limit"),
    refused(conv(algorithm="im2col", workspace_limit=1), ValueError, "workspace_limit", "im2col"),
    refused(explain(pass_="back"), ValueError, "pass_", "back", "forward"),
    refused(explain(op="conv9d"), ValueError, "conv9d", "conv2d"),
    refused(explain(dtype="int8"), TypeError, "dtype", "int8"),
    refused(explain(w_shape=(4, 2, 3, 2)), ValueError, str(X.shape), "(4, 2, 3, 2)"),
)


@pytest.mark.parametrize(("call", "kind", "parts"), [*GEOMETRY, *WORDS])
def test_wrong_geometry(call: Call, kind: Kind, parts: tuple[str, ...]) -> None:
    with refuses(kind, *parts):
        call()


@pytest.mark.parametrize(
    "keywords",
    [
        {"padding": 2**40},
        {"padding": 2**62},
        {"padding": ((2**63 - 1, 2**63 - 1), (0, 0))},
        {"padding": 2**70},
        {"dilation": 2**40},
        {"dilation": 2**62},
        {"dilation": 2**63 - 1},
        {"dilation": 2**70},
        {"stride": 2**70},
        {"groups": 2**70},
    ],
    ids=str,
)
def test_geometry_beyond_the_machine_is_an_error(keywords: dict[str, Any]) -> None:
    """No overflow into something that looks valid, no crash; out of memory is a fair answer."""
    with refuses((ValueError, MemoryError, OverflowError)):
        fastconv.conv2d(X, W, **keywords)


def test_a_stride_beyond_the_input_gives_one_output() -> None:
    y = fastconv.conv2d(X, W, stride=2**31 - 1)
    np.testing.assert_array_equal(y, np.full((2, 4, 1, 1), 18))


@pytest.mark.parametrize("wrong", [True, 1.0, np.float32(1), (1.0, 1), (True, True)])
@pytest.mark.parametrize("option", ["stride", "padding", "dilation", "groups"])
def test_a_cached_geometry_hides_no_wrong_type(option: str, wrong: Any) -> None:
    fastconv.conv2d(X, W, stride=1, padding=1, dilation=1, groups=1)
    fastconv.conv2d(X, W, stride=(1, 1), padding=(1, 1), dilation=(1, 1))
    with pytest.raises(TypeError, match=option):
        fastconv.conv2d(X, W, **{"padding": 1, option: wrong})
