"""The benchmark's peers, each against the reference, and the reference against plain loops."""

from collections.abc import Iterator

import numpy as np
import pytest

from fastconv.bench import peers, problems, process, reference, suites
from fastconv.bench.peers.numpy_peer import Convnet
from fastconv.bench.problems import Case, ConvProblem, GemmProblem, PoolProblem, TrainProblem

CONV = ConvProblem("a.conv", "a", (3,), C=6, H=12, W=17, K=8, R=3, S=5, padding=2, dilation=2)
STRIDED = ConvProblem("a.strided", "a", (3,), C=5, H=11, W=9, K=7, R=4, S=3, stride=3, padding=1)
GROUPED = ConvProblem("a.grouped", "a", (3,), C=6, H=9, W=7, K=4, R=2, S=3, padding=1, groups=2)
POOL = PoolProblem("a.pool", N=2, C=3, H=9, W=8, kernel=3, stride=2, padding=1)
GEMM = GemmProblem("gemm.odd", M=37, N=53, K=61)
NAMES = ["conv", "strided", "grouped"]


@pytest.fixture(
    scope="module", params=["fastconv", "numpy", "scipy", "torch", "onnxruntime", "jax"]
)
def peer(request: pytest.FixtureRequest) -> Iterator[process.WorkerProcess]:
    """A worker of each library that is installed."""
    started = process.WorkerProcess(
        process.command(request.param, 1, "auto"), process.environment(1)
    )
    try:
        started.start()
    except process.WorkerError as error:
        pytest.skip(str(error))
    yield started
    started.close()


def prepare(peer: process.WorkerProcess, case: Case) -> float:
    """The error, where the peer serves the case; ONNX Runtime knows one layout and one pass."""
    try:
        return peer.prepare(case)
    except process.WorkerError as error:
        if str(error).startswith(("ONNX Runtime knows", "ONNX Runtime computes", "JAX has no")):
            pytest.skip(str(error))
        raise


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("pass_", suites.PASSES)
@pytest.mark.parametrize("problem", [CONV, STRIDED, GROUPED], ids=NAMES)
def test_peers_convolve_right(
    peer: process.WorkerProcess,
    problem: ConvProblem,
    pass_: problems.Pass,
    layout: problems.Layout,
) -> None:
    assert 0 < prepare(peer, Case(problem, 3, pass_, layout, "float32")) < 1e-6
    assert 0 < prepare(peer, Case(problem, 3, pass_, layout, "float64")) < 1e-14


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("pass_", ["forward", "input"])
@pytest.mark.parametrize(
    "peer", ["fastconv", "numpy", "torch", "onnxruntime", "jax"], indirect=True
)
def test_peers_pool_right(
    peer: process.WorkerProcess, pass_: problems.Pass, layout: problems.Layout
) -> None:
    assert prepare(peer, Case(POOL, 2, pass_, layout)) < 1e-6


@pytest.mark.parametrize(
    "peer", ["fastconv", "numpy", "torch", "onnxruntime", "jax"], indirect=True
)
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("float64", 1e-15)])
def test_peers_multiply_right(
    peer: process.WorkerProcess, dtype: problems.DType, bound: float
) -> None:
    assert 0 < peer.prepare(Case(GEMM, 1, "product", dtype=dtype)) < bound


@pytest.mark.parametrize("peer", ["fastconv", "numpy", "torch", "keras"], indirect=True)
def test_peers_train_alike(peer: process.WorkerProcess) -> None:
    case = Case(TrainProblem(steps=3), 5, "step")
    assert 0 < peer.prepare(case) < 1e-4  # checked on two of the steps
    _, calls = peer.run(0)
    assert calls == 3


def test_the_training_loss_that_peers_are_held_against_falls() -> None:
    case = Case(TrainProblem(steps=4), 20, "step", dtype="float64")
    operands = peers.make_operands(case)
    assert isinstance(operands, peers.TrainOperands)
    network = Convnet(operands.layers)
    losses = [network.epoch(operands.x, operands.labels, 20) for _ in range(5)]
    assert losses == sorted(losses, reverse=True)
    assert reference.train_error(case, operands, losses[0]) == 0
    assert reference.train_error(case, operands, losses[1]) > 1e-2


@pytest.mark.parametrize("peer", ["scipy"], indirect=True)
def test_a_peer_may_decline(peer: process.WorkerProcess) -> None:
    with pytest.raises(process.WorkerError, match=r"^this peer has no max_pool$"):
        peer.prepare(Case(POOL, 2, "forward"))


@pytest.mark.parametrize("problem", [CONV, STRIDED, GROUPED], ids=NAMES)
@pytest.mark.parametrize("pass_", suites.PASSES)
def test_reference_is_the_definition(problem: ConvProblem, pass_: problems.Pass) -> None:
    case = Case(problem, 3, pass_)
    operands = peers.conv_operands(case, problem)
    exact = _by_plain_loops(problem, operands, pass_)
    assert reference.conv_error(case, problem, operands, exact) < 1e-15
    assert reference.conv_error(case, problem, operands, exact * 1.01) == pytest.approx(0.01)
    assert reference.conv_error(case, problem, operands, exact * np.nan) == float("inf")


def _by_plain_loops(p: ConvProblem, operands: peers.ConvOperands, pass_: str) -> peers.Array:
    """One multiply-add after the other, added to the result of the pass."""
    x, w, dy = (operand.astype(np.float64) for operand in operands)
    y, dx, dw = np.zeros_like(dy), np.zeros_like(x), np.zeros_like(w)
    for n, k, i, j in np.ndindex(dy.shape):
        for c, r, s in np.ndindex(w.shape[1:]):
            h = i * p.stride + r * p.dilation - p.padding
            v = j * p.stride + s * p.dilation - p.padding
            if 0 <= h < p.H and 0 <= v < p.W:
                channel = k * p.groups // p.K * (p.C // p.groups) + c
                y[n, k, i, j] += x[n, channel, h, v] * w[k, c, r, s]
                dx[n, channel, h, v] += dy[n, k, i, j] * w[k, c, r, s]
                dw[k, c, r, s] += dy[n, k, i, j] * x[n, channel, h, v]
    return {"forward": y, "input": dx, "weight": dw}[pass_]


def test_a_wrong_pool_index_is_found() -> None:
    case = Case(POOL, 2, "forward")
    operands = peers.pool_operands(case, POOL)
    values, indices = peers.bind(peers.create("numpy", 1, "auto"), case, operands)()
    assert reference.pool_error(case, POOL, operands, (values, indices)) == 0
    indices[1, 2, 3, 1] -= 1
    assert reference.pool_error(case, POOL, operands, (values, indices)) > 1e-3
    indices[1, 2, 3, 1] = -1
    assert reference.pool_error(case, POOL, operands, (values, indices)) == float("inf")
