"""What each layer computes, keeps and refuses."""

from typing import Any, cast

import numpy as np
import pytest

import fastconv
from fastconv import nn


def normal(rng: np.random.Generator, *shape: int) -> Any:
    return rng.standard_normal(shape, np.float32)


@pytest.mark.parametrize(
    ("fused", "plain", "shape"),
    [
        (nn.Conv2d(3, 5, (3, 2), activation="relu", rng=1), nn.Conv2d(3, 5, (3, 2)), (2, 3, 7, 6)),
        (nn.Linear(9, 4, activation="relu", rng=1), nn.Linear(9, 4), (5, 9)),
    ],
    ids=["conv", "linear"],
)
def test_fused_relu_equals_a_relu_layer(
    fused: nn.Layer, plain: nn.Layer, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    separate = nn.Sequential(plain, nn.ReLU())
    for ours, theirs in zip(fused.parameters(), separate.parameters(), strict=True):
        ours.data[...] = normal(rng, *ours.data.shape)
        theirs.data[...] = ours.data
    x = normal(rng, *shape)
    y = fused.forward(x)
    np.testing.assert_array_equal(y, separate.forward(x))
    assert (y == 0).any()
    assert (y > 0).any()
    dy = normal(rng, *y.shape)
    np.testing.assert_array_equal(fused.backward(dy), separate.backward(dy))
    for ours, theirs in zip(fused.parameters(), separate.parameters(), strict=True):
        np.testing.assert_array_equal(ours.grad, theirs.grad)


def test_conv2d_is_the_function_with_its_geometry(rng: np.random.Generator) -> None:
    geometry: dict[str, Any] = {"stride": (2, 1), "padding": ((1, 0), (2, 1)), "groups": 2}
    layer = nn.Conv2d(4, 6, (3, 2), **geometry, layout="NHWC", rng=3)
    x = normal(rng, 2, 7, 5, 4)
    assert layer.bias is not None
    layer.bias.data[...] = np.arange(6)
    expected = fastconv.conv2d(x, layer.weight.data, layer.bias.data, **geometry, layout="NHWC")
    np.testing.assert_array_equal(layer(x), expected)
    assert layer.weight.data.shape == (6, 2, 3, 2)


def test_transposed_convolution_is_the_function(rng: np.random.Generator) -> None:
    geometry: dict[str, Any] = {"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2)}
    layer = nn.ConvTranspose2d(4, 6, (3, 2), **geometry, groups=2, rng=3)
    x = normal(rng, 2, 4, 5, 3)
    assert layer.bias is not None
    layer.bias.data[...] = np.arange(6)
    expected = fastconv.conv_transpose2d(
        x, layer.weight.data, layer.bias.data, **geometry, groups=2
    )
    np.testing.assert_array_equal(layer(x), expected)
    assert layer.weight.data.shape == (4, 3, 3, 2)
    table = nn.Sequential(layer).summary((4, 5, 3)).splitlines()[-1]
    assert table.split()[-1] == f"{2 * 4 * 5 * 3 * 3 * 3 * 2 / 1e6:.2f}"


def test_linear_is_x_times_the_transposed_weight() -> None:
    layer = nn.Linear(3, 2)
    layer.weight.data[...] = [[1, 2, 3], [4, 5, 6]]
    assert layer.bias is not None
    layer.bias.data[...] = [10, -20]
    np.testing.assert_array_equal(layer(np.array([[1, 0, 2]], np.float32)), [[17, -4]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parameters_have_the_layer_dtype(dtype: str) -> None:
    for layer in (nn.Conv2d(2, 3, 2, dtype=dtype), nn.Linear(4, 3, dtype=dtype)):
        assert {p.data.dtype for p in layer.parameters()} == {np.dtype(dtype)}
        assert {p.grad.dtype for p in layer.parameters()} == {np.dtype(dtype)}


def test_sigmoid_neither_overflows_nor_hides_nan() -> None:
    x = np.array([[-1e4, -1.0, 0.0, 1.0, 1e4, np.nan]], np.float32)
    y = nn.Sigmoid()(x)
    expected = [[0.0, 0.26894142, 0.5, 0.73105858, 1.0, np.nan]]
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    assert y.dtype == np.float32


def test_leaky_relu_and_tanh_at_their_ends() -> None:
    x = np.array([[-np.inf, -2.0, -0.0, 3.0, np.inf, np.nan]], np.float32)
    np.testing.assert_array_equal(nn.LeakyReLU(0.5)(x), [[-np.inf, -1, 0, 3, np.inf, np.nan]])
    np.testing.assert_allclose(nn.Tanh()(x), [[-1, -0.9640276, 0, 0.9950547, 1, np.nan]], rtol=1e-6)
    for layer in (nn.LeakyReLU(0.5), nn.Tanh()):
        assert layer(x).dtype == np.float32


def test_softmax_sums_to_one_for_large_logits() -> None:
    y = nn.Softmax()(np.array([[1e4, 1e4, -1e4], [0.0, np.log(2.0), np.log(5.0)]]))
    np.testing.assert_allclose(y, [[0.5, 0.5, 0.0], [0.125, 0.25, 0.625]])


def test_flatten_orders_channel_row_column(rng: np.random.Generator) -> None:
    x = normal(rng, 2, 3, 4, 5)
    y = nn.Flatten()(x)
    assert y.shape == (2, 60)
    assert y[1, 2 * 20 + 3 * 5 + 1] == x[1, 2, 3, 1]
    assert nn.Flatten()(x[:0]).shape == (0, 60)


def test_dropout_scales_what_it_keeps_and_evaluates_to_the_input() -> None:
    x = np.ones((300, 200), np.float32)
    layer = nn.Dropout(0.25, rng=7)
    y = layer(x)
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)}
    assert y.dtype == np.float32
    # 60,000 draws: four standard deviations of the fraction kept are 0.007.
    assert abs(np.count_nonzero(y) / y.size - 0.75) < 0.007
    assert not np.array_equal(layer(x), y)
    np.testing.assert_array_equal(nn.Dropout(0.25, rng=7)(x), y)
    assert layer.eval()(x) is x


def test_dropout_with_its_own_rng_keeps_it() -> None:
    x = np.ones((4, 50), np.float32)
    layer = nn.Dropout(0.5, rng=7)
    layer.seed(np.random.default_rng(1))
    np.testing.assert_array_equal(layer(x), nn.Dropout(0.5, rng=7)(x))


LAYERS: list[tuple[nn.Layer, tuple[int, ...]]] = [
    (nn.Conv2d(2, 3, 2), (1, 2, 4, 3)),
    (nn.MaxPool2d(2), (1, 2, 4, 5)),
    (nn.AvgPool2d(2), (1, 2, 4, 5)),
    (nn.AdaptiveAvgPool2d((2, 3)), (1, 2, 4, 5)),
    (nn.GlobalAvgPool2d(), (1, 2, 4, 5)),
    (nn.Conv1d(2, 3, 2), (1, 2, 4)),
    (nn.Conv3d(2, 3, 2), (1, 2, 4, 3, 2)),
    (nn.ConvTranspose2d(2, 3, 2), (1, 2, 4, 3)),
    (nn.Linear(4, 3), (2, 4)),
    (nn.ReLU(), (2, 3)),
    (nn.LeakyReLU(0.1), (2, 3)),
    (nn.Tanh(), (2, 3)),
    (nn.BatchNorm2d(2), (2, 2, 4, 3)),
    (nn.Residual(nn.Linear(3, 3)), (2, 3)),
    (nn.Sigmoid(), (2, 3)),
    (nn.Softmax(), (2, 3)),
    (nn.Dropout(0.5), (2, 3)),
    (nn.Flatten(), (2, 3, 1)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda v: type(v).__name__)
def test_backward_needs_a_forward_pass_in_training_mode(
    layer: nn.Layer, shape: tuple[int, ...]
) -> None:
    x = np.ones(shape, np.float32)
    dy = np.ones_like(layer.train().forward(x))
    layer.backward(dy)
    layer.eval().forward(x)
    with pytest.raises(RuntimeError, match=f"{type(layer).__name__}.backward needs a forward pass"):
        layer.backward(dy)


@pytest.mark.parametrize(
    ("layer", "shape"), [(nn.Conv2d(2, 3, 2), (1, 2, 4, 3)), (nn.Linear(4, 3), (2, 4))]
)
def test_backward_overwrites_and_skips_the_input_gradient_on_request(
    layer: nn.Layer, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    dy = normal(rng, *layer.forward(normal(rng, *shape)).shape)
    assert layer.backward(dy) is not None
    first = [p.grad.copy() for p in layer.parameters()]
    layer.needs_input_grad = False
    assert layer.backward(dy) is None
    for parameter, grad in zip(layer.parameters(), first, strict=True):
        np.testing.assert_array_equal(parameter.grad, grad)


def test_results_are_fresh_arrays_outside_fit(rng: np.random.Generator) -> None:
    layer = nn.Conv2d(2, 3, 2)
    x = normal(rng, 1, 2, 4, 3)
    assert not np.shares_memory(layer(x), layer(x))


untyped: Any = nn  # where a type checker would refuse the call first


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Conv2d(0, 3, 2), "in_channels must be at least 1, got 0"),
        (lambda: nn.Conv2d(cast(Any, 2.0), 3, 2), "in_channels must be an int, got 2.0"),
        (lambda: nn.Conv2d(4, 6, 3, groups=4), "groups must divide .* 4 .* 6, got 4"),
        (
            lambda: nn.Conv2d(2, 3, (3, 3, 3)),
            r"kernel_size must be an int or 2 of them, one per axis, got \(3, 3, 3\)",
        ),
        (lambda: nn.Conv2d(2, 3, (3, 0)), "kernel_size must be at least 1, got 0"),
        (
            lambda: untyped.Conv2d(2, 3, 3, activation="tanh"),
            "activation must be None or .*, got 'tanh'",
        ),
        (lambda: nn.Conv2d(2, 3, 3, dtype="int32"), "dtype must be float32 or float64, got int32"),
        (lambda: untyped.Conv1d(2, 3, 3, layout="NCHW"), "layout"),
        (lambda: untyped.Conv3d(2, 3, 3, strides=2), "unexpected keyword argument 'strides'"),
        (lambda: nn.Conv3d(2, 3, (3, 3)), "kernel_size must be an int or 3 of them"),
        (lambda: nn.Linear(3, 0), "out_features must be at least 1, got 0"),
        (lambda: untyped.Linear(3, 2, activation="gelu"), "activation must be .*, got 'gelu'"),
        (lambda: nn.LeakyReLU(0.0), r"slope must be a number in \(0, 1\), got 0.0"),
        (
            lambda: untyped.Residual(nn.Flatten(), activation="elu"),
            "activation must be .*, got 'elu'",
        ),
        (lambda: nn.Dropout(1.0), r"p must be a probability in \[0, 1\), got 1.0"),
    ],
)
def test_wrong_arguments(make: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()


WRONG_GEOMETRY: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("Conv{}d", (3, 4, 3), {"stride": -1}),
    ("Conv{}d", (3, 4, 3), {"stride": 0}),
    ("Conv{}d", (3, 4, 3), {"stride": 1.5}),
    ("Conv{}d", (3, 4, 3), {"dilation": 0}),
    ("Conv{}d", (3, 4, 3), {"padding": "sam"}),
    ("Conv{}d", (3, 4, 3), {"padding": -1}),
    ("Conv{}d", (3, 4, 3), {"padding": (1, 1, 1, 1)}),
    ("Conv{}d", (3, 4, 3), {"layout": "CHWN"}),
    ("ConvTranspose{}d", (3, 4, 3), {"stride": -1}),
    ("ConvTranspose{}d", (3, 4, 3), {"padding": "sam"}),
    ("ConvTranspose{}d", (3, 4, 3), {"stride": 2, "output_padding": 2}),
    ("ConvTranspose{}d", (3, 4, 3), {"output_padding": -1}),
    ("MaxPool{}d", (-2,), {"padding": "sam"}),
    ("MaxPool{}d", (0,), {}),
    ("MaxPool{}d", (2,), {"padding": "sam"}),
    ("MaxPool{}d", (2,), {"padding": 2}),
    ("MaxPool{}d", (2,), {"stride": 0}),
    ("MaxPool{}d", (2,), {"dilation": -1}),
    ("MaxPool{}d", (2,), {"layout": "CHWN"}),
    ("AvgPool{}d", (2,), {"stride": "2"}),
    ("AvgPool{}d", (-1,), {}),
    ("AvgPool{}d", (2,), {"padding": -2}),
    ("AvgPool{}d", (2,), {"divisor_override": 0}),
    ("AdaptiveAvgPool{}d", (0,), {}),
    ("AdaptiveAvgPool{}d", (2,), {"layout": "CHWN"}),
    ("GlobalAvgPool{}d", (), {"layout": "CHWN"}),
]


def op_error(
    name: str, axes: int, arguments: tuple[int, ...], options: dict[str, Any]
) -> Exception:
    """What the layer's operator says to the same geometry over images of 40 cells an axis."""
    words = {"Conv{}d": "conv{}d", "ConvTranspose{}d": "conv_transpose{}d"}
    words |= {kind + "Pool{}d": kind.lower() + "_pool{}d" for kind in ("Max", "Avg")}
    words |= {kind + "AvgPool{}d": kind.lower() + "_avg_pool{}d" for kind in ("Adaptive", "Global")}
    function = getattr(fastconv, words[name].format(axes))
    x = np.ones((1, 3 if "Conv" in name else 1, *(40,) * axes), np.float32)
    rest: tuple[Any, ...] = arguments
    if name == "Conv{}d":
        rest = (np.ones((4, 3, *(3,) * axes), np.float32),)
    if name == "ConvTranspose{}d":
        rest = (np.ones((3, 4, *(3,) * axes), np.float32),)
    with pytest.raises((TypeError, ValueError)) as caught:
        function(x, *rest, **options)
    return caught.value


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(("name", "arguments", "options"), WRONG_GEOMETRY)
def test_constructors_refuse_what_the_operator_would(
    name: str, axes: int, arguments: tuple[int, ...], options: dict[str, Any]
) -> None:
    wanted = op_error(name, axes, arguments, options)
    with pytest.raises(type(wanted)) as caught:
        getattr(nn, name.format(axes))(*arguments, **options)
    before_shapes = str(wanted).partition("; x has shape")[0]
    assert str(caught.value).partition("; x has shape")[0] == before_shapes


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(
    ("name", "arguments", "options"),
    [
        ("Conv{}d", (4, 6, 3), {"padding": "same", "stride": 5, "dilation": 3, "groups": 2}),
        ("Conv{}d", (4, 6, 9), {"padding": 4, "stride": 2}),
        ("ConvTranspose{}d", (4, 6, 1), {"padding": 7}),
        ("ConvTranspose{}d", (4, 6, 2), {"stride": 2, "padding": "same"}),
        ("ConvTranspose{}d", (4, 6, 3), {"stride": 3, "output_padding": 2, "groups": 2}),
        ("MaxPool{}d", (5,), {"padding": 2, "stride": 3, "ceil_mode": True}),
        ("AvgPool{}d", (2,), {"padding": 5, "divisor_override": -2}),
        ("AdaptiveAvgPool{}d", (7,), {}),
    ],
)
def test_constructors_take_what_some_image_would(
    name: str, axes: int, arguments: tuple[int, ...], options: dict[str, Any]
) -> None:
    layer = getattr(nn, name.format(axes))(*arguments, **options)
    assert layer(np.ones((1, 4, *(20,) * axes), np.float32)).size > 0


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 5), r"x has shape \(2, 5\), expected \(batch, 4\)$"),
        ((2, 1, 4), r"expected \(batch, 4\); put Flatten\(\) before Linear"),
    ],
)
def test_linear_refuses_other_shapes(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nn.Linear(4, 3)(np.ones(shape, np.float32))


def test_mixed_dtypes_are_refused() -> None:
    for layer, shape in ((nn.Conv2d(2, 3, 2), (1, 2, 4, 3)), (nn.Linear(4, 3), (2, 4))):
        with pytest.raises(TypeError, match="float64"):
            layer(np.ones(shape))


def test_repr_shows_what_is_not_the_default() -> None:
    conv = nn.Conv2d(4, 6, (3, 1), groups=2, padding="same", bias=False)
    assert repr(conv) == "Conv2d(4, 6, kernel_size=(3, 1), padding='same', groups=2, bias=False)"
    assert repr(nn.MaxPool2d(3, stride=2)) == "MaxPool2d(3, stride=2)"
    assert repr(nn.Conv1d(3, 5, 4, stride=2)) == "Conv1d(3, 5, kernel_size=4, stride=2)"
    assert repr(nn.Conv3d(3, 5, (1, 2, 2), layout="NDHWC")) == (
        "Conv3d(3, 5, kernel_size=(1, 2, 2), layout='NDHWC')"
    )
    assert repr(nn.ConvTranspose2d(6, 4, (3, 1), groups=2, stride=2, output_padding=1)) == (
        "ConvTranspose2d(6, 4, kernel_size=(3, 1), stride=2, groups=2, output_padding=1)"
    )
    assert repr(nn.AvgPool2d(3, count_include_pad=False)) == "AvgPool2d(3, count_include_pad=False)"
    assert repr(nn.AdaptiveAvgPool2d((3, 2))) == "AdaptiveAvgPool2d((3, 2))"
    assert repr(nn.GlobalAvgPool2d(layout="NHWC")) == "GlobalAvgPool2d(layout='NHWC')"
    assert repr(nn.Linear(3, 2, activation="relu")) == "Linear(3, 2, activation='relu')"
    assert repr(nn.Sequential(nn.Dropout(0.5), nn.ReLU())) == "Sequential(Dropout(0.5), ReLU())"


def test_to_cpu_keeps_the_arrays() -> None:
    layer = nn.Linear(3, 2)
    data = layer.weight.data
    assert layer.to("cpu") is layer
    assert layer.weight.data is data


def test_to_says_what_is_missing() -> None:
    with pytest.raises(RuntimeError, match="has no CUDA module"):
        nn.Linear(3, 2).to("cuda")
    with pytest.raises(ValueError, match='device must be "cpu" or "cuda", got \'tpu\''):
        nn.Linear(3, 2).to("tpu")
