"""What strict decoders, none of them the product's own, say about the bytes of a picture's file.

`strict_refusal` is the oracle of the fault tests: a file that it refuses must never be decided.
JPEG: simplejpeg with every warning of libjpeg-turbo an error. PNG: the zlib stream must hold
exactly the rows that the header claims, and every chunk its CRC. The others: Pillow, pydicom.
"""

from __future__ import annotations

import io
import warnings
import zlib

__all__ = ["strict_refusal"]

_MAX_PIXELS = 40_000_000  # what claims more is a bomb and is not tried
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


class _StrictError(Exception):
    """The file is not whole."""


def strict_refusal(data: bytes) -> str | None:
    """Why a strict decoder refuses the file, or None where it decodes it without a warning."""
    try:
        if data[:3] == b"\xff\xd8\xff":
            _decode_jpeg(data)
        elif data[:8] == b"\x89PNG\r\n\x1a\n":
            _decode_png(data)
        elif data[128:132] == b"DICM":
            _decode_dicom(data)
        else:
            _decode_with_pillow(data)
    except Exception as error:  # whatever these libraries raise is their refusal
        return f"{type(error).__name__}: {error}"
    return None


def _require_pixels(num: int) -> None:
    if not 0 < num <= _MAX_PIXELS:
        raise _StrictError(f"claims {num} pixels")


def _decode_jpeg(data: bytes) -> None:
    import simplejpeg

    height, width = simplejpeg.decode_jpeg_header(data, strict=True)[:2]
    _require_pixels(height * width)
    simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)


def _decode_png(data: bytes) -> None:
    position, stream, header, name = 8, b"", b"", b""
    while name != b"IEND":
        size = int.from_bytes(data[position : position + 4], "big")
        name, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + size]
        crc = data[position + 8 + size : position + 12 + size]
        if len(crc) < 4 or zlib.crc32(name + body) != int.from_bytes(crc, "big"):
            raise _StrictError(f"chunk {name!r} is cut or fails its CRC")
        header = body if name == b"IHDR" else header
        stream += body if name == b"IDAT" else b""
        position += 12 + size
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    _require_pixels(width * height)
    if header[12]:
        _decode_with_pillow(data)  # interlaced: rows of seven sizes
        return
    stride = 1 + -(-width * _CHANNELS[header[9]] * header[8] // 8)
    unpacker = zlib.decompressobj()
    rows = unpacker.decompress(stream, height * stride + 1)
    if len(rows) != height * stride or not unpacker.eof:
        raise _StrictError(f"{len(rows)} bytes of rows instead of {height * stride}")
    if max(rows[::stride]) > 4:
        raise _StrictError("a row has a filter that does not exist")


def _decode_with_pillow(data: bytes) -> None:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Image.open(io.BytesIO(data)) as image:
            _require_pixels(image.width * image.height)
            image.load()


def _decode_dicom(data: bytes) -> None:
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that do not touch the pixels
        dataset = pydicom.dcmread(io.BytesIO(data))
        _require_pixels(int(dataset.Rows) * int(dataset.Columns))
        if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            _ = dataset.pixel_array
            return
    frames = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
    if frames[0][:3] == b"\xff\xd8\xff":
        _decode_jpeg(frames[0])
    else:
        _ = dataset.pixel_array
