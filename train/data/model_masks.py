"""Masks at the model's input: drawn on the CFP's file, brought through the runtime's geometry.

A mask has the pixels of the upright CFP file. The photograph's circle is found as the
runtime finds it, its box is cut out of the mask, and a pixel of the model's input is
inside when at least half of its area is.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ConfigError, DataError, ImageError
from edge_runtime.image import DecodedImage
from edge_runtime.preprocess import Preprocessed, PreprocessSpec, crop_box, load_for_model
from train.arrays import circle_mask
from train.data.index import MASK_COLUMNS, EyeVisit
from train.data.scans import read_mask

__all__ = ["ModelMasks", "fit_mask", "load_model_masks"]

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ModelMasks:
    """Masks of N visits in the pixels of the model's input.

    Attributes:
        masks_ncss: (N, C, S, S) bool; all False where there is no mask.
        present_nc: (N, C) bool: the visit has this mask. An empty mask is present: somebody
            looked and found nothing.
        names: C mask columns.
    """

    masks_ncss: BoolArray
    present_nc: BoolArray
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        if self.masks_ncss.shape[:2] != self.present_nc.shape:
            raise ValueError(f"{self.masks_ncss.shape} masks, {self.present_nc.shape} presences")
        if len(self.names) != self.present_nc.shape[1]:
            raise ValueError(f"{len(self.names)} names for {self.present_nc.shape[1]} masks")

    def __len__(self) -> int:
        """Number of visits."""
        return len(self.masks_ncss)

    def keep(self, rows: npt.NDArray[np.intp] | BoolArray) -> ModelMasks:
        """The visits at `rows` (a mask or positions)."""
        return ModelMasks(
            masks_ncss=self.masks_ncss[rows], present_nc=self.present_nc[rows], names=self.names
        )


def load_model_masks(
    visits: Sequence[EyeVisit],
    names: Sequence[str],
    spec: PreprocessSpec,
    *,
    num_threads: int = 2,
) -> ModelMasks:
    """Read each visit's masks and bring them to where the model sees them.

    Args:
        visits: visits whose CFP the runtime accepts.
        names: mask columns.
        spec: the preprocessing; `spec.size_px` is S.
        num_threads: threads that decode. The result does not depend on it.

    Raises:
        ConfigError: there is no mask column of a name.
        DataError: a CFP or mask cannot be read, or a mask has another shape than its CFP.
    """
    for name in names:
        if name not in MASK_COLUMNS:
            raise ConfigError(f"unknown mask '{name}'; use some of {', '.join(MASK_COLUMNS)}")
    if len(set(names)) != len(names) or num_threads < 1:
        raise ConfigError(f"masks {list(names)} must be distinct, num_threads {num_threads} >= 1")
    masks = np.zeros((len(visits), len(names), spec.size_px, spec.size_px), np.bool_)
    with ThreadPoolExecutor(max_workers=num_threads) as pool:
        rows = pool.map(lambda visit: _load_one(visit, names, spec), visits)
        for row, one in zip(masks, rows, strict=True):
            row[:] = one
    present = np.array([[name in visit.files for name in names] for visit in visits], np.bool_)
    return ModelMasks(
        masks_ncss=masks, present_nc=present.reshape(len(visits), len(names)), names=tuple(names)
    )


def _load_one(visit: EyeVisit, names: Sequence[str], spec: PreprocessSpec) -> BoolArray:
    """(C, S, S) bool of one visit; the CFP is decoded only where there is a mask."""
    out = np.zeros((len(names), spec.size_px, spec.size_px), np.bool_)
    held = [(k, name) for k, name in enumerate(names) if name in visit.files]
    if not held:
        return out
    decoded, made = _load_cfp(visit, spec)
    for k, name in held:
        where = f"row {visit.row_number}, column '{name}'"
        try:
            mask = read_mask(visit.files[name])
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        if mask.shape != decoded.full_size_px:
            raise DataError(
                f"{where}: the mask is {mask.shape[1]} x {mask.shape[0]} px, its CFP "
                f"{decoded.full_size_px[1]} x {decoded.full_size_px[0]}; draw the mask on the "
                "upright CFP file and keep its size"
            )
        out[k] = fit_mask(mask, decoded, made, spec)
    return out


def _load_cfp(visit: EyeVisit, spec: PreprocessSpec) -> tuple[DecodedImage, Preprocessed]:
    if "cfp" not in visit.files:
        raise DataError(f"row {visit.row_number}: a mask without a CFP; give the CFP or drop it")
    try:
        return load_for_model(visit.files["cfp"].read_bytes(), spec)
    except (OSError, ImageError) as error:
        raise DataError(
            f"row {visit.row_number}: '{visit.files['cfp'].name}' cannot be used ({error}); leave "
            "the visit out"
        ) from error


def fit_mask(
    mask: BoolArray, decoded: DecodedImage, made: Preprocessed, spec: PreprocessSpec
) -> BoolArray:
    """Bring a mask to the model's input.

    Args:
        mask: (H, W) bool in the pixels of the upright file.
        decoded: the CFP as decoded, perhaps at 1/k: then the box grows by k.
        made: its preprocessing, with the circle.
        spec: the preprocessing.

    Returns:
        (S, S) bool, False outside the field. The runtime drops an odd last row where it
        halves a large square; that is under a quarter of a pixel here and is not repeated.
    """
    left, top, side = (decoded.reduction * value for value in crop_box(made.field_of_view))
    square = _cut(mask, left, top, side)
    enlarges = side < spec.size_px
    share = cv2.resize(
        square,
        (spec.size_px, spec.size_px),
        interpolation=cv2.INTER_LINEAR if enlarges else cv2.INTER_AREA,
    )
    field = circle_mask(spec.size_px, radius_fraction=spec.mask_radius_fraction).numpy()
    inside: BoolArray = np.greater_equal(share, 0.5) & field
    return inside


def _cut(mask: BoolArray, left: int, top: int, side: int) -> npt.NDArray[np.float32]:
    """The box as float32; 0 where it leaves the frame."""
    height, width = mask.shape
    x0, x1 = max(left, 0), min(left + side, width)
    y0, y1 = max(top, 0), min(top + side, height)
    square = np.zeros((side, side), np.float32)
    square[y0 - top : y1 - top, x0 - left : x1 - left] = mask[y0:y1, x0:x1]
    return square
