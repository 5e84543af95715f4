"""What a release says of itself is so: its version everywhere, what SECURITY.md promises."""

import ast
import re

import yaml
from test_floors import FILES, PACKAGE, ROOT, imports, parsed

import rvq_jax
from rvq_jax import builtin

VERSION = rvq_jax.__version__
# What runs code of a file, or may; `exec_module` where SECURITY.md says so.
RUNS = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "runpy", "ctypes"}
CALLS = {"eval", "exec", "compile", "__import__"}
OWN = "data/workers.py imports cloudpickle"  # between a run and the processes that it starts
CONFIGS = {"cli/train.py", "evaluate/embeddings.py"}


def test_the_log_has_the_version_first():
    text = (ROOT / "CHANGELOG.md").read_text()
    unreleased, *released = re.findall(r"^## (.+)$", text, re.M)
    assert unreleased == "Unreleased"
    assert re.fullmatch(rf"{re.escape(VERSION)} - \d{{4}}-\d\d-\d\d", released[0])
    for part in re.split(r"^## .+$", text, flags=re.M)[1:]:
        kinds = re.findall(r"^### (.+)$", part, re.M)
        assert kinds == sorted(set(kinds))  # each once: Added, Changed, Fixed


def test_the_citation_is_of_the_version_and_its_day():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    day = citation["date-released"].isoformat()
    assert citation["version"] == VERSION
    assert f"## {VERSION} - {day}" in (ROOT / "CHANGELOG.md").read_text()
    setup = (ROOT / "setup.cfg").read_text()
    assert f"license_expression = {' AND '.join(citation['license'])}" in setup


def test_what_is_supported_and_cited_is_the_version():
    assert f"supported: {VERSION.rpartition('.')[0]} now" in (ROOT / "SECURITY.md").read_text()
    card = (builtin.FOLDER / "CARD.md").read_text()
    assert f"{builtin.VERSION}` of rvq_jax {VERSION}." in card


def test_files_that_are_named_are_there():
    texts = [ROOT / "SECURITY.md", builtin.FOLDER / "CARD.md", ROOT / "docs/reference/stability.md"]
    for text in texts:
        pattern = r"`((?:rvq_jax|tests|experiments|configs|docs)/[\w./]+)`"
        named = re.findall(pattern, text.read_text())
        assert [path for path in named if not (ROOT / path).exists()] == [], text


def test_only_configs_and_embeddings_are_run():
    """As SECURITY.md has it: no reader can be made to run what is in a file."""
    found, modules = [], set()
    for path in FILES:
        name = path.relative_to(PACKAGE).as_posix()
        bad = {module for module, _, _ in imports(path) if module.split(".")[0] in RUNS}
        found += [f"{name} imports {module}" for module in bad]
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.Call):
                continue
            called = node.func
            if isinstance(called, ast.Name) and called.id in CALLS:
                found.append(f"{name} calls {called.id}")
            if isinstance(called, ast.Attribute) and called.attr == "exec_module":
                modules.add(name)
            if any(word.arg == "shell" for word in node.keywords):
                found.append(f"{name} starts a shell")
            for word in node.keywords:
                if word.arg == "allow_pickle" and getattr(word.value, "value", None) is not False:
                    found.append(f"{name} reads pickles")
            if isinstance(called, ast.Attribute) and ast.unparse(called) == "yaml.load":
                found.append(f"{name} calls yaml.load")
    assert found == [OWN]
    assert modules == CONFIGS
