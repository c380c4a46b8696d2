"""Eyes whose structures are known: synthetic ones, DRIVE's vessels, GAMMA's foveas."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge_runtime.errors import ConfigError, DataError
from train.data.index import DataIndex, read_index
from train.data.scans import read_scan
from train.phantom.truth import read_truth

__all__ = ["LAYOUTS", "KnownEye", "known_eyes", "phantom_eyes"]

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class KnownEye:
    """One photograph and what is known of it; places are in pixels of the file.

    Attributes:
        cfp: path of the photograph.
        group: under which it is counted, such as 'gradable'.
        vessels: path of a vessel mask, or None.
        disc_xy_px: centre of the disc, or None.
        fovea_xy_px: or None.
        disc_radius: field units, or None.
        eye: 'OD', 'OS' or None.
    """

    cfp: Path
    group: str
    vessels: Path | None = None
    disc_xy_px: Point | None = None
    fovea_xy_px: Point | None = None
    disc_radius: float | None = None
    eye: str | None = None


def phantom_eyes(index: DataIndex, split: str) -> Iterator[KnownEye]:
    """Synthetic eyes of a split; ungradable ones are grouped by what spoiled them.

    Raises:
        DataError: the data set was not written by the phantom.
    """
    for visit in index.split(split):
        cfp = visit.files["cfp"]
        truth_path = index.root / "truth" / f"{cfp.stem}.npz"
        if not truth_path.is_file():
            raise DataError(f"{truth_path.name} is missing; use a folder that phantom wrote")
        truth = read_truth(truth_path)
        kind = str(truth["ungradable_kind"])
        side_px = read_scan(visit.files["vessels"]).shape[0]
        yield KnownEye(
            cfp=cfp,
            group=f"ungradable: {kind}" if kind else "gradable",
            vessels=visit.files["vessels"],
            disc_xy_px=_pixels(truth, "disc_xy", side_px),
            fovea_xy_px=_pixels(truth, "fovea_xy", side_px),
            disc_radius=float(truth["disc_radius"]),  # type: ignore[arg-type]
            eye=visit.eye,
        )


def _pixels(truth: dict[str, object], name: str, side_px: int) -> Point:
    """A latent place in pixels of the photograph, the camera's shift taken into account."""
    moved = np.asarray(truth[name], float) - np.asarray(truth["field_shift_xy"], float)
    x, y = ((moved / 2 + 0.5) * side_px - 0.5).tolist()
    return float(x), float(y)


def _from_phantom(root: Path, split: str) -> Iterator[KnownEye]:
    return phantom_eyes(read_index(root), split)


def _from_drive(root: Path, split: str) -> Iterator[KnownEye]:
    for row in _rows(root):
        if row["split"] == split:
            yield KnownEye(cfp=root / row["image"], group="real", vessels=root / row["vessels"])


def _from_gamma(root: Path, split: str) -> Iterator[KnownEye]:
    if split != "test":
        raise ConfigError(f"split is {split!r}; the GAMMA copy has no splits, give test")
    for row in _rows(root):
        place = (float(row["fovea_x"]), float(row["fovea_y"]))
        yield KnownEye(cfp=root / row["image"], group="real", fovea_xy_px=place)


LAYOUTS: dict[str, Callable[[Path, str], Iterator[KnownEye]]] = {
    "phantom": _from_phantom,
    "drive": _from_drive,
    "gamma": _from_gamma,
}


def known_eyes(root: Path, layout: str, split: str) -> Iterator[KnownEye]:
    """The eyes of a folder in one of LAYOUTS.

    Raises:
        ConfigError: the layout or the split is unknown.
        DataError: a file is missing or malformed.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"layout is {layout!r}; choose one of {', '.join(LAYOUTS)}")
    return LAYOUTS[layout](root, split)


def _rows(root: Path) -> list[dict[str, str]]:
    path = root / "index.csv"
    if not path.is_file():
        raise DataError(f"{path.name} is not in {root}; give the folder that holds it")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_vessels(path: Path) -> np.ndarray:
    """(H, W) bool; unlike a data set's mask, a public one may be smoothed."""
    data = np.frombuffer(path.read_bytes(), np.uint8)
    pixels = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise DataError(f"{path.name} cannot be decoded; restore the file")
    return np.asarray(pixels > 127)
