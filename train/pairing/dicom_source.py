"""One frame of a DICOM file as an image of the raw list."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from train.pairing.dicom_door import read_frame, read_jpeg
from train.pairing.pixels import CfpFile, decode_cfp, encode_png, grey_from_array
from train.pairing.reasons import Reason, Refusal
from train.pairing.sources import read_bytes

__all__ = ["DicomSource"]


@dataclass(frozen=True, kw_only=True)
class DicomSource:
    """One frame of a DICOM file (None: a file of one frame)."""

    root: Path
    path: str
    frame: int | None

    @property
    def name(self) -> str:
        """The path, and the frame counted from 1 as viewers do."""
        return self.path if self.frame is None else f"{self.path}#{self.frame + 1}"

    def digest(self) -> str | Refusal:
        """SHA-256 of the file and the frame."""
        data = read_bytes(self.root / self.path)
        if isinstance(data, Refusal):
            return data
        return hashlib.sha256(data + f"#{self.frame}".encode()).hexdigest()

    def cfp(self, *, allow_grey: bool) -> CfpFile | Refusal:
        """A baseline JPEG inside the file as it is; any other as PNG with equal pixels."""
        jpeg = read_jpeg(self.root / self.path)
        if jpeg is not None:
            return decode_cfp(jpeg, allow_grey=allow_grey)
        found = read_frame(self.root / self.path, self.frame)
        if isinstance(found, Refusal):
            return found
        dataset, pixels = found
        if int(getattr(dataset, "BitsStored", 8)) != 8 or pixels.dtype != np.uint8:
            return Refusal(reason=Reason.UNREADABLE_IMAGE, detail="not 8 bits a channel")
        rgb = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
        return decode_cfp(encode_png(np.ascontiguousarray(rgb[..., ::-1])), allow_grey=allow_grey)

    def oct_zx(self) -> npt.NDArray[np.uint8] | Refusal:
        """(Z, X) uint8."""
        found = read_frame(self.root / self.path, self.frame)
        if isinstance(found, Refusal):
            return found
        dataset, pixels = found
        num_bits = int(getattr(dataset, "BitsStored", 8 * pixels.dtype.itemsize))
        return grey_from_array(pixels, num_bits=num_bits)
