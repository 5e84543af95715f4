"""The documentation against the code: links, commands and their flags, public names, fields."""

import ast
import dataclasses
import importlib
import inspect
import re
import sys
from pathlib import Path

import pages
import pytest
import run_pages

from rvq_jax import cli
from rvq_jax.cli import terminal
from rvq_jax.cli.train import load_config

sys.path.insert(0, str(pages.DOCS))
import generated

TAKES_CONFIG = ("train", "plan", "sweep")
OTHERS = run_pages.SHELL | {marks[0] for marks in run_pages.NOT_RUN} | {".venv/bin/pip"}
each_page = pytest.mark.parametrize(
    "path", pages.PAGES, ids=lambda path: path.relative_to(pages.ROOT).as_posix()
)


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    """Pages that the site makes."""
    return generated.pages()


def strange(words: list[str]) -> list[str]:
    """What a command of a page has that the command line does not know."""
    words = words[words.index("rvq-jax") + 1 :] if "rvq-jax" in words else words
    name = " ".join(words[:2]) if " ".join(words[:2]) in cli.COMMANDS else words[0]
    if name not in cli.COMMANDS:
        return [] if words[0] in ("--version", "--help") else [name]
    known = set(terminal.flags(cli.load(name))) | {"--help", "--no-cache"}
    if name in TAKES_CONFIG and words[1].startswith("configs/"):
        config = pages.ROOT / words[1]
        if not config.is_file():
            return [words[1]]
        known |= set(terminal.flags(type(load_config(config))))
    known |= {flag.replace("--", "--no-", 1) for flag in known}
    flags = [word.split("=")[0] for word in words if re.match(r"--[a-z]", word)]
    return [flag for flag in flags if flag.replace("_", "-") not in known]


def without_docs(module: str, page: str) -> list[str]:
    """Public names of a module that say nothing, or that a page has not."""
    found, silent = importlib.import_module(module), []
    for name in generated.documented(module):
        value = getattr(found, name)
        said = inspect.getdoc(value) if callable(value) else "a constant"
        own = not inspect.isclass(value) or value.__doc__ is not None
        if not said or not own or f"heading: {module}.{name}\n" not in page:
            silent.append(f"{module}.{name}")
    return silent


@pytest.mark.parametrize(
    "path", pages.LINKED, ids=lambda path: path.relative_to(pages.ROOT).as_posix()
)
def test_links_lead_somewhere(path, made):
    assert pages.dead_links(path, frozenset(made)) == []


@each_page
def test_blocks_are_of_known_languages(path):
    """So that a test knows what to do with each."""
    found = pages.blocks(path.read_text(encoding="utf-8"))
    assert [b.line for b in found if b.language not in pages.LANGUAGES] == []


@each_page
def test_commands_have_the_flags_that_pages_give_them(path):
    """Every command of every block, those too that no test can run."""
    wrong = []
    for block in pages.blocks(path.read_text(encoding="utf-8")):
        for words in pages.commands(block) if block.language == "sh" else ():
            if any(word.endswith("rvq-jax") for word in words):
                at = next(i for i, word in enumerate(words) if word.endswith("rvq-jax"))
                wrong += [f"line {block.line}: {x}" for x in strange(words[at + 1 :])]
            elif words[0] not in OTHERS:
                wrong.append(f"line {block.line}: {words[0]}")
    assert wrong == []


@each_page
def test_python_of_pages_is_python(path):
    for block in pages.blocks(path.read_text(encoding="utf-8")):
        if block.language == "python":
            ast.parse(block.text, f"{path.name}:{block.line}")


def test_every_public_name_has_docs(made):
    silent = []
    for page, (_, modules) in generated.PUBLIC.items():
        for module in modules:
            silent += without_docs(module, made[f"reference/api/{page}.md"])
    assert silent == []


def test_every_field_of_a_config_says_what_it_is():
    """As `--help` and the page of configs say it; a part says it in its own first line."""
    from tyro import _docstrings

    silent = []
    for cls in generated.config_classes():
        assert inspect.getdoc(cls)
        for item in dataclasses.fields(cls):
            if item.name in generated.nested(cls):
                continue
            if not _docstrings.get_field_docstring(cls, item.name, ()):
                silent.append(f"{cls.__name__}.{item.name}")
    assert silent == []


def test_every_command_is_explained(made):
    page = made["reference/commands.md"]
    assert [name for name in cli.COMMANDS if f"usage: rvq-jax {name} " not in page] == []
    assert str(Path.home()) not in page
    # Lines of one paragraph are joined: an example wants one of its own.
    assert [line for line in page.splitlines() if re.search("rvq-jax .* rvq-jax ", line)] == []


def test_the_site_has_every_page_and_no_other(made):
    """Of its table of contents."""
    contents = (pages.ROOT / "mkdocs.yml").read_text()
    listed = re.findall(r"- (?:.*: )?(\S+\.(?:md|ipynb))$", contents, re.M)
    written = [*pages.DOCS.rglob("*.md"), *pages.DOCS.rglob("*.ipynb")]
    there = {path.relative_to(pages.DOCS).as_posix() for path in written} | set(made)
    assert sorted(listed) == sorted(there)


def test_patterns_are_drawn_as_they_are():
    text = generated.step_of("delay levels=2 frames=3")
    rows = re.findall(r"<tr><th>level (\d)</th>(.*?)</tr>", text)
    steps = {int(k): [int(s) for s in re.findall(r">(\d+)</td>", row)] for k, row in rows}
    assert steps == {1: [0, 1, 2], 2: [1, 2, 3]}
    assert "4 steps for 3 frames" in text


# That what these tests look for would be found.


@pytest.mark.parametrize("link", ["gone.md", "page.md#gone", "#gone", "../gone/RESULTS.md"])
def test_a_dead_link_is_found(tmp_path, link):
    page = tmp_path / "page.md"
    page.write_text(f"# A title\n\n[a](page.md#a-title) [b](#a-title) `[c](gone.md)` [d]({link})\n")
    assert len(pages.dead_links(page)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "rvq-jax encodes a.wav",
        "rvq-jax encode a.wav --bitrate 3",
        "rvq-jax train configs/lm_delay.py --lm.width 3",
        "rvq-jax train configs/gone.py",
    ],
)
def test_a_command_that_is_none_is_found(line):
    assert len(strange(line.split()[1:])) == 1


def test_a_public_name_without_docs_is_found(monkeypatch):
    module = importlib.import_module("rvq_jax.patterns")

    def silent():
        pass

    monkeypatch.setattr(module, "silent", silent, raising=False)
    monkeypatch.setattr(module, "__all__", [*module.__all__, "silent"])
    _, modules = generated.PUBLIC["patterns"]
    assert without_docs(*modules, generated.api("Patterns", modules)) == ["rvq_jax.patterns.silent"]


@pytest.mark.parametrize(
    "block",
    ["```python\nimport rvq_jax as rj\nrj.gone\n```", "```sh\nrvq-jax encode gone.wav\n```"],
)
def test_a_block_that_does_not_run_is_found(tmp_path, block, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"# A title\n\n```python\nx = 1\n```\n\n{block}\n\n```python\nx + 1\n```\n")
    (said,) = run_pages.run_page(page)
    assert said.startswith("page.md:7: ")
