"""RESULTS.md in sections, each written by the script that measured it."""

from pathlib import Path

from rvq_jax import files

RESULTS = Path(__file__).with_name("RESULTS.md")


def write(name: str, text: str) -> None:
    """Puts Markdown in place of the section of that name, or behind the last one."""
    marks = [f"<!-- {name} -->\n", f"<!-- /{name} -->\n"]
    whole = RESULTS.read_text() if RESULTS.exists() else ""
    before, found, rest = whole.partition(marks[0])
    after = rest.partition(marks[1])[2] if found else ""
    before = before if not before or found else before.rstrip("\n") + "\n\n"
    with files.writing(RESULTS) as path:
        path.write_text(f"{before}{marks[0]}{text.strip()}\n{marks[1]}{after}")
