"""Whether a trained codec is better than the built-in one, and takes its place.

It does if on the held-out pieces no metric of speech or music says that it is worse and one says
that it is better, each beyond the interval of the paired difference, with all levels and with half
of them. Every step is kept in builtin.json and in RESULTS.md, those too that change nothing. Where
the results are of no built-in codec, there is none yet, and the run is the first one.

Command:  rvq-jax evaluate builtin RUN --data runs/corpus/heldout/speech --signal speech \\
              --against opus:6 opus:8 --out runs/builtin/speech
          rvq-jax evaluate builtin RUN --data runs/corpus/heldout/music --signal music \\
              --against opus:8 mp3:16 --out runs/builtin/music
          python experiments/codec/release.py RUN runs/builtin/*/results.json --what "what changed"
          python experiments/codec/pack.py RUN, where it says better
Time:     seconds, after a quarter of an hour of evaluating on two cores
Expect:   a line for each metric, and whether the codec takes the place
"""

import argparse
import json
import sys
from pathlib import Path

import sections

from rvq_jax import builtin
from rvq_jax.errors import UserError, reading
from rvq_jax.files import model_folder, write_json
from rvq_jax.systems.codec import Codec
from rvq_jax.train import log

STEPS = Path(__file__).with_name("builtin.json")
JUDGED = {"speech": ("pesq", "stoi", "dnsmos", "mel"), "music": ("mel", "visqol_audio")}
LEVELS = (8, 4)


def verdicts(results: dict, family: str) -> list[dict]:
    """Of each judged metric and count of levels: both means, and whether they differ."""
    signal = results["data"]["signal"]
    named = {(s["family"], s["levels"]): s["name"] for s in results["systems"]}
    better = {metric["name"]: metric["better"] for metric in results["metrics"]}
    scores = {system["name"]: system["scores"] for system in results["systems"]}
    pairs = {(p["metric"], *sorted((p["a"], p["b"]))): p["different"] for p in results["pairs"]}
    found = []
    for levels in LEVELS:
        there, mine = (named.get((one, levels)) for one in (builtin.WORD, family))
        if mine is None:
            raise UserError(f"the results lack {levels} levels of {family}")
        for metric in JUDGED[signal]:
            before, after = (scores[name][metric] if name else None for name in (there, mine))
            if after is None or (there and before is None):
                raise UserError(f"the results lack {metric}; install rvq_jax[metrics]")
            one = {"signal": signal, "levels": levels, "metric": metric, "after": after["mean"]}
            if there:
                more = after["mean"] > before["mean"]
                one |= {
                    "before": before["mean"],
                    "different": pairs[metric, *sorted((there, mine))],
                    "better": more == (better[metric] == "more"),
                }
            found.append(one)
    return found


def takes(found: list[dict]) -> bool:
    """Whether something is better and nothing worse, beyond the intervals; or nothing was there."""
    if all("before" not in one for one in found):
        return True
    beyond = [one["better"] for one in found if one["different"]]
    return bool(beyond) and all(beyond)


def main() -> None:
    """Judges a run, and keeps the step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder of the candidate")
    parser.add_argument("results", type=Path, nargs="+", help="results.json of speech and of music")
    parser.add_argument("--what", required=True, help="how it was trained, in a line")
    arguments = parser.parse_args()
    codec = Codec.load(model_folder(arguments.run))
    found = []
    for path in arguments.results:
        with reading(path, "results of an evaluation"):
            results = json.loads(path.read_text())
            codecs = {s["family"] for s in results["systems"] if s["kind"] == "codec"}
            if len(others := codecs - {builtin.WORD}) != 1:
                raise UserError(f"{path} has {len(others)} codecs beside {builtin.WORD}; give one")
            found += verdicts(results, *others)
    lines = list(log.read(arguments.run / "metrics.jsonl"))
    step = {
        "what": arguments.what,
        "against": builtin.VERSION if "before" in found[0] else None,
        "updates": lines[-1]["step"],
        "hours": sum(line["seconds"] for line in lines[-1:]) / 3600,
        "fingerprint": codec.fingerprint().hex()[:16],
        "commit": results["commit"],
        "curve": curve(lines),
        "taken": takes(found),
        "metrics": found,
    }
    steps = json.loads(STEPS.read_text()) if STEPS.exists() else []
    write_json(STEPS, [*steps, step])
    sections.write("built-in codec", text([*steps, step]))
    for one in found:
        sign = "" if "before" not in one else "=" if not one["different"] else "-+"[one["better"]]
        print(f"{sign} {one['signal']} {one['levels']} levels {one['metric']}: {_change(one)}")
    print("it takes the place: run pack.py" if step["taken"] else "it does not take the place")


def curve(lines: list[dict]) -> list[dict]:
    """What was measured on held-out clips while a run went, against updates and hours."""
    names = ("loss", "mel_distance", "si_sdr")
    return [
        {"updates": line["step"], "hours": line["seconds"] / 3600}
        | {name: line["heldout"][name] for name in names}
        | {"discriminators": line.get("discriminators")}
        for line in lines
        if "heldout" in line
    ]


def _change(one: dict) -> str:
    before = f"{one['before']:.2f} → " if "before" in one else ""
    return f"{before}{one['after']:.2f}"


def text(steps: list[dict]) -> str:
    """The section of RESULTS.md."""
    names = [(s, m) for s, metrics in JUDGED.items() for m in metrics]
    rows = ["| step | updates | hours | " + " | ".join(f"{m}, {s}" for s, m in names) + " | |"]
    rows.append("|---|---:|---:|" + "---:|" * len(names) + "---|")
    for step in steps:
        cells = [step["what"], f"{step['updates']}", f"{step['hours']:.1f}"]
        for signal, metric in names:
            at = [x for x in step["metrics"] if (x["signal"], x["metric"]) == (signal, metric)]
            whole = next(x for x in at if x["levels"] == LEVELS[0])
            cells.append(_change(whole))
        rows.append(f"| {' | '.join([*cells, 'taken' if step['taken'] else 'not taken'])} |")
    head = "# The built-in codec, step by step"
    said = "All 8 levels, 4 kbps: of the version that was there, and of the candidate."
    lines = ["| updates | hours | held-out loss | mel distance | SI-SDR, dB | discriminators |"]
    lines.append("|" + "---:|" * 6)
    for at in steps[-1]["curve"]:
        judged = at.get("discriminators")
        first = f"| {at['updates']} | {at['hours']:.2f} | {at['loss']:.2f} "
        second = f"| {at['mel_distance']:.3f} | {at['si_sdr']:.2f} "
        lines.append(first + second + f"| {'' if judged is None else f'{judged:.2f}'} |")
    last = (
        "The last step, on held-out clips of the corpus while it was trained, and the loss of its"
    )
    last += "\ndiscriminators (hinge: 2 where they cannot tell, 0 where they tell all):"
    return "\n".join([head, "", said, "", *rows, "", last, "", *lines])


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
