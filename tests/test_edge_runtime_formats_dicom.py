"""DICOM photographs: the pixels of every syntax, the eye, the limits; nothing of the patient."""

from __future__ import annotations

import io
import logging
import struct
import sys
import warnings

import numpy as np
import pytest
from dicom_photo_factory import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    JPEG_2000,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS,
    NAME,
    PATIENT_ID,
    PHOTO_16,
    RLE,
    frame_laterality,
    gdcm_frame,
    photo_bytes,
)
from fundus_factory import (
    centred_fundus,
    exif_block,
    fundus,
    jpeg_bytes,
    png_bytes,
    with_exif,
)
from picture_factory import (
    SAMPLINGS,
    bmp_bytes,
    built_tiff,
    sampled_jpeg,
    tiff_bytes,
    wrapped_jpeg,
)

from edge_runtime.errors import ImageLimitError, ImageUnreadableError
from edge_runtime.formats.header import DecodeLimits
from edge_runtime.image import decode_image, inspect_image

EYE = centred_fundus(48)[:40]


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED, RLE])
def test_lossless_syntaxes_come_out_exactly(syntax):
    decoded = decode_image(photo_bytes(EYE, syntax=syntax))
    np.testing.assert_array_equal(decoded.image_hwc, EYE)
    assert (decoded.format, decoded.reduction, decoded.laterality) == ("dicom", 1, "OD")


@pytest.mark.parametrize("syntax", [JPEG_LOSSLESS, JPEG_LOSSLESS_SV1, JPEG_LS])
def test_lossless_syntaxes_of_gdcm_come_out_exactly(syntax, tmp_path):
    data = photo_bytes(EYE, syntax=syntax, frame=gdcm_frame(EYE, syntax, tmp_path))
    decoded = decode_image(data, target_px=2)
    np.testing.assert_array_equal(decoded.image_hwc, EYE)
    assert decoded.reduction == 1


def test_planar_configuration():
    planes = EYE.transpose(2, 0, 1).tobytes()
    data = photo_bytes(EYE, stored=planes, PlanarConfiguration=1)
    np.testing.assert_array_equal(decode_image(data).image_hwc, EYE)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED, RLE, JPEG_BASELINE])
def test_planar_configuration_must_be_there_and_possible(syntax):
    options = {"syntax": syntax, "frame": jpeg_bytes(EYE) if syntax == JPEG_BASELINE else None}
    for value in (2, 256, 0xFFFF):
        with pytest.raises(ImageUnreadableError, match=f"planar configuration {value}"):
            inspect_image(photo_bytes(EYE, PlanarConfiguration=value, **options))
    with pytest.raises(ImageUnreadableError, match="0028,0006"):
        inspect_image(photo_bytes(EYE, PlanarConfiguration=None, **options))


def test_ycbcr_is_converted_as_pydicom_does():
    from pydicom.pixels import convert_color_space

    ycc = convert_color_space(EYE, "RGB", "YBR_FULL")
    for syntax in (EXPLICIT, RLE):
        data = photo_bytes(ycc, syntax=syntax, PhotometricInterpretation="YBR_FULL")
        ours = decode_image(data).image_hwc.astype(int)
        theirs = convert_color_space(ycc, "YBR_FULL", "RGB").astype(int)
        assert np.abs(ours - theirs).max() <= 1  # they compute in floating point
    pairs = np.dstack([ycc[:, ::2, 0], ycc[:, 1::2, 0], ycc[:, ::2, 1], ycc[:, ::2, 2]])
    data = photo_bytes(EYE, stored=pairs.tobytes(), PhotometricInterpretation="YBR_FULL_422")
    shared = ycc.copy()
    shared[:, 1::2, 1:] = ycc[:, ::2, 1:]
    whole = photo_bytes(shared, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_array_equal(decode_image(data).image_hwc, decode_image(whole).image_hwc)


def test_ycbcr_conversion_is_libjpegs():
    """A JPEG of one colour at quality 100 holds that colour as its only coefficient."""
    for colour in ((200, 100, 50), (0, 0, 0), (255, 255, 255), (13, 200, 240)):
        flat = np.full((16, 16, 3), colour, np.uint8)
        jpeg = sampled_jpeg(flat, "444")
        ycc = np.asarray(decode_ycc(jpeg))
        stored = photo_bytes(ycc, PhotometricInterpretation="YBR_FULL")
        np.testing.assert_array_equal(decode_image(stored).image_hwc, decode_image(jpeg).image_hwc)


def decode_ycc(jpeg: bytes) -> np.ndarray:
    """The components of a YCbCr JPEG: with Adobe's transform 0 in front they pass unconverted."""
    end = 4 + int.from_bytes(jpeg[4:6], "big")
    plain = jpeg[:2] + b"\xff\xee\x00\x0eAdobe\x00\x64" + bytes(5) + jpeg[end:]
    return decode_image(plain).image_hwc


@pytest.mark.parametrize("target_px", [None, 80, 40, 20])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("sampling", list(SAMPLINGS))
def test_a_wrapped_jpeg_gives_the_same_pixels(sampling, progressive, target_px):
    image = fundus(201, 233, cx=116, cy=100, radius=95)
    jpeg = sampled_jpeg(image, sampling, progressive=progressive)
    plain = decode_image(jpeg, target_px=target_px)
    assert plain.reduction == {None: 1, 80: 2, 40: 4, 20: 8}[target_px]
    for syntax in (JPEG_BASELINE, JPEG_EXTENDED):
        wrapped = decode_image(wrapped_jpeg(image, jpeg, syntax), target_px=target_px)
        np.testing.assert_array_equal(wrapped.image_hwc, plain.image_hwc)
        assert wrapped.reduction == plain.reduction
        assert wrapped.full_size_px == plain.full_size_px


def test_a_wrapped_jpeg_in_fragments_and_with_its_exif():
    jpeg = with_exif(jpeg_bytes(EYE), exif_block(6))
    plain = decode_image(jpeg)
    for fragments in (1, 3):
        data = photo_bytes(
            EYE, syntax=JPEG_BASELINE, frame=jpeg, fragments=fragments,
            PhotometricInterpretation="YBR_FULL_422",
        )  # fmt: skip
        wrapped = decode_image(data)
        np.testing.assert_array_equal(wrapped.image_hwc, plain.image_hwc)
        assert wrapped.warnings == plain.warnings == ("EXIF orientation 6 was applied",)


def test_colours_that_contradict_each_other_are_refused():
    with pytest.raises(ImageUnreadableError, match="which colours are right"):
        inspect_image(wrapped_jpeg(EYE, jpeg_bytes(EYE), PhotometricInterpretation="RGB"))


def test_sizes_that_contradict_each_other_are_refused(tmp_path):
    with pytest.raises(ImageUnreadableError, match="the JPEG in it has"):
        inspect_image(wrapped_jpeg(EYE, jpeg_bytes(EYE), Rows=39))
    frame = gdcm_frame(EYE, JPEG_LS, tmp_path)
    with pytest.raises(ImageUnreadableError, match="JPEG-LS"):
        decode_image(photo_bytes(EYE, syntax=JPEG_LS, frame=frame, Columns=47))
    for rows in (39, 41):
        with pytest.raises(ImageUnreadableError, match="cut or damaged"):
            inspect_image(photo_bytes(EYE, Rows=rows))
        with pytest.raises(ImageUnreadableError, match="exactly"):
            decode_image(photo_bytes(EYE, syntax=RLE, Rows=rows))


REFUSED = {
    "16 Bit": {"SOPClassUID": PHOTO_16},
    "another kind": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
    "more than one frame": {"NumberOfFrames": 2},
    "one channel": {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"},
    "three unsigned samples of 8": {"BitsStored": 7, "HighBit": 6},
    "4 samples": {"SamplesPerPixel": 4},
    "photometric": {"PhotometricInterpretation": "PALETTE COLOR"},
    "impossible size": {"Rows": 0},
    "0028,0010": {"Rows": None},
    "no single eye": {"ImageLaterality": "B"},
}


@pytest.mark.parametrize("message", list(REFUSED))
def test_other_objects_are_refused(message):
    with pytest.raises(ImageUnreadableError, match=message):
        inspect_image(photo_bytes(EYE, **REFUSED[message]))


@pytest.mark.parametrize("syntax", [JPEG_2000, "1.2.840.10008.1.2.4.81", "unknown"])
def test_syntaxes_without_a_strict_decoder_are_refused(syntax):
    known = JPEG_2000 if syntax == "unknown" else syntax
    data = photo_bytes(EYE, syntax=known, frame=b"\xff\x4f\xff\x51")
    if syntax == "unknown":
        data = data.replace(JPEG_2000.encode(), JPEG_2000.replace(".4.90", ".4.99").encode())
    with pytest.raises(ImageUnreadableError, match="transfer syntax that is not read"):
        inspect_image(data)


def test_big_endian_is_refused():
    data = photo_bytes(EYE).replace(EXPLICIT.encode() + b"\0", BIG_ENDIAN.encode() + b"\0")
    with pytest.raises(ImageUnreadableError, match="big endian"):
        inspect_image(data)


@pytest.mark.parametrize(
    ("tags", "eye"),
    [
        ({}, "OD"),
        ({"ImageLaterality": "L"}, "OS"),
        ({"ImageLaterality": None}, None),
        ({"ImageLaterality": ""}, None),
        ({"ImageLaterality": None, "Laterality": "L"}, "OS"),
        ({"Laterality": "R"}, "OD"),
        ({"PerFrameFunctionalGroupsSequence": frame_laterality("R")}, "OD"),
        (
            {
                "ImageLaterality": None,
                "SharedFunctionalGroupsSequence": frame_laterality("L"),
            },
            "OS",
        ),
    ],
)
@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
def test_the_eye(tags, eye, syntax):
    assert inspect_image(photo_bytes(EYE, syntax=syntax, **tags)).laterality == eye


@pytest.mark.parametrize(
    "tags",
    [
        {"Laterality": "L"},
        {"PerFrameFunctionalGroupsSequence": frame_laterality("L")},
        {"SharedFunctionalGroupsSequence": frame_laterality("L")},
        {"ImageLaterality": None, "PerFrameFunctionalGroupsSequence": frame_laterality("L", "R")},
    ],
)
@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
def test_eyes_that_contradict_each_other_are_refused(tags, syntax):
    with pytest.raises(ImageUnreadableError, match="contradicts itself about the eye"):
        inspect_image(photo_bytes(EYE, syntax=syntax, **tags))


def test_sequences_of_undefined_length():
    from pydicom import dcmread

    for value, refused in (("R", False), ("L", True)):
        stored = dcmread(io.BytesIO(photo_bytes(EYE)))
        stored.PerFrameFunctionalGroupsSequence = frame_laterality(value)
        stored["PerFrameFunctionalGroupsSequence"].is_undefined_length = True
        stored.PerFrameFunctionalGroupsSequence[0].is_undefined_length_sequence_item = True
        stream = io.BytesIO()
        stored.save_as(stream)
        if refused:
            with pytest.raises(ImageUnreadableError, match="contradicts"):
                inspect_image(stream.getvalue())
        else:
            assert inspect_image(stream.getvalue()).laterality == "OD"


def test_field_of_view():
    assert inspect_image(photo_bytes(EYE, HorizontalFieldOfView=45.0)).field_degrees == 45
    assert decode_image(photo_bytes(EYE, HorizontalFieldOfView=50.0)).field_degrees == 50
    assert inspect_image(photo_bytes(EYE)).field_degrees is None
    for odd in (0.0, -45.0, float("nan"), 1e9):
        header = inspect_image(photo_bytes(EYE, HorizontalFieldOfView=odd))
        assert header.field_degrees is None
        assert "was ignored" in header.warnings[0]


def test_limits_hold_before_anything_is_decoded():
    small = DecodeLimits(max_megapixels=0.001)
    for data in (
        photo_bytes(EYE),
        photo_bytes(EYE, syntax=RLE),
        wrapped_jpeg(EYE, jpeg_bytes(EYE)),
    ):
        with pytest.raises(ImageLimitError, match="megapixels"):
            inspect_image(data, limits=small)
    scans = wrapped_jpeg(EYE, jpeg_bytes(EYE, progressive=True))
    with pytest.raises(ImageLimitError, match="scans"):
        inspect_image(scans, limits=DecodeLimits(max_scans=2))


def test_a_deflated_bomb_is_refused():
    black = np.zeros((1000, 1000, 3), np.uint8)
    data = photo_bytes(black, syntax=DEFLATED)
    assert len(data) < 20_000
    assert decode_image(data).image_hwc.shape == black.shape
    with pytest.raises(ImageLimitError, match="inflates"):
        inspect_image(data, limits=DecodeLimits(max_megabytes=1))


def test_a_file_of_endless_elements_is_refused():
    data = photo_bytes(EYE)
    end = 144 + int.from_bytes(data[140:144], "little")
    element = struct.Struct("<HH2sH")
    many = b"".join(element.pack(9 + 2 * (i // 60000), i % 60000, b"LO", 0) for i in range(20001))
    with pytest.raises(ImageLimitError, match="elements"):
        inspect_image(data[:end] + many)


def test_deep_nesting_is_refused():
    data = photo_bytes(EYE)
    end = 144 + int.from_bytes(data[140:144], "little")
    nested = struct.pack("<HH2sHIHHI", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
    with pytest.raises(ImageUnreadableError, match="nested too deeply"):
        inspect_image(data[:end] + nested * 5000)


@pytest.mark.parametrize("name", ["pydicom", "gdcm"])
def test_jpeg_ls_without_its_packages_says_what_to_install(monkeypatch, tmp_path, name):
    data = photo_bytes(EYE, syntax=JPEG_LS, frame=gdcm_frame(EYE, JPEG_LS, tmp_path))
    plain = photo_bytes(EYE)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImageUnreadableError, match="install the extra 'dicom'"):
        decode_image(data)
    np.testing.assert_array_equal(decode_image(plain).image_hwc, EYE)  # needs neither


@pytest.mark.parametrize("syntax", [JPEG_LOSSLESS, JPEG_LOSSLESS_SV1, JPEG_LS])
def test_damage_in_lossless_frames_is_refused(syntax, tmp_path, rng):
    image = centred_fundus(128)
    image = np.clip(image + rng.integers(-4, 5, image.shape), 0, 255).astype(np.uint8)
    frame = gdcm_frame(image, syntax, tmp_path)
    middle = len(frame) // 2
    rows = [
        frame[:middle],
        frame[:middle] + b"\xff\xd9",
        frame[:middle] + bytes(1024) + frame[middle + 1024 :],
        frame[:middle] + rng.bytes(512) + frame[middle + 512 :],
    ]
    for damaged in rows:
        with pytest.raises(ImageUnreadableError):
            decode_image(photo_bytes(image, syntax=syntax, frame=damaged))


def test_nothing_of_the_patient_leaves(caplog, capsys):
    """Names stand where numbers and codes are expected; no message may repeat them."""
    secret = "DOE JANE SECRET"
    files = [
        photo_bytes(EYE, PhotometricInterpretation=secret),
        photo_bytes(EYE, ImageLaterality=secret),
        photo_bytes(EYE, Laterality=secret),
        photo_bytes(EYE),
        photo_bytes(EYE)[:-9],
    ]
    said = []
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        for data in files:
            try:
                decoded = decode_image(data)
                said.append(repr((decoded.warnings, inspect_image(data))))
            except ImageUnreadableError as error:
                said.append(str(error))
    assert caught == []
    captured = capsys.readouterr()
    text = " ".join(said) + caplog.text + captured.out + captured.err
    for word in (NAME, PATIENT_ID, "SECRET", "JANE"):
        assert word not in text
    assert len(said) == 5


def test_why_jpeg_2000_is_refused(tmp_path, rng):
    """Its decoder returns a picture for a page of zeros; a strict one would lift the refusal."""
    import pydicom
    from pydicom.encaps import encapsulate

    image = centred_fundus(256)
    image = np.clip(image + rng.integers(-4, 5, image.shape), 0, 255).astype(np.uint8)
    frame = gdcm_frame(image, JPEG_2000, tmp_path)
    middle = len(frame) // 2
    data = photo_bytes(image, syntax=JPEG_2000, frame=frame)
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.PixelData = encapsulate([frame[:middle] + bytes(2048) + frame[middle + 2048 :]])
    dataset.pixel_array_options(decoding_plugin="gdcm")
    assert not np.array_equal(dataset.pixel_array, image)


def test_an_element_twice_is_refused():
    """Readers differ in which one they take; here it is the eye."""
    right = struct.pack("<HH2sH", 0x20, 0x62, b"CS", 2) + b"R "
    data = photo_bytes(EYE)
    assert data.count(right) == 1
    with pytest.raises(ImageUnreadableError, match="out of order"):
        inspect_image(data.replace(right, right + right[:-2] + b"L "))


def test_the_file_meta_group_holds_its_own_elements_and_all_of_them():
    data = photo_bytes(EYE)
    for group in (0, 1, 3, 8):  # of the first element behind the group length
        with pytest.raises(ImageUnreadableError, match="out of order"):
            inspect_image(data[:144] + struct.pack("<H", group) + data[146:])
    length = int.from_bytes(data[140:144], "little")
    at = data.index(struct.pack("<HH2s", 2, 0x10, b"UI"))
    with pytest.raises(ImageUnreadableError, match="names no transfer syntax"):
        inspect_image(data[:140] + bytes(4) + data[144:])
    with pytest.raises(ImageUnreadableError, match="names no transfer syntax"):
        inspect_image(data[:140] + struct.pack("<I", at - 144) + data[144:])
    last = data.index(struct.pack("<HH2s", 2, 0x13, b"SH"))  # behind the transfer syntax
    assert at < last < 144 + length
    with pytest.raises(ImageUnreadableError, match="out of order"):
        inspect_image(data[:140] + struct.pack("<I", last - 144) + data[144:])


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED, RLE, JPEG_BASELINE])
def test_another_picture_behind_the_data_set_is_refused(syntax):
    options = {"syntax": syntax, "frame": jpeg_bytes(EYE) if syntax == JPEG_BASELINE else None}
    colours = "YBR_FULL_422" if syntax == JPEG_BASELINE else "RGB"
    data = photo_bytes(EYE, PhotometricInterpretation=colours, **options)
    assert inspect_image(data).stored_size_px == (40, 48)
    others = [data, jpeg_bytes(EYE), png_bytes(EYE), bmp_bytes(EYE)]
    others += [tiff_bytes(EYE), built_tiff([EYE.tobytes()], (40, 48), order=">")]
    for other in others:
        for padding in (0, 1, 512):
            with pytest.raises(ImageUnreadableError):
                inspect_image(data + bytes(padding) + other)


def test_a_second_jpeg_in_another_fragment_is_refused():
    """Each frame padded to an even length, one frame claimed."""
    first, second = jpeg_bytes(EYE), jpeg_bytes(EYE[::-1].copy())
    for padding in (b"", b"\0"):
        with pytest.raises(ImageUnreadableError, match="second image"):
            inspect_image(wrapped_jpeg(EYE, first + padding + second))


@pytest.mark.parametrize("syntax", [JPEG_LOSSLESS, JPEG_LOSSLESS_SV1, JPEG_LS])
def test_a_second_lossless_frame_is_refused(syntax, tmp_path):
    first, second = (gdcm_frame(image, syntax, tmp_path) for image in (EYE, EYE[::-1].copy()))
    for frame, fragments in ((first + second, 1), (first.rstrip(b"\0") + second, 2)):
        data = photo_bytes(EYE, syntax=syntax, frame=frame, fragments=fragments)
        with pytest.raises(ImageUnreadableError, match=r"second image|one whole picture"):
            decode_image(data)
    padded = photo_bytes(EYE, syntax=syntax, frame=first.rstrip(b"\0") + b"\0")
    np.testing.assert_array_equal(decode_image(padded).image_hwc, EYE)


def test_a_cut_deflated_data_set_is_refused():
    data = photo_bytes(EYE, syntax=DEFLATED)
    assert decode_image(data).laterality == "OD"
    for cut in range(2, 40):
        with pytest.raises(ImageUnreadableError, match="cut or damaged"):
            inspect_image(data[:-cut])
    with pytest.raises(ImageUnreadableError, match="does not end where the file ends"):
        inspect_image(data + b"more")
