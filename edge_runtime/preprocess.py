"""Make the model's input square from an image: the only preprocessing there is.

Training, INT8 calibration, export and the device all call `load_for_model`, so a model
never sees pixels made in another way than those it learned from.

decode at 1/k -> circle -> square around the circle -> `ss2` resize -> black outside
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import BundleFormatError, ConfigError, FieldOfViewError
from edge_runtime.fundus.fov import FieldOfView, find_field_of_view
from edge_runtime.image import DecodedImage, DecodeLimits, decode_image

__all__ = ["PreprocessSpec", "Preprocessed", "crop_box", "load_for_model", "preprocess"]

Pixels = npt.NDArray[np.uint8]

_VERSION = 2  # of the steps in this file; a change of any pixel is a new version


@dataclass(frozen=True, kw_only=True)
class PreprocessSpec:
    """Everything that decides the pixels a model sees; stored and hashed in the bundle.

    Attributes:
        size_px: side S of the output square.
        version: of the algorithm; only the version of this code is accepted.
        min_radius_px: smallest field radius in pixels of the file.
        mask_radius_fraction: pixels further than this share of S/2 from the centre are
            black. Slightly inside the field, so that the rim's JPEG ringing, the decode
            scale and half a pixel of the circle fit do not reach the model.
    """

    size_px: int
    version: int = _VERSION
    min_radius_px: int = 32
    mask_radius_fraction: float = 0.98

    def __post_init__(self) -> None:
        """Check every range.

        Raises:
            ConfigError: a field has a wrong type or is out of its range.
        """
        for name in ("size_px", "version", "min_radius_px"):
            if type(getattr(self, name)) is not int:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be a whole number")
        if not 16 <= self.size_px <= 4096:
            raise ConfigError(f"size_px is {self.size_px}; it must be 16 to 4096")
        if self.version != _VERSION:
            raise ConfigError(
                f"preprocessing version is {self.version}; this program knows {_VERSION}; "
                "install the matching edge-screen"
            )
        if self.min_radius_px < 8:
            raise ConfigError(f"min_radius_px is {self.min_radius_px}; it must be at least 8")
        fraction = self.mask_radius_fraction
        if type(fraction) not in (int, float) or not 0.5 <= fraction <= 1.0:
            raise ConfigError(f"mask_radius_fraction is {fraction!r}; it must be 0.5 to 1")

    def to_dict(self) -> dict[str, int | float]:
        """Return the fields as JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PreprocessSpec:
        """Build a spec from `to_dict`'s output.

        Raises:
            BundleFormatError: a key is unknown or missing, or a value is out of its range.
        """
        names = {f.name for f in fields(cls)}
        if set(values) != names:
            raise BundleFormatError(
                f"preprocessing has unknown keys {sorted(set(values) - names)} and lacks "
                f"{sorted(names - set(values))}; export the bundle again"
            )
        try:
            return cls(**values)
        except ConfigError as error:
            raise BundleFormatError(f"preprocessing cannot be used: {error}") from error

    def sha256(self) -> str:
        """Hash of the canonical JSON (sorted keys, no spaces), hexadecimal."""
        text = json.dumps(
            {**self.to_dict(), "mask_radius_fraction": float(self.mask_radius_fraction)},
            sort_keys=True,
            separators=(",", ":"),
        )
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Preprocessed:
    """A model's input.

    Attributes:
        image_hwc: (S, S, 3) uint8 RGB, black outside the field and outside the frame.
        field_of_view: the circle in pixels of the decoded image.
        warnings: what reduces the quality of the input.
    """

    image_hwc: Pixels
    field_of_view: FieldOfView
    warnings: tuple[str, ...]


def load_for_model(
    data: bytes,
    spec: PreprocessSpec,
    *,
    limits: DecodeLimits | None = None,
    sha256: str | None = None,
) -> tuple[DecodedImage, Preprocessed]:
    """Decode at the cheapest sufficient scale and make the model's input.

    The frame is only a guess of the field: where the circle found has fewer than S pixels
    across, the image is decoded again one step larger.

    Args:
        data: the image file's bytes.
        spec: the preprocessing of the model.
        limits: of decoding; None: the defaults.
        sha256: of the bytes, where the caller has it already; None: computed here, once.

    Returns:
        The decoded image (for the quality gate and the record) and the input.

    Raises:
        ImageUnreadableError: not one whole colour image of a supported format.
        ImageLimitError: larger than the limits.
        FieldOfViewError: no field of view, or too small.
    """
    decoded = decode_image(data, target_px=spec.size_px, limits=limits, sha256=sha256)
    view = _find_view(decoded, spec)
    while decoded.reduction > 1 and 2 * view.radius_px < spec.size_px:
        decoded = decode_image(
            data,
            target_px=spec.size_px,
            limits=limits,
            max_reduction=decoded.reduction // 2,
            sha256=decoded.sha256,
        )
        view = _find_view(decoded, spec)
    return decoded, _make_input(decoded, view, spec)


def preprocess(decoded: DecodedImage, spec: PreprocessSpec) -> Preprocessed:
    """Make the model's input from an image decoded already.

    Args:
        decoded: at any reduction; too large a one shows as an upsampling warning.
        spec: the preprocessing of the model.

    Returns:
        The input square, its circle and warnings.

    Raises:
        FieldOfViewError: no field of view, or too small.
    """
    return _make_input(decoded, _find_view(decoded, spec), spec)


def _find_view(decoded: DecodedImage, spec: PreprocessSpec) -> FieldOfView:
    view = find_field_of_view(
        decoded.image_hwc, reduction=decoded.reduction, full_size_px=decoded.full_size_px
    )
    if view is None:
        raise FieldOfViewError(
            "no circular field of view was found; photograph the eye again, or give a fundus "
            "photograph with its dark border"
        )
    radius_px = view.radius_px * decoded.reduction
    if radius_px < spec.min_radius_px:
        raise FieldOfViewError(
            f"the field of view has a radius of {radius_px:.1f} px in the file; at least "
            f"{spec.min_radius_px} are needed; give the camera's original"
        )
    return view


def _make_input(decoded: DecodedImage, view: FieldOfView, spec: PreprocessSpec) -> Preprocessed:
    square = _crop_square(decoded.image_hwc, view)
    warnings: tuple[str, ...] = ()
    if square.shape[0] < spec.size_px:
        warnings = (
            f"the field of view has {square.shape[0]} px across and was enlarged to "
            f"{spec.size_px}; fine lesions may be lost",
        )
    image = _resize_square(square, spec.size_px)
    np.bitwise_and(image, _field_mask(spec.size_px, spec.mask_radius_fraction), out=image)
    return Preprocessed(image_hwc=image, field_of_view=view, warnings=warnings)


def crop_box(view: FieldOfView) -> tuple[int, int, int]:
    """(left, top, side) of the circle's bounding square in whole pixels of the decoded image.

    It may leave the frame. The square becomes the model's input: what is drawn on the
    photograph, a mask for example, comes to the same place by the same box.
    """
    side = max(2, round(2 * view.radius_px))
    return round(view.cx_px - side / 2), round(view.cy_px - side / 2), side


def _crop_square(image_hwc: Pixels, view: FieldOfView) -> Pixels:
    """Cut the circle's bounding square on whole pixels; black where it leaves the frame."""
    height, width = image_hwc.shape[:2]
    left, top, side = crop_box(view)
    x0, x1 = max(left, 0), min(left + side, width)
    y0, y1 = max(top, 0), min(top + side, height)
    inner = image_hwc[y0:y1, x0:x1]
    if inner.shape[:2] == (side, side):
        return inner
    square = np.zeros((side, side, 3), np.uint8)
    square[y0 - top : y1 - top, x0 - left : x1 - left] = inner
    return square


def _resize_square(square: Pixels, size_px: int) -> Pixels:
    """`ss2`: bilinear to 2S, then the exact 2x2 mean; antialiased as far as 4S.

    Bilinear in exact integers: OpenCV's plain INTER_LINEAR has other kernels on aarch64, which
    differ by up to 3 grey levels, and a camera must compute what training computed.
    """
    if square.shape[0] < size_px:
        return _resize(square, size_px, cv2.INTER_LINEAR_EXACT)
    while square.shape[0] > 4 * size_px:
        even = square.shape[0] // 2 * 2
        square = _resize(square[:even, :even], even // 2, cv2.INTER_AREA)
    return _resize(_resize(square, 2 * size_px, cv2.INTER_LINEAR_EXACT), size_px, cv2.INTER_AREA)


def _resize(image: Pixels, side: int, interpolation: int) -> Pixels:
    return np.asarray(cv2.resize(image, (side, side), interpolation=interpolation), np.uint8)


@lru_cache(maxsize=8)
def _field_mask(size_px: int, fraction: float) -> Pixels:
    """(S, S, 3) uint8: 255 where the pixel's centre lies within the fraction of S/2, else 0.

    All bits or none, so that one pass of `bitwise_and` blackens what is outside; choosing the
    pixels by a boolean index takes tens of times longer.
    """
    offset = 2 * np.arange(size_px) + 1 - size_px
    inside = offset[:, None] ** 2 + offset**2 <= (fraction * size_px) ** 2
    mask = np.repeat(np.where(inside, 255, 0).astype(np.uint8)[..., None], 3, axis=2)
    mask.setflags(write=False)
    return np.asarray(mask, np.uint8)
