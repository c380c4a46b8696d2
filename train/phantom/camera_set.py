"""Write full-size camera JPEGs of test eyes beside a data set, for tests of the runtime."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

from edge_runtime.errors import DataError
from train.phantom.camera import render_camera_jpeg
from train.phantom.latent import LABEL_NAMES, LatentEye
from train.phantom.sample import patient_name, sample_patient
from train.phantom.writer import split_of

__all__ = ["write_camera_set"]


def write_camera_set(
    out: Path,
    *,
    seed: int,
    num_patients: int,
    num_pictures: int,
    width_px: int = 3000,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write `out`/camera/ID.jpg and camera/index.csv for the first eyes of the test split.

    Args:
        out: Folder of the data set.
        seed: Seed of the data set.
        num_patients: Patients of the data set.
        num_pictures: How many to write; fewer if the test split has fewer eyes.
        width_px: Width of each picture.
        progress: Called with (pictures done, num_pictures).

    Returns:
        How many were written.

    Raises:
        DataError: The folder has camera pictures already.
    """
    folder = out / "camera"
    if folder.exists():
        raise DataError(f"{folder} exists already; remove it or give another folder")
    folder.mkdir(parents=True)
    rows = []
    for eye in _first_test_eyes(seed, num_patients, num_pictures):
        (folder / f"{eye.eye_id}.jpg").write_bytes(render_camera_jpeg(eye, width_px=width_px))
        rows.append({**_identity(eye), **eye.labels()})
        if progress is not None:
            progress(len(rows), num_pictures)
    _write_index(folder / "index.csv", rows)
    return len(rows)


def _first_test_eyes(seed: int, num_patients: int, limit: int) -> Iterator[LatentEye]:
    left = limit
    for number in range(num_patients):
        if left <= 0:
            return
        if split_of(patient_name(number)) == "test":
            eyes = sample_patient(seed, number)[:left]
            left -= len(eyes)
            yield from eyes


def _identity(eye: LatentEye) -> dict[str, str | int]:
    return {
        "id": eye.eye_id,
        "patient_id": eye.patient_id,
        "eye": eye.anatomy.laterality,
        "file": f"{eye.eye_id}.jpg",
        "site": eye.capture.site,
        "ungradable_kind": eye.capture.ungradable_kind,
    }


def _write_index(path: Path, rows: list[dict[str, str | int]]) -> None:
    columns = ("id", "patient_id", "eye", "file", "site", "ungradable_kind", *LABEL_NAMES)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
