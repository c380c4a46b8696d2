"""Render the full-size JPEG that a fundus camera would store for a latent eye."""

from __future__ import annotations

import struct

import cv2
import numpy as np

from edge_runtime.errors import ConfigError
from train.phantom.cfp import render_fundus
from train.phantom.exposure import expose
from train.phantom.latent import LatentEye

__all__ = ["camera_frame", "render_camera_jpeg", "require_width_px"]

# Each site's camera: frame height as a share of its width, field diameter as a share of the height.
_FRAMES = {"north": (2 / 3, 0.98), "harbour": (3 / 4, 0.92), "hospital": (2 / 3, 0.94)}


def render_camera_jpeg(
    eye: LatentEye, *, width_px: int = 3000, quality: int = 92, exif: bool = True
) -> bytes:
    """Render a photograph as a camera stores it: landscape frame, near-black surround.

    Args:
        eye: The latent eye.
        width_px: Width of the frame, 512 to 6000; real cameras give 2000 to 4000.
        quality: JPEG quality, 1 to 100; chroma is subsampled 4:2:0.
        exif: Write an EXIF segment that says orientation 1 (upright).

    Returns:
        The bytes of the file.
    """
    require_width_px(width_px)
    bgr = np.ascontiguousarray(camera_frame(eye, width_px)[..., ::-1])
    chroma_420 = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality, *chroma_420])
    if not done:
        raise ConfigError(f"quality {quality} gave no JPEG; give a quality from 1 to 100")
    encoded = data.tobytes()
    return encoded[:2] + _upright_exif() + encoded[2:] if exif else encoded


def require_width_px(width_px: int) -> None:
    """Raise ConfigError unless frames of this width can be rendered."""
    if not 512 <= width_px <= 6000:
        raise ConfigError(f"width_px is {width_px}; give a width from 512 to 6000 pixels")


def camera_frame(eye: LatentEye, width_px: int) -> np.ndarray:
    """Render the frame as pixels, uint8 (H, W, 3) RGB."""
    aspect, fill = _FRAMES[eye.capture.site]
    height_px = round(width_px * aspect / 2) * 2
    field_px = round(height_px * fill / 2) * 2
    rng = np.random.default_rng([eye.render_seed, 4])
    dark = np.clip(2.0 + 1.2 * rng.standard_normal((height_px, width_px, 1)), 0, 6)
    frame = np.repeat(dark.astype(np.uint8), 3, axis=2)
    field = (expose(eye, render_fundus(eye, field_px)) * 255 + 0.5).astype(np.uint8)
    top, left = (height_px - field_px) // 2, (width_px - field_px) // 2
    window = frame[top : top + field_px, left : left + field_px]
    np.maximum(window, field, out=window)
    return frame


def _upright_exif() -> bytes:
    """An APP1 segment with one TIFF entry: orientation 1."""
    tiff = struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, 1, 0, 0)
    payload = b"Exif\x00\x00" + tiff
    return b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload
