"""Write a synthetic data set in the project's on-disk format.

    out/
    ├── index.csv             one row an eye, written last: a folder without it is unfinished
    ├── dataset.json          generator version, seed, sizes, synthetic: true
    ├── cfp/ID.png            photograph, RGB
    ├── oct_h/ID.png          horizontal B-scan, 8-bit grey; oct_v/ID.png the vertical one
    ├── vessels/ disc/ cup/ lesions/   masks, 0 or 255
    └── truth/ID.npz          every latent, the vessel tree, the layer boundaries

Every byte depends on the seed, the number of patients and the picture size only.
"""

from __future__ import annotations

import csv
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from edge_runtime.errors import ConfigError, DataError
from train.phantom.eye import MASK_NAMES, RenderedEye, render_latent, require_image_px
from train.phantom.latent import LABEL_NAMES, LatentEye
from train.phantom.sample import SITES, sample_patient
from train.phantom.truth import write_truth

__all__ = [
    "GENERATOR_VERSION",
    "DatasetSummary",
    "generate_dataset",
    "refuse_used_folder",
    "split_of",
]

GENERATOR_VERSION = 1
_PICTURES = ("cfp", "oct_h", "oct_v", *MASK_NAMES)
_FIXED_COLUMNS = ("patient_id", "eye", "acquired", "site", "split")
_COLUMNS = (*_FIXED_COLUMNS, *_PICTURES, *LABEL_NAMES)
_SPLIT_SALT = "edge-screen phantom "

Row = dict[str, str | int]


@dataclass(frozen=True, kw_only=True)
class DatasetSummary:
    """What was written.

    Attributes:
        num_patients: Patients; each has two eyes.
        num_eyes: Triples of photograph and two scans.
        seconds: Wall-clock time.
        counts: Split -> label -> number of eyes with it (and "eyes": all of the split).
    """

    num_patients: int
    num_eyes: int
    seconds: float
    counts: dict[str, dict[str, int]]

    @property
    def triples_per_second(self) -> float:
        """Speed, files included."""
        return self.num_eyes / self.seconds if self.seconds > 0 else 0.0


def split_of(patient_id: str) -> str:
    """Return the split of a patient: 70 % train, 10 % val, 20 % test, by hash of the id."""
    digest = hashlib.sha256((_SPLIT_SALT + patient_id).encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return "train" if share < 0.7 else "val" if share < 0.8 else "test"


def generate_dataset(
    out: Path,
    *,
    num_patients: int,
    seed: int,
    image_px: int = 128,
    num_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> DatasetSummary:
    """Write a data set of `num_patients` synthetic patients, two eyes each.

    Args:
        out: A folder that is empty or does not exist yet.
        num_patients: At least 1.
        seed: Not negative. A patient depends on the seed and its own number only.
        image_px: Side of the photographs and width of the scans.
        num_workers: Processes; the bytes written do not depend on it.
        progress: Called with (patients done, num_patients).

    Raises:
        ConfigError: A number is out of its range.
        DataError: `out` holds files already.
    """
    _check_numbers(num_patients, seed, num_workers)
    require_image_px(image_px)
    out = Path(out)
    refuse_used_folder(out)
    started = time.perf_counter()
    for name in (*_PICTURES, "truth"):
        (out / name).mkdir(parents=True)
    rows: list[Row] = []
    task = partial(_write_patient, out, seed, image_px)
    for patient_rows in _run(task, num_patients, num_workers):
        rows.extend(patient_rows)
        if progress is not None:
            progress(len(rows) // 2, num_patients)
    _write_description(out, num_patients, seed, image_px)
    _write_index(out / "index.csv", rows)
    return DatasetSummary(
        num_patients=num_patients,
        num_eyes=len(rows),
        seconds=time.perf_counter() - started,
        counts=_count(rows),
    )


def _check_numbers(num_patients: int, seed: int, num_workers: int) -> None:
    for name, value, low in (
        ("num_patients", num_patients, 1),
        ("seed", seed, 0),
        ("num_workers", num_workers, 1),
    ):
        if value < low:
            raise ConfigError(f"{name} is {value}; give at least {low}")
    if num_patients > 1_000_000:
        raise ConfigError(f"num_patients is {num_patients}; patient ids end at 1000000 patients")


def refuse_used_folder(out: Path) -> None:
    """Raise DataError unless a data set can be written to `out`."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; give a folder that is empty or does not exist")
    if out.is_dir() and any(out.iterdir()):
        raise DataError(f"{out} is not empty; remove its content or give another folder")


def _run(
    task: Callable[[int], list[Row]], num_patients: int, num_workers: int
) -> Iterator[list[Row]]:
    """Run the task for every patient, in order."""
    if num_workers == 1:
        with _one_opencv_thread():
            yield from map(task, range(num_patients))
        return
    # spawn, not fork: the caller may hold threads (torch, OpenCV) that a fork would break
    with get_context("spawn").Pool(num_workers, cv2.setNumThreads, (1,)) as pool:
        yield from pool.imap(task, range(num_patients), chunksize=4)


@contextmanager
def _one_opencv_thread() -> Iterator[None]:
    """Small pictures are drawn faster without OpenCV's thread pool."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _write_patient(out: Path, seed: int, image_px: int, patient_number: int) -> list[Row]:
    return [
        _write_eye(out, render_latent(eye, image_px=image_px))
        for eye in sample_patient(seed, patient_number)
    ]


def _write_eye(out: Path, rendered: RenderedEye) -> Row:
    eye = rendered.eye
    pictures = {
        "cfp": np.ascontiguousarray(rendered.cfp_hwc[..., ::-1]),
        "oct_h": rendered.oct_zx[0],
        "oct_v": rendered.oct_zx[1],
        **rendered.masks,
    }
    for name, pixels in pictures.items():
        _write_png(out / name / f"{eye.eye_id}.png", pixels)
    write_truth(out / "truth" / f"{eye.eye_id}.npz", rendered)
    return _row(eye)


def _write_png(path: Path, pixels: np.ndarray) -> None:
    done, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise DataError(f"{path} could not be encoded as PNG; report the seed and patient")
    path.write_bytes(data.tobytes())


def _row(eye: LatentEye) -> Row:
    row: Row = {
        "patient_id": eye.patient_id,
        "eye": eye.anatomy.laterality,
        "acquired": eye.acquired.isoformat(),
        "site": eye.capture.site,
        "split": split_of(eye.patient_id),
    }
    row.update({name: f"{name}/{eye.eye_id}.png" for name in _PICTURES})
    row.update(eye.labels())
    return row


def _write_index(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _write_description(out: Path, num_patients: int, seed: int, image_px: int) -> None:
    description = {
        "generator": "edge-screen phantom",
        "generator_version": GENERATOR_VERSION,
        "image_px": image_px,
        "labels": list(LABEL_NAMES),
        "num_patients": num_patients,
        "seed": seed,
        "sites": list(SITES),
        "synthetic": True,
    }
    text = json.dumps(description, indent=2, sort_keys=True) + "\n"
    (out / "dataset.json").write_text(text, encoding="utf-8")


def _count(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    """Count eyes by split and label; dr_grade is left to referable_dr."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("train", "val", "test")}
    for row in rows:
        counter = counts[str(row["split"])]
        counter["eyes"] += 1
        for name in LABEL_NAMES:
            if name != "dr_grade":
                counter[name] += int(row[name])
    return {split: dict(counter) for split, counter in counts.items()}
