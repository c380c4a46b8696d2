"""Cards of the page: triples with their reconstructions, screened eyes with their evidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_runtime.result import EVIDENCE_CAPTION
from export.demo.html import SYNTHETIC, Markup, element, label_words, mark_disposition, paragraph
from export.demo.pictures import (
    ScreenedEye,
    Triple,
    enlarged,
    evidence_overlay,
    evidence_scale,
    png_uri,
    z_scored_to_grey,
)

__all__ = ["screened_gallery", "triple_gallery"]

ByteArray = npt.NDArray[np.uint8]


def triple_gallery(triples: Sequence[Triple]) -> Markup:
    """Return one card a triple: photograph, horizontal and vertical scan, each rebuilt."""
    return element("div", *(_triple_card(triple) for triple in triples), class_="cards triples")


def _triple_card(triple: Triple) -> Markup:
    views = [
        _view(triple.cfp_hwc, "photograph"),
        _view(triple.cfp_masked_hwc, "what the encoder saw"),
        _view(triple.cfp_reconstructed_hwc, "rebuilt photograph"),
    ]
    for side, word in (("h", "horizontal"), ("v", "vertical")):
        target = z_scored_to_grey(getattr(triple, f"oct_target_{side}"))
        predicted = z_scored_to_grey(getattr(triple, f"oct_predicted_{side}"))
        views += [
            _view(getattr(triple, f"oct_{side}"), f"{word} OCT", kind="scan"),
            _view(target, "target: flattened, reduced", kind="scan reduced"),
            _view(predicted, "predicted from the photograph", kind="scan reduced"),
        ]
    name = f"{triple.eye}: {triple.truth}" if triple.eye else triple.truth
    title = element("h3", _tag(), " ", name)
    return element("div", title, element("div", *views, class_="grid3"), class_="card")


def screened_gallery(eyes: Sequence[ScreenedEye]) -> Markup:
    """Return one card an examination, OD on the left, each eye plain and with its evidence."""
    scale = evidence_scale(eyes)
    groups: dict[str, list[ScreenedEye]] = {}
    for eye in eyes:
        groups.setdefault(eye.examination, []).append(eye)
    cards = [_examination_card(name, group, scale) for name, group in groups.items()]
    gallery = element("div", *cards, class_="cards wider")
    note = (
        f"{EVIDENCE_CAPTION}: cyan marks where the network found evidence for the named label, "
        f"at full strength from {scale:.1f} logits a cell (the same for all pictures); "
        "the white line is half of that."
    )
    return Markup(gallery + paragraph(note[0].upper() + note[1:], class_="note"))


def _examination_card(name: str, eyes: Sequence[ScreenedEye], scale: float) -> Markup:
    sides = {eye.eye: eye for eye in eyes}
    title = element("h3", _tag(), f" {name}")
    if len(sides) == len(eyes) and set(sides) <= {"OD", "OS"}:
        slots = [_eye_slot(side, sides.get(side), scale) for side in ("OD", "OS")]
    else:
        slots = [_eye_slot(eye.eye, eye, scale) for eye in eyes]
    return element("div", title, element("div", *slots, class_="pair"), class_="card")


def _eye_slot(side: str, eye: ScreenedEye | None, scale: float) -> Markup:
    if eye is None:
        absent = element("div", "not shown", class_="absent")
        return element("div", element("h3", side), absent, class_="eye")
    photograph = enlarged(eye.image_hwc)
    views = [_view(photograph, "photograph")]
    if eye.evidence_hw is not None:
        overlay = evidence_overlay(photograph, eye.evidence_hw, scale=scale)
        views.append(_view(overlay, EVIDENCE_CAPTION))
    head = element("h3", side, mark_disposition(eye.disposition))
    pictures = element("div", *views, class_="two")
    return element("div", head, pictures, _eye_words(eye), class_="eye")


def _eye_words(eye: ScreenedEye) -> Markup:
    lines = []
    if eye.label is not None and eye.probability is not None and eye.threshold is not None:
        side = "at or above" if eye.probability >= eye.threshold else "below"
        words = f"{eye.probability:.3f}, {side} its threshold {eye.threshold:.3f}"
        lines.append(paragraph(element("b", label_words(eye.label)), " ", words, class_="num"))
    if eye.reason:
        lines.append(paragraph("Reason: ", eye.reason, class_="num"))
    lines.append(paragraph("Truth: ", eye.truth, class_="num"))
    return Markup("".join(lines))


def _tag() -> Markup:
    return element("b", SYNTHETIC, class_="synthetic")


def _view(pixels: ByteArray, words: str, *, kind: str = "photo") -> Markup:
    image = Markup(f'<img src="{png_uri(pixels)}" alt="synthetic {words}">')
    return element("figure", image, element("figcaption", words), class_=f"view {kind}")
