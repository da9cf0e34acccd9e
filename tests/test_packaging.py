"""What is installed is what is tested, typed and written about."""

import ast
import contextlib
import importlib.metadata
import inspect
import io
import json
import re
import runpy
import tomllib
from importlib.machinery import PathFinder
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import fastconv
from fastconv import _core

ROOT = Path(__file__).resolve().parents[1]
DISTRIBUTION = importlib.metadata.distribution("fastconv")
STUB = ast.parse((files("fastconv") / "_core.pyi").read_text())

CODE = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)


def test_the_source_folder_is_not_what_gets_imported() -> None:
    assert PathFinder.find_spec("fastconv", [str(ROOT), str(ROOT / "tests")]) is None
    origin = json.loads(DISTRIBUTION.read_text("direct_url.json") or "{}")
    editable = origin.get("dir_info", {}).get("editable", False)
    assert Path(fastconv.__file__).is_relative_to(ROOT / "python") == editable


def test_data_files_are_installed() -> None:
    for name in ("py.typed", "_core.pyi", "bench/problems.json", "data/mnist_sample.npz"):
        assert (files("fastconv") / name).is_file(), name


def test_every_licence_is_installed() -> None:
    licences = DISTRIBUTION.metadata.get_all("License-File", [])
    assert {Path(name).name for name in licences} == {
        "LICENSE",
        "openblas.txt",
        "LICENSE-mnist-sample.txt",
    }
    installed = {path.name for path in DISTRIBUTION.files or ()}
    assert {Path(name).name for name in licences} <= installed


def test_one_version_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == DISTRIBUTION.version == fastconv.__version__ == _core.__version__
    assert f"## {fastconv.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_numpy_is_the_only_requirement() -> None:
    required = [r for r in DISTRIBUTION.requires or () if "extra ==" not in r]
    assert [re.match(r"\w+", r)[0] for r in required] == ["numpy"]  # type: ignore[index]


def public_names(thing: Any) -> set[str]:
    """What a module or class offers, less what every Python object has."""
    return {name for name in vars(thing) if not name.startswith("_")} | (
        {"__init__"} if inspect.isclass(thing) else {"__version__"}
    )


def stub_names(body: list[ast.stmt]) -> set[str]:
    """What a stub declares."""
    names = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) != "TypeAlias":
            names.add(ast.unparse(node.target))
    return names


def parameters(function: ast.FunctionDef) -> list[str]:
    """A signature's parameters, as "name: type"."""
    a = function.args
    return [ast.unparse(p) for p in [*a.posonlyargs, *a.args] if p.arg != "self"]


# How pybind11 writes a type, and the stub.
SPELLINGS = (
    (r"typing\.SupportsInt \| typing\.SupportsIndex", "int"),
    (r"collections\.abc\.|fastconv\._core\.", ""),
    (r"numpy\.ndarray|_Indices|_Offsets", "_Array"),
    (r"_Padding", "str | Sequence[tuple[int, int]]"),
)


def spelled(text: str) -> str:
    for pattern, replacement in SPELLINGS:
        text = re.sub(pattern, replacement, text)
    return text


def compiled_parameters(function: Any) -> list[str]:
    """The parameters of a compiled function, from the signature that its docstring begins with."""
    signature = function.__doc__.strip().splitlines()[0]
    (node,) = ast.parse(f"def {signature}: ...").body
    assert isinstance(node, ast.FunctionDef)
    return [spelled(parameter) for parameter in parameters(node)]


def test_the_stub_names_what_the_module_has() -> None:
    assert stub_names(STUB.body) == public_names(_core)
    for node in STUB.body:
        if isinstance(node, ast.ClassDef):
            assert stub_names(node.body) == public_names(getattr(_core, node.name)), node.name


def test_the_stub_has_the_parameters_of_the_module() -> None:
    functions = [n for n in ast.walk(STUB) if isinstance(n, ast.FunctionDef)]
    owners = {f: c.name for c in STUB.body if isinstance(c, ast.ClassDef) for f in c.body}
    for function in functions:
        owner = getattr(_core, owners[function]) if function in owners else _core
        compiled = getattr(owner, function.name)
        if isinstance(compiled, property):
            continue
        typed, real = [spelled(p) for p in parameters(function)], compiled_parameters(compiled)
        if function.args.posonlyargs:  # the module gives such parameters no names
            typed, real = ([p.split(": ")[1] for p in side] for side in (typed, real))
        assert typed == real, function.name


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/networks.md"])
def test_the_examples_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each Python block, after those before it, prints what the text block after it says."""
    monkeypatch.chdir(tmp_path)
    blocks = CODE.findall((ROOT / page).read_text())
    assert len(blocks) >= 4
    namespace: dict[str, Any] = {}
    for code, expected in blocks:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(code, page, "exec"), namespace)
        if expected:
            assert output.getvalue() == expected


def test_the_page_of_mistakes_says_what_is_said() -> None:
    """Real calls, made again; `python tools/make_mistakes.py` writes the page anew."""
    tool = runpy.run_path(str(ROOT / "tools" / "make_mistakes.py"))
    assert len(tool["MISTAKES"]) == 20
    assert tool["page"]() == tool["PAGE"].read_text(encoding="utf-8")
