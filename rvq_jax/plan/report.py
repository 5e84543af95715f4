"""A plan as a table for people."""

KINDS = ("parameters", "running_mean", "optimizer", "other_state", "batch", "padding")
KINDS += ("activations", "outputs", "code")


def table(plan: dict) -> str:
    """Lines of a plan."""
    mesh = ", ".join(f"{name} {size}" for name, size in plan["mesh"].items())
    lines = [
        f"{plan['topology']}: {plan['chips']} chips; {mesh}; batch {plan['batch']}, "
        f"{plan['rows_per_chip']} a chip",
        "",
        *_memory(plan),
        "",
        *_time(plan),
    ]
    for part in (_largest(plan), _decode(plan), _meshes(plan)):
        lines += ["", *part] if part else []
    return "\n".join(lines)


def _memory(plan: dict) -> list[str]:
    found = plan["bytes_per_chip"]
    lines = ["memory of a chip"]
    lines += [
        f"  {name.replace('_', ' '):<14}{size(found[name]):>10}"
        for name in KINDS
        if found.get(name, 0) >= 1e3
    ]
    total, limit = found["total"], found["limit"]
    lines.append(f"  {'total':<14}{size(total):>10}")
    if limit is not None:
        over = f"short by {size(total - limit)}"
        said = f"fits, {size(limit - total)} left" if plan["fits"] else f"DOES NOT FIT, {over}"
        lines[-1] += f" of {size(limit)}: {said}"
    whole = plan["replicated"]
    if whole["arrays"]:
        lines.append(
            f"  whole on every chip: {size(whole['bytes'])} of parameters in {whole['arrays']} "
            f"arrays, largest {whole['largest']}"
        )
    return lines


def _time(plan: dict) -> list[str]:
    line = plan["roofline"]
    if line is None:
        return ["no times: XLA shows no program that does not fit"]
    flops = plan["flops"]
    lines = [
        "a step, if all overlaps and runs at full speed (a bound, not a forecast)",
        _row("compute", line["compute"], f"{flops['executed']:.3g} FLOPs a chip"),
        _row("memory", line["memory"], f"{size(plan['bytes_moved'])} moved"),
        _row("communication", line["communication"], _sent(plan)),
    ]
    for kind, found in plan["collectives"].items():
        lines.append(
            f"    {kind:<20}{seconds(found['seconds']):>10}  {found['count']} times, "
            f"{size(found['bytes'])}"
        )
    lines += _calls(plan)
    if plan["doubts"]:
        lines += [f"  NO BOUND: {why}" for why in plan["doubts"]]
    elif line["compute"] is not None:
        lines.append(
            f"  step ≥ {seconds(plan['step_seconds'])}, bound by {line['bound']}; "
            f"MFU ≤ {plan['mfu']:.0%}; communication is "
            f"{line['communication_share']:.0%} of a step in which it overlaps with nothing"
        )
    return lines


def _calls(plan: dict) -> list[str]:
    """What is in no count."""
    loops, calls = plan["uncounted_loops"], plan["uncounted_calls"]
    lines = [f"  counted once: {loops} loops of unknown length"] if loops else []
    return lines + ([f"  in no count: calls of {', '.join(calls)}"] if calls else [])


def _sent(plan: dict) -> str:
    return f"{size(sum(x['bytes'] for x in plan['collectives'].values()))} sent"


def _row(name: str, value: float | None, note: str) -> str:
    return f"  {name:<14}{seconds(value):>10}  {note}"


def _largest(plan: dict) -> list[str]:
    found = plan.get("largest_batch")
    if not found:
        return []
    if not found["batch"] and not found["estimate"]:
        return ["no batch of this run fits on this mesh: more fsdp, more model, or more chips"]
    line = f"largest batch seen to fit: {found['batch'] or 'none'}"
    more = found["estimate"] > found["batch"]
    return [line + (f"; up to about {found['estimate']} may" if more else "")]


def _decode(plan: dict) -> list[str]:
    found = plan.get("decode")
    if not found:
        return []
    memory = found["bytes"]
    fits = "fits" if found["fits"] else "DOES NOT FIT"
    limit = "" if memory["limit"] is None else f" of {size(memory['limit'])}, {fits}"
    lines = [
        f"generation of {found['prompts']} prompts on one chip, guided, {found['steps']} steps, "
        f"{found['precision']}: {size(memory['total'])}{limit}"
    ]
    if found["seconds"] is not None:
        lines.append(
            f"  at least {seconds(found['seconds'])}, bound by {found['bound']}: "
            f"{found['frames_per_second']:.0f} frames a second at most"
        )
    return lines


def _meshes(plan: dict) -> list[str]:
    if "meshes" not in plan:
        return []
    head = "  data  fsdp  tensor  recomputed       total      step   MFU"
    lines = ["meshes tried, the cheapest first", head]
    for one in plan["meshes"]:
        mesh = one["mesh"]
        cells = f"  {mesh['data']:>4}  {mesh['fsdp']:>4}  {mesh['tensor']:>6}  "
        cells += f"{one['remat'] or '-':<10}{size(one['total_bytes']):>12}"
        if one["fits"] and one["step_seconds"] is not None:
            cells += f"{seconds(one['step_seconds']):>10}  {one['mfu']:>4.0%}"
        lines.append(cells if one["fits"] else cells + "  does not fit")
    return lines


def size(count: float) -> str:
    """Bytes in the unit that suits them."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20)):
        if abs(count) >= scale:
            return f"{count / scale:.2f} {unit}"
    return f"{count / 2**10:.1f} KiB"


def seconds(value: float | None) -> str:
    """Seconds in the unit that suits them."""
    if value is None:
        return "-"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.2f} ms"
