"""A folder of DICOM files as a raw list: fundus photographs (OP) and OCT (OPT).

A file is one row. An OCT file whose geometry holds both scans (a cross or radial scan) is two
rows. Rows are numbered from 1 in the order of the files' paths.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from edge_runtime.errors import DataError
from train.pairing.dicom_door import read_header, require_dicom
from train.pairing.dicom_geometry import foveal_frames, frame_line
from train.pairing.dicom_source import DicomSource
from train.pairing.raw import RawImage, RawList, rows_sha256
from train.pairing.reasons import Reason, Refusal, Rejection
from train.pairing.times import Moment, parse_moment

__all__ = ["read_dicom_folder"]

_OP = ("1.2.840.10008.5.1.4.1.1.77.1.5.1",)
_OPT = ("1.2.840.10008.5.1.4.1.1.77.1.5.4",)
_EYES = {"R": "OD", "L": "OS"}
# Codes of DICOM's context groups 4209 and 4266: SNOMED CT, and SNOMED RT in older files.
_REGIONS = {
    "67046006": "macula",  # fovea centralis
    "82859000": "macula",  # macula lutea
    "81016008": "disc",  # optic nerve head
    "5665001": "retina",
    "T-AA621": "macula",
    "T-AA630": "disc",
    "T-AA610": "retina",
}
_DATE_TIME = re.compile(r"(\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})?(\.\d{1,6})?([+-]\d{4})?")


def read_dicom_folder(
    root: Path,
    *,
    site: str = "",
    assume_macula: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> RawList:
    """Read every file below `root`.

    Args:
        root: The folder; files that are not DICOM become rejections.
        site: Written for every row; where empty, the file's Institution Name.
        assume_macula: Take OCT files that name the retina, or no region, as macular. Without
            it they are refused as ambiguous.
        progress: Called with (files read, files in all).

    Raises:
        ConfigError: pydicom is not installed.
        DataError: The folder holds no file.
    """
    require_dicom()
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    if not paths:
        raise DataError("the folder holds no file; name the folder of the DICOM files")
    images: list[RawImage] = []
    rejections: list[Rejection] = []
    for done, path in enumerate(paths, start=1):
        for row in _rows(root, path, site, assume_macula):
            number = len(images) + len(rejections) + 1
            if isinstance(row, Refusal):
                known = {"path": path}
                rejections.append(
                    Rejection(row=number, reason=row.reason, detail=row.detail, known=known)
                )
            else:
                images.append(row(row=number))
        if progress is not None:
            progress(done, len(paths))
    return RawList(
        kind="dicom",
        images=tuple(images),
        rejections=tuple(rejections),
        sha256=rows_sha256(images, rejections),
        notes=_NOTES + ((_ASSUMED,) if assume_macula else ()),
    )


_NOTES = ("of an OCT raster the central frame was taken, which is foveal if the raster is centred",)
_ASSUMED = "OCT files that name the retina or no region were taken as macular by the user's word"
_Unnumbered = Callable[..., RawImage]


def _rows(root: Path, path: str, site: str, assume_macula: bool) -> Iterator[_Unnumbered | Refusal]:
    """The rows of one file; an image waits for its row number."""
    header = read_header(root / path)
    if isinstance(header, Refusal):
        yield header
        return
    parts = _parts(header, assume_macula)
    if isinstance(parts, Refusal):
        yield parts
        return
    common = _common(header, site)
    if isinstance(common, Refusal):
        yield common
        return
    patient_id, eye, acquired, place = common
    for modality, scan_kind, frame in parts:
        yield partial(
            RawImage,
            patient_id=patient_id,
            eye=eye,
            acquired=acquired,
            site=place,
            modality=modality,
            scan_kind=scan_kind,
            source=DicomSource(root=root, path=path, frame=frame),
            labels={},
        )


def _parts(header: Any, assume_macula: bool) -> list[tuple[str, str, int | None]] | Refusal:
    """(modality, scan kind, frame) of each image that the file holds."""
    sop_class = str(getattr(header, "SOPClassUID", ""))
    if sop_class in _OP:
        if _num_frames(header) != 1:
            detail = "a photograph of several frames (stereo?)"
            return Refusal(reason=Reason.AMBIGUOUS_GEOMETRY, detail=detail)
        region = _region(header)
        return [("cfp", region if region in ("macula", "disc") else "", None)]
    if sop_class in _OPT:
        return _oct_parts(header, assume_macula)
    return Refusal(reason=Reason.OTHER_OBJECT, detail="neither 8-bit OP nor OPT")


def _oct_parts(header: Any, assume_macula: bool) -> list[tuple[str, str, int | None]] | Refusal:
    region = _region(header)
    if region == "disc":
        return [("oct", "disc", None)]
    if region != "macula" and not assume_macula:
        detail = "the file does not say that the scan is macular; --dicom-region macula says so"
        return Refusal(reason=Reason.AMBIGUOUS_GEOMETRY, detail=detail)
    groups = getattr(header, "PerFrameFunctionalGroupsSequence", None) or []
    shared = getattr(header, "SharedFunctionalGroupsSequence", None)
    if len(groups) != _num_frames(header):
        detail = "frames without functional groups"
        return Refusal(reason=Reason.AMBIGUOUS_GEOMETRY, detail=detail)
    chosen = foveal_frames([frame_line(shared[0] if shared else None, own) for own in groups])
    if isinstance(chosen, str):
        return Refusal(reason=Reason.AMBIGUOUS_GEOMETRY, detail=chosen)
    return [("oct", kind, frame) for kind, frame in chosen.items()]


def _num_frames(header: Any) -> int:
    return int(getattr(header, "NumberOfFrames", None) or 1)


def _region(header: Any) -> str:
    """macula, disc, retina or "": from the codes; two that contradict are none."""
    found = set()
    for name in ("AnatomicRegionSequence", "PrimaryAnatomicStructureSequence"):
        for item in getattr(header, name, None) or []:
            found.add(_REGIONS.get(str(getattr(item, "CodeValue", "")), ""))
    found -= {"", "retina"} if found & {"macula", "disc"} else {""}
    return found.pop() if len(found) == 1 else ""


def _common(header: Any, site: str) -> tuple[str, str, Moment, str] | Refusal:
    """(patient id, eye, time, site), what every row has."""
    patient_id = str(getattr(header, "PatientID", None) or "").strip()
    place = site or str(getattr(header, "InstitutionName", None) or "").strip()
    if not patient_id or not place:
        detail = "no Patient ID" if not patient_id else "no Institution Name; give --site"
        return Refusal(reason=Reason.MISSING_VALUE, detail=detail)
    eye = _eye(header)
    if eye is None:
        return Refusal(reason=Reason.BAD_EYE, detail="laterality absent, both, or contradictory")
    acquired = _acquired(header)
    if acquired is None:
        return Refusal(reason=Reason.BAD_TIME, detail="no usable acquisition date and time")
    return patient_id, eye, acquired, place


def _eye(header: Any) -> str | None:
    values = {str(getattr(header, name, None) or "") for name in ("ImageLaterality", "Laterality")}
    for sequence in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for groups in getattr(header, sequence, None) or []:
            for item in getattr(groups, "FrameAnatomySequence", None) or []:
                values.add(str(getattr(item, "FrameLaterality", None) or ""))
    values -= {""}
    return _EYES.get(values.pop()) if len(values) == 1 else None


def _acquired(header: Any) -> Moment | None:
    """From Acquisition DateTime, else Acquisition Date and Time; never the study's date."""
    text = str(getattr(header, "AcquisitionDateTime", None) or "")
    if not text:
        date, time = (
            str(getattr(header, name, None) or "")
            for name in ("AcquisitionDate", "AcquisitionTime")
        )
        text = date + time if date and time else ""
    match = _DATE_TIME.fullmatch(text.strip())
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    zone = zone or str(getattr(header, "TimezoneOffsetFromUTC", None) or "")
    written = f"{year}-{month}-{day}T{hour}:{minute}:{second or '00'}{fraction or ''}"
    return parse_moment(written + zone.strip())
