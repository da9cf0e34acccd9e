"""The modules of the package import each other in one direction."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import fastconv

PACKAGE = Path(fastconv.__file__).parent


def modules(package: Path) -> dict[str, Path]:
    """The package's modules by their dotted names, and their files; of a compiled one the stub."""
    names = {}
    for path in [*package.rglob("*.py"), *package.rglob("*.pyi")]:
        parts = [package.name, *path.relative_to(package).with_suffix("").parts]
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """The import statements at any depth, functions included, but for those of type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        yield from imports(node)


def imported(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the package that this one names; of `from a import b`, a.b where it is one."""
    found = set()
    for node in imports(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            continue
        base = name.split(".")[: len(name.split(".")) + (path.stem == "__init__") - node.level]
        start = ".".join([*(base if node.level else []), *([node.module] if node.module else [])])
        for alias in node.names:
            inner = f"{start}.{alias.name}"
            found.add(inner if inner in known else start)
    return found & known.keys()


def in_order(package: Path) -> list[str]:
    """The modules, each after those that it imports; a CycleError names the modules of a circle."""
    known = modules(package)
    graph = {name: imported(name, path, known) for name, path in known.items()}
    return list(TopologicalSorter(graph).static_order())


def test_no_module_imports_what_imports_it() -> None:
    order = in_order(PACKAGE)
    assert len(order) == len(modules(PACKAGE)) > 50
    chain = ["nn.layer", "nn.training", "nn.checkpoint", "nn.sequential", "models", "commands.main"]
    places = [order.index(f"fastconv.{name}") for name in chain]
    assert places == sorted(places), "the graph misses arrows that are known"


@pytest.mark.parametrize(
    "back", ["from .a import x", "from . import a", "def f():\n    from p.a import x"]
)
def test_a_circle_is_found(back: str, tmp_path: Path) -> None:
    package = tmp_path / "p"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("from .b import y\nx = 1\n")
    (package / "b.py").write_text(f"{back}\ny = 1\n")
    with pytest.raises(CycleError, match=r"p\.a"):
        in_order(package)
    later = "\n".join(f"    {line}" for line in back.splitlines())
    (package / "b.py").write_text(f"if TYPE_CHECKING:\n{later}\ny = 1\n")
    in_order(package)
