"""The one place that imports pydicom: an optional dependency, with a clear word when absent.

Only the tags below are read from a file. Names, birth dates and free text are not among them.
"""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

from edge_runtime.errors import ConfigError
from train.pairing.reasons import Reason, Refusal

__all__ = ["read_frame", "read_header", "read_jpeg", "require_dicom"]

_JPEG_BASELINE = "1.2.840.10008.1.2.4.50"

_HEADER = (
    *("SOPClassUID", "PatientID", "ImageLaterality", "Laterality", "InstitutionName"),
    *("AcquisitionDateTime", "AcquisitionDate", "AcquisitionTime", "TimezoneOffsetFromUTC"),
    *("NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsStored"),
    *("AnatomicRegionSequence", "PrimaryAnatomicStructureSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
_PIXELS = (
    *("Rows", "Columns", "BitsAllocated", "HighBit", "PixelRepresentation"),
    *("PlanarConfiguration", "PixelData"),
)


def require_dicom() -> Any:
    """The module pydicom.

    Raises:
        ConfigError: The extra is not installed.
    """
    try:
        return importlib.import_module("pydicom")
    except ImportError as error:
        raise ConfigError(
            "reading DICOM needs pydicom; install it with pip install 'edge-screen[dicom]', "
            "or export the list as CSV"
        ) from error


def read_header(path: Path) -> Any | Refusal:
    """The tags that pairing needs, without pixels; a Refusal for what is no DICOM file."""
    return _read(path, _HEADER, stop_before_pixels=True)


def read_frame(path: Path, frame: int | None) -> tuple[Any, Any] | Refusal:
    """The header and the pixels of one frame (None: the only one).

    Returns:
        (dataset, array of (H, W) or (H, W, 3) in the colour space of the header, RGB where
        that is YBR), or why the pixels cannot be had: damaged, or compressed in a way that
        needs a decoder that is not installed.
    """
    dataset = _read(path, _HEADER + _PIXELS, stop_before_pixels=False)
    if isinstance(dataset, Refusal):
        return dataset
    pixels = importlib.import_module("pydicom.pixels")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = pixels.pixel_array(dataset, index=0 if frame is None else frame)
    except Exception as error:  # decoders raise what they like; the kind is enough
        detail = f"{type(error).__name__}; transfer syntax {_syntax(dataset)}"
        return Refusal(reason=Reason.UNREADABLE_IMAGE, detail=detail)
    return dataset, array


def read_jpeg(path: Path) -> bytes | None:
    """The JPEG file that a baseline-compressed photograph wraps; None for every other file."""
    dataset = _read(path, _HEADER + _PIXELS, stop_before_pixels=False)
    if isinstance(dataset, Refusal) or _syntax(dataset) != _JPEG_BASELINE:
        return None
    if not str(getattr(dataset, "PhotometricInterpretation", "")).startswith("YBR"):
        return None  # an RGB stream without its marker would be shown in wrong colours
    try:
        frame: bytes = importlib.import_module("pydicom.encaps").get_frame(
            dataset.PixelData, 0, number_of_frames=1
        )
    except Exception:  # read_frame says why
        return None
    return frame[:-1] if frame.endswith(b"\xff\xd9\x00") else frame  # padded to even length


def _read(path: Path, tags: tuple[str, ...], *, stop_before_pixels: bool) -> Any | Refusal:
    pydicom = require_dicom()
    try:
        with warnings.catch_warnings():  # a warning would repeat the value it is about
            warnings.simplefilter("ignore")
            return pydicom.dcmread(
                path, stop_before_pixels=stop_before_pixels, specific_tags=list(tags)
            )
    except OSError as error:
        return Refusal(reason=Reason.MISSING_FILE, detail=error.strerror or "cannot be read")
    except Exception as error:  # not DICOM, cut, or a header that no parser accepts
        return Refusal(reason=Reason.NOT_DICOM, detail=type(error).__name__)


def _syntax(dataset: Any) -> str:
    return str(getattr(dataset.file_meta, "TransferSyntaxUID", "unknown"))
