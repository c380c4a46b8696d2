"""The demo's report: what it must say, what it must refuse, and that the page stands alone."""

from __future__ import annotations

import base64
import copy
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from demo_report_factory import (
    LABELS,
    make_pictures,
    make_pretraining,
    make_report,
    make_screening,
    make_targets,
)
from gate_factory import gate_report

from edge_runtime.errors import ConfigError
from export.demo.cards import screened_gallery
from export.demo.charts import RocCurve, latency_chart, probe_chart, roc_chart
from export.demo.html import element, escape
from export.demo.model import DemoReport, Latency, ProbeAuroc, Target, UnreadableFiles
from export.demo.pictures import (
    ReportPictures,
    enlarged,
    evidence_overlay,
    evidence_scale,
    png_uri,
    z_scored_to_grey,
)
from export.demo.report import read_report, render_page, write_report
from train.page.style import PALETTE

_VOID = {"meta", "img", "br", "link", "input"}
_ATTACK = "<script>alert(1)</script>\"'&"


class Page(HTMLParser):
    """Reads a page strictly: every tag closed in order; collects captions, text and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.captions: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._caption: list[str] | None = None
        self.feed(text)
        self.close()
        assert self.stack == [], f"unclosed {self.stack}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"an attribute twice in {tag}"
        self.tags.append((tag, dict(attrs)))
        if tag in _VOID:
            return
        is_chart_title = tag == "figcaption" and (
            self.stack[-1] == "figure" and "chart" in self._figure_class()
        )
        if tag == "caption" or is_chart_title or (tag == "title" and "svg" in self.stack):
            self._caption = []
        self.stack.append(tag)

    def _figure_class(self) -> str:
        figures = [attributes for tag, attributes in self.tags if tag == "figure"]
        return (figures[-1]["class"] or "").replace("wide", "chart")

    def handle_endtag(self, tag: str) -> None:
        assert self.stack, f"</{tag}> without a start"
        assert self.stack.pop() == tag
        if tag in ("caption", "figcaption", "title") and self._caption is not None:
            self.captions.append(" ".join("".join(self._caption).split()))
            self._caption = None

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self._caption is not None:
            self._caption.append(data)


@pytest.fixture(scope="module")
def pictures() -> ReportPictures:
    return make_pictures(num_triples=2, num_patients=3)


@pytest.fixture(scope="module")
def no_pictures() -> ReportPictures:
    return ReportPictures(triples=(), screened=(), roc=())


@pytest.fixture(scope="module")
def page_text(pictures: ReportPictures) -> str:
    return render_page(make_report(), pictures)


def test_page_is_well_formed_and_every_id_is_unique(page_text: str) -> None:
    page = Page(page_text)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) >= 6
    assert len(set(ids)) == len(ids)
    pointed_at = {a["aria-labelledby"] for _, a in page.tags if "aria-labelledby" in a}
    assert pointed_at <= set(ids)


def test_every_table_and_chart_says_synthetic(page_text: str) -> None:
    page = Page(page_text)
    tables = sum(tag == "table" for tag, _ in page.tags)
    charts = sum(tag == "svg" for tag, _ in page.tags)
    assert tables == 12
    assert charts == 2 * len(LABELS) + 1
    assert len(page.captions) == tables + 2 * charts  # a chart has a visible and an inner title
    assert [caption for caption in page.captions if "SYNTHETIC" not in caption] == []


def test_every_picture_says_synthetic_to_a_screen_reader(page_text: str) -> None:
    images = [attributes for tag, attributes in Page(page_text).tags if tag == "img"]
    assert len(images) == 2 * 9 + 11  # the ungradable eye has no evidence picture
    assert all((image["alt"] or "").startswith("synthetic") for image in images)


def test_page_fetches_nothing(page_text: str) -> None:
    page = Page(page_text)
    without_pictures = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page_text)
    assert re.findall(r"https?:|//[a-z]", without_pictures) == []
    assert not re.search(r"@import|url\(|@font-face|javascript:|\son\w+=", without_pictures)
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "form"} == set()
    sources = [attributes["src"] for _, attributes in page.tags if "src" in attributes]
    assert all((source or "").startswith("data:image/png;base64,") for source in sources)
    assert "default-src 'none'" in page_text


def test_notice_comes_first_and_last(page_text: str) -> None:
    text = [piece.strip() for piece in Page(page_text).text if piece.strip()]
    body = text[2:]  # after the title and the style sheet
    assert body[0] == "research use only; not a medical device"
    assert body.count("research use only; not a medical device") == 2


def test_attention_is_never_called_lesions(page_text: str, pictures: ReportPictures) -> None:
    shown = sum(eye.evidence_hw is not None for eye in pictures.screened)
    assert page_text.count("<figcaption>model attention, not lesions</figcaption>") == shown == 5


def test_all_text_from_the_data_is_escaped(pictures: ReportPictures) -> None:
    examination = copy.deepcopy(make_screening().eyes[3])
    examination["examination_id"] = _ATTACK
    examination["eyes"][0]["eye"] = _ATTACK
    examination["eyes"][0]["fields"][0]["disposition"] = _ATTACK
    examination["eyes"][0]["fields"][0]["quality"]["reasons"] = [_ATTACK]
    report = make_report(
        code_version=_ATTACK,
        machine={_ATTACK: _ATTACK},
        duration_s={_ATTACK: 1.0},
        models=tuple(replace(m, name=m.name + _ATTACK) for m in make_report().models),
        screening=make_screening(eyes=(examination,), agreement={_ATTACK: {"refer": 1}}),
        targets=(
            Target.judge(name=_ATTACK, value=1, relation=">", limit=2, unit=_ATTACK, note=_ATTACK),
        ),
    )
    eye = replace(
        pictures.screened[0], examination=_ATTACK, label=_ATTACK, truth=_ATTACK, reason=_ATTACK
    )
    triple = replace(pictures.triples[0], eye=_ATTACK, truth=_ATTACK)
    text = render_page(report, ReportPictures(triples=(triple,), screened=(eye,), roc=pictures.roc))
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 20


def test_escape_keeps_markup_and_escapes_the_rest() -> None:
    assert element("p", element("b", "a<b"), "&", title='"') == (
        '<p title="&quot;"><b>a&lt;b</b>&amp;</p>'
    )
    assert escape(3) == "3"


def test_json_round_trip(tmp_path: Path, no_pictures: ReportPictures) -> None:
    report = make_report()
    write_report(tmp_path / "out", report, no_pictures)
    assert read_report(tmp_path / "out" / "report.json") == DemoReport.from_dict(report.to_dict())
    stored = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert stored == report.to_dict()
    assert stored["synthetic"] is True
    assert stored["pretraining"]["edema_auroc_gain"] == 0.19
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "report.html",
        "report.json",
    ]


def test_dict_and_dataclass_give_the_same_files(tmp_path: Path, pictures: ReportPictures) -> None:
    few = replace(pictures, triples=pictures.triples[:1], screened=pictures.screened[:1])
    write_report(tmp_path / "a", make_report(), few)
    write_report(tmp_path / "b", make_report().to_dict(), few)
    for name in ("report.json", "report.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def _row_of(text: str, name: str) -> str:
    (row,) = (row for row in re.findall(r"<tr>.*?</tr>", text) if escape(name) in row)
    return str(row)


def test_missed_target_is_shown_as_not_met(page_text: str) -> None:
    missed = _row_of(page_text, "glaucoma AUROC gain of OCT")
    assert "✗</i>not met" in missed
    assert "the gain was still growing" in missed
    assert "✓</i>met" in _row_of(page_text, "edema AUROC gain of OCT")
    assert "<b>6 of 7</b>" in page_text


def test_unmeasured_target_is_not_met(no_pictures: ReportPictures) -> None:
    target = Target.judge(name="unmeasured", value=None, relation="<=", limit=1.0)
    assert not target.met
    row = _row_of(render_page(make_report(targets=(target,)), no_pictures), "unmeasured")
    assert "not met" in row
    assert "not measured" in row


@pytest.mark.parametrize(
    ("value", "relation", "met"),
    [(2, ">", False), (2, ">=", True), (2, "<", False), (2, "<=", True), (2, "==", True),
     (3, ">", True), (1, "<", True), (1, "==", False)],
)  # fmt: skip
def test_target_verdict(value: float, relation: str, met: bool) -> None:
    assert Target.judge(name="t", value=value, relation=relation, limit=2).met is met


def test_verdict_that_the_numbers_do_not_give_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"met is True; it must be False"):
        replace(make_targets()[1], met=True)
    with pytest.raises(ConfigError, match="relation is 'about'"):
        Target.judge(name="t", value=1, relation="about", limit=2)


def test_no_refer_of_an_unreadable_file_is_shown_as_not_met(no_pictures: ReportPictures) -> None:
    screening = make_screening(
        unreadable_files=UnreadableFiles(
            num=6, num_no_refer=1, num_control=2, num_control_no_refer=1
        )
    )
    text = render_page(make_report(screening=screening), no_pictures)
    assert "not met" in _row_of(text, "damaged or unreadable files")
    none_given = make_screening(
        unreadable_files=UnreadableFiles(
            num=0, num_no_refer=0, num_control=2, num_control_no_refer=1
        )
    )
    text = render_page(make_report(screening=none_given), no_pictures)
    assert "not met" in _row_of(text, "damaged or unreadable files")


@pytest.mark.parametrize("status", ["not_shown", "failed"])
def test_a_gate_that_did_not_pass_is_never_shown_as_passed(
    no_pictures: ReportPictures, status: str
) -> None:
    gate = gate_report([row.name for row in make_report().gate.labels], status)
    text = render_page(make_report(gate=gate), no_pictures)
    assert f"✗</i>{status.replace('_', ' ')}" in text
    assert "✓</i>passed" not in text
    assert "told aloud" in text
    assert ("900 patients" in text) == (status == "not_shown")


def _set(value: dict[str, Any], path: str, number: Any) -> None:
    *parents, last = path.split(".")
    for key in parents:
        value = value[int(key)] if key.isdigit() else value[key]
    value[last] = number


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "path",
    ["student_to_teacher_ratio", "pretraining.gradient_leak", "models.1.latency_ms.p99",
     "targets.0.value", "duration_s.phantom", "data.prevalence.amd",
     "pretraining.arms.cfp_only.glaucoma.auroc_sd",
     "screening.eyes.0.eyes.0.fields.0.timings_ms.total"],
)  # fmt: skip
def test_number_that_is_not_finite_is_refused_and_nothing_written(
    tmp_path: Path, no_pictures: ReportPictures, path: str, number: float
) -> None:
    plain = make_report().to_dict()
    _set(plain, path, number)
    with pytest.raises(ConfigError, match="not a finite number"):
        write_report(tmp_path / "out", plain, no_pictures)
    assert not (tmp_path / "out").exists()


def test_nan_in_a_dataclass_keeps_the_earlier_report(
    tmp_path: Path, no_pictures: ReportPictures
) -> None:
    write_report(tmp_path, make_report(), no_pictures)
    before = (tmp_path / "report.json").read_bytes()
    with pytest.raises(ConfigError, match="int8_mean_auroc_drop is nan"):
        write_report(tmp_path, make_report(int8_mean_auroc_drop=float("nan")), no_pictures)
    assert (tmp_path / "report.json").read_bytes() == before


def test_unknown_and_missing_keys_are_named(no_pictures: ReportPictures, tmp_path: Path) -> None:
    plain = make_report().to_dict()
    plain["pretraining"]["extra"] = 1
    with pytest.raises(ConfigError, match=r"pretraining\.extra is an unknown key"):
        write_report(tmp_path, plain, no_pictures)
    del plain["pretraining"]["extra"], plain["models"][2]["size_mib"]
    with pytest.raises(ConfigError, match=r"models\[2\]\.size_mib is missing"):
        write_report(tmp_path, plain, no_pictures)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"synthetic": False}, "synthetic is False"), ({"scale": "huge"}, "scale is 'huge'"),
     ({"notice": "fine"}, "notice is 'fine'"), ({"schema_version": 2}, "schema_version is 2")],
)  # fmt: skip
def test_report_that_hides_what_it_is_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_report(**change)


def test_gain_that_the_arms_do_not_give_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"edema_auroc_gain is 0\.3; it must be oct_informed minus cfp_only, 0\.1"
    ):
        make_pretraining(edema_auroc_gain=0.3)
    with pytest.raises(ConfigError, match="edema_auroc_gain is None"):
        make_pretraining(edema_auroc_gain=None)
    with pytest.raises(ConfigError, match="one of oct_informed"):
        make_pretraining(arms={"best": {}})


def test_unmeasured_gain_is_said(no_pictures: ReportPictures) -> None:
    arms = {"cfp_only": make_pretraining().arms["cfp_only"]}
    gains = dict.fromkeys(("edema_auroc_gain", "schisis_auroc_gain", "glaucoma_auroc_gain"))
    report = make_report(pretraining=make_pretraining(arms=arms, **gains))
    row = _row_of(render_page(report, no_pictures), "gain of OCT over photograph only")
    assert row.count("not measured") == len(LABELS)


def test_percentiles_out_of_order_are_refused() -> None:
    with pytest.raises(ConfigError, match="p99"):
        Latency(p50=3.0, p99=2.0)


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(
    ("text", "ground"),
    [("ink", "ground"), ("ink", "band"), ("muted", "ground"), ("muted", "band"),
     ("good", "good_ground"), ("bad", "bad_ground"), ("unsure", "unsure_ground"),
     ("teacher", "ground"), ("student", "ground"), ("int8", "ground"), ("teal", "ground")],
)  # fmt: skip
def test_contrast_is_at_least_4_5(text: str, ground: str) -> None:
    light, dark = sorted((_luminance(PALETTE[text]), _luminance(PALETTE[ground])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_every_coloured_mark_has_a_sign_and_a_word(page_text: str) -> None:
    marks = re.findall(r'<span class="mark \w+">.*?</span>', page_text)
    words = {re.sub(r"<[^>]+>", "", mark) for mark in marks}
    assert words == {"✓met", "✗not met", "✓passed", "▲refer", "●no refer", "■ungradable"}


def test_right_eye_stands_on_the_left(pictures: ReportPictures) -> None:
    assert [eye.eye for eye in pictures.screened[:2]] == ["OS", "OD"]
    text = screened_gallery(pictures.screened[:2])
    assert text.index("<h3>OD") < text.index("<h3>OS")
    alone = screened_gallery(pictures.screened[:1])
    assert alone.index("not shown") < alone.index("<h3>OS<")


def test_eyes_without_laterality_are_all_shown(pictures: ReportPictures) -> None:
    eyes = [replace(eye, eye="unspecified") for eye in pictures.screened[:2]]
    assert screened_gallery(eyes).count("<h3>unspecified") == 2


def _pixels(uri: str) -> np.ndarray:
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"), validate=True)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return decoded[..., ::-1] if decoded.ndim == 3 else decoded


def test_png_keeps_every_pixel_and_shrinks_large_pictures(rng: np.random.Generator) -> None:
    colour = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(_pixels(png_uri(colour)), colour)
    np.testing.assert_array_equal(_pixels(png_uri(colour[..., 0])), colour[..., 0])
    assert _pixels(png_uri(np.zeros((600, 1200, 3), np.uint8))).shape == (192, 384, 3)


def test_z_scores_share_one_window() -> None:
    grey = z_scored_to_grey(np.array([[-9.0, -2.5, 0.0, 2.5, 9.0]]))
    assert grey.tolist() == [[0, 0, 128, 255, 255]]


def test_overlay_marks_evidence_for_and_nothing_else(rng: np.random.Generator) -> None:
    image = rng.integers(0, 200, (64, 64, 3), dtype=np.uint8)
    against = evidence_overlay(image, np.full((4, 4), -3.0), scale=1.0)
    np.testing.assert_array_equal(against, image)
    evidence = np.full((4, 4), -1.0)
    evidence[0, 0] = 5.0
    drawn = evidence_overlay(image, evidence, scale=1.0)
    assert (drawn[2, 2] != image[2, 2]).any()
    expected = image[2, 2] * 0.38 + np.array([0, 229, 255]) * 0.62
    np.testing.assert_allclose(drawn[2, 2], expected, atol=1)
    np.testing.assert_array_equal(drawn[32:], image[32:])


def test_evidence_scale_is_shared_and_never_below_one_logit(pictures: ReportPictures) -> None:
    faint = [replace(pictures.screened[0], evidence_hw=np.full((2, 2), 0.1))]
    assert evidence_scale(faint) == 1.0
    assert evidence_scale([]) == 1.0
    strong = [replace(pictures.screened[0], evidence_hw=np.full((2, 2), 4.0))]
    assert evidence_scale(strong + faint) == pytest.approx(4.0)


def test_small_photographs_are_enlarged_and_large_ones_kept() -> None:
    assert enlarged(np.zeros((96, 96, 3), np.uint8)).shape == (256, 256, 3)
    large = np.zeros((300, 300, 3), np.uint8)
    assert enlarged(large) is large


@pytest.mark.parametrize(
    ("change", "words"),
    [({"cfp_hwc": np.zeros((8, 8, 3))}, "cfp_hwc is float64"),
     ({"cfp_masked_hwc": np.zeros((8, 8, 4), np.uint8)}, "4 channels"),
     ({"oct_h": np.zeros((0, 8), np.uint8)}, "oct_h"),
     ({"oct_predicted_v": np.full((4, 4), np.nan)}, "oct_predicted_v")],
)  # fmt: skip
def test_unusable_arrays_are_refused(
    pictures: ReportPictures, change: dict[str, np.ndarray], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        replace(pictures.triples[0], **change)


def test_evidence_that_is_not_finite_is_refused(pictures: ReportPictures) -> None:
    with pytest.raises(ConfigError, match="evidence_hw"):
        replace(pictures.screened[0], evidence_hw=np.full((4, 4), np.inf))


def test_roc_drawing_keeps_the_curve(pictures: ReportPictures) -> None:
    models = make_report().models
    curve = pictures.roc[0]
    chart = roc_chart(curve.label, [curve], models)
    (points,) = re.findall(r'points="([^"]+)"', chart)
    drawn = np.array([[float(v) for v in pair.split(",")] for pair in points.split()])
    x, y = (drawn[:, 0] - 40.0) / 272.0, 1.0 - (drawn[:, 1] - 8.0) / 272.0
    full = _area(curve.false_positive_rate, curve.true_positive_rate)
    assert len(x) < curve.false_positive_rate.size / 2
    assert _area(x, y) == pytest.approx(full, abs=2e-3)
    assert f"{models[0].name} {models[0].labels[curve.label].auroc:.3f}" in chart


def _area(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


@pytest.mark.parametrize(
    ("x", "y"), [([0, 0.5, 0.2, 1], [0, 0.2, 0.5, 1]), ([0, np.nan], [0, 1]), ([0, 1], [0, 1, 1])]
)
def test_roc_points_that_are_no_curve_are_refused(x: list[float], y: list[float]) -> None:
    with pytest.raises(ConfigError, match="ROC of teacher amd"):
        RocCurve(
            model="teacher",
            label="amd",
            false_positive_rate=np.array(x, float),
            true_positive_rate=np.array(y, float),
        )


def test_three_models_differ_in_dash_as_well_as_colour(pictures: ReportPictures) -> None:
    curves = [curve for curve in pictures.roc if curve.label == "amd"]
    lines = re.findall(r"<polyline[^>]+>", roc_chart("amd", curves, make_report().models))
    assert len(lines) == 3
    dashes = {(re.findall(r'stroke-dasharray="([^"]*)"', line) or ["none"])[0] for line in lines}
    assert len(dashes) == 3


def test_probe_below_chance_points_left() -> None:
    arms = {"oct_informed": {"amd": ProbeAuroc(auroc_mean=0.4, auroc_sd=0.02)}}
    chart = probe_chart("amd", arms)
    (bar,) = re.findall(r'<rect x="([\d.]+)"[^>]* width="([\d.]+)"', chart)
    chance = float(re.findall(r'<line x1="([\d.]+)"[^>]+stroke="#17202b"', chart)[-1])
    assert float(bar[0]) + float(bar[1]) == pytest.approx(chance, abs=0.11)
    assert "0.400" in chart


def test_latency_chart_is_left_out_when_nothing_was_timed() -> None:
    models = make_report().models
    assert latency_chart(models[:1]) == ""
    assert "p50 6.12 ms" in latency_chart(models)
