"""Read the pictures of one planned examination, with the hashes that name its answer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.examination import Examination, EyeImage, ImageSource
from edge_runtime.screening.plan import PlannedExamination

__all__ = ["EyeContents", "ReadExamination", "read_examination", "refer_to_files"]

# Of every eye its name and, a picture each, the SHA-256 found (None: missing) and expected.
EyeContents = tuple[str, tuple[tuple[str | None, str | None], ...]]


@dataclass(frozen=True, kw_only=True)
class ReadExamination:
    """What is handed to the screener.

    Attributes:
        examination: The pictures as bytes, so that what is hashed is what is screened.
        contents: What was read; None when a file is there and could not be read, so that nothing
            is known about it.
    """

    examination: Examination = field(repr=False)
    contents: tuple[EyeContents, ...] | None


def refer_to_files(planned: PlannedExamination) -> ReadExamination:
    """Return the examination with paths: the screener's own threads read them."""
    images = tuple(
        EyeImage(eye=eye.eye, source=picture.path, expected_sha256=picture.expected_sha256)
        for eye in planned.eyes
        for picture in eye.pictures
    )
    examination = Examination(images=images, examination_id=planned.examination_id)
    return ReadExamination(examination=examination, contents=None)


def read_examination(planned: PlannedExamination, *, max_bytes: int) -> ReadExamination:
    """Read every picture once.

    Args:
        planned: The examination.
        max_bytes: Read at most one byte more; the decoder refuses such a file by its size.
    """
    images: list[EyeImage] = []
    contents: list[EyeContents] | None = []
    for eye in planned.eyes:
        hashes: list[tuple[str | None, str | None]] = []
        for picture in eye.pictures:
            source = _read(picture.path, max_bytes)
            images.append(
                EyeImage(eye=eye.eye, source=source, expected_sha256=picture.expected_sha256)
            )
            hashes.append((_sha256(source), picture.expected_sha256))
            if isinstance(source, Path):
                contents = None
        if contents is not None:
            contents.append((eye.eye, tuple(hashes)))
    return ReadExamination(
        examination=Examination(images=tuple(images), examination_id=planned.examination_id),
        contents=None if contents is None else tuple(contents),
    )


def _read(path: Path | None, max_bytes: int) -> ImageSource:
    """Return the bytes, None if missing, or the path where the screener is to say why not."""
    try:
        if path is None or not path.exists():
            return None
        if not path.is_file():
            return path
        with path.open("rb") as stream:
            return stream.read(max_bytes + 1)
    except OSError:
        return path


def _sha256(source: ImageSource) -> str | None:
    return hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else None
