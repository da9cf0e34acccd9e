"""Rules that no other tool checks: arrows of includes, lengths, numbers, idle comparisons.

python tools/check_source.py [RULE ...]    all rules, unless some are named
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CXX = (".cpp", ".hpp", ".cu", ".cuh")
PYTHON = (".py", ".pyi")
MOST_LINES, MOST_FUNCTION_LINES, LARGEST_LITERAL = 400, 60, 64

# Where tuned numbers stand. Elsewhere a larger literal is allowed by its file, itself and a reason.
HOMES_OF_NUMBERS = ("csrc/cpu/tuning.hpp", "csrc/cpu/runtime/machine.hpp")
ALLOWED_LITERALS: dict[tuple[str, str], str] = {
    ("csrc/cpu/kernels/gemm.cpp", "2048"): "bytes of a block of terms, by the tile's rows",
    ("csrc/cpu/kernels/gemm.cpp", "1536"): "bytes of a block of terms, by the tile's rows",
    ("csrc/cpu/kernels/pool_gradient.cpp", "255"): "the numbers of taps are bytes",
    ("csrc/cpu/kernels/prefetch.hpp", "4096"): "bytes fetched ahead, in the kernels' own headers",
    ("csrc/cpu/runtime/peak.cpp", "1 << 16"): "rounds of the first trial, doubled until it is long",
    ("csrc/cpu/runtime/thread_pool.cpp", "1 << 30"): "a bit above every count of threads",
    ("csrc/cpu/runtime/thread_pool.hpp", "1024"): "threads beyond any machine's",
    ("csrc/cpu/runtime/workspace.hpp", "128"): "the room of a message",
    ("csrc/cpu/im2col/blas.cpp", "100"): "microseconds that a call waits while the process forks",
    ("csrc/cpu/im2col/blas.cpp", "101"): "CBLAS: row-major",
    ("csrc/cpu/im2col/blas.cpp", "111"): "CBLAS: as it is",
    ("csrc/cpu/im2col/blas.cpp", "112"): "CBLAS: transposed",
}
# These answer whether things are equal, and raise nothing where they are not.
COMPARISONS = {"same_bits", "array_equal", "array_equiv", "allclose", "isclose"}


def sources(root: Path, tops: tuple[str, ...], suffixes: tuple[str, ...]) -> Iterator[Path]:
    """The files of these folders, sorted."""
    found = (path for top in tops for path in (root / top).rglob("*"))
    yield from sorted(path for path in found if path.suffix in suffixes)


def code_only(text: str) -> str:
    """C++ without comments and without what quotes hold; each line keeps its number."""
    pattern = r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|(?<!\w)\'(?:\\.|[^\'\\\n])+\''
    return re.sub(pattern, lambda match: "\n" * match[0].count("\n"), text, flags=re.DOTALL)


def includes(root: Path, path: Path) -> Iterator[tuple[int, Path]]:
    """The line and the file of each include of ours."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if match := re.match(r'#include "(.+)"', line):
            beside, below = path.parent / match[1], root / "csrc" / match[1]
            yield number, beside if beside.is_file() else below


def arrows(root: Path) -> Iterator[str]:
    """Folders of csrc/cpu include only themselves and earlier ones of csrc/cpu/CMakeLists.txt.

    The contract in csrc/*.hpp is below them all; csrc/cpu/*.hpp lie above runtime, which they may
    include. Sources beside the folders are above them; so are other folders.
    """
    cpu = root / "csrc" / "cpu"
    order = re.findall(r"^add_subdirectory\((\w+)\)", (cpu / "CMakeLists.txt").read_text(), re.M)

    def height(path: Path) -> int:
        if path.suffix == ".hpp" and path.parent in (cpu, root / "csrc"):
            return order.index("runtime") if path.parent == cpu else -1
        folder = path.relative_to(cpu).parts[0] if path.is_relative_to(cpu) else ""
        return order.index(folder) if folder in order else len(order)

    for folder in sorted(path.name for path in cpu.iterdir() if path.is_dir()):
        if folder not in order:
            yield f"csrc/cpu/CMakeLists.txt: lacks add_subdirectory({folder})"
            return
    for path in sources(root, ("csrc/cpu",), CXX):
        for line, target in includes(root, path):
            if height(target) > height(path):
                name = target.relative_to(root / "csrc")
                yield f"{path.relative_to(root)}:{line}: includes {name}, which comes later"


def circles(root: Path) -> Iterator[str]:
    """No file of csrc includes itself by way of others."""
    graph = {p: [target for _, target in includes(root, p)] for p in sources(root, ("csrc",), CXX)}
    done: set[Path] = set()

    def walk(path: Path, above: list[Path]) -> Iterator[str]:
        if path in above:
            circle = [*above[above.index(path) :], path]
            yield " includes ".join(str(step.relative_to(root)) for step in circle)
        elif path not in done:
            for target in graph.get(path, []):
                yield from walk(target, [*above, path])
            done.add(path)

    for path in graph:
        yield from walk(path, [])


def kind_of_block(head: str, inside: str, parentheses: int) -> str:
    """What a brace after this text opens: "scope", "function", "inner" of one, or "values".

    As clang-format writes it: a space is before the brace of a block, none before one of values,
    except after "=", a comma or "return".
    """
    if inside in ("function", "inner"):
        return "inner"
    if inside == "values" or parentheses or not re.search(r"[^=,\s]\s$", head):
        return "values"
    head = re.sub(r"\b(public|private|protected):|template <.*>\n", "", head).strip()
    scope = re.match(r"(namespace|class|struct|union|enum|extern)\b", head)
    return "scope" if scope else "function"


def cxx_functions(text: str) -> Iterator[tuple[int, int]]:
    """The first and the last line of every function that is in no other."""
    code = re.sub(r"^#.*", "", code_only(text.replace("\\\n", "\n#")), flags=re.MULTILINE)
    start = parentheses = 0
    blocks = [("scope", 0)]  # what each open brace opens, and where its head begins
    for match in re.finditer(r"[{}();]", code):
        at, char = match.start(), match[0]
        ended = ""
        if char in "()":
            parentheses += 1 if char == "(" else -1
        elif char == "{":
            head = code[start:at]
            kind = kind_of_block(head, blocks[-1][0], parentheses)
            blocks.append((kind, at - len(head.lstrip())))
        elif char == "}":
            ended, begin = blocks.pop()
            if ended == "function":
                yield code.count("\n", 0, begin) + 1, code.count("\n", 0, at) + 1
        if char in "{};" and "values" not in (ended, blocks[-1][0]) and not parentheses:
            start = at + 1


def python_functions(text: str) -> Iterator[tuple[int, int]]:
    """The first and the last line of every function."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.end_lineno or node.lineno


def lengths(root: Path) -> Iterator[str]:
    """No file and no function is longer than a reader can hold."""
    for path in sources(root, ("csrc", "python", "tests", "tools"), CXX + PYTHON):
        name, text = path.relative_to(root), path.read_text()
        count = text.count("\n")
        if count > MOST_LINES:
            yield f"{name}: {count} lines; at most {MOST_LINES}"
        if name.parts[0] == "tests":  # a test may tell one story
            continue
        functions = cxx_functions if path.suffix in CXX else python_functions
        for first, last in functions(text):
            if (count := last - first + 1) > MOST_FUNCTION_LINES:
                yield f"{name}:{first}: a function of {count} lines; at most {MOST_FUNCTION_LINES}"


def literals(root: Path) -> Iterator[str]:
    """Numbers above 64 in csrc/cpu stand in tuning.hpp, with what they trade, or are allowed."""
    # Not 0x...: such digits are a pattern of bits.
    number = r"(?<![\w.])(?:1 << \d+|\d[\d']*(?:\.\d*)?(?:[eE][+-]?\d+)?)(?![\dxX'.])"
    for path in sources(root, ("csrc/cpu",), CXX):
        name = str(path.relative_to(root))
        if name in HOMES_OF_NUMBERS:
            continue
        for line, code in enumerate(code_only(path.read_text()).split("\n"), 1):
            for literal in re.findall(number, code):
                plain = literal.replace("'", "")
                value = 2 ** int(plain[5:]) if " << " in plain else ast.literal_eval(plain)
                if value > LARGEST_LITERAL and (name, literal) not in ALLOWED_LITERALS:
                    yield f"{name}:{line}: {literal} belongs into csrc/cpu/tuning.hpp, with a name"


def idle(root: Path) -> Iterator[str]:
    """A test that compares uses the answer: an equality that nobody asserts cannot fail."""
    for path in sources(root, ("tests",), PYTHON):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Expr):
                continue
            call = node.value.func if isinstance(node.value, ast.Call) else None
            name = getattr(call, "attr", getattr(call, "id", ""))
            if name in COMPARISONS or isinstance(node.value, ast.Compare | ast.BoolOp):
                where = f"{path.relative_to(root)}:{node.lineno}"
                yield f"{where}: the answer of {name or 'a comparison'} is thrown away; assert it"


RULES: dict[str, Callable[[Path], Iterator[str]]] = {
    rule.__name__: rule for rule in (arrows, circles, lengths, literals, idle)
}


def main(names: list[str]) -> None:
    """Print what breaks these rules; exit with 1 where something does."""
    broken = [f"{name}: {line}" for name in names or RULES for line in RULES[name](ROOT)]
    if broken:
        sys.exit("\n".join(broken))


if __name__ == "__main__":
    main(sys.argv[1:])
