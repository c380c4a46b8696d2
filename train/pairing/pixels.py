"""Image bytes as a data set stores them: colour photographs as they are, B-scans as grey PNG."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import EdgeScreenError, ImageError
from edge_runtime.formats.jpeg_markers import check_jpeg_structure, read_jpeg_frame
from edge_runtime.formats.png import PNG_SIGNATURE, check_png_structure
from edge_runtime.image import DecodeLimits, decode_image
from train.pairing.reasons import Reason, Refusal

__all__ = ["CfpFile", "check_whole", "decode_cfp", "decode_grey", "decode_pixels", "encode_png"]
__all__ += ["grey_from_array"]

_JPEG_START = b"\xff\xd8\xff"
_STORED = ("jpeg", "png")
_CONVERTED = ((b"II*\x00", "TIFF"), (b"MM\x00*", "TIFF"), (b"BM", "BMP"))
# A JPEG of a grey picture in YCbCr decodes to channels that differ by rounding, no more.
_MAX_GREY_DIFFERENCE = 4
# Mean over the picture of (largest - smallest channel). A CFP has 30 or more even where most
# of the frame is black; a near-infrared or red-free picture has 0 to 1.
_MIN_COLOURFULNESS = 3.0


@dataclass(frozen=True, kw_only=True)
class CfpFile:
    """A colour photograph ready to be written: the file's bytes and its ending."""

    data: bytes
    suffix: str


def decode_cfp(data: bytes, *, allow_grey: bool) -> CfpFile | Refusal:
    """Check a photograph to its last byte.

    JPEG and PNG are passed on as they are. 8-bit TIFF and BMP become PNG with equal pixels; a
    DICOM file is refused, since it holds the patient's name.
    """
    if data.startswith(tuple(start for start, _ in _CONVERTED)):
        pixels = decode_pixels(data)
        if pixels is None or pixels.dtype != np.uint8:
            return Refusal(reason=Reason.UNREADABLE_IMAGE, detail="not an 8-bit picture")
        data = encode_png(_three_channels(pixels))
    try:
        decoded = decode_image(data)
    except ImageError as error:
        if not allow_grey and "one channel" in str(error):
            return Refusal(reason=Reason.NOT_COLOUR, detail="the file has one channel")
        return Refusal(reason=Reason.UNREADABLE_IMAGE, detail=str(error))
    if decoded.format not in _STORED:
        return Refusal(
            reason=Reason.UNREADABLE_IMAGE, detail=f"a {decoded.format} file; list it so"
        )
    if not allow_grey and colourfulness(decoded.image_hwc) < _MIN_COLOURFULNESS:
        return Refusal(reason=Reason.NOT_COLOUR, detail="the channels are equal")
    return CfpFile(data=data, suffix=".jpg" if decoded.format == "jpeg" else ".png")


def colourfulness(image_hwc: npt.NDArray[np.uint8]) -> float:
    """Mean difference between the largest and the smallest channel, in grey levels."""
    widest = image_hwc.max(axis=2).astype(np.int16) - image_hwc.min(axis=2)
    return float(widest.mean())


def decode_grey(data: bytes) -> npt.NDArray[np.uint8] | Refusal:
    """A B-scan's file as (Z, X) uint8; colour annotations are refused, 16 bits halved."""
    try:
        check_whole(data)
    except EdgeScreenError as error:
        return Refusal(reason=Reason.UNREADABLE_IMAGE, detail=str(error))
    pixels = decode_pixels(data)
    if pixels is None:
        return Refusal(reason=Reason.UNREADABLE_IMAGE, detail="does not decode")
    return grey_from_array(pixels, num_bits=8 * pixels.dtype.itemsize)


def grey_from_array(
    pixels: npt.NDArray[np.generic], *, num_bits: int
) -> npt.NDArray[np.uint8] | Refusal:
    """Pixels of any source as (Z, X) uint8.

    Args:
        pixels: (Z, X) or (Z, X, 3 or 4) unsigned integers of `num_bits` used bits.
        num_bits: 8 to 16; the upper 8 are kept.
    """
    if pixels.dtype not in (np.uint8, np.uint16) or not 8 <= num_bits <= 16:
        return Refusal(reason=Reason.UNREADABLE_IMAGE, detail="not 8 to 16 unsigned bits a pixel")
    if num_bits > 8:
        pixels = np.minimum(np.right_shift(pixels.astype(np.uint16), num_bits - 8), 255)
    grey = pixels.astype(np.uint8)
    if grey.ndim == 2:
        return np.ascontiguousarray(grey)
    channels = grey[..., :3].astype(np.int16)
    if grey.ndim != 3 or int(np.ptp(channels, axis=2).max()) > _MAX_GREY_DIFFERENCE:
        return Refusal(reason=Reason.NOT_GREY, detail="the channels differ: drawings on the scan?")
    return np.ascontiguousarray(grey[..., 1])


def encode_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """(H, W) grey or (H, W, 3) BGR as PNG, lossless."""
    done, data = cv2.imencode(".png", pixels)
    if not done:
        raise ValueError(f"pixels of shape {pixels.shape} could not be encoded as PNG")
    return data.tobytes()


def check_whole(data: bytes) -> None:
    """Ask JPEG and PNG before decoding: decoders fill in what a cut file lacks."""
    if data.startswith(PNG_SIGNATURE):
        check_png_structure(data)
    elif data.startswith(_JPEG_START):
        frame = read_jpeg_frame(data)
        check_jpeg_structure(data, frame, max_scans=DecodeLimits().max_scans)


def decode_pixels(data: bytes) -> npt.NDArray[np.generic] | None:
    """(H, W) or (H, W, 3 or 4) BGR(A) as OpenCV reads the file; None where it cannot."""
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None


def _three_channels(pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    stored = pixels.astype(np.uint8)
    if stored.ndim == 2:
        return np.ascontiguousarray(np.repeat(stored[..., None], 3, axis=2))
    return np.ascontiguousarray(stored[..., :3])
