"""What happened on the way of a run, in words, and what came of it: the marks on the curves of its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saccade.report import words

Row = Mapping[str, Any]
SIZES = {"parameters": "parameters", "flops": "FLOPs an image"}  # of an edit's event: [before, after]

MANY = 1_000_000


def marks(events: Sequence[Row], rows: Sequence[Row], primary: str) -> list[dict[str, Any]]:
    """Each event without those that were withdrawn: {"step", "text", "effect", "anew"}, effect of an edit alone.

    rows: of metrics.jsonl; primary: the figure whose evaluations before and after an edit are told.
    """
    gone = {event.get("number") for event in events if event.get("event") == "withdrawn"} - {None}
    kept = [event for event in events if "step" in event and event.get("number") not in gone]
    found = [{"step": event["step"], "text": _text(event), "effect": _effect(event, rows, primary)} for event in kept]
    return [{**mark, "anew": _anew(event)} for mark, event in zip(found, kept, strict=True)]


def _anew(event: Row) -> bool:
    """Whether the best model is looked for from there on, since the one before was another function."""
    edit = event.get("edit")
    changed = isinstance(edit, Mapping) and (edit.get("promise") != "exact" or bool(edit.get("anew")))
    return event.get("event") == "undo" or (event.get("event") == "edit" and changed)


def _text(event: Row) -> str:
    kind = event.get("event")
    if kind == "pace" and isinstance(before := event.get("from"), int) and isinstance(after := event.get("total_steps"), int):
        how, why = ("shortened", "keep to") if after < before else ("lengthened", "use")
        return f"{how} from {before} to {after} steps to {why} the minutes"
    if kind == "back" and "fault" in event:
        return f"{event['fault']}: gone back to step {event['to']}, on at half the rate"
    if kind == "set" and isinstance(settings := event.get("settings"), Mapping):
        shown = {**settings, **({"lr": event["rate"]} if event.get("rate") is not None else {})}
        told = ", ".join(f"{key}={value}" for key, value in shown.items())
        return told if event.get("undoes") is None else f"undo: {told}"
    if kind == "undo":
        return f"undo {event.get('text', '')}"
    if kind == "refused":
        return f"not edited, {event.get('text', '')}"
    return str(event.get("text") or event.get("event", ""))


def _effect(event: Row, rows: Sequence[Row], primary: str) -> str:
    if event.get("event") not in ("edit", "undo"):
        return ""
    edit = event.get("edit")
    parts = [str(edit["promise"])] if isinstance(edit, Mapping) and "promise" in edit else []
    for key, unit in SIZES.items():
        sizes = event.get(key)
        if isinstance(sizes, list) and len(sizes) == 2 and all(type(size) is int for size in sizes) and sizes[0] != sizes[1]:
            parts.append(f"{_shown(*sizes)} {unit}")
    return "; ".join([*parts, *_judged(int(event["step"]), rows, primary)])


def _shown(before: int, after: int) -> str:
    """As "1,234 → 2,345", or in millions."""
    if min(before, after) < MANY:
        return f"{before:,} → {after:,}"
    return f"{before / 1e6:,.1f} → {after / 1e6:,.1f} million"


def _judged(step: int, rows: Sequence[Row], primary: str) -> list[str]:
    """The evaluations next to an edit, which was made after `step` steps."""
    found = [(int(row["step"]), words.number(row["metrics"].get(primary))) for row in rows if isinstance(row.get("metrics"), Mapping)]
    known = [(at, value) for at, value in found if value is not None]
    before = next((f"{words.figure(primary, value)} before" for at, value in reversed(known) if at <= step), "")
    after = next((f"{words.figure(primary, value)} after (step {at:,})" for at, value in known if at > step), "")
    told = ", ".join(one for one in (before, after) if one)
    return [f"{words.inside(words.measure(primary).label)} {told}"] if told else []
