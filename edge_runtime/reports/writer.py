"""Write a run's reports from its kept answers: a table and a page, each whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import ConfigError
from edge_runtime.image import DecodeLimits
from edge_runtime.reports.page import PictureOf, ReportOptions, html_parts
from edge_runtime.reports.table import csv_lines
from edge_runtime.safe_files import write_parts
from edge_runtime.screening.entries import ReportEntry
from edge_runtime.screening.plan import PlannedPicture

__all__ = ["LoadSquare", "ReportFiles", "picture_maker", "write_reports"]

# From a file's bytes to the model's input, uint8 (S, S, 3) RGB.
LoadSquare = Callable[[bytes], NDArray[np.uint8]]

_SHOWN_PX = 320
_JPEG_QUALITY = 88


@dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """Which reports are written, and what of a patient they may show."""

    csv_path: Path | None = None
    html_path: Path | None = None
    with_names: bool = False
    with_pictures: bool = False

    @property
    def any(self) -> bool:
        """Whether a report is written at all."""
        return self.csv_path is not None or self.html_path is not None

    def require_folders(self) -> None:
        """Find out before the first picture, not after the last one, that a folder is missing.

        Raises:
            ConfigError: If a report's folder does not exist.
        """
        for path in (self.csv_path, self.html_path):
            if path is not None and not path.parent.is_dir():
                raise ConfigError(f"the folder of {path} does not exist; make it first")


def write_reports(
    files: ReportFiles,
    read_entries: Callable[[], Iterator[ReportEntry]],
    *,
    labels: Sequence[str],
    standing_warnings: Sequence[str],
    load_square: LoadSquare,
) -> None:
    """Write the reports that were asked for.

    Args:
        files: Which, and where.
        read_entries: Gives all examinations of the run in order, anew for each call.
        labels: Names of the bundle's labels, in its order.
        standing_warnings: What the bundle and the engine have every answer say.
        load_square: Gives the picture that the model saw of a file's bytes.

    Raises:
        ConfigError: If a file cannot be written.
    """
    if files.csv_path is not None:
        _write(files.csv_path, csv_lines(read_entries(), labels, with_names=files.with_names))
    if files.html_path is not None:
        options = ReportOptions(
            standing_warnings=standing_warnings,
            with_names=files.with_names,
            picture_of=picture_maker(load_square) if files.with_pictures else None,
        )
        _write(files.html_path, html_parts(read_entries, options))


def picture_maker(load_square: LoadSquare) -> PictureOf:
    """Return a function that gives the JPEG of what the model saw.

    The file is read again, because a record holds no picture. Where it is gone, or has another
    content than the one that was screened, or cannot be decoded (any more: a decoding child may
    fail), there is none to show.
    """

    def picture_of(picture: PlannedPicture, sha256: str) -> bytes | None:
        data = _read(picture.path)
        if data is None or hashlib.sha256(data).hexdigest() != sha256:
            return None
        try:
            return _jpeg(load_square(data))
        except Exception:  # a picture is never worth the report of a whole run
            return None

    return picture_of


def _read(path: Path | None) -> bytes | None:
    try:
        if path is None or not path.is_file():
            return None
        with path.open("rb") as stream:
            return stream.read(int(DecodeLimits().max_megabytes * 1e6) + 1)
    except OSError:
        return None


def _jpeg(image_hwc: NDArray[np.uint8]) -> bytes | None:
    side_px = min(_SHOWN_PX, image_hwc.shape[0])
    shown = cv2.resize(image_hwc, (side_px, side_px), interpolation=cv2.INTER_AREA)
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    ok, encoded = cv2.imencode(".jpg", shown[:, :, ::-1], options)
    return encoded.tobytes() if ok else None


def _write(path: Path, parts: Iterable[str]) -> None:
    try:
        write_parts(path, (part.encode() for part in parts), mode=0o600)
    except OSError as error:
        raise ConfigError(
            f"the report {path} cannot be written ({error.strerror}); name another file"
        ) from error
