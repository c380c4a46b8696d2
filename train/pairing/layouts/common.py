"""What the layouts share: numbered rows, slices of a volume, days that a set does not name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

from edge_runtime.errors import ConfigError, DataError
from train.pairing.layouts.eyes import EyeEntry
from train.pairing.raw import RawImage, RawList, rows_sha256
from train.pairing.reasons import Reason, Rejection
from train.pairing.sources import FileSource, ImageSource, VolumeColumn
from train.pairing.times import Moment

__all__ = ["PLACEHOLDER_NOTE", "LayoutOptions", "ListBuilder", "placeholder_day"]
__all__ += ["picture_files", "require_folder", "volume_sources"]

_PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff")
# Fewer horizontal slices than this are too coarse to read a vertical B-scan from.
_MIN_SLICES_FOR_VERTICAL = 96
_PLACEHOLDER = date(1900, 1, 1)
PLACEHOLDER_NOTE = (
    "the set names no days: 'acquired' is a placeholder from 1900-01-01 on and means only "
    "'images that the set itself puts together'"
)


@dataclass(frozen=True, kw_only=True)
class LayoutOptions:
    """What the user adds to a set that does not name everything.

    Attributes:
        eyes: Eye id of the set -> what the set does not say; None where no file is given.
        site: Written as the site of every row; the layout's name where empty.
    """

    eyes: Mapping[str, EyeEntry] | None = None
    site: str = ""

    def require_eyes(self, layout: str) -> Mapping[str, EyeEntry]:
        """The table of eyes.

        Raises:
            ConfigError: The set needs one and none is given.
        """
        if self.eyes is None:
            raise ConfigError(
                f"{layout} does not say which eye is right or left, and it is not guessed; "
                "give --eyes FILE, a CSV with the columns eye_id and eye"
            )
        return self.eyes


@dataclass(kw_only=True)
class ListBuilder:
    """Collects rows and numbers them from 1 in the order in which they come.

    Attributes:
        kind: Name of the layout.
        root: The folder of the set; names of rows are relative to it.
        site: Of every row.
        label_names: Labels of the rows.
    """

    kind: str
    root: Path
    site: str
    label_names: tuple[str, ...] = ()
    _images: list[RawImage] = field(default_factory=list)
    _rejections: list[Rejection] = field(default_factory=list)

    def _next(self) -> int:
        return len(self._images) + len(self._rejections) + 1

    def add(
        self,
        source: ImageSource,
        *,
        who: tuple[str, str, Moment],
        modality: str,
        scan_kind: str = "",
        labels: Mapping[str, str] | None = None,
        split: str | None = None,
    ) -> None:
        """Add an image; `who` is patient, eye and day."""
        patient_id, eye, acquired = who
        self._images.append(
            RawImage(
                row=self._next(),
                patient_id=patient_id,
                eye=eye,
                acquired=acquired,
                site=self.site,
                modality=modality,
                scan_kind=scan_kind,
                source=source,
                labels=labels or {},
                split=split,
            )
        )

    def refuse(self, name: str, reason: Reason, detail: str = "") -> None:
        """Add a row that is no usable image."""
        known = {"path": name, "site": self.site}
        self._rejections.append(
            Rejection(row=self._next(), reason=reason, detail=detail, known=known)
        )

    def file(self, path: Path) -> FileSource:
        """A file of the set as a source."""
        return FileSource(root=self.root, name=self.relative(path))

    def relative(self, path: Path) -> str:
        """A path as rows name it."""
        return path.relative_to(self.root).as_posix()

    def build(self, notes: Iterable[str]) -> RawList:
        """The list.

        Raises:
            DataError: The set has no picture at all, or a patient is in two of its splits.
        """
        if not self._images and not self._rejections:
            raise DataError(f"no picture of {self.kind} is there; check the folder and --layout")
        split_of: dict[str, str | None] = {}
        for image in self._images:
            if split_of.setdefault(image.patient_id, image.split) != image.split:
                raise DataError(
                    "the table of eyes gives one patient to eyes that the set has in two splits; "
                    "correct its patient_id"
                )
        return RawList(
            kind=self.kind,
            images=tuple(self._images),
            rejections=tuple(self._rejections),
            sha256=rows_sha256(self._images, self._rejections),
            label_names=self.label_names,
            notes=tuple(notes),
        )


def placeholder_day(days: int = 0) -> Moment:
    """The day that stands for 'not named', `days` after 1900-01-01."""
    return Moment.of_day(_PLACEHOLDER + timedelta(days=days))


def picture_files(folder: Path) -> list[Path]:
    """The pictures of a folder by name; other files (notes, arrays) are no rows."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _PICTURES)


def require_folder(root: Path, *names: str) -> Path:
    """The first of `names` that is a folder of `root`.

    Raises:
        DataError: None is.
    """
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise DataError(f"'{root.name}' has no folder {' or '.join(names)}; check --layout")


def volume_sources(
    root: Path, slices: Sequence[Path], number: re.Pattern[str]
) -> list[tuple[str, ImageSource]] | str:
    """The B-scans of a volume of parallel horizontal slices.

    Of n slices number n // 2 (from 0) is the horizontal one. The vertical one is the middle
    column of all slices, where there are at least 96 of them.

    Args:
        root: Folder of the set.
        slices: The files of one volume.
        number: Finds a slice's number in its stem, as its only group.

    Returns:
        (scan kind, source) of each, or why the middle cannot be told.
    """
    numbered: dict[int, Path] = {}
    for path in slices:
        match = number.fullmatch(path.stem)
        if match is None or int(match[1]) in numbered:
            return "a slice without a number, or with one that is taken"
        numbered[int(match[1])] = path
    if sorted(numbered) not in (list(range(len(slices))), list(range(1, len(slices) + 1))):
        return "slices are missing: their numbers have gaps"
    names = tuple(numbered[i].relative_to(root).as_posix() for i in sorted(numbered))
    middle = FileSource(root=root, name=names[len(names) // 2])
    if len(names) < _MIN_SLICES_FOR_VERTICAL:
        return [("macula_h", middle)]
    return [("macula_h", middle), ("macula_v", VolumeColumn(root=root, slices=names))]
