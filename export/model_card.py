"""MODEL_CARD.md: what a person must know before trusting a bundle's number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edge_runtime.bundle_parts.manifest import Manifest

__all__ = ["model_card"]


def model_card(manifest: Manifest) -> str:
    """Text of the card; `calibrate` appends its section on INT8 and operating points."""
    return "\n".join(_lines(manifest)) + "\n"


def _lines(manifest: Manifest) -> Iterator[str]:
    origin, protocol = manifest.provenance, manifest.protocol
    synthetic = origin["synthetic"] is True
    yield f"# {manifest.name} {manifest.version}"
    yield ""
    yield f"**{manifest.intended_use.capitalize()}.**"
    if synthetic:
        yield "**Trained on synthetic eyes only. Its answers about real eyes mean nothing.**"
    yield ""
    yield "## What it does"
    yield (
        "From one colour fundus photograph of an eye it gives one probability a disease, one of "
        "being gradable, and a map of where the evidence lies. The patient is referred when one "
        "eye is positive; what cannot be judged is ungradable, never 'no refer'."
    )
    yield ""
    yield f"Labels: {', '.join(manifest.label_names)}; and {manifest.gradability.name}."
    yield (
        f"Pictures: {protocol.fields_per_eye} field(s) an eye of {protocol.field_degrees:g} "
        f"degrees; cameras: {', '.join(protocol.cameras)}; pixels per degree: "
        f"{_limit('at least', protocol.min_pixels_per_degree)}, "
        f"{_limit('a warning below', protocol.warn_pixels_per_degree)}."
    )
    if protocol.fields_per_eye > 1:
        yield (
            "Either field can refer the eye, and both must be clear to clear it. Operating points "
            "are set on single pictures: by the eye, sensitivity is higher and specificity lower."
        )
    yield f"Input: {manifest.preprocessing['size_px']} px square around the field of view."
    yield ""
    yield "## Where it comes from"
    yield f"- training data: {origin['training_data']}"
    yield f"- data set SHA-256: {origin['data_fingerprint']}"
    yield f"- teacher weights SHA-256: {origin['teacher_sha256']}"
    yield f"- student weights SHA-256: {origin['student_sha256']}"
    yield f"- edge-screen {origin['code_version']}, seeds {origin['seeds']}"
    yield ""
    yield from _agreement(manifest.metrics, synthetic=synthetic)
    yield "## Limits"
    yield "- Screens for the labels above and for nothing else; other disease goes unseen."
    yield "- Not tested on other cameras, fields, ages or populations than those named here."
    yield "- Evidence maps show where this model looked, not where disease is."
    yield "- No clinical validation, no regulatory clearance. Do not use for patient care."
    if not synthetic:
        yield (
            f"- golden.npz holds {manifest.golden.num_images} photographs of the split `val` and "
            "travels with the bundle: give it away only where that is allowed."
        )


def _agreement(metrics: Mapping[str, Any], *, synthetic: bool) -> Iterator[str]:
    """How close the student came to its teacher on val, as far as it was measured."""
    values = metrics["distill"].get("val", {})
    if not values:
        return
    kind = "synthetic eyes" if synthetic else "eyes"
    yield f"## Student against teacher (split `val`, {kind}; thresholds and INT8: see below)"
    yield "| measure | value |"
    yield "|---|---|"
    for name, value in values.items():
        yield f"| {name.replace('_', ' ')} | {value:.4f} |"
    yield ""


def _limit(words: str, value: float | None) -> str:
    return f"no limit for '{words}'" if value is None else f"{words} {value:g}"
