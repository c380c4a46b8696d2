"""Read the eyes of a data set for INT8 and probability calibration, and stream their images.

INT8 calibration takes images of the `train` split only; temperatures, operating points and the
gate take `val` only; nothing here ever returns an eye of `test`.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import DataError, ImageError
from edge_runtime.fundus.quality import CaptureProtocol, QualityLimits, assess_image
from edge_runtime.preprocess import PreprocessSpec, load_for_model

__all__ = ["GRADABLE", "GRADE", "Eye", "ImageStream", "read_eyes"]

GRADABLE = "gradable"
GRADE = "dr_grade"
_GRADES = ("", "0", "1", "2", "3", "4")
_NEEDED_COLUMNS = ("patient_id", "eye", "site", "split", "cfp")
_SPLITS = ("train", "val", "test")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Eye:
    """One row of index.csv.

    Attributes:
        labels: 0, 1 or NaN (unknown) by name, `gradable` among them.
        grade: ICDR grade of diabetic retinopathy, '0' to '4'; '' = unknown or no such column.
    """

    row_number: int
    patient_id: str
    laterality: str
    site: str
    split: str
    cfp_path: Path
    labels: Mapping[str, float]
    grade: str = ""


def read_eyes(root: Path, label_names: Sequence[str]) -> tuple[Eye, ...]:
    """Read the `train` and `val` eyes that have a photograph.

    Args:
        root: folder with index.csv.
        label_names: disease columns that the model's labels name; `gradable` is read as well,
            and `dr_grade` where the data set has it.

    Raises:
        DataError: a file, column or value is missing or wrong, or a patient is in two splits.
    """
    index = root / "index.csv"
    columns, rows = _read_table(index)
    missing = [name for name in (*_NEEDED_COLUMNS, *label_names, GRADABLE) if name not in columns]
    if missing:
        raise DataError(f"{index} lacks the columns {', '.join(missing)}; the bundle needs them")
    names = (*label_names, GRADABLE)
    eyes = [_read_row(root, number, row, names) for number, row in rows if row["cfp"] != ""]
    _check_splits(index, eyes)
    return tuple(eye for eye in eyes if eye.split != "test")


class ImageStream:
    """Iterate once over the model inputs of some eyes, remembering which could be used.

    After the iteration `used` holds the eyes in the order of their images and `hashes` the
    SHA-256 of their files; `refused` holds the other eyes with the reason (on the camera those
    are ungradable without running the model).
    """

    def __init__(
        self,
        eyes: Sequence[Eye],
        spec: PreprocessSpec,
        progress: Callable[[int, int], None] | None = None,
        *,
        limits: QualityLimits | None = None,
        protocol: CaptureProtocol | None = None,
    ) -> None:
        """Prepare.

        Args:
            eyes: in the order of their images.
            spec: how images are made.
            progress: called with (images done, images in all).
            limits: of the camera's cheap gate, to refuse what never reaches the model; None
                leaves the gate out.
            protocol: of the bundle, for the gate's pixels per degree; None leaves those out.
        """
        self._eyes, self._spec, self._progress, self._limits = eyes, spec, progress, limits
        self._protocol = protocol
        self.hashes: list[str] = []
        self.used: list[Eye] = []
        self.refused: list[tuple[Eye, str]] = []

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Yield (S, S, 3) uint8 RGB images.

        Raises:
            DataError: a file cannot be read at all, or the stream was used before.
        """
        if self.used or self.refused:
            raise DataError("this image stream was used already; make a new one")
        for number, eye in enumerate(self._eyes, start=1):
            image = self._load(eye)
            if image is not None:
                yield image
            if self._progress is not None:
                self._progress(number, len(self._eyes))

    def fingerprint(self) -> str:
        """SHA-256 over the sorted SHA-256 hashes of the image files that were used."""
        return hashlib.sha256("\n".join(sorted(self.hashes)).encode("ascii")).hexdigest()

    def _load(self, eye: Eye) -> NDArray[np.uint8] | None:
        try:
            data = eye.cfp_path.read_bytes()
        except OSError as error:
            raise DataError(f"index.csv row {eye.row_number}: {error}; check the file") from error
        try:
            decoded, prepared = load_for_model(data, self._spec)
        except ImageError as error:
            self.refused.append((eye, str(error)))
            _LOG.debug("row %d is not used: %s", eye.row_number, error)
            return None
        if self._limits is not None:
            report = assess_image(decoded, prepared, self._limits, protocol=self._protocol)
            if not report.gradable:
                self.refused.append((eye, f"quality gate: {', '.join(report.reasons)}"))
                return None
        self.used.append(eye)
        self.hashes.append(decoded.sha256)
        return prepared.image_hwc


def _read_table(index: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Column names, and each row below them with the number of the line it starts on.

    Read as training reads it: a byte order mark is allowed, blank lines are passed over.
    """
    lines: list[tuple[int, list[str]]] = []
    start = 1
    try:
        with index.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            for cells in reader:
                if cells:
                    lines.append((start, cells))
                start = reader.line_num + 1
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{index} cannot be read: {error}; give the data set's folder") from error
    if not lines:
        raise DataError(f"{index} is empty; it needs a header and one row a visit")
    (_, columns), *body = lines
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise DataError(f"{index} has the columns {', '.join(twice)} more than once; keep one each")
    return columns, [(number, _row(number, columns, cells)) for number, cells in body]


def _row(number: int, columns: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    if len(cells) != len(columns):
        raise DataError(
            f"index.csv row {number} has another number of cells than the header; repair the file"
        )
    return dict(zip(columns, cells, strict=True))


def _read_row(root: Path, number: int, row: dict[str, str], names: Sequence[str]) -> Eye:
    where = f"index.csv row {number}"
    if row["split"] not in _SPLITS or not row["patient_id"]:
        raise DataError(
            f"{where}: split '{row['split']}' or patient_id '{row['patient_id']}' is wrong; run "
            "`edge-screen data check`"
        )
    path = (root / row["cfp"]).resolve()
    if not path.is_relative_to(root.resolve()):
        raise DataError(
            f"{where}: cfp '{row['cfp']}' leaves the data set's folder; use a path in it"
        )
    return Eye(
        row_number=number,
        patient_id=row["patient_id"],
        laterality=row["eye"],
        site=row["site"],
        split=row["split"],
        cfp_path=path,
        labels={name: _label(where, name, row[name]) for name in names},
        grade=_grade(where, row.get(GRADE, "")),
    )


def _label(where: str, name: str, text: str) -> float:
    if text == "":
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if value not in (0.0, 1.0):
        raise DataError(f"{where}: {name} is '{text}'; it must be 0, 1 or empty (unknown)")
    return value


def _grade(where: str, text: str) -> str:
    grade = text.removesuffix(".0")
    if grade not in _GRADES:
        raise DataError(f"{where}: {GRADE} is '{text}'; it must be 0 to 4 or empty (unknown)")
    return grade


def _check_splits(index: Path, eyes: Sequence[Eye]) -> None:
    """A patient in two splits would let the choice of thresholds see training images."""
    split_of: dict[str, str] = {}
    for eye in eyes:
        first = split_of.setdefault(eye.patient_id, eye.split)
        if first != eye.split:
            raise DataError(
                f"{index} row {eye.row_number}: patient {eye.patient_id} is in the splits {first} "
                f"and {eye.split}; split by patient"
            )
