"""A data set whose findings a given student can see, and an exported bundle of that student."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
from bundle_factory import make_golden
from calibration_graphs import LABELS, build_student

from calibration.run_models import score_models
from edge_runtime.bundle import write_manifest
from edge_runtime.bundle_parts.golden import golden_bytes
from edge_runtime.bundle_parts.manifest import GoldenTolerances, LabelSpec, Manifest, Protocol
from edge_runtime.fundus.quality import QualityLimits
from edge_runtime.preprocess import PreprocessSpec, load_for_model

SIZE_PX = 32
COLUMNS = ("patient_id", "eye", "acquired", "site", "split", "cfp", *LABELS, "gradable")

# The eyes here are discs of any colour, so limits that ask for a fundus' colours are opened.
_DISC_LIMITS = QualityLimits(
    min_detail=0,  # and they are smooth
    min_warm_share=0,
    min_hue_spread=0,
    max_hue_spread=1,
    max_edge_contrast=9,
    max_roughness=9,
    max_shadow=1,
    max_glare=1,
    max_flat=1,
    max_step=1,
)


def write_bundle(folder: Path, model: bytes) -> None:
    """An uncalibrated, unsigned bundle as export writes it."""
    folder.mkdir(parents=True)
    spec = PreprocessSpec(size_px=SIZE_PX)
    (folder / "model.fp32.onnx").write_bytes(model)
    (folder / "golden.npz").write_bytes(golden_bytes(make_golden({"fp32": model}, spec, seed=0)))
    (folder / "MODEL_CARD.md").write_text("# Student\n\nSynthetic.\n")
    manifest = Manifest(
        name="student",
        version="0.1.0",
        intended_use="research use only; not a medical device",
        labels=tuple(LabelSpec(name=n, temperature=None, operating_point=None) for n in LABELS),
        gradability=LabelSpec(name="gradability", temperature=None, operating_point=None),
        protocol=Protocol(
            fields_per_eye=1,
            field_degrees=45.0,
            cameras=("phantom",),
            min_pixels_per_degree=1.0,
            warn_pixels_per_degree=None,
        ),
        preprocessing=spec.to_dict(),
        preprocessing_sha256=spec.sha256(),
        quality_limits=_DISC_LIMITS.to_dict(),
        golden=GoldenTolerances(
            num_images=3, atol_probability_fp32=1e-5, atol_probability_int8=0.02
        ),
        int8=None,
        metrics={},
        provenance={"training_data": "synthetic phantom eyes"},
    )
    write_manifest(folder, manifest)


def fundus(rng: np.random.Generator, side_px: int = 96) -> bytes:
    """PNG bytes of a disc of random colour and texture on black."""
    image = np.zeros((side_px, side_px, 3), np.float32)
    colour = rng.uniform((90, 50, 30), (230, 150, 90))
    cv2.circle(image, (side_px // 2, side_px // 2), 44, colour[::-1].tolist(), -1)
    coarse = rng.normal(0, 25, (6, 6, 3)).astype(np.float32)
    image += cv2.resize(coarse, (side_px, side_px)) * (image.sum(axis=2, keepdims=True) > 0)
    return cv2.imencode(".png", np.clip(image, 0, 255).astype(np.uint8))[1].tobytes()


def write_data(root: Path, model: bytes, *, num_patients: int = 60, seed: int = 0) -> None:
    """Two eyes a patient; findings are the model's own logits with noise, half of each."""
    rng = np.random.default_rng(seed)
    (root / "cfp").mkdir(parents=True)
    files = [fundus(rng) for _ in range(2 * num_patients)]
    spec = PreprocessSpec(size_px=SIZE_PX)
    scores = score_models({"m": model}, (load_for_model(f, spec)[1].image_hwc for f in files))["m"]
    table = np.column_stack([scores.logits, scores.gradability_logits])
    table += rng.normal(0, 0.4, table.shape) * table.std(axis=0)
    findings = (table > np.median(table, axis=0)).astype(int)
    findings[:, -1] = table[:, -1] > np.quantile(table[:, -1], 0.3)
    rows = []
    for number, data in enumerate(files):
        name = f"P{number // 2:03d}_{'OD' if number % 2 == 0 else 'OS'}"
        (root / "cfp" / f"{name}.png").write_bytes(data)
        split = ("train", "val", "val", "test")[number // 2 % 4]
        cells = [name[:4], name[5:], "2026-01-02", "clinic-a", split, f"cfp/{name}.png"]
        rows.append([*cells, *findings[number].tolist()])
    write_rows(root, rows)


def write_rows(root: Path, rows: list[list]) -> None:
    with (root / "index.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([COLUMNS, *rows])


def read_rows(root: Path) -> list[list]:
    with (root / "index.csv").open(newline="") as stream:
        return list(csv.reader(stream))[1:]


__all__ = ["build_student", "fundus", "read_rows", "write_bundle", "write_data", "write_rows"]
