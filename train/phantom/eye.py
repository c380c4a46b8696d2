"""Render one latent eye completely: photograph, two B-scans and masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import ConfigError
from train.phantom.bscan import render_bscan
from train.phantom.cfp import Fundus, render_fundus
from train.phantom.exposure import expose
from train.phantom.latent import FloatArray, LatentEye
from train.phantom.sample import sample_patient

__all__ = ["MASK_NAMES", "RenderedEye", "render_eye", "render_latent", "require_image_px"]

ByteArray = NDArray[np.uint8]
MASK_NAMES = ("vessels", "disc", "cup", "lesions")


@dataclass(frozen=True, kw_only=True, eq=False)
class RenderedEye:
    """The pictures of one eye on one day.

    Attributes:
        eye: The latent eye they came from.
        cfp_hwc: Colour fundus photograph, uint8 (S, S, 3) RGB.
        oct_zx: Horizontal and vertical B-scan, uint8 (2, Z, X).
        masks: vessels, disc, cup, lesions: uint8 (S, S), 0 or 255.
        boundaries_px: Layer boundaries, float32 (2, 11, X), in rows of the scan.
    """

    eye: LatentEye
    cfp_hwc: ByteArray
    oct_zx: ByteArray
    masks: dict[str, ByteArray]
    boundaries_px: FloatArray


def render_eye(
    seed: int, patient_number: int, laterality: Literal["OD", "OS"], *, image_px: int = 128
) -> RenderedEye:
    """Render one eye of a patient of the data set with this seed.

    Example:
        >>> rendered = render_eye(0, 12, "OD")
        >>> rendered.cfp_hwc.shape
        (128, 128, 3)
    """
    od, os = sample_patient(seed, patient_number)
    return render_latent(od if laterality == "OD" else os, image_px=image_px)


def require_image_px(image_px: int) -> None:
    """Raise ConfigError unless pictures of this size can be rendered."""
    if not 64 <= image_px <= 1024 or image_px % 4:
        raise ConfigError(f"image_px is {image_px}; give a multiple of 4 from 64 to 1024")


def render_latent(eye: LatentEye, *, image_px: int = 128) -> RenderedEye:
    """Render a latent eye with a photograph of `image_px` pixels a side (64 to 1024).

    The scans are `image_px` wide and three quarters of it high.
    """
    require_image_px(image_px)
    fundus = render_fundus(eye, image_px)
    picture = (expose(eye, fundus) * 255 + 0.5).astype(np.uint8)
    height_px = image_px * 3 // 4
    scans = [render_bscan(eye, k, height_px=height_px, width_px=image_px) for k in (0, 1)]
    return RenderedEye(
        eye=eye,
        cfp_hwc=picture,
        oct_zx=np.stack([scan.image_zx for scan in scans]),
        masks=_masks(fundus),
        boundaries_px=np.stack([scan.boundaries_px for scan in scans]),
    )


def _masks(fundus: Fundus) -> dict[str, ByteArray]:
    """Threshold the coverage maps within the field."""
    inside = fundus.grid.in_field() > 0.5
    limits = {"vessels": 0.35, "disc": 0.5, "cup": 0.5, "lesions": 0.4}
    maps = {name: getattr(fundus, name) for name in MASK_NAMES}
    return {
        name: ((maps[name] > limit) & inside).astype(np.uint8) * np.uint8(255)
        for name, limit in limits.items()
    }
