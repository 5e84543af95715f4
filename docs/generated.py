"""What the site makes of the code: API, commands, fields of configs, drawn patterns."""

import ast
import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import io
import os
import textwrap
import typing
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]

SYSTEMS = "encodec dac musicgen rq_transformer soundstorm semantic magnet valle"
COMMANDS = """What `rvq-jax COMMAND --help` prints. The flags of a config's fields, which follow
those of `train`, `sweep` and `plan`, are in [configs](configs.md)."""
CONFIGS = """`get_config()` of a config file gives one of these runs; `configs/` has recipes. Every
field is a flag of `rvq-jax train`, that of a part behind its name: `--lm.dim 256`."""

WIDTH = 76  # letters of a line that a page has room for

# Public modules by the page of reference/api/ that has them.
PUBLIC = {
    "index": ("The public face", ["rvq_jax"]),
    "quantize": ("Quantizers", ["rvq_jax.quantize"]),
    "patterns": ("Patterns", ["rvq_jax.patterns"]),
    "metrics": ("Metrics", ["rvq_jax.metrics"]),
    "systems": (
        "Published systems",
        [f"rvq_jax.systems.{name}" for name in SYSTEMS.split()],
    ),
    "training": ("Training", ["rvq_jax.train.runs", "rvq_jax.train.monitoring"]),
}


def pages() -> dict[str, str]:
    """Every generated page, by its place in docs/."""
    made = {"reference/commands.md": commands(), "reference/configs.md": configs()}
    return made | {f"reference/api/{name}.md": api(*found) for name, found in PUBLIC.items()}


def step_of(asked: str) -> str:
    """A pattern's table, levels upwards and frames to the right, shaded by step.

    Args:
      asked: a name of `rvq_jax.patterns` and its arguments, as `delay levels=4 frames=5`.
    """
    from rvq_jax import patterns

    name, *words = asked.split()
    given = {word: ast.literal_eval(value) for word, value in (w.split("=") for w in words)}
    pattern = getattr(patterns, name)(**given)
    rows = [
        f"<tr><th>level {k + 1}</th>"
        + "".join(f'<td style="--step: {s / max(1, pattern.steps - 1):.3f}">{s}</td>' for s in row)
        + "</tr>"
        for k, row in reversed(list(enumerate(pattern.step_of.tolist())))
    ]
    frames = "".join(f"<th>{f + 1}</th>" for f in range(pattern.step_of.shape[1]))
    title = f"{name}: {pattern.steps} steps for {pattern.step_of.shape[1]} frames"
    return (
        f'<figure class="steps"><table><tbody>{"".join(rows)}<tr><th>frame</th>{frames}</tr>'
        f"</tbody></table><figcaption>{escape(title)}</figcaption></figure>"
    )


def floors() -> str:
    """The floors of the house from the test that keeps them, the upper one first."""
    spec = importlib.util.spec_from_file_location("floors", ROOT / "tests" / "test_floors.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    lines = []
    for i, floor in enumerate(module.FLOORS, 1):
        parts = sorted(name for name in floor if name not in ("", "__main__"))
        lines.append(f"{i}. " + (", ".join(f"`{part}`" for part in parts) or "the public face"))
    return "\n".join(lines)


def commands() -> str:
    """Every command as its `--help` says it."""
    from rvq_jax import cli

    parts = ["# Commands", COMMANDS]
    for name, (_, summary) in cli.COMMANDS.items():
        anchor = name.replace(" ", "-")
        parts += [f"## {name} {{ #{anchor} }}", summary, f"```text\n{_help(name)}\n```"]
    return "\n\n".join(parts) + "\n"


def configs() -> str:
    """Every field of every kind of run, and of the parts that they have."""
    parts = ["# Configs", CONFIGS]
    for cls in config_classes():
        parts += [f"## {cls.__name__} {{ #{cls.__name__} }}", inspect.getdoc(cls)]
        parts += [f"`{cls.__module__}`", _fields(cls)]
    return "\n\n".join(parts) + "\n"


def config_classes() -> list[type]:
    """The dataclass of every kind of run, then of every part that they have."""
    from rvq_jax.train import runs

    found = [getattr(runs, name) for name in runs.__all__]
    wanted = [cls for cls in found if dataclasses.is_dataclass(cls) and issubclass(cls, runs.Run)]
    for cls in wanted:
        wanted += [part for part in nested(cls).values() if part not in wanted]
    return wanted


def api(title: str, modules: list[str]) -> str:
    """Every public name of some modules, for mkdocstrings to fill in."""
    parts = [f"# {title}"]
    for name in modules:
        module = importlib.import_module(name)
        if len(modules) > 1:
            parts.append(f"## {name} {{ #{name} }}")
        said = inspect.getdoc(module)
        parts.append(textwrap.dedent(said))
        for public in documented(name):
            options = ["heading_level: 3", f"heading: {name}.{public}", f"toc_label: {public}"]
            lines = [f"::: {place(name, public)}", "    options:", *(f"      {x}" for x in options)]
            parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def names(module: str) -> list[str]:
    """The public names of a module: its `__all__`, or what it defines itself."""
    found = importlib.import_module(module)
    if hasattr(found, "__all__"):
        return list(found.__all__)
    own = vars(found).items()
    return [n for n, x in own if n[0] != "_" and getattr(x, "__module__", None) == module]


def documented(module: str) -> list[str]:
    """The public names of a module that are functions, classes or constants."""
    found = importlib.import_module(module)
    public = [name for name in names(module) if not inspect.ismodule(getattr(found, name))]
    return [name for name in public if name != "__version__"]


def place(module: str, name: str) -> str:
    """The dotted name by which a public name is found in the source."""
    found = importlib.import_module(module)
    # A function may have the name of the module that it is in, which would be found first.
    hidden = hasattr(found, "__path__") and importlib.util.find_spec(f"{module}.{name}")
    return f"{getattr(found, name).__module__ if hidden else module}.{name}"


def nested(cls) -> dict[str, type]:
    """The fields of a dataclass that are dataclasses."""
    hints, found = typing.get_type_hints(cls), {}
    for item in dataclasses.fields(cls):
        for kind in (hints[item.name], *typing.get_args(hints[item.name])):
            if isinstance(kind, type) and dataclasses.is_dataclass(kind):
                found[item.name] = kind
    return found


def _fields(cls) -> str:
    """A table of a dataclass's fields."""
    from tyro import _docstrings  # what `--help` says of a field

    types, defaults = {}, {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        for node in ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body:
            if isinstance(node, ast.AnnAssign):
                types[node.target.id] = ast.unparse(node.annotation)
                defaults[node.target.id] = node.value and ast.unparse(node.value)
    inner, rows = nested(cls), ["| field | type | default | |", "|---|---|---|---|"]
    for item in dataclasses.fields(cls):
        name, said = item.name, _docstrings.get_field_docstring(cls, item.name, ()) or ""
        kind, default = f"`{types[name]}`", defaults[name] or ""
        if name in inner:
            part = inner[name].__name__
            kind, default = f"[{part}](#{part})", "" if default.startswith("field") else default
        default = f"`{default}`" if default else ""
        rows.append(f"| `{name}` | {kind} | {default} | {escape(' '.join(said.split()))} |")
    return "\n".join(rows)


def _help(name: str) -> str:
    from rvq_jax import cli
    from rvq_jax.cli import terminal

    box, before = io.StringIO(), dict(os.environ)
    os.environ |= {"COLUMNS": str(WIDTH), "NO_COLOR": "1"}
    try:
        with contextlib.redirect_stdout(box), contextlib.suppress(SystemExit):
            terminal.parse(cli.load(name), ["--help"], name)
    finally:
        os.environ.clear()
        os.environ.update(before)
    # A path of this machine would be in the help of what keeps files at home.
    text = box.getvalue().strip().replace(str(Path.home()), "~")
    return "\n".join(
        textwrap.fill(line, WIDTH) if len(line) > WIDTH else line.rstrip()
        for line in text.splitlines()
    )
