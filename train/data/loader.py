"""Visits as arrays: CFPs through the runtime's preprocessing, OCT scans, masks, labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ConfigError, DataError, ImageError
from edge_runtime.preprocess import PreprocessSpec, load_for_model
from train.data.index import MASK_COLUMNS, EyeVisit
from train.data.scans import read_mask, read_scan

__all__ = ["CfpArrays", "OctArrays", "label_matrix", "load_cfp", "load_masks", "load_oct"]

Progress = Callable[[int, int], None]
_Pixel = TypeVar("_Pixel", np.uint8, np.bool_)


@dataclass(frozen=True, kw_only=True)
class CfpArrays:
    """Preprocessed CFPs and what became of every visit.

    Attributes:
        images_nhwc: (K, S, S, 3) uint8 RGB.
        kept: For each image, its position in the visits that were asked for.
        excluded: (position, reason) of each visit without a usable CFP.
    """

    images_nhwc: npt.NDArray[np.uint8]
    kept: tuple[int, ...]
    excluded: tuple[tuple[int, str], ...]

    def __post_init__(self) -> None:
        """Every image belongs to exactly one visit."""
        if len(self.kept) != len(self.images_nhwc):
            raise ValueError(f"{len(self.images_nhwc)} images for {len(self.kept)} visits")


def load_cfp(
    visits: Sequence[EyeVisit],
    spec: PreprocessSpec,
    *,
    num_threads: int = 2,
    progress: Progress | None = None,
) -> CfpArrays:
    """Decode and preprocess each visit's CFP exactly as the camera does.

    A CFP that the runtime refuses (damaged, no field of view) is excluded with the
    runtime's reason; so is a visit without a CFP.

    Args:
        visits: The visits to load.
        spec: The preprocessing; `spec.size_px` is S.
        num_threads: Threads that decode. The result does not depend on it.
        progress: Called with (visits done, visits in all).

    Raises:
        DataError: A file that the index names can no longer be read from disk.
    """
    if num_threads < 1:
        raise ConfigError(f"num_threads is {num_threads}; use 1 or more")
    side_px = spec.size_px
    images_nhwc = np.empty((len(visits), side_px, side_px, 3), np.uint8)
    kept: list[int] = []
    excluded: list[tuple[int, str]] = []
    with ThreadPoolExecutor(max_workers=num_threads) as pool:
        outcomes = pool.map(lambda visit: _load_one(visit, spec), visits)
        for position, outcome in enumerate(outcomes):
            if isinstance(outcome, str):
                excluded.append((position, outcome))
            else:
                images_nhwc[len(kept)] = outcome
                kept.append(position)
            if progress is not None:
                progress(position + 1, len(visits))
    return CfpArrays(
        images_nhwc=images_nhwc[: len(kept)], kept=tuple(kept), excluded=tuple(excluded)
    )


def _load_one(visit: EyeVisit, spec: PreprocessSpec) -> npt.NDArray[np.uint8] | str:
    """The (S, S, 3) image, or the reason why there is none."""
    path = visit.files.get("cfp")
    if path is None:
        return "the visit has no CFP"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"row {visit.row_number}: cannot read '{path.name}' ({error.strerror}); restore it"
        ) from error
    try:
        _, preprocessed = load_for_model(data, spec)
    except ImageError as error:
        return str(error)
    return preprocessed.image_hwc


@dataclass(frozen=True, kw_only=True)
class OctArrays:
    """Both B-scans of each visit; axis 1 is horizontal, vertical.

    Attributes:
        scans_nvzx: (N, 2, Z, X) uint8; zeros where a scan is missing.
        present_nv: (N, 2) bool, which scans exist.
    """

    scans_nvzx: npt.NDArray[np.uint8]
    present_nv: npt.NDArray[np.bool_]


def load_oct(visits: Sequence[EyeVisit]) -> OctArrays:
    """Both OCT B-scans of each visit, as far as the index names them.

    Raises:
        DataError: A scan is damaged, shapes differ, or no visit has any scan.
    """
    columns = ("oct_h", "oct_v")
    present = np.array([[name in visit.files for name in columns] for visit in visits], bool)
    present = present.reshape(len(visits), 2)
    if not visits:
        return OctArrays(scans_nvzx=np.zeros((0, 2, 0, 0), np.uint8), present_nv=present)
    if not present.any():
        raise DataError("no visit has an OCT scan; give oct_h or oct_v in index.csv")
    first, axis = np.argwhere(present)[0]
    shape = _read(visits[first], columns[axis], read_scan).shape
    scans = np.zeros((len(visits), 2, *shape), np.uint8)
    for position, axis in np.argwhere(present):
        scans[position, axis] = _read(visits[position], columns[axis], read_scan, shape)
    return OctArrays(scans_nvzx=scans, present_nv=present)


def load_masks(visits: Sequence[EyeVisit], name: str) -> npt.NDArray[np.bool_]:
    """One kind of mask of each visit, in the pixels of the CFP files (not preprocessed).

    Returns:
        (N, H, W) bool.

    Raises:
        ConfigError: There is no mask column of that name.
        DataError: A visit lacks the mask, a mask is damaged, or shapes differ.
    """
    if name not in MASK_COLUMNS:
        raise ConfigError(f"unknown mask '{name}'; use one of {', '.join(MASK_COLUMNS)}")
    if not visits:
        return np.zeros((0, 0, 0), np.bool_)
    shape = _read(visits[0], name, read_mask).shape
    return np.stack([_read(visit, name, read_mask, shape) for visit in visits])


def _read(
    visit: EyeVisit,
    column: str,
    reader: Callable[[Path], npt.NDArray[_Pixel]],
    shape: tuple[int, ...] | None = None,
) -> npt.NDArray[_Pixel]:
    """One file of a visit; every refusal names the row."""
    where = f"row {visit.row_number}, column '{column}'"
    if column not in visit.files:
        raise DataError(f"{where}: the cell is empty; leave the visit out or give the file")
    try:
        image = reader(visit.files[column])
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    if shape is not None and image.shape != shape:
        raise DataError(
            f"{where}: shape {image.shape} where the first visit has {shape}; "
            "bring both to one size"
        )
    return image


def label_matrix(visits: Sequence[EyeVisit], names: Sequence[str]) -> npt.NDArray[np.float32]:
    """Labels as numbers.

    Returns:
        (N, L) float32 in the order of `names`; NaN is unknown.

    Raises:
        DataError: The data set has no such label column.
    """
    matrix = np.full((len(visits), len(names)), math.nan, np.float32)
    for position, visit in enumerate(visits):
        for column, name in enumerate(names):
            if name not in visit.labels:
                have = ", ".join(sorted(visit.labels)) or "none"
                raise DataError(f"the data set has no label '{name}'; it has: {have}")
            matrix[position, column] = visit.labels[name]
    return matrix
