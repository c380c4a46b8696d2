"""Answers in words for a terminal: large word first, then the reasons, then the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edge_runtime.engines import Engine
from edge_runtime.reports.next_steps import ANSWERS
from edge_runtime.reports.result_words import POSITIVE, label_word, printable, told_apart
from edge_runtime.result import EyeResult, FieldResult, ScreeningResult

__all__ = ["WORDS", "engine_text", "screening_text"]

WORDS = {decision: answer.word for decision, answer in ANSWERS.items()}


def screening_text(result: ScreeningResult, names: Sequence[str], index: int) -> str:
    """Return the lines of one examination; `names` are what the operator typed, an eye each."""
    lines: list[str] = []
    for eye, name in zip(result.eyes, names, strict=True):
        lines.extend(_eye_lines(eye, printable(name), index))
    if len(result.eyes) > 1 or result.examination_id is not None:
        which = printable(result.examination_id or "")
        answer = f"[{index}] {'EXAMINATION':<14}  {WORDS[result.disposition]:<12}  {which}"
        lines.append(answer.rstrip())
    lines.extend(f"    warning: {printable(warning)}" for warning in result.warnings)
    return "\n".join(lines)


def _eye_lines(eye: EyeResult, name: str, index: int) -> Iterator[str]:
    which = "EYE" if eye.eye == "unspecified" else eye.eye
    yield f"[{index}] {which:<14}  {WORDS[eye.disposition]:<12}  {name}"
    for number, field in enumerate(eye.fields, start=1):
        if len(eye.fields) > 1:
            yield f"    field {number} of {len(eye.fields)}: {WORDS[field.disposition]}"
        yield from _field_lines(field)


def _field_lines(field: FieldResult) -> Iterator[str]:
    quality = field.quality
    if quality.reasons:
        yield f"    reason: {', '.join(quality.reasons)}"
    if field.error is not None:
        yield f"    {printable(field.error)}"
    if quality.gradable_probability is not None:
        found, needed = told_apart(quality.gradable_probability, quality.gradable_threshold)
        yield f"    gradable: {found} (at least {needed} is needed)"
    if field.labels:
        yield f"    {'label':<24}{'probability':>12}{'threshold':>12}  decision"
    for label in field.labels:
        word = label_word(field, label)
        found, needed = told_apart(label.probability, label.threshold)
        shown = word.upper() if word == POSITIVE else word
        yield f"    {label.name:<24}{found:>12}{needed:>12}  {shown}"


def engine_text(engine: Engine) -> str:
    """Return the line that names the engine, and why `auto` took it."""
    chosen = engine.facts.details.get("chosen")
    reason = "" if chosen is None else f" ({printable(chosen)})"
    return f"engine {engine.name} {engine.precision}{reason}"
