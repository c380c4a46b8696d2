"""Ophthalmic photographs as DICOM bytes, in every transfer syntax, written with pydicom."""

from __future__ import annotations

import io

from fundus_factory import Pixels

PHOTO_8, PHOTO_16 = "1.2.840.10008.5.1.4.1.1.77.1.5.1", "1.2.840.10008.5.1.4.1.1.77.1.5.2"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
JPEG_BASELINE, JPEG_EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS, JPEG_LOSSLESS_SV1 = "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"
JPEG_LS, JPEG_2000, RLE = (
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.5",
)
NAME, PATIENT_ID = "Doe^Jane", "MRN1"


def photo_bytes(
    image_hwc: Pixels,
    *,
    syntax: str = EXPLICIT,
    frame: bytes | None = None,
    stored: bytes | None = None,
    fragments: int = 1,
    **tags: object,
) -> bytes:
    """A photograph as a file.

    `frame` is encoded data for an encapsulated syntax (made here for RLE), `stored` other
    uncompressed pixels than `image_hwc`'s; `tags` set elements, None removes one.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import generate_uid

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = EXPLICIT if syntax == RLE else syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = PHOTO_8
    uid = generate_uid(entropy_srcs=["a photograph"])
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = uid
    dataset.PatientName, dataset.PatientID = NAME, PATIENT_ID
    dataset.ImageLaterality = "R"
    dataset.Rows, dataset.Columns = image_hwc.shape[:2]
    dataset.SamplesPerPixel, dataset.NumberOfFrames = 3, 1
    dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    if frame is None:
        raw = image_hwc.tobytes() if stored is None else stored
        dataset.PixelData = raw + b"\0" * (len(raw) % 2)
        dataset["PixelData"].VR = "OB"
    else:
        dataset.PixelData = encapsulate([frame], fragments_per_frame=fragments)
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    if syntax == RLE and frame is None:
        dataset.compress(RLE, encoding_plugin="pydicom", generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = syntax
    for name, value in tags.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def frame_laterality(*values: str) -> object:
    """Per-frame functional groups with a FrameLaterality each."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    groups = []
    for value in values:
        anatomy, group = Dataset(), Dataset()
        anatomy.FrameLaterality = value
        group.FrameAnatomySequence = Sequence([anatomy])
        groups.append(group)
    return Sequence(groups)


def gdcm_frame(image_hwc: Pixels, syntax: str, folder: object) -> bytes:
    """A frame in a lossless syntax that only GDCM writes; it works on files in `folder`."""
    from pathlib import Path

    import gdcm
    import pydicom
    from pydicom.encaps import get_frame

    kinds = {
        JPEG_LOSSLESS: gdcm.TransferSyntax.JPEGLosslessProcess14,
        JPEG_LOSSLESS_SV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
        JPEG_LS: gdcm.TransferSyntax.JPEGLSLossless,
        JPEG_2000: gdcm.TransferSyntax.JPEG2000Lossless,
    }
    source, target = Path(str(folder)) / "source.dcm", Path(str(folder)) / "target.dcm"
    source.write_bytes(photo_bytes(image_hwc))
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(kinds[syntax]))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(target))
    assert writer.Write()
    return bytes(get_frame(pydicom.dcmread(target).PixelData, 0, number_of_frames=1))
