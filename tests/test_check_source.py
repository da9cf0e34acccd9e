"""Each rule of tools/check_source.py refuses what breaks it, and nothing else."""

import runpy
from pathlib import Path

import pytest

CHECK = runpy.run_path(str(Path(__file__).parents[1] / "tools" / "check_source.py"))
LISTED = "".join(f"add_subdirectory({name})\n" for name in ("kernels", "runtime", "gemm"))
LONG = "  call();\n" * 70


def refused(rule: str, root: Path, files: dict[str, str]) -> list[str]:
    """What the rule says about a tree of these files."""
    for name, text in {"csrc/cpu/CMakeLists.txt": LISTED, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return list(CHECK["RULES"][rule](root))


GOOD = {
    "csrc/ops.hpp": "",
    "csrc/cpu/runtime/machine.hpp": "",
    "csrc/cpu/tuning.hpp": '#include "runtime/machine.hpp"\nconstexpr int kRows = 224;\n',
    "csrc/cpu/kernels/table.hpp": '#include "ops.hpp"\n',
    "csrc/cpu/gemm/gemm.hpp": '#include "cpu/kernels/table.hpp"\n#include "cpu/tuning.hpp"\n',
    "csrc/cpu/gemm/cut.cpp": "#include <map>\n// 224\nint cut = 64, x = 0xFFFF;\n",
    "csrc/cpu/conv.cpp": '#include "cpu/gemm/gemm.hpp"\n#include "cpu/kernels/table.hpp"\n',
    "tests/test_a.py": "assert same_bits(a, b)\nnumpy.testing.assert_equal(a, b)\nx = a == b\n",
}


@pytest.mark.parametrize("rule", CHECK["RULES"])
def test_good_sources_pass(rule: str, tmp_path: Path) -> None:
    assert refused(rule, tmp_path, GOOD) == []


@pytest.mark.parametrize(
    ("includer", "included"),
    [
        ("csrc/cpu/kernels/table.hpp", "cpu/gemm/gemm.hpp"),
        ("csrc/cpu/kernels/table.hpp", "cpu/tuning.hpp"),
        ("csrc/cpu/tuning.hpp", "cpu/gemm/gemm.hpp"),
        ("csrc/cpu/gemm/cut.cpp", "cpu/conv.cpp"),
        ("csrc/cpu/gemm/cut.cpp", "bindings/arrays.hpp"),
    ],
)
def test_an_arrow_that_points_up(includer: str, included: str, tmp_path: Path) -> None:
    files = {**GOOD, "csrc/bindings/arrays.hpp": "", includer: f'\n#include "{included}"\n'}
    line = f"{includer}:2: includes {included}, which comes later"
    assert refused("arrows", tmp_path, files) == [line]


def test_a_folder_that_has_no_place(tmp_path: Path) -> None:
    line = "csrc/cpu/CMakeLists.txt: lacks add_subdirectory(fft)"
    assert refused("arrows", tmp_path, {**GOOD, "csrc/cpu/fft/fft.hpp": ""}) == [line]


def test_a_circle(tmp_path: Path) -> None:
    files = {"csrc/a.hpp": '#include "b.hpp"\n', "csrc/b.hpp": '#include "a.hpp"\n'}
    line = "csrc/a.hpp includes csrc/b.hpp includes csrc/a.hpp"
    assert refused("circles", tmp_path, files) == [line]


@pytest.mark.parametrize("name", ["csrc/a.hpp", "python/a.py", "tests/a.py", "tests/a.cpp"])
def test_a_long_file(name: str, tmp_path: Path) -> None:
    assert refused("lengths", tmp_path, {name: "\n" * 400}) == []
    assert refused("lengths", tmp_path, {name: "\n" * 401}) == [f"{name}: 401 lines; at most 400"]


@pytest.mark.parametrize(
    "text",
    [
        f"void f() {{\n{LONG}}}\n",
        f"template <class T>\nT f(T x = {{}}, int y = (1)) {{\n{LONG}}}\n",
        f"namespace a {{\nstruct B {{\n  B(int x) : x_{{x}}, y_(0) {{\n{LONG}}}\n}};\n}}\n",
        f"constexpr int kA[] = {{1, 2}};\nint b{{3}};\nvoid f() noexcept(true) {{\n{LONG}}}\n",
        f'const char* a = "{{";  // {{\nvoid f() {{\n#define X {{\n{LONG}}}\n',
        f"#define F(x) \\\n  void x() {{\nvoid f() {{\n{LONG}}}\n",
        f"void f() {{\n  each([&] {{\n{LONG}  }});\n}}\n",
    ],
)
def test_a_long_function(text: str, tmp_path: Path) -> None:
    (line,) = refused("lengths", tmp_path, {"csrc/a.hpp": text})
    assert "a function of 7" in line


def test_what_is_long_and_no_function(tmp_path: Path) -> None:
    short = "void f() {\n  call();\n}\n" * 30
    files = {
        "csrc/a.hpp": f"namespace a {{\nclass B {{\n public:\n{short}}};\n}}\n",
        "csrc/b.hpp": "constexpr int kA[] = {\n" + "    {1, 2},\n" * 70 + "};\n",
        "python/a.py": "class A:\n" + "    def f(self):\n        pass\n" * 40,
    }
    assert refused("lengths", tmp_path, files) == []


def test_a_long_function_of_python(tmp_path: Path) -> None:
    text = "class A:\n    async def f(self):\n" + "        call()\n" * 60
    line = "python/a.py:2: a function of 61 lines; at most 60"
    assert refused("lengths", tmp_path, {"python/a.py": text}) == [line]


@pytest.mark.parametrize("literal", ["65", "1 << 7", "1e5", "1'000", "128.5", "4096"])
def test_a_number_without_a_name(literal: str, tmp_path: Path) -> None:
    name = "csrc/cpu/gemm/cut.cpp"
    line = f"{name}:2: {literal} belongs into csrc/cpu/tuning.hpp, with a name"
    assert refused("literals", tmp_path, {name: f"/* 99 */\nf({literal}, x128);\n"}) == [line]


@pytest.mark.parametrize(
    "statement",
    ["same_bits(a, b)", "np.array_equal(a, b)", "math.isclose(a, b)", "a == b", "a and b"],
)
def test_an_answer_that_is_thrown_away(statement: str, tmp_path: Path) -> None:
    (line,) = refused("idle", tmp_path, {"tests/test_a.py": f"def test_a():\n    {statement}\n"})
    assert line.startswith("tests/test_a.py:2: the answer of ")
