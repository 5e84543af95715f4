"""Which test files a change concerns: those changed, and those that import what changed.

    python tests/changed.py            # since the last commit, what is not committed included
    python tests/changed.py main~3     # since another one

Prints one test file a line, the nearest first. A module that no test imports itself is tried by the
tests of its folder.
"""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
SUPPORT = TESTS / "support"
APART = ("faults", "parity")  # folders that want minutes, or other packages


def git(*words: str) -> list[str]:
    done = subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def imported(path: Path) -> set[str]:
    """Dotted names of all that a file imports, members of modules too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def imports_of_tests() -> dict[str, set[str]]:
    """By test file, what it imports and what the helpers it uses import for it."""
    helpers = {path.stem: imported(path) for path in [*TESTS.glob("*.py"), *SUPPORT.glob("*.py")]}

    def whole(names: set[str], seen: frozenset[str]) -> set[str]:
        beside = (names & helpers.keys()) - seen
        return names.union(*(whole(helpers[name], seen | beside) for name in beside))

    files = sorted(x for x in TESTS.rglob("test_*.py") if x.parent.name not in APART)
    return {str(path.relative_to(ROOT)): whole(imported(path), frozenset()) for path in files}


def tests_of(changed: list[str]) -> list[str]:
    """Test files for paths of the tree, in the order in which they are met."""
    imports, found = imports_of_tests(), {}

    def importing(wanted) -> list[str]:
        return [file for file, names in imports.items() if any(map(wanted, names))]

    for path in changed:
        parts = Path(path).with_suffix("").parts
        if path in imports:
            near = [path]
        elif parts[0] == "tests" and path.endswith(".py"):
            near = importing(lambda name, stem=parts[-1]: name == stem)
        elif parts[0] == "rvq_jax" and path.endswith(".py"):
            module, folder = ".".join(parts), ".".join(parts[:-1])
            near = importing(lambda name, module=module: name == module)
            near = near or importing(
                lambda name, folder=folder: f"{name}.".startswith(f"{folder}.")
            )
        elif parts[0] in ("configs", "experiments"):
            word = parts[0] if parts[0] == "configs" else parts[1]
            near = [file for file in imports if f'"{word}"' in (ROOT / file).read_text()]
        else:
            near = []
        found |= dict.fromkeys(near)
    return list(found)


if __name__ == "__main__":
    since = sys.argv[1] if len(sys.argv) > 1 else "HEAD"
    untracked = git("ls-files", "--others", "--exclude-standard")
    gone = set(git("diff", "--name-only", "--diff-filter=D", since))
    changed = [path for path in git("diff", "--name-only", since) if path not in gone] + untracked
    for test in tests_of(changed):
        print(test)
