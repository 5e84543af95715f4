"""Do the tests notice? Thirty small faults, drawn by a seed, each against the tests of its area.

    python tests/mutate.py                     # all thirty: what each area's fast tests catch
    python tests/mutate.py --only 3 17         # two of them
    python tests/mutate.py --list              # where they are
    python tests/mutate.py --tree OTHER --hints RESULTS.jsonl   # another checkout, in less time

Six faults of each kind: a sign, an index, a mask, a random key, an off-by-one. A copy of the tree
gets one fault at a time. An area whose tests fail without a fault is an error, not a catch.
tests/tiers.md has what was found.
"""

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SEED, EACH = 20, 6
KINDS = ("sign", "index", "mask", "key", "off by one")
LIMIT = 1200  # seconds: a fault that makes a loop endless is caught by its hanging

# The folders that compute, each with its tests: the nearest first, for the first failure ends it.
# Folders of tests, or files in them, that try each part of the library.
AREAS = {
    "audio": ("audio",),
    "quantize": ("quantize",),
    "patterns": ("patterns", "lm/test_exactness.py"),
    "codec": ("codec", "offline/test_foreign_codes.py"),
    "rvqfile": ("rvqfile", "cli/test_cli_codec.py"),
    "lm": ("lm", "systems"),
    "convert": ("convert", "offline", "codec/test_codec_published.py", "systems", "lm/test_t5.py"),
    "systems": ("systems", "codec/test_codec_ways.py", "cli/test_cli_codec.py"),
    "offline": ("offline", "cli/test_cli_codec.py", "cli/test_cli_generate.py"),
    "data": ("data", "cli/test_cli_codes.py"),
    "train": ("train", "lm/test_lora.py"),
    "metrics": ("metrics",),
    "plan": ("plan",),
}


@dataclass(frozen=True)
class Fault:
    kind: str
    file: str
    line: int
    old: str
    new: str
    begin: int  # in bytes of the file
    end: int

    def within(self, source: bytes) -> bytes:
        return source[: self.begin] + self.new.encode() + source[self.end :]


SWAPS = {ast.Add: "-", ast.Sub: "+", ast.BitAnd: "|", ast.BitOr: "&"}
EDGES = {ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">")}
NOT_NUMBERS = ast.JoinedStr | ast.List | ast.Tuple | ast.Dict | ast.Set | ast.ListComp


def faults_of(path: Path) -> list[Fault]:
    """Every fault that fits somewhere in a file."""
    source = path.read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []

    def place(node) -> tuple[int, int]:
        begin = starts[node.lineno - 1] + node.col_offset
        return begin, starts[node.end_lineno - 1] + node.end_col_offset

    def text(node) -> str:
        begin, end = place(node)
        return source[begin:end].decode()

    def add(kind: str, begin: int, end: int, new: str) -> None:
        line = source.count(b"\n", 0, begin) + 1
        old = source[begin:end].decode()
        found.append(Fault(kind, str(path.relative_to(ROOT)), line, old, new, begin, end))

    def between(left, right, kind: str, old: str, new: str) -> None:
        begin, end = place(left)[1], place(right)[0]
        at = source.find(old.encode(), begin, end)
        if at >= 0:
            add(kind, at, at + len(old), new)

    def whole(node, kind: str, new: str) -> None:
        add(kind, *place(node), new)

    def visit(node) -> None:
        match node:
            case ast.BinOp(left, ast.Add() | ast.Sub() as op, right):
                plain = not any(
                    isinstance(x, NOT_NUMBERS)
                    or (isinstance(x, ast.Constant) and isinstance(x.value, str | bytes))
                    for x in (left, right)
                )
                if plain:
                    old = "+" if isinstance(op, ast.Add) else "-"
                    between(left, right, "sign", old, SWAPS[type(op)])
                if isinstance(right, ast.Constant) and type(right.value) is int:
                    whole(right, "off by one", str(right.value + 1))
            case ast.BinOp(left, ast.BitAnd() | ast.BitOr() as op, right):
                old = "&" if isinstance(op, ast.BitAnd) else "|"
                between(left, right, "mask", old, SWAPS[type(op)])
            case ast.UnaryOp(ast.USub(), operand) if not isinstance(operand, ast.Constant):
                whole(node, "sign", text(operand))
            case ast.UnaryOp(ast.Invert(), operand):
                whole(node, "mask", text(operand))
            case ast.Compare(left, [op], [right]) if type(op) in EDGES:
                between(left, right, "off by one", *EDGES[type(op)])
            case ast.Subscript(_, ast.Constant(int() as at)) if not isinstance(at, bool):
                whole(node.slice, "index", str(at + 1))
            case ast.keyword("axis", ast.Constant(int() as axis)):
                whole(node.value, "index", str(axis - 1 if axis > 0 else -1 - axis))
            case ast.Call(ast.Attribute(_, "where"), [chosen, yes, no]):
                whole(node, "mask", f"{text(node.func)}({text(chosen)}, {text(no)}, {text(yes)})")
            case ast.Call(ast.Attribute(ast.Attribute(_, "random"), name), [first, *rest]):
                if name == "fold_in":
                    whole(rest[0], "key", "0")
                elif name not in ("key", "key_data", "wrap_key_data", "default_rng"):
                    whole(first, "key", "jax.random.key(0)")
        for field, child in ast.iter_fields(node):
            if field in ("annotation", "returns"):  # `int | Array` is no mask
                continue
            for one in child if isinstance(child, list) else [child]:
                if isinstance(one, ast.AST):
                    visit(one)

    visit(ast.parse(source))
    return found


def drawn() -> list[Fault]:
    """The thirty: of each kind six, in as many areas, wherever the seed falls."""
    rng = random.Random(SEED)
    chosen = []
    for kind in KINDS:
        fit = {}
        for area in AREAS:
            paths = sorted((ROOT / "rvq_jax" / area).rglob("*.py"))
            fit[area] = [x for path in paths for x in faults_of(path) if x.kind == kind]
            rng.shuffle(fit[area])
        areas = rng.sample(list(AREAS), len(AREAS))
        # One of each area in turn, as long as it has any.
        rounds = [fit[area][i] for i in range(EACH) for area in areas if i < len(fit[area])]
        chosen += rounds[:EACH]
    return chosen


def tests_of(area: str) -> list[str]:
    return [f"tests/{name}" for name in AREAS[area]]


def run(tree: Path, tests: list[str], words: list[str]) -> tuple[bool, str]:
    """Whether these tests pass, and the name of the first that does not."""
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", *words]
    try:
        done = subprocess.run(
            [*command, *tests],
            cwd=tree, env=environment, capture_output=True, text=True, timeout=LIMIT,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False, f"nothing within {LIMIT} s"
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if done.returncode and not lines:
        lines = done.stdout.splitlines()[-1:] or done.stderr.splitlines()[-1:]
    # 5 is pytest's word for no tests: an area may have none in a tier.
    return done.returncode in (0, 5), lines[0].split(" - ")[0] if lines else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="only say where they are")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of faults, from 0")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout to copy")
    parser.add_argument("--save", type=Path, help="a file to add a line of JSON to for each")
    parser.add_argument("--hints", type=Path, help="such a file: what caught a fault goes first")
    parser.add_argument("--sound", action="store_true", help="the tests are known to pass as is")
    parser.add_argument("words", nargs="*", help="more for pytest, after --")
    args = parser.parse_args()
    faults = {i: fault for i, fault in enumerate(drawn()) if args.only is None or i in args.only}
    if args.list:
        for i, fault in faults.items():
            print(f"{i:2} {fault.kind:10} {fault.file}:{fault.line}: {fault.old!r} → {fault.new!r}")
        return 0
    caught, sound = 0, set(AREAS) if args.sound else set()
    hints = {}
    if args.hints:
        lines = map(json.loads, args.hints.read_text().splitlines())
        hints = {
            line["number"]: line["by"].split("::")[0].split()[-1]
            for line in lines
            if line["caught"]
        }
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        useless = shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".jax_cache")

        def ignore(folder: str, names: list[str]) -> set[str]:
            """Outputs lie in `runs` at the top; the library has a folder of that name."""
            at_top = {"runs"} if Path(folder) == args.tree else set()
            return useless(folder, names) | at_top

        shutil.copytree(args.tree, tree, ignore=ignore)
        (ROOT / ".jax_cache").mkdir(exist_ok=True)
        (tree / ".jax_cache").symlink_to(ROOT / ".jax_cache")
        for i, fault in faults.items():
            area, path = fault.file.split("/")[1], tree / fault.file
            tests = tests_of(area)
            if area not in sound:
                passed, first = run(tree, tests, args.words)
                if not passed:
                    print(f"the tests of {area} fail without a fault: {first}", file=sys.stderr)
                    return 2
                sound.add(area)
            source, begin = path.read_bytes(), time.monotonic()
            path.write_bytes(fault.within(source))
            passed = True
            if hints.get(i) in tests:
                passed, first = run(tree, [hints[i]], args.words)
            if passed:
                passed, first = run(tree, tests, args.words)
            path.write_bytes(source)
            caught += not passed
            line = {"number": i, **asdict(fault), "caught": not passed, "by": first}
            line["seconds"] = round(time.monotonic() - begin)
            print(f"{i:2} {fault.file}:{fault.line}", "lives" if passed else first, flush=True)
            if args.save:
                with args.save.open("a") as file:
                    file.write(json.dumps(line) + "\n")
    print(f"{caught} of {len(faults)} faults caught")
    return 0


if __name__ == "__main__":
    sys.exit(main())
