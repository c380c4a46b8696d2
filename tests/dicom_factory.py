"""Small DICOM files as a camera (OP) and an OCT device (OPT) would write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

OP = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
OPT = "1.2.840.10008.5.1.4.1.1.77.1.5.4"
FOVEA, RETINA, DISC = "67046006", "5665001", "81016008"
NAME = "Doe^Jane"
BIRTH = "19500203"


def _dataset(sop_class: str, pixels: np.ndarray, **tags):
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.PatientName = NAME
    dataset.PatientBirthDate = BIRTH
    dataset.PatientID = "MRN1"
    dataset.InstitutionName = "north"
    dataset.ImageLaterality = "R"
    dataset.AcquisitionDateTime = "20260105090000"
    colour = sop_class == OP and pixels.ndim == 3
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    rows_columns = pixels.shape[:2] if sop_class == OP else pixels.shape[1:]
    dataset.Rows, dataset.Columns = rows_columns
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = 0
    dataset.PixelData = pixels.tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    return dataset


def region(code: str):
    """The anatomic region as a sequence of one code."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    item = Dataset()
    item.CodeValue = code
    item.CodingSchemeDesignator = "SCT"
    item.CodeMeaning = "region"
    return Sequence([item])


def line(row_0: float, column_0: float, row_1: float, column_1: float):
    """Functional groups of a frame whose line on the fundus picture is given."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    location = Dataset()
    location.ReferenceCoordinates = [row_0, column_0, row_1, column_1]
    location.OphthalmicImageOrientation = "LINEAR"
    groups = Dataset()
    groups.OphthalmicFrameLocationSequence = Sequence([location])
    return groups


def plane(cosines: list[float], origin: list[float]):
    """Functional groups of a frame whose place in the patient is given."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    orientation, position = Dataset(), Dataset()
    orientation.ImageOrientationPatient = cosines
    position.ImagePositionPatient = origin
    groups = Dataset()
    groups.PlaneOrientationSequence = Sequence([orientation])
    groups.PlanePositionSequence = Sequence([position])
    return groups


def write_op(path: Path, image: np.ndarray, **tags):
    """A photograph, (H, W, 3) RGB or (H, W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = _dataset(OP, image, NumberOfFrames=1, **tags)
    dataset.save_as(path, enforce_file_format=True)
    return dataset


def write_opt(path: Path, frames_nzx: np.ndarray, groups: list, *, code: str = FOVEA, **tags):
    """An OCT of N frames with the functional groups of each."""
    from pydicom.sequence import Sequence

    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = _dataset(OPT, frames_nzx, NumberOfFrames=len(frames_nzx), **tags)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    dataset.AnatomicRegionSequence = region(code)
    dataset.save_as(path, enforce_file_format=True)
    return dataset
