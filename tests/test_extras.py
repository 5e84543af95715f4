"""Extras: the names in text and errors are setup.cfg's, and bring what is imported behind them."""

import configparser
import importlib.metadata
import re
import sys

import pytest
from test_floors import FILES, PACKAGE, ROOT, imports

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
EXTRAS = SETUP["options.extras_require"]
WRITTEN = ("rvq_jax", "docs", "experiments", "benchmarks", "configs", "tests", ".ci", ".github")
ENDS = {".py", ".md", ".yml", ".sh", ".ipynb", ".html", ""}

# Where a package is imported by another name than it is installed by.
INSTALLED_AS = {
    "orbax": "orbax-checkpoint",
    "tensorflow_datasets": "tensorflow-datasets",
    "visqol": "visqol-python[lattice]",
    "ai_edge_litert": "visqol-python[lattice]",
    "libtpu": "jax[tpu]",
}
# What comes with a package of ours: whose requirement it is, and its name there.
COMES_WITH = {
    "array_record": ("tensorflow-datasets", "array_record"),
    "cloudpickle": ("grain", "cloudpickle"),
    "google": ("tensorflow-datasets", "protobuf"),
    "h11": ("uvicorn", "h11"),
    "ml_dtypes": ("jax", "ml_dtypes"),
    "scipy": ("jax", "scipy"),
    "yaml": ("flax", "PyYAML"),
}


def packages(text: str) -> set[str]:
    """The names of requirements, without versions and comments."""
    return set(re.findall(r"^([A-Za-z][\w.-]*(?:\[\w+\])?)", text, re.M))


CORE = packages(SETUP["options"]["install_requires"])


def optional() -> dict[str, set[str]]:
    """What is imported and is neither Python's, ours nor core: by package, the files."""
    found: dict[str, set[str]] = {}
    for path in FILES:
        for module, _, _ in imports(path):
            root = module.split(".")[0]
            if root in sys.stdlib_module_names or root == "rvq_jax":
                continue
            name = COMES_WITH[root][0] if root in COMES_WITH else INSTALLED_AS.get(root, root)
            if name not in CORE:
                found.setdefault(name, set()).add(str(path.relative_to(PACKAGE)))
    return found


def test_extras_that_are_written_of_are_there():
    """In errors, pages and the commands of CI."""
    paths = [path for name in WRITTEN for path in (ROOT / name).rglob("*") if path.suffix in ENDS]
    named, wrong = set(), []
    for path in [*paths, *ROOT.glob("*.md"), *ROOT.glob("*.yml")]:
        if not path.is_file() or "__pycache__" in path.parts:
            continue
        text = path.read_text()
        found = re.findall(r"(?:rvq_jax|['\"]\.)\[([a-z][\w, -]*)\]", text)
        if path.suffix == ".md":
            found += re.findall(r"`\[([a-z-]+)\]`", text)
        for words in found:
            extras = {word.strip() for word in words.split(",")}
            named |= extras
            if lacking := extras - set(EXTRAS):
                wrong.append(f"{path.relative_to(ROOT)}: {', '.join(sorted(lacking))}")
    assert wrong == []
    assert named >= {"test", "report", "metrics", "convert"}


@pytest.mark.parametrize(("name", "files"), sorted(optional().items()))
def test_what_is_imported_belongs_to_the_extra_that_its_file_names(name, files):
    """An error says what to install: it must be what brings the package."""
    brought = {extra for extra in EXTRAS if name in packages(EXTRAS[extra])}
    assert brought, f"{name} is in no extra of setup.cfg"
    for path in sorted(files):
        text = (PACKAGE / path).read_text()
        named = set(re.findall(r"rvq_jax\[([\w-]+)\]", text))
        if "from rvq_jax.metrics.packages import extra" in text:
            named |= {"metrics"}
        if path == "serve/connections.py":  # serve/server.py imports uvicorn before it
            named |= {"serve"}
        assert named & brought, f"{path} imports {name}, of {sorted(brought)}"


def test_flags_that_import_by_name_are_of_their_extras():
    """tensorboardX, libtpu and flatbuffers are asked for without an import of their names."""
    named = {"track": "tensorboardX", "tpu-plan": "jax[tpu]", "export": "flatbuffers"}
    for extra, name in named.items():
        assert name in packages(EXTRAS[extra])
    said = "".join(path.read_text() for path in FILES)
    assert {extra for extra in EXTRAS if f"rvq_jax[{extra}]" in said} >= {*named}


@pytest.mark.parametrize(("package", "brings"), COMES_WITH.values())
def test_what_comes_with_a_package_of_ours_is_required_by_it(package, brings):
    required = packages("\n".join(importlib.metadata.requires(package)))
    assert brings.lower() in {name.lower() for name in required}
