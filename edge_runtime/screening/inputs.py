"""From what the operator typed (files, folders, patterns) to the pictures, in a fixed order.

A file that is named is screened whatever it holds: damage must end as 'ungradable', not as
silence. In a folder, or behind a pattern, a file is taken when its suffix or its first bytes say
picture; so a damaged photograph is still taken, and a stray text file is counted as skipped.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from edge_runtime.errors import ConfigError
from edge_runtime.screening.plan import PlannedExamination, PlannedEye, PlannedPicture, ScreenPlan

__all__ = ["IMAGE_SUFFIXES", "plan_images", "plan_two_eyes", "planned_picture"]

# What cameras and archives write; whether this version decodes it is the decoder's answer.
IMAGE_SUFFIXES = frozenset(
    {".bmp", ".dcm", ".dicom", ".gif", ".jp2", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff"}
    | {".heic", ".webp"}
)
_IMAGE_STARTS = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"II*\x00",  # TIFF, little endian
    b"MM\x00*",  # TIFF, big endian
)
_DICOM_MARK, _DICOM_OFFSET = b"DICM", 128

NOT_AN_IMAGE = "not an image by name and first bytes"
HIDDEN = "hidden (name begins with a dot)"
FOLDER = "a folder (--recursive takes sub-folders; a pattern takes files)"


def plan_images(
    inputs: Sequence[Path], *, recursive: bool, examination_id: str | None = None
) -> ScreenPlan:
    """Return one examination of an unspecified eye a picture.

    Inputs stay in the order given; inside a folder or a pattern pictures are sorted by path.

    Args:
        inputs: Files, folders, and patterns (`*`, `?`, `[...]`, `**`) of files that do not exist
            under that very name.
        recursive: Whether to go into the sub-folders of a folder.
        examination_id: Of the one picture there is.

    Raises:
        ConfigError: If an examination id is given for several pictures, a folder or a pattern
            holds no picture, or a folder cannot be listed.
    """
    skipped: Counter[str] = Counter()
    paths = [path for one in inputs for path in _expand(one, recursive, skipped)]
    if examination_id is not None and len(paths) != 1:
        raise ConfigError(
            f"--examination-id belongs to one examination; there are {len(paths)} pictures"
        )
    examinations = tuple(_single(path, examination_id) for path in paths)
    return ScreenPlan(examinations=examinations, skipped=dict(sorted((+skipped).items())))


def plan_two_eyes(
    od: Path | None, os_: Path | None, *, examination_id: str | None = None
) -> ScreenPlan:
    """Return one examination of both eyes; a None is a missing picture."""
    eyes = tuple(
        PlannedEye(eye=eye, pictures=(planned_picture(path),))
        for eye, path in (("OD", od), ("OS", os_))
    )
    return ScreenPlan(examinations=(PlannedExamination(eyes=eyes, examination_id=examination_id),))


def planned_picture(path: Path | None, *, expected_sha256: str | None = None) -> PlannedPicture:
    """Return the picture at `path`, named by it; '-' names a missing one."""
    name = "-" if path is None else str(path)
    return PlannedPicture(path=path, name=name, expected_sha256=expected_sha256)


def _single(path: Path, examination_id: str | None) -> PlannedExamination:
    eye = PlannedEye(eye="unspecified", pictures=(planned_picture(path),))
    return PlannedExamination(eyes=(eye,), examination_id=examination_id)


def _expand(given: Path, recursive: bool, skipped: Counter[str]) -> list[Path]:
    """Return the pictures of one input; a file, present or not, is returned as it is."""
    if given.is_dir():
        candidates, what = _walk(given, recursive, skipped), "folder"
    elif glob.has_magic(str(given)) and not given.exists():
        candidates, what = _match(given, skipped), "pattern"
    else:
        return [given]
    found = sorted(path for path in candidates if _is_taken(path, skipped))
    if not found:
        remedy = "check the path" if what == "folder" else "check the pattern"
        if what == "folder" and not recursive:
            remedy += ", or give --recursive"
        raise ConfigError(f"the {what} {given} holds no picture; {remedy}")
    return found


def _walk(folder: Path, recursive: bool, skipped: Counter[str]) -> Iterator[Path]:
    """Yield every file of a folder; links to folders are not followed, so there is no circle."""

    def refuse(error: OSError) -> None:
        # The folder that was typed, not the one inside it: its name could be a patient's.
        raise ConfigError(
            f"the folder {folder} cannot be listed to its end ({error.strerror}); check the card "
            "and the permissions"
        ) from error

    for parent, folders, names in os.walk(folder, onerror=refuse):
        yield from (Path(parent) / name for name in names)
        entered = [
            name
            for name in folders
            if recursive and not name.startswith(".") and not (Path(parent) / name).is_symlink()
        ]
        skipped[FOLDER] += len(folders) - len(entered)
        folders[:] = entered


def _match(pattern: Path, skipped: Counter[str]) -> Iterator[Path]:
    # Path.glob takes no absolute pattern.
    for path in map(Path, glob.glob(str(pattern), recursive=True)):  # noqa: PTH207
        if path.is_dir():
            skipped[FOLDER] += 1
        else:
            yield path


def _is_taken(path: Path, skipped: Counter[str]) -> bool:
    """Whether a file found in a folder is screened; counts it as skipped when it is not."""
    if path.name.startswith("."):
        skipped[HIDDEN] += 1
        return False
    if path.suffix.lower() in IMAGE_SUFFIXES or _starts_like_an_image(path):
        return True
    skipped[NOT_AN_IMAGE] += 1
    return False


def _starts_like_an_image(path: Path) -> bool:
    if not path.is_file():
        return False  # a FIFO or a device; opening it could wait for ever
    try:
        with path.open("rb") as stream:
            start = stream.read(_DICOM_OFFSET + len(_DICOM_MARK))
    except OSError:
        return True  # cannot be told: screened, and refused there with its reason
    return start.startswith(_IMAGE_STARTS) or start[_DICOM_OFFSET:] == _DICOM_MARK
