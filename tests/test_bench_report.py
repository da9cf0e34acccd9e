"""The benchmark's report: recorded times in, figures computed by hand out."""

import dataclasses
import json
from typing import Any

import pytest

from fastconv.bench import report, rounds, table
from fastconv.bench.problems import Case, ConvProblem, PoolProblem, Problem

POOL = PoolProblem("a.pool", N=2, C=3, H=9, W=8, kernel=3, stride=2, padding=1)


def _row(problem: Problem, batch: int, **seconds: float) -> rounds.Row:
    timings = {label: rounds.Timing((value,), 4, 2e-7) for label, value in seconds.items()}
    return rounds.Row(Case(problem, batch, "forward"), timings, {})


def _recorded() -> report.Report:
    """Two layers of one network, the second twice in it; the third has no torch."""
    twice = ConvProblem("net.b", "net", (1,), C=4, H=5, W=6, K=8, R=1, S=1, count=2)
    once = ConvProblem("net.a", "net", (1,), C=4, H=5, W=6, K=8, R=1, S=1)
    other = ConvProblem("other.c", "other", (8,), C=4, H=5, W=6, K=8, R=1, S=1)
    return report.Report(
        environment={"CPU": "a CPU", "versions": {"fastconv": "1", "numpy": "2"}},
        settings={"layout": "NCHW", "dtype": "float32", "threads": 2},
        peers=["fastconv", "numpy", "torch"],
        peak=10.0,
        rows=[
            _row(once, 1, fastconv=0.001, numpy=0.002, torch=0.004),
            _row(twice, 1, fastconv=0.003, numpy=0.024, torch=0.0015),
            _row(other, 8, fastconv=0.002, numpy=0.002),
            _row(POOL, 2, fastconv=0.5, numpy=1.5, torch=1.0),
        ],
        complete=True,
    )


def test_geometric_means_take_each_layer_once() -> None:
    means = {(m.kind, m.peer): m for m in report.means(_recorded()) if m.group == report.ALL}
    numpy, torch = means["forward", "numpy"], means["forward", "torch"]
    assert numpy.cases == 3
    assert numpy.geometric_mean == pytest.approx(16 ** (1 / 3))  # of 2, 8, 1
    assert (numpy.least, numpy.least_case) == (1.0, "other.c N=8")
    assert torch.cases == 2
    assert torch.geometric_mean == pytest.approx(2**0.5)  # of 4, 1/2
    assert means["forward", report.BEST].geometric_mean == pytest.approx(1.0)  # of 2, 1/2, 1
    assert means["max-pool forward", report.BEST].geometric_mean == pytest.approx(2.0)


def test_groups_have_means_of_their_own() -> None:
    wide = ConvProblem("net.w", "net", (1,), C=64, H=14, W=15, K=65, R=3, S=3, padding=1)
    narrow = dataclasses.replace(wide, name="net.n", H=13)  # its outputs are 13 x 15
    depthwise = dataclasses.replace(wide, name="net.d", K=64, groups=64)
    recorded = dataclasses.replace(
        _recorded(),
        peers=["fastconv", "torch"],
        rows=[
            _row(wide, 1, fastconv=0.001, torch=0.002),
            _row(narrow, 1, fastconv=0.001, torch=0.004),
            _row(depthwise, 1, fastconv=0.001, torch=0.008),
        ],
    )
    means = {mean.group: round(mean.geometric_mean, 6) for mean in report.means(recorded)}
    assert means == {"all": 4, "3x3 s1, C, K >= 64, >= 14x14": 2, "depthwise": 8}


def test_the_file_has_a_line_for_each_case() -> None:
    recorded = _recorded()
    lines = report.dumps(recorded).splitlines()
    assert sum('"layer": ' in line for line in lines) == len(recorded.rows)
    written = json.loads("\n".join(lines))
    assert written["peak_gflops"] == 10.0
    assert written["networks"][0]["ratio"] == 7.1429  # 50 / 7, five digits


def test_network_totals_weigh_layers_by_count() -> None:
    totals = {(total.net, total.peer): total for total in report.network_totals(_recorded())}
    numpy, best = totals["net", "numpy"], totals["net", report.BEST]
    assert numpy.layers == 3
    assert numpy.ours_seconds == pytest.approx(0.001 + 2 * 0.003)
    assert numpy.peer_seconds == pytest.approx(0.002 + 2 * 0.024)
    assert numpy.ratio == pytest.approx(50 / 7)
    assert best.peer_seconds == pytest.approx(0.002 + 2 * 0.0015)
    assert totals["other", "numpy"].ratio == 1.0
    assert ("other", "torch") not in totals


def test_json_has_everything() -> None:
    recorded = _recorded()
    written: dict[str, Any] = json.loads(json.dumps(report.to_json(recorded)))
    assert written["schema"] == report.SCHEMA
    first, _, third, pool = written["results"]
    flops = 2 * 8 * 5 * 6 * 4
    assert (first["layer"], first["batch"], first["pass"]) == ("net.a", 1, "forward")
    assert first["gflops"]["fastconv"] == pytest.approx(flops / 0.001 * 1e-9)
    assert first["percent_of_peak"] == pytest.approx(100 * flops / 0.001 * 1e-9 / 10)
    assert first["timings"]["numpy"] == {
        "seconds": 0.002,
        "rounds": [0.002],
        "calls": 4,
        "error": 2e-7,
    }
    assert third["ratio"] == {"numpy": 1.0, "torch": None, report.BEST: 1.0}
    assert (pool["kind"], pool["gflops"]["torch"], pool["percent_of_peak"]) == (
        "max_pool",
        None,
        None,
    )
    assert len(written["geometric_means"]) == 12
    assert written["networks"][0]["ratio"] == pytest.approx(50 / 7)


def test_table_is_aligned_and_complete() -> None:
    recorded = _recorded()
    lines = table.Table([row.case.problem.name for row in recorded.rows], recorded.peers)
    heading = lines.heading()
    printed = [lines.line(row, recorded.peak) for row in recorded.rows]
    assert {len(line) for line in printed} == {len(heading)}
    cells = " ".join(printed[1].split())
    assert cells == "net.b 1 forward 3.00 24.0 1.50 0.0006 0.0 8.00 0.50 2e-07"
    assert printed[2].split()[5] == "-"
    summary = table.summary(recorded)
    assert "marked ~" not in summary
    assert "forward           all     numpy          3  2.52   1.00  other.c N=8" in summary
    assert "net      1  forward       3  numpy         7.00     50.0   7.14" in summary
    assert table.header(recorded).splitlines()[1] == "versions:   fastconv 1, numpy 2"


def test_a_case_that_others_disturbed_is_marked() -> None:
    recorded = _recorded()
    recorded.rows[1] = dataclasses.replace(recorded.rows[1], cores_lost=0.4)
    lines = table.Table([row.case.problem.name for row in recorded.rows], recorded.peers)
    marked = [lines.line(row, recorded.peak).endswith(" ~") for row in recorded.rows]
    assert marked == [False, True, False, False]
    assert table.summary(recorded).splitlines()[-1].startswith("1 of 4 cases, marked ~, were timed")
    assert report.to_json(recorded)["results"][1]["cores_lost"] == 0.4
