"""What an evaluation says, as tables of text: the same on a terminal, in Markdown and in HTML."""

from collections.abc import Sequence
from typing import NamedTuple

from rvq_jax.evaluate.cells import NONE, column, count, is_number, number, rate, share, short

INTERVALS = "± is half of the 95 % interval of the mean over files (bootstrap)."
MARKED = "{} in a column: what paired intervals cannot tell from its best."
PAIRED = """Means of a − b over files that both have a value for, with 95 % intervals; of fewer than
six files none is called different."""
MUSHRA = """Scores from 0 (bad) to 100 (excellent), after ITU-R BS.1534-3; intervals over listeners
or over clips, whichever are wider."""
ABX = """How often listeners told which of two sounds the third was; p is the chance of so many by
guessing (exact binomial), for each pair alone."""
BOUND = """≤ is a bound: the mean over orders of decoding. The model's own bits are at most that, so
beside exact ones it may be better than it looks. {} random masks of each level and window estimate
it; their standard error, {} bits, is part of the ±."""
SEMANTIC = """A SoundStorm's bits are those of its codes given the clip's semantic tokens, and those
of the tokens, which are exact."""
FRECHET = """The floor is the distance of real audio from other real audio of as many clips: what is
near to it is as good as the distance can tell. Through the codec is that real audio encoded and
decoded: no model over these codes can be expected to come nearer."""

SPEECH = """Word accuracy is 1 - (substitutions + insertions + deletions) / words, the three beside
it in words of a hundred, as PocketSphinx hears them {}. By chance: the same against the words of
other clips. Length is relative to the recordings; silence is 40 dB below a clip's loudest 20 ms;
cost is seconds of computing per second of speech, on the machine below. {}"""
VOICES = "Each text was said in the voice of another held-out clip of its label."
VOICELESS = """No held-out text has a voice, another clip of its label that is short enough beside
it: all were said in no voice in particular."""


class Table(NamedTuple):
    """A title, a head, rows of text as long, and lines to go below."""

    title: str
    head: list[str]
    rows: list[list[str]]
    notes: list[str]
    best: frozenset[tuple[int, int]] = frozenset()  # row and column of the cells to be marked
    keys: int = 1  # how many first columns say what a row is of
    long: bool = False  # of many rows, which only the report has

    def said(self, mark: str) -> list[str]:
        """The notes, each on one line; mark: the word for the cells that are marked."""
        return [" ".join(note.split()).replace(MARKED, MARKED.format(mark)) for note in self.notes]

    @property
    def left(self) -> frozenset[int]:
        """The columns that hold words; the others hold numbers, and are aligned right."""
        columns = enumerate(zip(*self.rows, strict=True))
        return frozenset({0, *(i for i, column in columns if not all(map(is_number, column)))})


def tables(results: dict) -> list[Table]:
    """All that results.json says in numbers, the chief table first; none without rows."""
    make = codec_tables if results["kind"] == "codec" else token_tables
    return [table for table in make(results) if table.rows]


def codec_tables(results: dict) -> list[Table]:
    """Tables of codecs: quality, what listeners said, use of codebooks, what differs."""
    systems, metrics = results["systems"], measured(results)
    head = ["system", "kbps"] + [title(metric) for metric in metrics]
    columns = [[s["name"] for s in systems], [rate(s["kbps"]) for s in systems]]
    marks = set()
    for i, metric in enumerate(metrics):
        scores = [system["scores"].get(metric["name"]) for system in systems]
        columns.append(column(scores))
        alike = _best(scores, metric, [s["name"] for s in systems], results["pairs"])
        marks |= {(row, i + 2) for row in alike}
    rows = [list(row) for row in zip(*columns, strict=True)]
    notes = [INTERVALS, *([MARKED] if marks else []), *left_out(results)]
    quality = Table("Quality", head, rows, notes, frozenset(marks), keys=2)
    return [quality, *_listening(results), _use(results["use"]), _pairs(results)]


def token_tables(results: dict) -> list[Table]:
    """Tables of token models: likelihood, by level, distance, agreement, what differs."""
    models = results["models"]
    names = [model["name"] for model in models]
    bits = [model["bits_per_frame"] for model in models]
    less = {"name": "bits_per_frame", "better": "less"}
    alike = _best(bits, less, names, results["pairs"])
    rows = [
        [
            model["name"],
            model["pattern"],
            str(model["levels"]),
            text,
            count(model["forwards"]),
            short(model["real_time_factor"]),
        ]
        for model, text in zip(models, _bounded(models, bits), strict=True)
    ]
    head = ["model", "pattern or kind", "levels", "bits per frame ↓", "forwards ↓"]
    head += ["real-time factor ↓"]
    notes = [INTERVALS, *([MARKED] if alike else []), *_of_bits(models)]
    notes += _of_cost(results["data"].get("generated"))
    marks = frozenset((row, 3) for row in alike)
    chief = Table("Likelihood of held-out audio", head, rows, notes, marks)
    most = max((len(model["bits_by_level"]) for model in models), default=0)
    columns = [
        _bounded(
            models,
            [m["bits_by_level"][k] if k < len(m["bits_by_level"]) else None for m in models],
        )
        for k in range(most)
    ]
    head = ["model", *_levels(most)]
    semantic = [model["bits_of_semantic_tokens"] for model in models]
    if any(semantic):
        columns.insert(0, column(semantic))
        head.insert(1, "semantic tokens")
    levels = [list(row) for row in zip(names, *columns, strict=True)]
    by_level = Table("Bits by level", head, levels, [INTERVALS])
    others = [_frechet(models), _agreement(models), _pairs(results)]
    return [chief, by_level, *_speech(results.get("speech")), *others]


def is_bound(model: dict) -> bool:
    """Whether the bits of a token model are a bound on those that it needs."""
    return model["bits"] == "bound"


def measured(results: dict) -> list[dict]:
    """The metrics that are there: neither left out nor without a single value."""
    named = {name for system in results["systems"] for name in system["scores"]}
    return [m for m in results["metrics"] if m["left_out"] is None and m["name"] in named]


def left_out(results: dict) -> list[str]:
    """Which metrics are not there and why, and which are undefined for some files."""
    lines = [
        f"{metric['label']} is left out: {metric['left_out']}"
        for metric in results["metrics"]
        if metric["left_out"] is not None
    ]
    for metric in measured(results):
        scores = [s["scores"].get(metric["name"]) for s in results["systems"]]
        most = max((score["undefined"] for score in scores if score), default=0)
        if most:
            lines.append(
                f"{metric['label']} is undefined for up to {most} of {results['data']['files']} "
                "files of a system, which its mean leaves out."
            )
    return lines


def title(metric: dict) -> str:
    """A metric with its unit, and which way is better."""
    unit = f", {metric['unit']}" if metric["unit"] else ""
    return f"{metric['label']}{unit} {'↑' if metric['better'] == 'more' else '↓'}"


def origin(results: dict) -> list[tuple[str, str]]:
    """What made the numbers: pairs of a term and its text."""
    machine = results["machine"]
    where = f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gb']:.0f} GB"
    if machine["accelerator"]:
        where += f", {machine['accelerator']}"
    dated = [("Date", results["date"])] if "date" in results else []
    return [
        *dated,
        ("Command", results["command"]),
        ("Commit", results["commit"]),
        ("Versions", ", ".join(f"{name} {number}" for name, number in results["versions"].items())),
        ("Machine", where),
    ]


def provenance(results: dict) -> list[tuple[str, str]]:
    """Where the numbers come from: pairs of a term and its text."""
    cost = f"{results['wall_seconds']:.0f} s, without what earlier calls had measured"
    return [*origin(results), ("Data", data(results["kind"], results["data"])), ("Cost", cost)]


def data(kind: str, stated: dict) -> str:
    """What was evaluated on, in a line; of an evaluation's kind and what it states of its data."""
    if kind == "tokens":
        return f"{stated['source']}: {stated['clips']} clips, {stated['seconds']:.0f} s"
    channels = {1: "mono", 2: "stereo"}.get(stated["channels"], f"{stated['channels']} channels")
    number = "1 file" if stated["files"] == 1 else f"{stated['files']} files"
    said = f"{stated['folder']}: {number} of {stated['signal']}, {channels}"
    return f"{said}, {stated['seconds']:.0f} s"


def _use(use: dict) -> Table:
    head = ["codec", "level", "codes used", "entropy, bits", "perplexity", "efficiency"]
    rows = [
        [
            name,
            str(row["level"]),
            f"{100 * row['use']:.0f} %",
            f"{row['entropy_bits']:.2f}",
            f"{row['perplexity']:.0f}",
            NONE if row["efficiency"] is None else f"{100 * row['efficiency']:.0f} %",
        ]
        for name, levels in use.items()
        for row in levels
    ]
    notes = ["Efficiency is entropy over the bits that a code is sent in."]
    if any(row["efficiency"] is None for levels in use.values() for row in levels):
        notes[0] += " Not stated where frames are too few for it: below ten times as many as codes."
    return Table("Use of the codebooks", head, rows, notes, keys=2)


def _pairs(results: dict) -> Table:
    labels = {m["name"]: m["label"] for m in results.get("metrics", ())}
    labels["bits_per_frame"] = "bits per frame"
    pairs = results["pairs"]
    rows = [
        [labels.get(pair["metric"], pair["metric"]), pair["a"], pair["b"], number(pair)]
        for pair in pairs
        if pair["different"]
    ]
    alike = [pair for pair in pairs if not pair["different"]]
    notes = [PAIRED, f"Of {len(pairs)} pairs {len(alike)} cannot be told apart."]
    return Table("Pairs that differ", ["metric", "a", "b", "a − b"], rows, notes, keys=3, long=True)


def _listening(results: dict) -> list[Table]:
    found = results.get("listening")
    if not found:
        return []
    scores = column(found["mushra"])
    rows = [
        [row["system"], text, str(row["count"])]
        for row, text in zip(found["mushra"], scores, strict=True)
    ]
    why = [f"Not counted: {row['listener']}: {row['why']}" for row in found.get("excluded", ())]
    mushra = Table("Listeners' scores", ["system", "score ↑", "scores"], rows, [MUSHRA])
    rows = [
        [
            row["a"],
            row["b"],
            f"{row['right']} of {row['trials']}",
            str(row["listeners"]),
            f"{row['p']:.2g}",
        ]
        for row in found["abx"]
    ]
    head = ["a", "b", "right", "listeners", "p"]
    abx = Table("Told apart by listeners (ABX)", head, rows, [ABX], keys=2)
    # Who is left out is said once, below the last table that there is.
    last = abx if rows else mushra
    last.notes.extend(why)
    return [mushra, abx]


def _frechet(models: Sequence[dict]) -> Table:
    head = ["model", "embedding", "Fréchet distance ↓", "through the codec", "floor", "clips"]
    rows = [
        [
            m["name"],
            row["embedding"],
            number(row["distance"]),
            number(row.get("codec")),
            number(row["floor"]),
            str(row["clips"]),
        ]
        for m in models
        for row in m["frechet"]
    ]
    return Table("Distance of generated audio from real", head, rows, [FRECHET], keys=2)


def _agreement(models: Sequence[dict]) -> Table:
    rows = [
        [
            m["name"],
            row["what"],
            *(number(row.get(name)) for name in ("generated", "codec", "real")),
        ]
        for m in models
        for row in m["agreement"] or ()
    ]
    notes = ["How far what is heard in audio is what its caption says, of 1; real is its ceiling."]
    head = ["model", "of", "generated ↑", "through the codec", "real"]
    return Table("Agreement with captions", head, rows, notes, keys=2)


def _speech(found: dict | None) -> list[Table]:
    """What was heard of models that speak, if that was measured."""
    if not found:
        return []
    systems = found["systems"]
    kinds = "substitutions", "insertions", "deletions"
    head = ["system", "word accuracy ↑", "by chance", *kinds]
    columns = [[system["name"] for system in systems]]
    columns += [column([system[name] for system in systems]) for name in ("accuracy", "chance")]
    columns += [[f"{100 * system[kind]:.0f}" for system in systems] for kind in kinds]
    for name, label in (("dnsmos", "DNSMOS ↑"), ("duration", "length"), ("silence", "silence")):
        head.append(label)
        columns.append(column([system[name] for system in systems]))
    head += ["ended", "cost ↓"]
    columns.append([share(system["ended"]) for system in systems])
    columns.append([short(system["cost"]) for system in systems])
    words = found["vocabulary"]
    by = "by its own language model" if words is None else f"by a grammar of {words} words"
    notes = [INTERVALS, SPEECH.format(by, VOICES if found["voices"] else VOICELESS)]
    if any(system["dnsmos"] for system in systems):
        rated = systems[0]["dnsmos"]["count"]
        notes.append(f"DNSMOS is of the first {rated} texts.")
    if found["dnsmos_left_out"]:
        notes.append(f"DNSMOS is left out: {found['dnsmos_left_out']}")
    rows = [list(row) for row in zip(*columns, strict=True)]
    return [Table(f"Speech of {found['clips']} held-out texts", head, rows, notes)]


def _best(scores: Sequence, metric: dict, names: Sequence[str], pairs: Sequence[dict]) -> list[int]:
    """Rows that no paired interval tells from the best mean; none if there is only one."""
    means = {i: s["mean"] for i, s in enumerate(scores) if s and s["mean"] is not None}
    if len(means) < 2:
        return []
    best = (max if metric["better"] == "more" else min)(means, key=means.get)
    differ = {
        frozenset((pair["a"], pair["b"]))
        for pair in pairs
        if pair["metric"] == metric["name"] and pair["different"]
    }
    return [i for i in means if frozenset((names[i], names[best])) not in differ]


def _bounded(models: Sequence[dict], scores: Sequence[dict | None]) -> list[str]:
    """A column of bits, in which those that are a bound say so."""
    return [
        f"≤ {text}" if is_bound(model) and text != NONE else text
        for model, text in zip(models, column(scores), strict=True)
    ]


def _of_bits(models: Sequence[dict]) -> list[str]:
    """What is to be said of bits that are not just exact bits of codes."""
    bounds = [model for model in models if is_bound(model)]
    lines = []
    if bounds:
        error = max(model["standard_error"] for model in bounds)
        lines.append(BOUND.format(bounds[0]["samples"], f"{error:.2g}"))
    if any(model["bits_of_semantic_tokens"] for model in models):
        lines.append(SEMANTIC)
    return lines


def _of_cost(generated: dict | None) -> list[str]:
    """What the columns of cost are of; nothing where nothing was generated."""
    if not generated:
        return []
    return [
        f"Forwards are how many times token models run for a clip of {generated['seconds']:.3g} s; "
        "the real-time factor is seconds of computing per second of audio."
    ]


def _levels(count: int) -> list[str]:
    return [f"level {k + 1}" for k in range(count)]
