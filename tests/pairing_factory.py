"""Raw lists made by hand: a folder of small pictures and the CSV rows that name them."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
from dataset_factory import make_cfp, make_scan, write_image

COLUMNS = ("patient_id", "eye", "acquired", "site", "modality", "scan_kind", "path")


def write_jpeg(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = image[..., ::-1] if image.ndim == 3 else image
    path.write_bytes(cv2.imencode(".jpg", stored)[1].tobytes())


class RawFolder:
    """Adds rows with fresh pictures, then writes raw.csv."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: list[dict[str, str]] = []
        self._seed = 0

    def add(self, modality: str, kind: str, time: str, **cells: str) -> dict[str, str]:
        """One row with a picture of its own; `cells` overwrite the defaults."""
        self._seed += 1
        ending = "jpg" if modality == "cfp" else "png"
        row = {
            "patient_id": "P1",
            "eye": "OD",
            "acquired": time,
            "site": "north",
            "modality": modality,
            "scan_kind": kind,
            "path": f"raw/{self._seed:03d}.{ending}",
            **cells,
        }
        if modality == "cfp":
            write_jpeg(self.root / row["path"], make_cfp(self._seed))
        else:
            write_image(self.root / row["path"], make_scan(self._seed))
        self.rows.append(row)
        return row

    def visit(self, day: str = "2026-01-05", **cells: str) -> None:
        """A whole triple."""
        self.add("cfp", "macula", f"{day}T09:00", **cells)
        self.add("oct", "macula_h", f"{day}T09:05", **cells)
        self.add("oct", "macula_v", f"{day}T09:06", **cells)

    def write(self, columns=COLUMNS) -> Path:
        path = self.root / "raw.csv"
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        return path


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def reasons(out: Path) -> dict[int, str]:
    """Row number -> reason, as audit.csv has them."""
    return {int(row["row"]): row["reason"] for row in read_csv(out / "audit.csv")}
