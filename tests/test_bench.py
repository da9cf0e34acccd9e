"""The benchmark: its problem list, its reference, its peers and the command."""

import argparse
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from fastconv.bench import peers, problems, suites, table, worker
from fastconv.bench.problems import Case, ConvProblem, GemmProblem, PoolProblem, TrainProblem
from fastconv.bench.report import Report
from fastconv.bench.rounds import Row, Timing, measure
from fastconv.commands import bench as cli

CONV = ConvProblem("a.conv", "a", (3,), C=6, H=12, W=17, K=8, R=3, S=5, padding=2, dilation=2)
STRIDED = ConvProblem("a.strided", "a", (3,), C=5, H=11, W=9, K=7, R=4, S=3, stride=3, padding=1)
GROUPED = ConvProblem("a.grouped", "a", (3,), C=6, H=9, W=7, K=4, R=2, S=3, padding=1, groups=2)
POOL = PoolProblem("a.pool", N=2, C=3, H=9, W=8, kernel=3, stride=2, padding=1)
GEMM = GemmProblem("gemm.odd", M=37, N=53, K=61)


# Problems


def test_problem_list_has_the_published_multiply_adds() -> None:
    convs, pools = suites.load()
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
    assert POOL.bytes(2, 4) == 4 * 2 * 3 * 9 * 8 + (4 + 8) * 2 * 3 * 5 * 4
    assert GROUPED.bytes(3, 8) == 8 * (3 * 6 * 9 * 7 + 4 * 3 * 2 * 3 + 3 * 4 * 10 * 7)
    assert (GEMM.flops(1), GEMM.bytes(1, 4)) == (2 * 37 * 53 * 61, 4 * (2257 + 3233 + 1961))


@pytest.mark.parametrize("problem", [CONV, POOL, GEMM, TrainProblem(steps=3)], ids=str)
def test_a_case_survives_the_pipe(problem: problems.Problem) -> None:
    case = Case(problem, 3, "input", "NHWC", "float64")
    assert Case.from_json(json.loads(json.dumps(case.to_json()))) == case


def test_select_by_glob_batch_and_pass() -> None:
    cases = suites.select(["conv", "pool"], names=["vgg16.conv3*", "mnist.pool1"])
    assert [(case.problem.name, case.batch) for case in cases] == [
        *(("vgg16.conv3_1", n) for n in (1, 8)),
        *(("vgg16.conv3_2", n) for n in (1, 8)),
        ("mnist.pool1", 64),
    ]
    everything = suites.select(["conv", "pool"], nets=["m*"], passes=suites.PASSES, batches=[5])
    assert {case.problem.net for case in everything} == {"mnist", "mobilenetv2"}
    assert {case.batch for case in everything} == {5}
    assert len(everything) == 3 * (3 + 30) + 2 * 2  # max-pool has no filter gradient
    products = suites.select(["gemm"], batches=[5])
    assert {case.batch for case in products} == {1}
    assert GemmProblem("gemm.resnet50.conv2_1c", 256, 8 * 56 * 56, 64) in [
        case.problem for case in products
    ]
    quick = suites.select(suites.SUITES, quick=True)
    assert {case.problem.name: case.batch for case in quick} == suites.QUICK


# Timing


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


def test_the_suites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.json"
    chosen = ("--problem", "mnist.pool2", "gemm.mnist.conv2", "--batch", "2", "--threads", "2")
    options = _options("pool", "gemm", "start", *chosen, *FAST, "--json", str(file), "--peers")
    assert cli.run(options) == 0
    printed = capsys.readouterr().out
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["bandwidth_gbs"] > 0
    rows = {(row["layer"], row["pass"]): row for row in written["results"]}
    assert list(rows) == [
        ("mnist.pool2", "forward"),
        ("gemm.mnist.conv2", "product"),
        *(("start." + name, "start") for name in ("import", "first call", "further call")),
    ]
    assert [mean["kind"] for mean in written["geometric_means"]] == []  # no peer
    assert all(row["timings"]["fastconv"]["seconds"] > 0 for row in rows.values())
    assert "start.further call" in printed


def test_an_epoch_is_told() -> None:
    report = Report({}, {}, ["fastconv"])
    report.rows = [Row(Case(TrainProblem(), 60, "step"), {"fastconv": Timing((0.01,), 1, 0)}, {})]
    assert "an epoch of 60,000 images: fastconv 10.00 s" in table.summary(report)


def test_what_is_missing_is_left_out_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = ("--python-for", "numpy=/nonexistent/python")
    assert cli.run(_options(*TINY, *FAST, *nowhere, "--peers", "numpy")) == 0
    printed = capsys.readouterr().out
    assert "numpy: left out: " in printed
    assert "numpy ms" not in printed


def test_a_package_without_a_clone_says_where_other_runners_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "__path__", [str(Path(peers.__file__).parent)])
    assert peers.names() == ("fastconv", "numpy")
    assert cli.run(_options(*TINY, *FAST)) == 0
    printed = capsys.readouterr().out
    assert "runners of other libraries are in benchmarks/peers of the source" in printed
    assert "left out" not in printed
    for options in (["--peers", "torch"], ["--python-for", "torch=python"]):
        with pytest.raises(ValueError, match=f"{options[0]} has 'torch', .*: run this in a clone"):
            cli.run(_options(*options))


def test_an_algorithm_that_is_not_there_fails_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(_options(*TINY, *FAST, "--algorithm", "nonesuch", "--peers", "numpy")) == 1
    assert "fastconv: left out of mnist.conv3 N=2 forward: ValueError" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--net", "nonesuch"], "no layer matches"),
        (["nonesuch"], "suite is 'nonesuch', expected some of conv, pool"),
        (["--peers", "nonesuch"], "--peers has 'nonesuch', expected"),
        (["--python-for", "nonesuch=python"], "--python-for has 'nonesuch', expected some of"),
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


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_keeps_what_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Case] = []

    def press_in_the_third(case: Case, *rest: Any) -> Row:
        begun.append(case)
        if len(begun) == 3:
            signal.raise_signal(signal.SIGINT)
        return measure(case, *rest)

    monkeypatch.setattr(cli, "measure", press_in_the_third)
    file = tmp_path / "run.json"
    options = [*TINY, *FAST, "--pass", "all", "--peers", "numpy", "--json", str(file)]
    assert cli.run(_options(*options)) == 130
    assert "interrupted" in capsys.readouterr().out
    written = json.loads(file.read_text(encoding="utf-8"))
    assert not written["complete"]
    assert len(written["results"]) == 2
