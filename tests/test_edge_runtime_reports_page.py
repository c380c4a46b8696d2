"""The page: well-formed, self-contained, escaped, legible, and never colour alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from screen_factory import entry, field_result, screening_result

from edge_runtime.reports.next_steps import ANSWERS, next_step
from edge_runtime.reports.page import ReportOptions, html_parts
from edge_runtime.reports.style import PAIRS, PALETTE, STYLE
from edge_runtime.result import Decision, ScreeningResult
from edge_runtime.screening.entries import ReportEntry
from edge_runtime.screening.plan import PlannedPicture

_VOID = {"meta", "img"}
_SVG_VOID = {"path", "rect", "circle"}


class Page(HTMLParser):
    """Checks that every element is closed in order; collects texts, attributes and tags."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _SVG_VOID
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.texts).split())


def render(entries: Sequence[ReportEntry], **options: object) -> str:
    """The page as one text."""
    return "".join(html_parts(lambda: iter(entries), ReportOptions(**options)))  # type: ignore[arg-type]


@pytest.fixture
def entries() -> list[ReportEntry]:
    """One examination of every answer, one that was not screened, hostile texts."""
    both = {"OD": [field_result(0.9, seed=1)], "OS": [field_result(0.2, seed=2)]}
    clear = {"unspecified": [field_result(0.1, seed=3), field_result(0.2, seed=4)]}
    unsure = {
        "OD": [field_result(reasons=["missing image"], error="<script>alert(1)</script>")],
        "OS": [field_result(reasons=["blur", "dark"], seed=5)],
    }
    hostile = '"><img src=http://x.example/a.png onerror=alert(1)>'
    return [
        entry(0, screening_result(both, examination_id="v<1>&", warnings=[hostile])),
        entry(1, screening_result(clear), names=["a.jpg", "b.jpg"]),
        entry(2, screening_result(unsure, examination_id=hostile), names=[f"{hostile}.jpg"]),
        entry(3, None),
    ]


def test_the_page_is_well_formed_and_fetches_nothing(entries: list[ReportEntry]) -> None:
    page = Page(render(entries, with_names=True, picture_of=lambda *_: b"\xff\xd8jpeg"))
    assert {"script", "link", "iframe", "object", "form", "base"}.isdisjoint(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in {"src", "href", "data", "action", "poster", "srcset", "xlink:href"}:
            assert value.startswith(("#e", "data:image/jpeg;base64,")), value
    assert "url(" not in STYLE
    assert "@import" not in STYLE
    policy = [value for _, name, value in page.attributes if value.startswith("default-src")]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_what_comes_from_outside_is_shown_and_not_run(entries: list[ReportEntry]) -> None:
    text = render(entries, with_names=True)
    words = Page(text).words
    assert "<script>alert(1)</script>" in words
    assert "Examination v<1>&" in words
    assert text.count("<script") == 0
    assert "onerror=alert(1)>" in words
    assert text.count("<img") == 0


def test_every_answer_is_a_word_with_a_shape_and_its_next_step(entries: list[ReportEntry]) -> None:
    text = render(entries)
    for answer in ANSWERS.values():
        verdict = re.search(rf'<div class="verdict [a-z]+"><svg.*?<b>{answer.word}</b>', text)
        assert verdict is not None
        assert answer.next_step in text
    assert "<b>NOT SCREENED</b>" in text
    shapes = re.findall(r'<div class="verdict [a-z]+">(<svg.*?</svg>)', text)
    assert len(set(shapes)) == len(shapes) == 4


def test_each_mark_has_its_word_beside_its_shape(entries: list[ReportEntry]) -> None:
    marks = re.findall(r'<span class="mark [a-z]+"><svg.*?</svg>([^<]*)</span>', render(entries))
    assert len(marks) == 4 + 5  # the summary, and the five eyes
    assert set(marks) == {"REFER", "NO REFER", "UNGRADABLE", "NOT SCREENED"}


def test_reasons_stand_with_what_to_do(entries: list[ReportEntry]) -> None:
    words = Page(render(entries)).words
    for reason in ("missing image", "blur", "dark"):
        assert f"{reason} {next_step(reason)}" in words


def test_the_right_eye_is_on_the_left_of_the_page(entries: list[ReportEntry]) -> None:
    text = render(entries)
    section = text.split('id="e0"')[1].split("</section>")[0]
    assert section.index("Right eye (OD)") < section.index("Left eye (OS)")
    assert '<div class="eyes">' in section
    alone = text.split('id="e1"')[1].split("</section>")[0]
    assert '<div class="eyes alone">' in alone
    assert re.search(r"\.eyes\{[^}]*grid-template-columns:1fr 1fr", STYLE)


def test_probability_stands_beside_its_threshold(entries: list[ReportEntry]) -> None:
    words = Page(render(entries)).words
    assert "macular edema 0.900 0.500 POSITIVE" in words
    assert "glaucoma 0.200 0.500 negative" in words
    fill = re.search(r'<rect class="fill"[^>]*width="180.0"', render(entries))
    assert fill is not None


def test_the_facts_of_the_model_are_named(entries: list[ReportEntry]) -> None:
    words = Page(render(entries)).words
    for fact in ("Model tiny 0.1.0", "b" * 64, "engine onnxruntime int8", "2026-11-28T10:00:00"):
        assert fact in words
    assert words.startswith("Screening report Research use only; not a medical device")


def test_the_counts_and_the_interruption_are_on_top(entries: list[ReportEntry]) -> None:
    words = Page(render(entries)).words
    assert "4 examinations INTERRUPTED: 1 of 4 not screened yet. 1 REFER 1 NO REFER" in words
    whole = Page(render(entries[:1])).words
    assert "1 examination 1 REFER 0 NO REFER 0 UNGRADABLE" in whole
    assert "INTERRUPTED" not in whole


def test_names_and_pictures_are_there_only_when_asked_for(entries: list[ReportEntry]) -> None:
    plain = render(entries)
    assert ".jpg" not in plain
    assert "<img" not in plain
    asked: list[tuple[str, str]] = []

    def picture_of(picture: PlannedPicture, sha256: str) -> bytes | None:
        asked.append((picture.name, sha256))
        return None

    text = render(entries, with_names=True, picture_of=picture_of)
    assert "a.jpg" in text
    assert ("b.jpg", f"{4:064x}") in asked
    assert len(asked) == 5  # not for the missing one
    assert "no picture to show" in text


def test_colours_are_legible_and_come_from_the_palette() -> None:
    for text, ground in PAIRS:
        assert contrast(PALETTE[text], PALETTE[ground]) >= 4.5, (text, ground)
    for kind in ("refer", "clear", "unsure", "absent"):
        assert (kind, f"{kind}-ground") in PAIRS
        assert f".{kind}{{color:var(--{kind});background:var(--{kind}-ground)}}" in STYLE
    sheet = STYLE.split("}", 1)[1]
    assert set(re.findall(r"#[0-9a-f]{3,6}\b", sheet)) == {"#000"}  # under a picture
    assert set(re.findall(r"var\(--([a-z-]+)\)", sheet)) <= set(PALETTE)


def test_contrast_is_computed_as_wcag_has_it() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2.2, 1.4.3."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    """The relative luminance of WCAG 2.2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_decision_has_an_answer() -> None:
    assert set(ANSWERS) == set(Decision)


def section(text: str, index: int) -> str:
    """The HTML of one examination."""
    return text.split(f'id="e{index}"')[1].split("</section>")[0]


def row(text: str, index: int) -> str:
    """The HTML of its row in the table on top."""
    return text.split(f'href="#e{index}"')[1].split("</tr>")[0]


def clear(name: str, seed: int, warnings: Sequence[str] = ()) -> ScreeningResult:
    """An examination of one picture that is 'no refer'."""
    fields = {"unspecified": [field_result(seed=seed)]}
    return screening_result(fields, examination_id=name, warnings=warnings)


def test_no_refer_on_a_picture_of_another_is_marked_beside_the_word_and_not_clear() -> None:
    text = render(
        [
            entry(0, clear("v1", 1), shared_with=[(1, "<v2>")]),
            entry(
                1, screening_result({"unspecified": [field_result(0.9)]}), shared_with=[(0, "v1")]
            ),
            entry(2, clear("v3", 3)),
        ]
    )
    flag = '<strong class="flag unsure">! SAME PICTURE AS No. 1</strong>'
    verdict = re.search(
        r'<div class="verdict (\w+)">.*?<b>(.*?)</b><span>(.*?)</span>', section(text, 0)
    )
    assert verdict is not None
    step = "Do not follow this answer before you know whose picture it is."
    assert verdict.groups() == ("unsure", f"NO REFER {flag}", step)
    assert "</span>" + flag in row(text, 0)
    assert 'class="mark clear"' not in section(text, 0)
    assert 'class="mark clear"' not in row(text, 0)
    said = "the same picture was given for examination 1 (&lt;v2&gt;); find out whose it is"
    assert section(text, 0).index(said) < section(text, 0).index('<div class="eyes')
    assert "<b>REFER <strong" in section(text, 1)
    assert ANSWERS[Decision.REFER].next_step in section(text, 1)
    assert "2 examinations have a picture of another one" in text
    assert '<div class="verdict clear">' in section(text, 2)
    assert "SAME PICTURE" not in section(text, 2) + row(text, 2)


def test_a_picture_of_many_examinations_names_three_beside_the_word() -> None:
    text = render([entry(0, clear("v0", 1), shared_with=[(k, f"v{k}") for k in range(1, 6)])])
    assert "SAME PICTURE AS No. 1, 2, 3 and others<" in text
    assert "examination 5 (v5)" in section(text, 0)


def test_warnings_are_counted_in_the_table() -> None:
    said = ["the picture looks like the other eye; compare with the patient", "one; more"]
    text = render([entry(0, clear("v1", 1, said)), entry(1, clear("v2", 2))])
    assert "! 2 warnings" in row(text, 0)
    assert "the picture looks like the other eye</div>" in row(text, 0)
    assert said[0] in section(text, 0)
    assert "warning" not in row(text, 1).replace("warned", "")


def test_what_every_answer_says_stands_once_on_top() -> None:
    entries = [
        entry(0, clear("v1", 1, ["always", "blue"])),
        entry(1, clear("v2", 2, ["always", "blue"])),
    ]
    text = render(entries, standing_warnings=["always"])
    assert text.count("always") == 1
    assert text.index("always") < text.index("<table")
    assert "! 1 warning<" in row(text, 0)
    assert "blue" in section(text, 1)
    mixed = render([*entries, entry(2, clear("v3", 3))], standing_warnings=["always"])
    assert "every examination" not in mixed
    assert "always" in section(mixed, 0)
    assert "always" not in render([entry(0, None)], standing_warnings=["always"])


def test_the_top_names_model_engine_version_and_times() -> None:
    late = entry(1, clear("v2", 2))
    assert late.screened is not None
    late = replace(late, screened=replace(late.screened, screened_at="2026-11-29T08:00:00+00:00"))
    top = Page(
        render([late, entry(0, clear("v1", 1))]).split("<table")[0] + "</div></main></body></html>"
    )
    for fact in ("Model tiny 0.1.0", "engine onnxruntime int8", "edge-screen 0.1.0"):
        assert top.words.count(fact) == 1
    assert "Screened 2026-11-28T10:00:00+00:00 to 2026-11-29T08:00:00+00:00" in top.words
