"""Colour profiles: named, never applied, and a warning unless sRGB."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from dicom_photo_factory import photo_bytes
from fundus_factory import centred_fundus, jpeg_bytes, png_bytes, png_chunk
from picture_factory import built_tiff, wrapped_jpeg

from edge_runtime.formats.icc import describe_profile, profile_warning
from edge_runtime.image import decode_image, inspect_image

EYE = centred_fundus(32)


def profile(text: str, *, version: int = 2) -> bytes:
    """A profile that holds nothing but its description."""
    if version == 2:
        body = b"desc" + bytes(4) + (len(text) + 1).to_bytes(4, "big") + text.encode() + b"\0"
    else:
        words = text.encode("utf-16-be")
        record = b"enUS" + len(words).to_bytes(4, "big") + (28).to_bytes(4, "big")
        body = (
            b"mluc" + bytes(4) + (1).to_bytes(4, "big") + (12).to_bytes(4, "big") + record + words
        )
    entry = b"desc" + (144).to_bytes(4, "big") + len(body).to_bytes(4, "big")
    return bytes(128) + (1).to_bytes(4, "big") + entry + body


def with_profile(kind: str, icc: bytes) -> bytes:
    if kind == "tiff":
        return built_tiff([EYE.tobytes()], (32, 32), changes={34675: (34675, 7, icc)})
    if kind == "png":
        plain = png_bytes(EYE)
        return plain[:33] + png_chunk(b"iCCP", b"name\0\0" + zlib.compress(icc)) + plain[33:]
    if kind == "dicom":
        return photo_bytes(EYE, ICCProfile=icc)
    plain = jpeg_bytes(EYE)
    half = len(icc) // 2
    parts = b"".join(
        b"\xff\xe2" + (len(part) + 16).to_bytes(2, "big") + b"ICC_PROFILE\0" + bytes([i, 2]) + part
        for i, part in ((1, icc[:half]), (2, icc[half:]))
    )
    jpeg = plain[:2] + parts + plain[2:]
    return wrapped_jpeg(EYE, jpeg) if kind == "dicom-jpeg" else jpeg


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff", "dicom", "dicom-jpeg"])
@pytest.mark.parametrize("version", [2, 4])
def test_a_profile_is_named_and_never_applied(kind, version):
    adobe = with_profile(kind, profile("Adobe RGB (1998)", version=version))
    standard = with_profile(kind, profile("sRGB IEC61966-2.1", version=version))
    assert inspect_image(adobe).icc_profile == "Adobe RGB (1998)"
    assert inspect_image(standard).icc_profile == "sRGB IEC61966-2.1"
    first, second = decode_image(adobe), decode_image(standard)
    np.testing.assert_array_equal(first.image_hwc, second.image_hwc)
    assert first.warnings == (
        "colour profile named 'Adobe RGB (1998)' by the file is not sRGB and was not applied",
    )
    assert second.warnings == ()


def test_profiles_that_cannot_be_read_are_said():
    assert profile_warning(None) == ()
    for broken in (b"", bytes(200), b"\xff" * 300, profile("x")[:150]):
        assert "without a description" in profile_warning(describe_profile(broken))[0]


def test_a_description_is_short_and_printable():
    text = describe_profile(profile("A\x1b[31m" + "b" * 500))
    assert text == "A[31m" + "b" * 27
    accented = describe_profile(profile("Zo\xe9", version=4))
    assert accented == "Zo"
    assert describe_profile(profile("x" * 40, version=4)) == "x" * 32
