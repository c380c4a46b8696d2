"""One source for what an operator does: the code's reasons, the report and the guide agree."""

from __future__ import annotations

import re
from pathlib import Path

from edge_runtime import eye_joining, eye_pipeline
from edge_runtime.fundus import quality
from edge_runtime.reports.next_steps import ANSWERS, REFUSALS, next_step
from edge_runtime.screening import shared_pictures
from edge_runtime.screening.run import TRIED_AGAIN

GUIDE = (Path(__file__).resolve().parent.parent / "docs" / "operator.md").read_text("utf-8")


def rows(heading: str) -> list[tuple[str, ...]]:
    """The cells of the table below a heading of the guide."""
    section = GUIDE.split(f"## {heading}")[1].split("\n## ")[0]
    lines = re.findall(r"^\| (.+) \|$", section, re.MULTILINE)
    return [tuple(cell.strip() for cell in line.split(" | ")) for line in lines[1:]]


def known_reasons() -> set[str]:
    """Every reason that the code can give."""
    found = {word for _, word in eye_pipeline._REASONS}
    found |= {eye_pipeline.LOW_GRADABILITY, eye_pipeline.DOUBTFUL}
    found |= {eye_joining.SAME_IMAGE, eye_joining.SAME_FIELD}
    found |= {shared_pictures.SAME_PICTURE}
    listed = quality.QualityReport.__doc__ or ""
    return found | set(re.findall(r'"([a-z -]+)"', listed))


def test_the_guide_says_what_the_report_says() -> None:
    table = {cells[0]: cells[1:] for cells in rows("Every refusal of a picture, and what to do")}
    joined = {re.sub(", | / ", "|", reasons): cells for reasons, cells in table.items()}
    assert joined == {"|".join(one.reasons): (one.happened, one.next_step) for one in REFUSALS}


def test_the_guide_has_the_three_answers() -> None:
    assert rows("The three answers") == [
        (f"`{one.word}`", one.meaning, one.next_step) for one in ANSWERS.values()
    ]


def test_every_reason_that_the_code_gives_has_a_row() -> None:
    listed = {reason for one in REFUSALS for reason in one.reasons}
    assert len(known_reasons()) >= 15
    assert known_reasons() - listed == set()


def test_a_reason_without_a_row_asks_for_a_new_picture() -> None:
    assert next_step("blur") == "Focus; ask the patient to blink and hold still."
    assert next_step("a reason of tomorrow") == "Take the picture again; if that fails, refer."


def test_what_is_tried_again_are_reasons_of_the_machine() -> None:
    assert {word for _, word in eye_pipeline._REASONS} >= TRIED_AGAIN
