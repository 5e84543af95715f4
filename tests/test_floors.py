"""The floors: which part of the library may know which, read off the source itself."""

import ast
import functools
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import rvq_jax

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rvq_jax"
FILES = sorted(PACKAGE.rglob("*.py"))

# From the top down; an import points to a lower floor or stays inside its own part.
FLOORS = (
    {"", "__main__"},  # the public face
    {"cli"},
    {"study", "plan", "serve", "offline"},
    {"evaluate"},
    {"train"},
    {"data", "systems"},
    {"convert"},
    {"codec", "lm", "rvqfile", "metrics"},
    {"quantize", "patterns", "audio"},
    {"typing", "errors", "limits", "opening", "npz", "files", "screen", "config", "machine"}
    | {"axes", "meshes", "trees", "tracing", "builtin", "lazy", "cache", "progress", "draws"},
)
GROUND = len(FLOORS) - 1  # its files are too small to have floors between them

NUMERIC = ("quantize", "patterns", "audio", "metrics", "rvqfile")
NOT_NUMERIC = {"flax", "optax", "orbax", "tensorflow_datasets"}
OPTIONAL = {"matplotlib", "pyloudnorm", "soundfile", "soxr", "safetensors"}
OPTIONAL |= {"sentencepiece", "starlette", "tokenizers", "uvicorn", "yaml"}
OPTIONAL |= {"ai_edge_litert", "av", "pesq", "pystoi", "speechmos", "visqol"}
NEVER = {"torch", "torchaudio", "transformers", "tensorflow", "configs", "experiments", "tests"}
LINES = 400


def part(path: Path) -> str:
    """The first name below the package, '' for the package itself."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def floor(name: str) -> int | None:
    return next((i for i, names in enumerate(FLOORS) if name in names), None)


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@functools.cache
def imports(path: Path) -> list[tuple[str, int, bool]]:
    """Every module a file imports, as (dotted name, line, whether at module level)."""
    package = ["rvq_jax", *path.relative_to(PACKAGE).parts[:-1]]
    found = []
    nodes = [(node, True) for node in parsed(path).body]
    while nodes:
        node, top = nodes.pop()
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        nodes += [(child, top and not inside) for child in ast.iter_child_nodes(node)]
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from rvq_jax import files` names a part, `from jax import Array` a member.
            bare = module == "rvq_jax"
            names = [f"{module}.{alias.name}" for alias in node.names] if bare else [module]
        else:
            continue
        found += [(name, node.lineno, top) for name in names]
    return found


def offences(rule) -> list[str]:
    """What `rule(path, module, at module level)` says of every import, with its place."""
    lines = []
    for path in FILES:
        for module, line, top in imports(path):
            if problem := rule(path, module, top):
                lines.append(f"{path.relative_to(ROOT)}:{line}: {problem}")
    return lines


def test_every_part_has_a_floor():
    """A part the list forgets would be free to import anything."""
    assert len(FILES) > 30
    assert [name for name in {part(path) for path in FILES} if floor(name) is None] == []


def test_two_files_of_the_suite_never_have_one_name():
    """pytest collects them by their last name: the second of a pair would not be read."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py")]
    assert sorted(names) == sorted(set(names))


def test_contributing_names_the_floors():
    """In its own words it would grow old: the list here is the one that holds."""
    lines = [", ".join(sorted(names)) for names in FLOORS[1:-1]]
    said = " ".join((ROOT / "CONTRIBUTING.md").read_text().split())
    assert " → ".join(lines) in said


def test_imports_point_down():
    """Strictly lower, or inside the same part: so codec and lm, data and systems, never meet."""

    def rule(path, module, top):
        root, *rest = module.split(".")
        if root != "rvq_jax":
            return None
        mine, target = part(path), rest[0] if rest else ""
        here, there = floor(mine), floor(target)
        if there is None:
            return f"{module} is no part of the library"
        if mine == target or there > here or here == there == GROUND:
            return None
        return f"{mine or 'the public face'} must not import {target or 'the public face'}"

    assert offences(rule) == []


def test_numeric_parts_need_only_jax_and_numpy():
    """Quantizer and patterns can be lifted out without a model library."""

    def rule(path, module, top):
        bad = part(path) in NUMERIC and module.split(".")[0] in NOT_NUMERIC
        return f"{part(path)} must not import {module}" if bad else None

    assert offences(rule) == []


def test_one_file_imports_orbax():
    """Its interface changes often; one file follows it."""

    def rule(path, module, top):
        return module if module.split(".")[0] == "orbax" else None

    places = {line.split(":")[0] for line in offences(rule)}
    assert places == {"rvq_jax/train/checkpoint.py"}


def test_one_file_imports_tqdm():
    """All bars are lines where nothing can be repainted."""

    def rule(path, module, top):
        return module if module.split(".")[0] == "tqdm" else None

    assert {line.split(":")[0] for line in offences(rule)} == {"rvq_jax/progress.py"}


def test_other_frameworks_and_the_outer_folders_are_never_imported():
    """Neither at module level nor in a function."""

    def rule(path, module, top):
        return f"imports {module}" if module.split(".")[0] in NEVER else None

    assert offences(rule) == []


def test_optional_packages_are_imported_where_they_are_used():
    """At module level they would be needed by whoever imports the library."""

    def rule(path, module, top):
        return f"imports {module}" if top and module.split(".")[0] in OPTIONAL else None

    assert offences(rule) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_is_one_idea(path):
    """Past this length it wants splitting; and it says what it is in its first line."""
    assert len(path.read_text().splitlines()) <= LINES
    assert ast.get_docstring(parsed(path)) or path.name == "__main__.py"


MANY = 3  # arguments that one sentence can still explain


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arguments_are_explained(path):
    """Of public functions with many: each by its name, or by pointing to who has the same."""
    missing = []
    for node in ast.walk(parsed(path)):
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        names = [arg.arg for arg in given if arg.arg not in ("self", "cls")]
        said = ast.get_docstring(node)
        # Functions inside of others have no docstring, and no reader but theirs.
        points = said is not None and "Args:" not in said and "s of `" in " ".join(said.split())
        if len(names) <= MANY or said is None or points:
            continue
        left_out = [name for name in names if f"{name}: " not in said]
        missing += [f"{node.name}: {name}" for name in left_out]
    assert missing == []


def python(code: str) -> list:
    """What a fresh interpreter prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_importing_the_library_starts_nothing():
    """No device is taken and nothing heavy is read before it is needed."""
    code = (
        "import json, sys, rvq_jax\n"
        "early = {'jax', 'numpy', 'tyro'} & set(sys.modules)\n"
        "every = [getattr(rvq_jax, name) for name in rvq_jax.__all__]\n"
        "from jax._src import xla_bridge\n"
        "heavy = {'soundfile', 'grain', 'tyro', 'tensorflow_datasets', 'matplotlib', 'orbax'}\n"
        "late = sorted(heavy & set(sys.modules))\n"
        "print(json.dumps([sorted(early), late, list(xla_bridge._backends)]))"
    )
    assert python(code) == [[], [], []]


def test_no_module_computes_when_imported():
    """All of them, the command line too: the user may still choose devices after the import."""
    code = (
        "import json, pkgutil, importlib, rvq_jax\n"
        "from jax._src import xla_bridge\n"
        "for found in pkgutil.walk_packages(rvq_jax.__path__, 'rvq_jax.'):\n"
        "    if not found.name.endswith('__main__'):\n"
        "        importlib.import_module(found.name)\n"
        "print(json.dumps([list(xla_bridge._backends), *map(str, rvq_jax.__all__)]))"
    )
    backends, *names = python(code)
    assert backends == [] and names


OUTER = ("benchmarks", "configs", "experiments", "tests")


def test_what_is_imported_from_outside_is_there():
    """Scripts and parity tests are run too rarely to show a name that is gone."""
    missing = []
    for path in (path for folder in OUTER for path in sorted((ROOT / folder).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rvq_jax"):
                module = importlib.import_module(node.module)
                for name in (alias.name for alias in node.names):
                    if not hasattr(module, name) and not _is_module(f"{node.module}.{name}"):
                        missing.append(f"{path.relative_to(ROOT)}:{node.lineno}: {name}")
    assert missing == []


def _is_module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def test_the_public_face_has_what_it_names():
    """Every public name resolves to what type checkers find, tab completion shows these alone."""
    code = (
        "import json, rvq_jax\n"
        "print(json.dumps({name: getattr(getattr(rvq_jax, name), '__module__', None)\n"
        "                  for name in dir(rvq_jax)}))"
    )
    found = python(code)
    assert sorted(found) == sorted(rvq_jax.__all__)
    (checked,) = [
        node
        for node in parsed(PACKAGE / "__init__.py").body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    places = {alias.name: node.module for node in checked.body for alias in node.names}
    assert sorted([*places, "__version__"]) == sorted(found)
    for name, module in found.items():
        assert module is None or module.startswith(places[name])


def test_the_version_has_one_source():
    assert rvq_jax.__version__ == importlib.metadata.version("rvq_jax")
