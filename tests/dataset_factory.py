"""Tiny data sets made by hand, so that a test can break exactly one thing in them."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np

COLUMNS = (
    *("patient_id", "eye", "acquired", "site", "split", "cfp", "oct_h", "oct_v"),
    *("vessels", "disc", "cup", "lesions", "glaucoma", "dr_grade"),
)
SIDE_PX = 128


def make_cfp(seed: int) -> np.ndarray:
    """A textured orange disc on black: (128, 128, 3) uint8 RGB."""
    rng = np.random.default_rng(seed)
    image = np.zeros((SIDE_PX, SIDE_PX, 3), np.float32)
    cv2.circle(image, (SIDE_PX // 2, SIDE_PX // 2), 58, (190, 90, 40), -1)
    inside = image[..., 0] > 0
    image[inside] += rng.normal(0, 12, (int(inside.sum()), 3)).astype(np.float32)
    return np.clip(image, 0, 255).astype(np.uint8)


def make_scan(seed: int) -> np.ndarray:
    """Noise in the shape of an OCT B-scan: (96, 128) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (96, SIDE_PX), dtype=np.uint8)


def write_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = image[..., ::-1] if image.ndim == 3 else image
    path.write_bytes(cv2.imencode(".png", stored)[1].tobytes())


def make_rows(root: Path, *, num_patients: int = 3) -> list[dict[str, str]]:
    """Write the images of two eyes a patient below `root`; returns the rows of their index."""
    rows = []
    for patient in range(num_patients):
        for eye in ("OD", "OS"):
            number = 2 * patient + (eye == "OS")
            stem = f"P{patient:03d}_{eye}.png"
            row = {
                "patient_id": f"P{patient:03d}",
                "eye": eye,
                "acquired": f"2026-01-{patient + 1:02d}",
                "site": "clinic-a",
                "split": ("train", "val", "test")[patient % 3],
                "glaucoma": str(number % 2),
                "dr_grade": "" if number == 1 else str(number % 5),
            }
            write_image(root / "cfp" / stem, make_cfp(number))
            write_image(root / "oct_h" / stem, make_scan(100 + number))
            write_image(root / "oct_v" / stem, make_scan(200 + number))
            for mask in ("vessels", "disc", "cup", "lesions"):
                pixels = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
                if mask != "lesions":
                    pixels[40:60, 40:60] = 255
                write_image(root / mask / stem, pixels)
            for column in ("cfp", "oct_h", "oct_v", "vessels", "disc", "cup", "lesions"):
                row[column] = f"{column}/{stem}"
            rows.append(row)
    return rows


def write_index(root: Path, rows: list[dict[str, str]], columns=COLUMNS, **options: str) -> Path:
    """Write index.csv; `options` go to the CSV writer, e.g. delimiter=';'."""
    path = root / "index.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(
            stream, columns, extrasaction="ignore", lineterminator="\n", **options
        )
        writer.writeheader()
        writer.writerows(rows)
    return path


def make_dataset(root: Path, *, num_patients: int = 3) -> list[dict[str, str]]:
    """A whole, correct data set in `root`; returns its rows."""
    rows = make_rows(root, num_patients=num_patients)
    write_index(root, rows)
    return rows
