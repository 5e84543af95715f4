"""The numbers of the built-in codec's card, from evaluations: `card.py RESULTS.json…`.

Command:  rvq-jax evaluate builtin --data PIECES/speech --signal speech --against opus:6 opus:8 \
--out runs/builtin/speech, the same of music, then
          python experiments/codec/card.py runs/builtin/*/results.json
Time:     a quarter of an hour on two cores
Expect:   the tables between the marks of rvq_jax/builtin/CARD.md
"""

import argparse
import json
from pathlib import Path

from rvq_jax import builtin
from rvq_jax.errors import UserError, reading
from rvq_jax.evaluate import page, summary
from rvq_jax.files import writing

MARKS = "<!-- numbers -->\n", "<!-- /numbers -->\n"
CARD = builtin.FOLDER / "CARD.md"


def numbers(results: dict) -> str:
    """The table of quality of one evaluation as Markdown, with what it is of."""
    if builtin.WORD not in {system.get("family") for system in results["systems"]}:
        raise UserError("results without the built-in codec; evaluate it by its word, builtin")
    quality = summary.codec_tables(results)[0]
    data = results["data"]
    head = f"{data['signal'].capitalize()}: {data['files']} files, {data['seconds']:.0f} s"
    marks = frozenset((row + 1, column) for row, column in quality.best)
    table = page.markdown_table([quality.head, *quality.rows], marks, quality.left)
    notes = [page.plain(note) for note in quality.said("Bold")]
    made = f"{builtin.VERSION}, commit {results['commit']}, {results['date']}."
    return "\n\n".join([f"### {page.plain(head)}", table, *notes, made])


def written(card: str, parts: list[str]) -> str:
    """The card with these numbers in place of those that it had."""
    before, rest = card.split(MARKS[0])
    return before + MARKS[0] + "\n\n".join(parts) + "\n" + MARKS[1] + rest.split(MARKS[1])[1]


def main() -> None:
    """Writes the numbers of the named evaluations into the card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+", help="results.json of rvq-jax evaluate")
    parts = []
    for path in parser.parse_args().results:
        with reading(path, "results of an evaluation"):
            parts.append(numbers(json.loads(path.read_text())))
    with writing(CARD) as place:
        place.write_text(written(CARD.read_text(), parts))


if __name__ == "__main__":
    main()
