"""What a page says in words around its figures: on what, how long, which runs, and what is not in the numbers."""

from __future__ import annotations

from collections.abc import Sequence

from specreg.report.contents import Record, RunFiles
from specreg.report.table import Entry


def about(comparison: Record) -> list[str]:
    """Return the line under the title: when, on what, which seeds, which versions."""
    if "folders" in comparison:
        return [str(name) for name in comparison["folders"]]
    created = str(comparison.get("created") or "")[:16].replace("T", " ")  # to the minute
    seeds = comparison["seeds"]
    plan = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}" if seeds else ""
    versions = [f"{name} {version}" for name, version in (comparison.get("versions") or {}).items()]
    return [part for part in (created, str(comparison.get("machine") or ""), plan, *versions) if part]


def facts(files: RunFiles) -> str:
    """Return network size and sampler of the finished cells: once, not in every row."""
    results = [cell.results for cell in files.runs if cell.results]
    sizes = sorted({record["parameters"] for record in results if record.get("parameters")})
    samplers = sorted({record["sampler"] for record in results if record.get("sampler")})
    parameters = " or ".join(f"{size:,}".replace(",", "\u202f") for size in sizes)
    facts = [f"{parameters} parameters"] * bool(sizes) + [f"sampled with {' or '.join(samplers)}"] * bool(samplers)
    return "; ".join(facts)


def steps(files: RunFiles) -> str:
    """Return how long training was, in words."""
    last = {f"{cell.log['step'][-1]:.0f}" for cell in files.runs if cell.log["step"].size}
    return f"{' or '.join(sorted(last, key=int))} steps" if last and len(last) < 4 else ""


def counted(files: RunFiles) -> str:
    """Return how many runs ended how, in words."""
    states = [("failed" if c.stopped else "unfinished") if c.missing else "finished" for c in files.runs]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states)))


def notices(files: RunFiles) -> list[str]:
    """Return what the reader must know before the numbers: unfinished cells, lines left out."""
    left, stopped = (
        [f"{c.arm.label}, seed {c.seed} ({c.missing})" for c in files.runs if c.missing and c.stopped == failed]
        for failed in (False, True)
    )
    cut = [f"{cell.arm.label}, seed {cell.seed}" for cell in files.runs if cell.truncated]
    notices = [f"Unfinished, and not in the numbers below: {'; '.join(left)}."] if left else []
    if stopped:
        notices.insert(0, f"Failed, and not in the numbers below: {'; '.join(stopped)}.")
    if cut:
        lines = f"{len(cut)} truncated last line{'s' if len(cut) > 1 else ''}"
        notices.append(f"{lines} of metrics.jsonl left out: {'; '.join(cut)}.")
    skipped = [(cell, int((cell.results or {}).get("skipped_steps") or 0)) for cell in files.runs]
    if counted := [f"{count} in {cell.arm.label}, seed {cell.seed}" for cell, count in skipped if count]:
        notices.append(f"Optimizer steps skipped because of fp16 overflow: {'; '.join(counted)}.")
    missing = [(part.comparison.get("missing") or {}).items() for part in files.parts]
    notices += dict.fromkeys(f"Not measured: {metric}. {why}" for items in missing for metric, why in items)
    for part in files.parts:
        where = f" of {part.title}" if part.title else ""
        for metric, count in (part.comparison.get("failures") or {}).items():
            notices.append(f"{metric}: {count} samples{where} have no value and are not in its means.")
    if len(files.different_truths) > 1:
        notices.append(
            "Not all of these were measured against the same real data: distances of different ones do not compare."
        )
    return notices


def spread(entries: Sequence[Entry], *, paired: bool) -> list[str]:
    """Return sentences that say how sure the numbers of a table are, single values included.

    `paired`: there is a baseline that others are compared with.
    """
    shown = [entry for entry in entries if entry.value not in ("", "–")]
    said = []
    if any(entry.std for entry in shown):
        said.append("Mean ± standard deviation over seeds.")
    if any(entry.interval for entry in shown):
        said.append("In brackets under a value: its 95% interval over samples.")
    if any(entry.difference for entry in shown):
        below = "Below it: difference from the baseline, paired by seed, with its 95% interval."
        said += [below, "Bold: the best arm, where its interval excludes no change."]
    if shown and all(entry.seeds == 1 for entry in shown):
        said.append(f"One seed: no interval can be given{', and no verdict' if paired else ''}.")
    elif any(entry.seeds == 1 for entry in shown):
        said.append("“One seed” marks a single value, of which no spread is known.")
    return said
