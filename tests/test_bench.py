"""The benchmark: its problem list, its reference, its peers and the command."""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fastconv.bench import cli, peers, problems, process, reference, worker
from fastconv.bench.problems import Case, ConvProblem, PoolProblem

CONV = ConvProblem("a.conv", "a", (3,), C=6, H=12, W=17, K=8, R=3, S=5, padding=2, dilation=2)
STRIDED = ConvProblem("a.strided", "a", (3,), C=5, H=11, W=9, K=7, R=4, S=3, stride=3, padding=1)
GROUPED = ConvProblem("a.grouped", "a", (3,), C=6, H=9, W=7, K=4, R=2, S=3, padding=1, groups=2)
POOL = PoolProblem("a.pool", N=2, C=3, H=9, W=8, kernel=3, stride=2, padding=1)
NAMES = ["conv", "strided", "grouped"]


# Problems


def test_problem_list_has_the_published_multiply_adds() -> None:
    convs, pools = problems.load()
    assert (len(convs), len(pools)) == (72, 6)
    assert len({conv.name for conv in convs} | {pool.name for pool in pools}) == 78
    totals: dict[str, int] = {}
    for conv in convs:
        totals[conv.net] = totals.get(conv.net, 0) + conv.count * conv.flops(1) // 2
    # The figures given for these networks at 224x224, less their dense layers.
    assert totals["alexnet"] == 655_566_528
    assert totals["vgg16"] == 15_346_630_656
    assert totals["resnet50"] == 4_089_184_256 - 2048 * 1000
    assert totals["mobilenetv2"] == 300_774_272 - 1280 * 1000


def test_extents_and_flops_by_hand() -> None:
    assert (CONV.P, CONV.Q) == (12 + 4 - 5 + 1, 17 + 4 - 9 + 1)
    assert (STRIDED.P, STRIDED.Q) == (4, 3)
    assert GROUPED.weight_shape == (4, 3, 2, 3)
    assert GROUPED.flops(3) == 2 * 3 * 4 * 10 * 7 * 3 * 2 * 3
    assert POOL.output_shape(2) == (2, 3, 5, 4)


@pytest.mark.parametrize("problem", [CONV, POOL], ids=["conv", "pool"])
def test_a_case_survives_the_pipe(problem: problems.Problem) -> None:
    case = Case(problem, 3, "input", "NHWC", "float64")
    assert Case.from_json(json.loads(json.dumps(case.to_json()))) == case


def test_select_by_glob_batch_and_pass() -> None:
    cases = problems.select(names=["vgg16.conv3*", "mnist.pool1"], max_pool=True)
    assert [(case.problem.name, case.batch) for case in cases] == [
        *(("vgg16.conv3_1", n) for n in (1, 8)),
        *(("vgg16.conv3_2", n) for n in (1, 8)),
        ("mnist.pool1", 64),
    ]
    everything = problems.select(nets=["m*"], passes=problems.PASSES, batches=[5], max_pool=True)
    assert {case.problem.net for case in everything} == {"mnist", "mobilenetv2"}
    assert {case.batch for case in everything} == {5}
    assert len(everything) == 3 * (3 + 30) + 2 * 2  # max-pool has no filter gradient
    quick = problems.select(quick=True, max_pool=True)
    assert {case.problem.name: case.batch for case in quick} == problems.QUICK


# Reference and peers


@pytest.fixture(scope="module", params=["fastconv", "numpy", "scipy", "torch"])
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


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("pass_", problems.PASSES)
@pytest.mark.parametrize("problem", [CONV, STRIDED, GROUPED], ids=NAMES)
def test_peers_convolve_right(
    peer: process.WorkerProcess,
    problem: ConvProblem,
    pass_: problems.Pass,
    layout: problems.Layout,
) -> None:
    assert 0 < peer.prepare(Case(problem, 3, pass_, layout, "float32")) < 1e-6
    assert 0 < peer.prepare(Case(problem, 3, pass_, layout, "float64")) < 1e-14


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("pass_", ["forward", "input"])
@pytest.mark.parametrize("peer", ["fastconv", "numpy", "torch"], indirect=True)
def test_peers_pool_right(
    peer: process.WorkerProcess, pass_: problems.Pass, layout: problems.Layout
) -> None:
    assert peer.prepare(Case(POOL, 2, pass_, layout)) < 1e-6


@pytest.mark.parametrize("peer", ["scipy"], indirect=True)
def test_a_peer_may_decline(peer: process.WorkerProcess) -> None:
    with pytest.raises(process.WorkerError, match=r"^SciPy has no max-pool with indices$"):
        peer.prepare(Case(POOL, 2, "forward"))


@pytest.mark.parametrize("problem", [CONV, STRIDED, GROUPED], ids=NAMES)
@pytest.mark.parametrize("pass_", problems.PASSES)
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
    runner = peers.create("numpy", 1, "auto")
    values, indices = runner.max_pool(case, POOL, operands)()
    assert reference.pool_error(case, POOL, operands, (values, indices)) == 0
    indices[1, 2, 3, 1] -= 1
    assert reference.pool_error(case, POOL, operands, (values, indices)) > 1e-3
    indices[1, 2, 3, 1] = -1
    assert reference.pool_error(case, POOL, operands, (values, indices)) == float("inf")


def test_timing_drops_the_first_call_unless_it_is_long() -> None:
    calls: list[int] = []
    times = worker.time_calls(lambda: calls.append(0), 0.01)
    assert len(times) == len(calls) - 1
    assert sum(times) <= 0.02
    assert len(worker.time_calls(lambda: calls.append(0), 0)) == 1


# The command


def _options(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return parser.parse_args(options)


TINY = ("--problem", "mnist.conv3", "lenet5.conv2", "--batch", "2", "--threads", "1")
FAST = ("--rounds", "2", "--min-time", "0.001")


def test_a_run_against_numpy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    file, picture = tmp_path / "run.json", tmp_path / "run.png"
    outputs = ("--json", str(file), "--plot", str(picture))
    status = cli.run(_options(*TINY, *FAST, *outputs, "--pass", "all", "--peers", "numpy"))
    printed = capsys.readouterr().out
    assert status == 0, printed
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["complete"]
    assert written["peak_gflops"] > 0
    assert written["environment"]["threads"] == 1
    assert len(written["results"]) == 6
    for result in written["results"]:
        assert result["ratio"]["numpy"] > 0
        assert len(result["timings"]["numpy"]["rounds"]) == 2
        assert all(timing["error"] < 1e-5 for timing in result["timings"].values())
        assert f"\n{result['layer']:<12}    2  {result['pass']:<7}" in printed
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_what_is_missing_is_left_out_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = ("--python-for", "numpy=/nonexistent/python")
    assert cli.run(_options(*TINY, *FAST, *nowhere, "--peers", "numpy")) == 0
    printed = capsys.readouterr().out
    assert "numpy: left out: " in printed
    assert "numpy ms" not in printed


def test_an_algorithm_that_is_not_there_fails_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(_options(*TINY, *FAST, "--algorithm", "nonesuch", "--peers", "numpy")) == 1
    assert "fastconv: left out of mnist.conv3 N=2 forward: ValueError" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--net", "nonesuch"], "no layer matches"),
        (["--peers", "nonesuch"], "--peers has 'nonesuch', expected"),
        (["--python-for", "numpy"], "--python-for has 'numpy', expected PEER=PYTHON"),
        (["--plot", "run.docx"], "expected a .png"),
    ],
)
def test_options_that_make_no_sense(options: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cli.run(_options(*options))


def test_an_output_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        cli.run(_options("--json", str(tmp_path / "nowhere" / "run.json")))


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    options = [*TINY, "--pass", "all", "--peers", "numpy", "--min-time", "0.2", "--json", str(file)]
    command = [sys.executable, "-m", "fastconv", "bench", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as bench:
        assert bench.stdout is not None
        for line in bench.stdout:
            if line.startswith("mnist.conv3"):
                break
        bench.send_signal(signal.SIGINT)
        rest = bench.stdout.read()
    assert bench.returncode == 130
    assert "interrupted" in rest
    written = json.loads(file.read_text(encoding="utf-8"))
    assert not written["complete"]
    assert 1 <= len(written["results"]) < 6
