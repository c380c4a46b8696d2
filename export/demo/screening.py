"""Screen held-out camera pictures, and damaged files, with the signed bundle."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_runtime.bundle import Bundle, read_bundle
from edge_runtime.bundle_parts.manifest import LabelSpec
from edge_runtime.engines import open_engine
from edge_runtime.errors import ImageError
from edge_runtime.examination import Examination, EyeImage
from edge_runtime.preprocess import load_for_model
from edge_runtime.result import Decision, EyeResult, ScreeningResult
from edge_runtime.screener import Screener
from export.demo.html import label_words
from export.demo.model import ScreeningSummary, UnreadableFiles
from export.demo.pictures import ScreenedEye
from train.teacher import GRADABLE

__all__ = ["Screened", "damaged_files", "permissive", "screen_camera_set"]

_SHOWN_PX = 384
_BINARY_TRUTH = ("macular_edema", "myopic_schisis", "glaucoma", "referable_dr", "amd")


@dataclass(frozen=True, kw_only=True)
class Screened:
    """The summary for report.json and the eyes for the page."""

    summary: ScreeningSummary
    eyes: tuple[ScreenedEye, ...]


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """One row of camera/index.csv."""

    patient: str
    eye: str
    data: bytes
    labels: Mapping[str, str]

    @property
    def truth(self) -> str:
        """What the eye has, in words."""
        if self.labels[GRADABLE] == "0":
            return "ungradable"
        found = [label_words(name) for name in _BINARY_TRUTH if self.labels[name] == "1"]
        return ", ".join(found) or "no disease"

    @property
    def truth_class(self) -> str:
        """'diseased', 'healthy' or 'ungradable'."""
        return {"ungradable": "ungradable", "no disease": "healthy"}.get(self.truth, "diseased")


def screen_camera_set(folder: Path, bundle_dir: Path, *, trusted_keys: Path) -> Screened:
    """Screen every picture of `folder`/camera, one examination a patient, and damaged ones.

    Raises:
        BundleError: the bundle cannot be trusted or used.
    """
    patients: dict[str, list[_Picture]] = {}
    for picture in _read_pictures(folder / "camera"):
        patients.setdefault(picture.patient, []).append(picture)
    eyes: list[ScreenedEye] = []
    results: list[ScreeningResult] = []
    agreement: dict[str, Counter[str]] = {}
    with Screener.open(bundle_dir, trusted_keys=trusted_keys, allow_unproven_int8=True) as screener:
        for patient, pictures in patients.items():
            images = tuple(EyeImage(eye=one.eye, source=one.data) for one in pictures)
            result = screener.screen(
                Examination(images=images, examination_id=patient), evidence=True
            )
            results.append(result)
            for picture, eye in zip(pictures, result.eyes, strict=True):
                eyes.append(_shown(patient, picture, eye, screener))
                agreement.setdefault(picture.truth_class, Counter())[eye.disposition.value] += 1
    dispositions = Counter(eye.disposition for eye in eyes)
    return Screened(
        summary=ScreeningSummary(
            num_pictures=len(eyes),
            dispositions={one.value: dispositions[one.value] for one in Decision},
            agreement={name: dict(counts) for name, counts in agreement.items()},
            unreadable_files=_screen_damaged(
                [one.data for pictures in patients.values() for one in pictures],
                bundle_dir,
                trusted_keys,
            ),
            eyes=tuple(_without_maps(result.to_dict()) for result in results),
        ),
        eyes=tuple(eyes),
    )


def damaged_files(jpeg: bytes) -> dict[str, bytes]:
    """A good camera JPEG damaged in the ways that files are damaged, by what was done."""
    middle = len(jpeg) // 2
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_4)
    if pixels is None:
        raise ValueError("the picture to damage is not an intact JPEG")
    return {
        "empty": b"",
        "not an image": b"patient list\n" * 50,
        "first half only": jpeg[:middle],
        "last half only": jpeg[middle:],
        "last two bytes lost": jpeg[:-2],
        "cut, with an end marker put back": jpeg[:middle] + b"\xff\xd9",
        "header overwritten": b"\x00" * 64 + jpeg[64:],
        "one channel": cv2.imencode(".jpg", pixels)[1].tobytes(),
        "claims 65,000 x 65,000 pixels": _claiming(jpeg, 65_000),
    }


def _claiming(jpeg: bytes, side_px: int) -> bytes:
    """The file with another size in its frame header (baseline JPEG)."""
    start = jpeg.index(b"\xff\xc0") + 5
    size = side_px.to_bytes(2, "big") * 2
    return jpeg[:start] + size + jpeg[start + 4 :]


def _screen_damaged(pictures: list[bytes], bundle_dir: Path, trusted_keys: Path) -> UnreadableFiles:
    """Damage every picture in every way and screen it where 'no refer' comes easiest."""
    bundle = permissive(read_bundle(bundle_dir, trusted_keys=trusted_keys))
    damaged = [bad for good in pictures for bad in damaged_files(good).values()]
    with Screener(
        bundle, open_engine(bundle, engine="onnxruntime"), allow_unproven_int8=True
    ) as screener:
        answers = [screener.screen(data).disposition for data in damaged]
        control = [screener.screen(data).disposition for data in pictures]
    return UnreadableFiles(
        num=len(answers),
        num_no_refer=answers.count(Decision.NO_REFER),
        num_control=len(control),
        num_control_no_refer=control.count(Decision.NO_REFER),
    )


def permissive(bundle: Bundle) -> Bundle:
    """The bundle under which every readable picture is 'no refer': for this check alone.

    No probability reaches 1 and every one reaches 0, so only the runtime's own refusals
    are left between a damaged file and 'no refer'.
    """

    def at(spec: LabelSpec, threshold: float) -> LabelSpec:
        assert spec.operating_point is not None
        point = replace(spec.operating_point, threshold=threshold)
        return replace(spec, operating_point=point, abstention=None)

    manifest = bundle.manifest
    labels = tuple(at(spec, 1.0) for spec in manifest.labels)
    gradability = at(manifest.gradability, 0.0)
    return replace(bundle, manifest=replace(manifest, labels=labels, gradability=gradability))


def _read_pictures(folder: Path) -> list[_Picture]:
    with (folder / "index.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return [
        _Picture(
            patient=row["id"].rpartition("_")[0],
            eye=row["id"].rpartition("_")[2],
            data=(folder / f"{row['id']}.jpg").read_bytes(),
            labels=row,
        )
        for row in rows
    ]


def _shown(patient: str, picture: _Picture, eye: EyeResult, screener: Screener) -> ScreenedEye:
    """What the page shows: the label closest above its threshold, with its evidence."""
    field = eye.fields[0]  # the camera set holds one picture an eye
    top = max(field.labels, key=lambda one: one.probability - one.threshold, default=None)
    evidence = None
    if top is not None and field.evidence is not None:
        evidence = field.evidence.maps_lhw[field.evidence.label_names.index(top.name)]
    return ScreenedEye(
        examination=patient,
        eye=picture.eye,
        image_hwc=_photograph(picture.data, screener),
        evidence_hw=evidence,
        label=None if top is None else top.name,
        probability=None if top is None else top.probability,
        threshold=None if top is None else top.threshold,
        disposition=eye.disposition.value,
        truth=picture.truth,
        reason="; ".join(eye.reasons),
    )


def _photograph(data: bytes, screener: Screener) -> np.ndarray:
    """The photograph as the network's square, but sharper; black if it cannot be read."""
    spec = replace(screener.bundle.manifest.preprocess_spec(), size_px=_SHOWN_PX)
    try:
        return load_for_model(data, spec)[1].image_hwc
    except ImageError:
        return np.zeros((_SHOWN_PX, _SHOWN_PX, 3), np.uint8)


def _without_maps(result: dict[str, Any]) -> dict[str, Any]:
    """The maps are shown as pictures; as numbers they would swamp the report."""
    for eye in result["eyes"]:
        for field in eye["fields"]:
            field["evidence"] = None
    return result
