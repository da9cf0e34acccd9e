"""The tables and pictures of benchmarks/: recorded times in, figures computed by hand out."""

from pathlib import Path

import pytest

import tables
from fastconv.bench import report
from fastconv.bench.problems import (
    Case,
    ConvProblem,
    GemmProblem,
    Pass,
    Problem,
    StartProblem,
    TrainProblem,
)
from fastconv.bench.rounds import Row, Timing

CONV = ConvProblem("resnet50.a", "resnet50", (8,), C=64, H=14, W=15, K=65, R=3, S=3, padding=1)


def _row(problem: Problem, pass_: Pass, **seconds: float) -> Row:
    timings = {label: Timing((value,), 4, 2e-7) for label, value in seconds.items()}
    return Row(Case(problem, 8, pass_), timings, {})


def _write(folder: Path, name: str, rows: list[Row], peers: list[str]) -> None:
    versions = {"fastconv": "1 (isa avx512)"} | dict.fromkeys(peers, "2")
    recorded = report.Report(
        environment={"CPU": "a CPU", "system": "Linux", "versions": versions, "variables": {}}
        | {"date": "2026-01-02T03:04:05+00:00"},
        settings={"layout": "NCHW", "dtype": "float32", "threads": 2},
        peers=["fastconv", *peers],
        peak=200.0,
        bandwidth=20.0,
        rows=rows,
        complete=True,
    )
    (folder / f"{name}.json").write_text(report.dumps(recorded), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A layer, a product, a training step and a start, as if run_all.sh had timed them."""
    passes: tuple[Pass, ...] = ("forward", "input", "weight")
    convs = [_row(CONV, pass_, fastconv=0.002, torch=0.004, numpy=0.006) for pass_ in passes]
    _write(tmp_path, "conv-nchw", convs, ["torch", "numpy"])
    product = _row(GemmProblem("gemm.cube", 1000, 1000, 1000), "product", fastconv=0.02, numpy=0.05)
    _write(tmp_path, "gemm", [product], ["numpy"])
    _write(
        tmp_path, "train", [_row(TrainProblem(), "step", fastconv=0.001, keras=0.004)], ["keras"]
    )
    starts = {"import": 0.01, "first call": 0.002, "further call": 8e-6}
    rows = [_row(StartProblem(f"start.{name}"), "start", fastconv=t) for name, t in starts.items()]
    _write(tmp_path, "start", rows, [])
    return tmp_path


def test_the_tables_have_the_figures(folder: Path) -> None:
    found = tables.sections(tables.load(folder))
    means = found["Convolution, geometric means"].splitlines()
    assert means[0].startswith("|  | NumPy | PyTorch | fastest of them |")
    assert means[2] == "| forward, NCHW, 2 threads | 3.00 | 2.00 | 2.00 | 2.00 (resnet50.a N=8) |"
    assert found["Layers 3x3 s1, C, K >= 64, >= 14x14"].count("\n") == 4
    assert "Layers depthwise" not in found
    line = "| ResNet-50, batch 8 | 2.00 ms, x 2.00 | 2.00 ms, x 2.00 | 2.00 ms, x 2.00 |"
    assert line in found["Networks, NCHW, 2 threads"]
    products = found["Matrix products"].splitlines()
    assert products[2] == "| cube, 2 threads, avx512 | 100 | 50.0 % | 2.50 |"  # 2 GFLOP in 20 ms
    training = found["Training the MNIST convnet, batch 64"].splitlines()
    assert training[3] == "| Keras | 4.00 | 30.0 | 4.00 |"  # 60,000 images, eight at a time
    assert (
        "| fastconv | 10.0 | 2.00 | 8.00 |" in found["A very small convolution in a fresh process"]
    )


def test_results_are_put_between_their_comments(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text("a\n<!-- results -->\nold\n<!-- end of results -->\nb\n", encoding="utf-8")
    for _ in range(2):
        tables.replace_results(file, r"new \1")
    written = file.read_text(encoding="utf-8")
    assert written == "a\n<!-- results -->\n\nnew \\1\n\n<!-- end of results -->\nb\n"
    file.write_text("no comments", encoding="utf-8")
    with pytest.raises(ValueError, match="0 pairs of results comments, expected one"):
        tables.replace_results(file, "new")


def test_the_pages_that_get_results_have_one_place_for_them() -> None:
    for page in ("README.md", "docs/benchmarks.md"):
        text = (tables.ROOT / page).read_text(encoding="utf-8")
        assert text.count("<!-- results -->") == text.count("<!-- end of results -->") == 1


def test_the_pictures_are_drawn(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    import pictures

    runs = tables.load(folder)
    pictures.roofline(runs["conv-nchw"], folder / "roofline.png")
    pictures.speedups(runs, folder / "speedup.png")
    for name in ("roofline", "speedup"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
