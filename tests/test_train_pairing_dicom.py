"""A folder of DICOM files, written here with pydicom: what becomes a row, and what never shows."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest
from dataset_factory import make_cfp, make_scan
from pairing_factory import read_csv, reasons

from edge_runtime.errors import ConfigError, DataError
from train.data.check import check_dataset
from train.data.index import read_index
from train.data.scans import read_scan
from train.pairing.dicom_list import read_dicom_folder
from train.pairing.pair import pair_list
from train.pairing.reasons import Reason

pytest.importorskip("pydicom", reason="DICOM files are written and read with pydicom")

import dicom_factory as dcm


def _scans(count, seed=0):
    return np.stack([make_scan(seed + i) for i in range(count)])


def _raster(count, first_row=30.0):
    """Groups of horizontal lines, top to bottom."""
    return [dcm.line(first_row + i, 10, first_row + i, 90) for i in range(count)]


def _whole_visit(folder):
    dcm.write_op(folder / "a" / "photo.dcm", make_cfp(1))
    dcm.write_opt(folder / "b" / "raster.dcm", _scans(5), _raster(5))
    dcm.write_opt(folder / "c" / "line.dcm", _scans(1, 50), [dcm.line(10, 40, 90, 40)])


def _only(raw):
    (rejection,) = raw.rejections
    assert raw.images == ()
    return rejection


def test_a_visit_becomes_a_triple(tmp_path):
    _whole_visit(tmp_path / "in")
    raw = read_dicom_folder(tmp_path / "in")
    assert [(one.row, one.scan_kind, one.source.name) for one in raw.images] == [
        (1, "", "a/photo.dcm"),
        (2, "macula_h", "b/raster.dcm#3"),
        (3, "macula_v", "c/line.dcm#1"),
    ]
    pair_list(raw, tmp_path / "out")
    assert check_dataset(tmp_path / "out") == []
    (visit,) = read_index(tmp_path / "out").visits
    assert (visit.patient_id, visit.eye, visit.site) == ("MRN1", "OD", "north")
    photo = cv2.imread(str(visit.files["cfp"]))[..., ::-1]
    np.testing.assert_array_equal(photo, make_cfp(1))
    np.testing.assert_array_equal(read_scan(visit.files["oct_h"]), make_scan(2))
    np.testing.assert_array_equal(read_scan(visit.files["oct_v"]), make_scan(50))


def test_names_and_birth_dates_reach_no_output(tmp_path):
    _whole_visit(tmp_path / "in")
    dcm.write_op(tmp_path / "in" / "bad.dcm", make_cfp(2), ImageLaterality="B")
    raw = read_dicom_folder(tmp_path / "in")
    pair_list(raw, tmp_path / "out")
    outputs = [path.read_bytes() for path in (tmp_path / "out").rglob("*.*")]
    for secret in (b"Doe", b"Jane", dcm.BIRTH.encode()):
        assert all(secret not in data for data in outputs)
    assert "Doe" not in repr(raw)


def test_the_jpeg_inside_a_file_is_copied_as_it_is(tmp_path):
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit

    jpeg = cv2.imencode(".jpg", make_cfp(1)[..., ::-1])[1].tobytes()
    dataset = dcm.write_op(tmp_path / "in" / "a.dcm", make_cfp(1))
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.PixelData = encapsulate([jpeg])
    dataset.save_as(tmp_path / "in" / "a.dcm", enforce_file_format=True)
    (image,) = read_dicom_folder(tmp_path / "in").images
    found = image.source.cfp(allow_grey=False)
    assert (found.data, found.suffix) == (jpeg, ".jpg")


def test_a_cross_scan_is_two_rows(tmp_path):
    groups = [dcm.line(50, 10, 50, 90), dcm.line(10, 50, 90, 50)]
    dcm.write_opt(tmp_path / "cross.dcm", _scans(2), groups)
    raw = read_dicom_folder(tmp_path)
    assert {one.scan_kind: one.source.frame for one in raw.images} == {
        "macula_h": 0,
        "macula_v": 1,
    }


def test_planes_in_the_patient_count_too(tmp_path):
    groups = [dcm.plane([1, 0, 0, 0, 1, 0], [0, 0, z]) for z in (3, 1, 2)]
    dcm.write_opt(tmp_path / "raster.dcm", _scans(3), groups)
    (image,) = read_dicom_folder(tmp_path).images
    assert (image.scan_kind, image.source.frame) == ("macula_h", 2)


def test_sixteen_bits_become_eight(tmp_path):
    frames = _scans(1).astype(np.uint16) * 16
    tags = {"BitsStored": 12, "HighBit": 11}
    dcm.write_opt(tmp_path / "a.dcm", frames, _raster(1), **tags)
    (image,) = read_dicom_folder(tmp_path).images
    np.testing.assert_array_equal(image.source.oct_zx(), make_scan(0))


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"ImageLaterality": "B"}, Reason.BAD_EYE),
        ({"ImageLaterality": None}, Reason.BAD_EYE),
        ({"Laterality": "L"}, Reason.BAD_EYE),
        ({"AcquisitionDateTime": None}, Reason.BAD_TIME),
        ({"AcquisitionDateTime": "20260105"}, Reason.BAD_TIME),
        ({"PatientID": ""}, Reason.MISSING_VALUE),
        ({"InstitutionName": None}, Reason.MISSING_VALUE),
        ({"NumberOfFrames": 2}, Reason.AMBIGUOUS_GEOMETRY),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, Reason.OTHER_OBJECT),
    ],
)
def test_a_photograph_that_does_not_say_enough(tmp_path, tags, reason):
    dataset = dcm.write_op(tmp_path / "a.dcm", make_cfp(1))
    for name, value in tags.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert _only(read_dicom_folder(tmp_path)).reason is reason


def test_time_from_date_and_time_and_zone(tmp_path):
    tags = {"AcquisitionDate": "20260105", "AcquisitionTime": "093000.250000"}
    dataset = dcm.write_op(tmp_path / "a.dcm", make_cfp(1), **tags)
    del dataset.AcquisitionDateTime
    dataset.TimezoneOffsetFromUTC = "+0100"
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    (image,) = read_dicom_folder(tmp_path).images
    assert image.acquired.text == "2026-01-05T09:30:00.250000+0100"


@pytest.mark.parametrize(
    ("code", "num_groups", "num_frames"), [(dcm.RETINA, 3, 3), (dcm.FOVEA, 2, 3), ("", 3, 3)]
)
def test_an_oct_that_is_ambiguous_is_refused(tmp_path, code, num_groups, num_frames):
    dcm.write_opt(tmp_path / "a.dcm", _scans(num_frames), _raster(num_groups), code=code)
    assert _only(read_dicom_folder(tmp_path)).reason is Reason.AMBIGUOUS_GEOMETRY


def test_the_user_may_vouch_for_the_region_but_not_against_the_file(tmp_path):
    dcm.write_opt(tmp_path / "a.dcm", _scans(3), _raster(3), code=dcm.RETINA)
    dcm.write_opt(tmp_path / "b.dcm", _scans(3, 9), _raster(3), code=dcm.DISC)
    raw = read_dicom_folder(tmp_path, assume_macula=True)
    assert [one.scan_kind for one in raw.images] == ["macula_h", "disc"]
    assert any("user's word" in note for note in raw.notes)


def test_other_files_are_rows_with_a_reason(tmp_path):
    _whole_visit(tmp_path / "in")
    (tmp_path / "in" / "notes.txt").write_text("no DICOM")
    dcm.write_op(tmp_path / "in" / "grey.dcm", make_cfp(3)[..., 1])
    cut = tmp_path / "in" / "z.dcm"
    dcm.write_op(cut, make_cfp(4), AcquisitionDateTime="20260105085959")
    cut.write_bytes(cut.read_bytes()[:-500])
    raw = read_dicom_folder(tmp_path / "in")
    pair_list(raw, tmp_path / "out")
    names = {row["path"]: row["reason"] for row in read_csv(tmp_path / "out" / "audit.csv")}
    assert names["notes.txt"] == "not_dicom"
    assert set(names) == {"notes.txt", "grey.dcm", "z.dcm"}
    assert sorted(reasons(tmp_path / "out")) == [4, 5, 6]


def test_without_pydicom_the_way_out_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ConfigError, match=r"pip install 'edge-screen\[dicom\]'"):
        read_dicom_folder(tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no file"):
        read_dicom_folder(tmp_path)


def test_pixels_that_are_no_photograph_or_damaged(tmp_path):
    dcm.write_op(tmp_path / "grey.dcm", make_cfp(3)[..., 1])
    cut = tmp_path / "cut.dcm"
    dcm.write_op(cut, make_cfp(4))
    cut.write_bytes(cut.read_bytes()[:-500])
    found = {one.source.name: one.source for one in read_dicom_folder(tmp_path).images}
    assert found["grey.dcm"].cfp(allow_grey=False).reason is Reason.NOT_COLOUR
    if "cut.dcm" in found:  # else the cut was already seen in the header
        assert found["cut.dcm"].cfp(allow_grey=False).reason is Reason.UNREADABLE_IMAGE
