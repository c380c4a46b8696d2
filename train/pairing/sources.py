"""Where an image of the raw list lies, and how its bytes are read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from train.pairing.pixels import CfpFile, decode_cfp, decode_grey
from train.pairing.reasons import Reason, Refusal

__all__ = ["FileSource", "ImageSource", "VolumeColumn", "read_bytes"]


class ImageSource(Protocol):
    """One image. `name` tells it from every other of the list and orders ties."""

    @property
    def name(self) -> str:
        """Path relative to the list, with the part of the file where it has parts."""

    def digest(self) -> str | Refusal:
        """SHA-256 of what the image is read from; equal means the same picture twice."""

    def cfp(self, *, allow_grey: bool) -> CfpFile | Refusal:
        """The photograph as a file."""

    def oct_zx(self) -> npt.NDArray[np.uint8] | Refusal:
        """The B-scan, (Z, X) uint8."""


def read_bytes(path: Path) -> bytes | Refusal:
    """A file's bytes; the reason never repeats the path, which may name a patient."""
    try:
        return path.read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError)
        reason = Reason.MISSING_FILE if missing else Reason.UNREADABLE_IMAGE
        return Refusal(reason=reason, detail=error.strerror or "cannot be read")


@dataclass(frozen=True, kw_only=True)
class FileSource:
    """An ordinary picture file."""

    root: Path
    name: str

    def _read(self) -> bytes | Refusal:
        return read_bytes(self.root / self.name)

    def digest(self) -> str | Refusal:
        """SHA-256 of the file."""
        data = self._read()
        return data if isinstance(data, Refusal) else hashlib.sha256(data).hexdigest()

    def cfp(self, *, allow_grey: bool) -> CfpFile | Refusal:
        """The file, checked."""
        data = self._read()
        return data if isinstance(data, Refusal) else decode_cfp(data, allow_grey=allow_grey)

    def oct_zx(self) -> npt.NDArray[np.uint8] | Refusal:
        """The file's pixels as grey."""
        data = self._read()
        return data if isinstance(data, Refusal) else decode_grey(data)


@dataclass(frozen=True, kw_only=True)
class VolumeColumn:
    """The vertical B-scan that a volume of horizontal ones holds: the same column of each.

    The volume is sampled more coarsely from slice to slice than along a slice, so the column
    is stretched (linear) to the width of a slice. The first slice becomes the left side.
    """

    root: Path
    slices: tuple[str, ...]

    @property
    def name(self) -> str:
        """The middle slice's path, marked."""
        return f"{self.slices[len(self.slices) // 2]}#vertical"

    def digest(self) -> str | Refusal:
        """SHA-256 over all slices, in order."""
        total = hashlib.sha256(b"vertical")
        for name in self.slices:
            data = read_bytes(self.root / name)
            if isinstance(data, Refusal):
                return data
            total.update(hashlib.sha256(data).digest())
        return total.hexdigest()

    def cfp(self, *, allow_grey: bool) -> CfpFile | Refusal:  # noqa: ARG002 - protocol
        """A volume is no photograph."""
        return Refusal(reason=Reason.UNREADABLE_IMAGE, detail="an OCT volume is no photograph")

    def oct_zx(self) -> npt.NDArray[np.uint8] | Refusal:
        """(Z, X) uint8: the middle column of every slice, side by side, stretched to X."""
        columns: list[npt.NDArray[np.uint8]] = []
        shape: tuple[int, ...] | None = None
        for name in self.slices:
            scan = FileSource(root=self.root, name=name).oct_zx()
            if isinstance(scan, Refusal):
                return scan
            if shape is not None and scan.shape != shape:
                return Refusal(reason=Reason.SHAPE_MISMATCH, detail="slices of several sizes")
            shape = scan.shape
            columns.append(scan[:, scan.shape[1] // 2])
        vertical = np.stack(columns, axis=1)
        height, width = shape or vertical.shape
        stretched = cv2.resize(vertical, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.ascontiguousarray(stretched, dtype=np.uint8)
