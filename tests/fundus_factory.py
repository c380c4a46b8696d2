"""Synthetic fundus photographs and image files for the tests of the image path."""

from __future__ import annotations

import zlib

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


def fundus(
    height: int, width: int, *, cx: float, cy: float, radius: float, seed: int = 0
) -> Pixels:
    """(H, W, 3) RGB: a vignetted orange disc with smooth texture, antialiased at its rim."""
    y, x = np.ogrid[:height, :width]
    distance = np.hypot(x + 0.5 - cx, y + 0.5 - cy)
    shade = 1 - 0.4 * np.minimum(distance / radius, 1) ** 2
    cells = np.random.default_rng(seed).standard_normal((24, 24)).astype(np.float32)
    # The texture is tied to the circle, so a shifted circle shows the same eye.
    u = ((x + 0.5 - cx) / radius + 1) * 11.5 + np.zeros((height, 1))
    v = ((y + 0.5 - cy) / radius + 1) * 11.5 + np.zeros((1, width))
    texture = cv2.remap(
        cells, u.astype(np.float32), v.astype(np.float32), cv2.INTER_CUBIC, borderMode=4
    )
    cover = np.clip(radius - distance + 0.5, 0, 1) * shade
    # Pigment and blood darken green most: a fundus is no grey picture in one tint.
    pigment = 1 + texture[..., None] * np.array([0.08, 0.16, 0.1])
    image = cover[..., None] * pigment * np.array([190.0, 95.0, 45.0])
    return np.asarray(np.clip(image, 0, 255).round(), np.uint8)


def centred_fundus(side: int, *, fill: float = 0.95, seed: int = 0) -> Pixels:
    """A square frame with the disc in its middle."""
    return fundus(side, side, cx=side / 2, cy=side / 2, radius=fill * side / 2, seed=seed)


def jpeg_bytes(image_hwc: Pixels, *, quality: int = 92, progressive: bool = False) -> bytes:
    """Encode RGB as 4:2:0 JPEG."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    return bytes(cv2.imencode(".jpg", image_hwc[..., ::-1], options)[1])


def png_bytes(image: npt.NDArray[np.generic]) -> bytes:
    """Encode RGB or RGBA (or one channel, or 16 bits) as PNG."""
    code = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}.get(image.shape[-1])
    is_colour = image.ndim == 3 and code is not None
    return bytes(cv2.imencode(".png", cv2.cvtColor(image, code) if is_colour else image)[1])


def png_chunk(name: bytes, body: bytes) -> bytes:
    """One chunk with its CRC."""
    crc = zlib.crc32(name + body)
    return len(body).to_bytes(4, "big") + name + body + crc.to_bytes(4, "big")


def exif_block(orientation: int, *, order: str = "II") -> bytes:
    """A TIFF block with the orientation tag only."""
    endian = "little" if order == "II" else "big"

    def n(value: int, size: int) -> bytes:
        return value.to_bytes(size, endian)  # type: ignore[arg-type]

    entry = n(0x0112, 2) + n(3, 2) + n(1, 4) + n(orientation, 2) + n(0, 2)
    return order.encode() + n(42, 2) + n(8, 4) + n(1, 2) + entry + n(0, 4)


def with_exif(jpeg: bytes, block: bytes) -> bytes:
    """Insert an APP1 segment behind the start marker."""
    body = b"Exif\x00\x00" + block
    return jpeg[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + jpeg[2:]


def sof_offset(jpeg: bytes) -> int:
    """Offset of the frame header's marker (baseline or progressive)."""
    position = 2
    while jpeg[position + 1] not in (0xC0, 0xC1, 0xC2):
        position += 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
    return position


def with_size(jpeg: bytes, height: int, width: int) -> bytes:
    """Patch the size that the frame header claims."""
    at = sof_offset(jpeg) + 5
    return jpeg[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + jpeg[at + 4 :]
