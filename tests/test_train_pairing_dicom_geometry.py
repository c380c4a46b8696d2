"""Which frame is the foveal one: the stated rule, and refusal of everything it does not cover."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.pairing.dicom_geometry import FrameLine, foveal_frames, frame_line


def _lines(*items):
    return [FrameLine(direction=direction, position=position) for direction, position in items]


@given(st.permutations(range(7)), st.sampled_from("hv"))
def test_the_central_frame_by_position_whatever_the_order_of_frames(positions, direction):
    lines = _lines(*((direction, float(position)) for position in positions))
    chosen = foveal_frames(lines)
    assert chosen == {f"macula_{direction}": positions.index(3)}


def test_crosses_and_radial_scans_have_both():
    assert foveal_frames(_lines(("h", 5), ("v", 5))) == {"macula_h": 0, "macula_v": 1}
    five = _lines(*(("h", i) for i in range(5)), *(("v", i) for i in range(5)))
    assert foveal_frames(five) == {"macula_h": 2, "macula_v": 7}
    radial = _lines(("oblique", 0), ("v", 4), ("oblique", 0), ("h", 4))
    assert foveal_frames(radial) == {"macula_v": 1, "macula_h": 3}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "no direction"),
        ([*_lines(("h", 1)), None], "no direction"),
        (_lines(("oblique", 0)), "no frame is horizontal"),
        (_lines(("h", 1), ("h", 1)), "one position"),
        (_lines(("h", 1), ("h", 2), ("oblique", 0)), "oblique frames"),
    ],
)
def test_ambiguous_is_refused(lines, message):
    assert message in foveal_frames(lines)


def _location(*coordinates, orientation="LINEAR"):
    item = SimpleNamespace(
        ReferenceCoordinates=list(coordinates), OphthalmicImageOrientation=orientation
    )
    return SimpleNamespace(OphthalmicFrameLocationSequence=[item])


def _plane(cosines, origin):
    return SimpleNamespace(
        PlaneOrientationSequence=[SimpleNamespace(ImageOrientationPatient=cosines)],
        PlanePositionSequence=[SimpleNamespace(ImagePositionPatient=origin)],
    )


def test_directions_from_the_fundus_picture():
    """Pairs are (row, column): DICOM C.8.17.10."""
    assert frame_line(None, _location(50, 10, 52, 90)) == FrameLine(direction="h", position=51)
    assert frame_line(None, _location(10, 40, 90, 42)) == FrameLine(direction="v", position=41)
    assert frame_line(None, _location(10, 10, 90, 90)).direction == "oblique"
    assert frame_line(None, _location(50, 90, 50, 10)).direction == "h"  # right to left


def test_directions_from_the_patient():
    """x to the patient's left, z to the head: a row along x is horizontal."""
    found = frame_line(None, _plane([1, 0, 0, 0, 1, 0], [3, 0, 7]))
    assert found == FrameLine(direction="h", position=-7)
    found = frame_line(None, _plane([0, 0, -1, 0, 1, 0], [3, 0, 7]))
    assert found == FrameLine(direction="v", position=3)


def test_shared_groups_count_where_the_frame_has_none():
    shared = SimpleNamespace(
        PlaneOrientationSequence=[SimpleNamespace(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]
    )
    own = SimpleNamespace(PlanePositionSequence=[SimpleNamespace(ImagePositionPatient=[0, 0, 2])])
    assert frame_line(shared, own) == FrameLine(direction="h", position=-2)


@pytest.mark.parametrize(
    "groups",
    [
        SimpleNamespace(),
        _location(50, 10),
        _location(50, 10, 50),
        _location(50, 10, 50, 10),
        _location(50, 10, 50, float("nan")),
        _location(50, 10, 50, 90, orientation="TRANSVERSE"),
        _plane([1, 0, 0], [0, 0, 0]),
        SimpleNamespace(
            **vars(_location(50, 10, 50, 90)), **vars(_plane([0, 0, 1, 0, 1, 0], [0, 0, 0]))
        ),
    ],
)
def test_what_cannot_be_known_or_contradicts_is_none(groups):
    assert frame_line(None, groups) is None
