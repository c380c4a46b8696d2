"""A data set's split in memory: what pretraining, fine-tuning and evaluation share.

A visit whose CFP the runtime refuses is left out and reported, never replaced.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from edge_runtime.errors import DataError
from edge_runtime.preprocess import PreprocessSpec
from train.data.index import DataIndex, read_index
from train.data.loader import label_matrix, load_cfp, load_oct

__all__ = ["SplitArrays", "load_split"]

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SplitArrays:
    """One split, row i of every array being the same visit.

    Attributes:
        images_nhwc: (N, S, S, 3) uint8 RGB, preprocessed by the runtime.
        scans_nvzx: (N, 2, Z, X) uint8 B-scans, or None if they were not asked for.
        labels: (N, L) float32 in the order of `label_names`; NaN = unknown.
        label_names: L names.
        patient_ids: (N,) str.
        eyes: (N,) 'OD', 'OS', or '' where nobody says.
        excluded: (row number in index.csv, reason) of visits left out.
        fingerprint: SHA-256 of the data set.
        scans_present_nv: (N, 2) bool, which B-scans exist (a missing one is zeros in
            `scans_nvzx`); None = all of them, or none were asked for.
    """

    images_nhwc: npt.NDArray[np.uint8]
    scans_nvzx: npt.NDArray[np.uint8] | None
    labels: npt.NDArray[np.float32]
    label_names: tuple[str, ...]
    patient_ids: npt.NDArray[np.str_]
    eyes: npt.NDArray[np.str_]
    excluded: tuple[tuple[int, str], ...]
    fingerprint: str
    scans_present_nv: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        """Number of visits."""
        return len(self.images_nhwc)

    def label(self, name: str) -> npt.NDArray[np.float32]:
        """(N,) float32 of one label.

        Raises:
            DataError: the data set has no such label.
        """
        if name not in self.label_names:
            have = ", ".join(self.label_names) or "none"
            raise DataError(f"the data set has no label '{name}'; it has: {have}")
        return self.labels[:, self.label_names.index(name)]

    def images_tensor(self) -> torch.Tensor:
        """(N, S, S, 3) uint8 tensor sharing memory with `images_nhwc`."""
        return torch.from_numpy(self.images_nhwc)

    def keep(self, mask: npt.NDArray[np.bool_]) -> SplitArrays:
        """The rows where `mask` is True."""
        return SplitArrays(
            images_nhwc=self.images_nhwc[mask],
            scans_nvzx=None if self.scans_nvzx is None else self.scans_nvzx[mask],
            labels=self.labels[mask],
            label_names=self.label_names,
            patient_ids=self.patient_ids[mask],
            eyes=self.eyes[mask],
            excluded=self.excluded,
            fingerprint=self.fingerprint,
            scans_present_nv=None if self.scans_present_nv is None else self.scans_present_nv[mask],
        )


def load_split(data: Path | DataIndex, split: str, *, size_px: int, with_oct: bool) -> SplitArrays:
    """Load one split.

    Args:
        data: the data set's folder or its index already read.
        split: 'train', 'val' or 'test'.
        size_px: S of the runtime's preprocessing.
        with_oct: also read both B-scans.

    Raises:
        DataError: the data set breaks its contract, or no visit can be used.
    """
    index = read_index(data) if isinstance(data, Path) else data
    visits = index.split(split)
    cfp = load_cfp(visits, PreprocessSpec(size_px=size_px))
    used = [visits[i] for i in cfp.kept]
    if not used:
        raise DataError(f"split '{split}' of {index.root} has no usable visit; check the data set")
    if cfp.excluded:
        _LOGGER.warning("%d of %d visits left out of '%s'", len(cfp.excluded), len(visits), split)
    scans = load_oct(used) if with_oct else None
    if scans is not None and not scans.present_nv.all():
        missing = int((~scans.present_nv).sum())
        _LOGGER.warning("%d of %d B-scans of '%s' are missing", missing, 2 * len(used), split)
    return SplitArrays(
        images_nhwc=cfp.images_nhwc,
        scans_nvzx=None if scans is None else scans.scans_nvzx,
        labels=label_matrix(used, index.label_names),
        label_names=tuple(index.label_names),
        patient_ids=np.array([visit.patient_id for visit in used]),
        eyes=np.array([visit.eye for visit in used]),
        excluded=tuple((visits[i].row_number, reason) for i, reason in cfp.excluded),
        fingerprint=index.fingerprint(),
        scans_present_nv=None if scans is None or scans.present_nv.all() else scans.present_nv,
    )
