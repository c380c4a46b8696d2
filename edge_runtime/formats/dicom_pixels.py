"""Make RGB of the pixels of a DICOM photograph: stored, run-length coded, or JPEG-LS.

PS3.3, C.7.6.3.1 (photometric interpretation, planar configuration); PS3.5, annex G (RLE);
ITU-T T.87 (JPEG-LS). The conversion from YCbCr is libjpeg's, integer for integer.
"""

from __future__ import annotations

import re
import struct
from importlib import import_module

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ImageUnreadableError
from edge_runtime.formats.dicom_facts import PhotoFacts
from edge_runtime.formats.header import Pixels
from edge_runtime.formats.packed_bytes import unpack_bits

__all__ = ["decode_jpeg_ls", "decode_rle", "decode_stored"]

_CHANNELS = 3
_RLE_HEADER = struct.Struct("<16I")
_LS_START, _LS_END, _LS_FRAME, _LS_SCAN = b"\xff\xd8\xff", b"\xff\xd9", 0xF7, 0xDA
_LS_MARKER = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")  # in a scan less than 80 follows FF, or RSTn
_BLOCK_ROWS = 256  # of the colour conversion, so that its wide integers stay small
_FIXED_BITS, _HALF = 16, 1 << 15


def decode_stored(stored: bytes, facts: PhotoFacts) -> Pixels:
    """Reorder uncompressed pixels, of which there are exactly as many as needed, or one byte more.

    Returns:
        (rows, columns, 3) uint8 RGB.
    """
    rows, columns = facts.rows, facts.columns
    flat = np.frombuffer(stored, np.uint8, count=facts.num_stored_bytes)
    if facts.photometric == "YBR_FULL_422":
        pairs = flat.reshape(rows, columns // 2, 4)  # Y, Y, Cb, Cr
        chroma = np.repeat(pairs[..., 2:], 2, axis=1)
        return _rgb_from_ycc(np.dstack([pairs[..., :2].reshape(rows, columns), chroma]))
    if facts.is_planar:
        pixels = flat.reshape(_CHANNELS, rows, columns).transpose(1, 2, 0)
    else:
        pixels = flat.reshape(rows, columns, _CHANNELS)
    return _to_rgb(np.ascontiguousarray(pixels), facts)


def decode_rle(frame: bytes, facts: PhotoFacts) -> Pixels:
    """Undo RLE: three segments of PackBits, one a channel.

    Returns:
        (rows, columns, 3) uint8 RGB.

    Raises:
        ImageUnreadableError: other than three segments, or one does not hold a channel exactly.
    """
    header = _RLE_HEADER.unpack_from(frame) if len(frame) >= _RLE_HEADER.size else (0,)
    offsets = (*header[1 : 1 + _CHANNELS], len(frame))
    if header[0] != _CHANNELS or offsets[0] != _RLE_HEADER.size or sorted(offsets) != [*offsets]:
        raise ImageUnreadableError("DICOM RLE header is impossible: the file is damaged")
    pixels = np.empty((facts.rows, facts.columns, _CHANNELS), np.uint8)
    for channel in range(_CHANNELS):
        segment = frame[offsets[channel] : offsets[channel + 1]]
        plane = unpack_bits(segment, facts.rows * facts.columns, max_padding=1)
        pixels[..., channel] = np.frombuffer(plane, np.uint8).reshape(facts.rows, facts.columns)
    return _to_rgb(pixels, facts)


def decode_jpeg_ls(frame: bytes, facts: PhotoFacts) -> Pixels:
    """Decode lossless JPEG-LS with GDCM's CharLS, the one decoder seen to refuse damage.

    Returns:
        (rows, columns, 3) uint8 RGB.

    Raises:
        ImageUnreadableError: the packages are missing, the frame is not one of the size that the
            data set says, or the decoder refuses it.
    """
    _check_ls_frame(frame, facts)
    try:
        pydicom, pixels = import_module("pydicom"), import_module("pydicom.pixels")
        import_module("gdcm")
    except ImportError as error:
        raise ImageUnreadableError(
            "DICOM with JPEG-LS needs pydicom and python-gdcm; install the extra 'dicom' of this "
            "distribution, or export JPEG baseline"
        ) from error
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = facts.rows, facts.columns, _CHANNELS
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation, dataset.PlanarConfiguration = 7, 0, 0
    dataset.PhotometricInterpretation = "RGB"  # no conversion there; it is made here
    dataset.PixelData = import_module("pydicom.encaps").encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    try:
        decoded = pixels.pixel_array(dataset, raw=True, decoding_plugin="gdcm")
    except Exception as error:  # the decoders raise what they like; the kind is enough
        raise ImageUnreadableError(
            f"the JPEG-LS decoder refused the DICOM's pixels ({type(error).__name__}): the file is "
            "damaged; copy it again"
        ) from error
    if decoded.shape != (facts.rows, facts.columns, _CHANNELS) or decoded.dtype != np.uint8:
        raise ImageUnreadableError("the JPEG-LS decoder returned another size: the file is damaged")
    return _to_rgb(np.ascontiguousarray(decoded), facts)


def _check_ls_frame(frame: bytes, facts: PhotoFacts) -> None:
    """Walk the markers: the size, before a decoder allocates for it, and one end, at the end."""
    position, is_fitting = 2, False
    while frame.startswith(_LS_START) and position + 4 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        length = int.from_bytes(frame[position + 2 : position + 4], "big")
        if marker == _LS_FRAME:
            sizes = struct.unpack(">BHHB", frame[position + 4 :][:6].ljust(6))
            is_fitting = sizes == (8, facts.rows, facts.columns, _CHANNELS)
        position += 2 + length
        if marker == _LS_SCAN:
            found = _LS_MARKER.search(frame, position)
            position = found.start() if found else len(frame)
            if is_fitting and frame[position:].rstrip(b"\0") == _LS_END:
                return
    raise ImageUnreadableError(
        "the JPEG-LS in the DICOM file is not one whole picture of the size, bits and samples that "
        "the file says: it is damaged"
    )


def _to_rgb(pixels: Pixels, facts: PhotoFacts) -> Pixels:
    return pixels if facts.photometric == "RGB" else _rgb_from_ycc(pixels)


def _rgb_from_ycc(ycc: Pixels) -> Pixels:
    """Convert full-range YCbCr (ITU-R BT.601) as libjpeg does: tables of 16 fractional bits."""
    x = np.arange(256, dtype=np.int32) - 128
    red_cr, blue_cb = (_fixed(1.402) * x + _HALF) >> 16, (_fixed(1.772) * x + _HALF) >> 16
    green_cb, green_cr = -_fixed(0.34414) * x + _HALF, -_fixed(0.71414) * x
    rgb = np.empty_like(ycc)
    for top in range(0, len(ycc), _BLOCK_ROWS):
        block = ycc[top : top + _BLOCK_ROWS]
        y, cb, cr = block[..., 0].astype(np.int32), block[..., 1], block[..., 2]
        green = (green_cb[cb] + green_cr[cr]) >> _FIXED_BITS
        wide: list[npt.NDArray[np.int32]] = [y + red_cr[cr], y + green, y + blue_cb[cb]]
        rgb[top : top + _BLOCK_ROWS] = np.clip(np.stack(wide, axis=-1), 0, 255)
    return rgb


def _fixed(value: float) -> int:
    return int(value * (1 << _FIXED_BITS) + 0.5)
