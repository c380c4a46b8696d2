"""Files, folders and patterns: what is taken, in which order, and what is counted as skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fundus_factory import centred_fundus, jpeg_bytes

from edge_runtime.errors import ConfigError
from edge_runtime.screening.inputs import (
    FOLDER,
    HIDDEN,
    IMAGE_SUFFIXES,
    NOT_AN_IMAGE,
    plan_images,
    plan_two_eyes,
)
from edge_runtime.screening.plan import PlannedEye, ScreenPlan

JPEG = jpeg_bytes(centred_fundus(64))


def names(plan: ScreenPlan) -> list[str]:
    """The base names of all pictures, in order."""
    return [Path(eye.name).name for one in plan.examinations for eye in one.eyes]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder as a card has it."""
    folder = tmp_path / "photos"
    for path in ("b.jpg", "a.JPG", "c.png", "sub/d.jpg", "sub/deep/e.jpg", ".hidden.jpg"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(JPEG)
    (folder / "no_suffix").write_bytes(JPEG)
    (folder / "dicom").write_bytes(bytes(128) + b"DICM" + bytes(50))
    (folder / "broken.jpeg").write_bytes(b"")
    (folder / "notes.txt").write_text("patient: nobody")
    (folder / "empty").write_bytes(b"")
    return folder


def test_a_folder_gives_its_pictures_sorted_and_counts_the_rest(photos: Path) -> None:
    plan = plan_images([photos], recursive=False)
    assert names(plan) == ["a.JPG", "b.jpg", "broken.jpeg", "c.png", "dicom", "no_suffix"]
    assert plan.skipped == {FOLDER: 1, HIDDEN: 1, NOT_AN_IMAGE: 2}
    assert all(one.eyes[0].eye == "unspecified" for one in plan.examinations)


def test_a_damaged_photograph_in_a_folder_is_never_skipped(tmp_path: Path) -> None:
    for suffix in IMAGE_SUFFIXES:
        (tmp_path / f"damaged{suffix}").write_bytes(b"nothing of an image")
    plan = plan_images([tmp_path], recursive=False)
    assert len(plan.examinations) == len(IMAGE_SUFFIXES)
    assert plan.skipped == {}


def test_recursive_takes_sub_folders_and_follows_no_link(photos: Path) -> None:
    (photos / "circle").symlink_to(photos)
    plan = plan_images([photos], recursive=True)
    assert names(plan)[-2:] == ["d.jpg", "e.jpg"]
    assert plan.skipped[FOLDER] == 1
    assert len(plan.examinations) == 8


def test_a_pattern_is_expanded_and_sorted(photos: Path) -> None:
    assert names(plan_images([photos / "*.jp*g"], recursive=False)) == ["b.jpg", "broken.jpeg"]
    deep = plan_images([photos / "**" / "*.jpg"], recursive=False)
    assert names(deep) == ["b.jpg", "d.jpg", "e.jpg"]
    anything = plan_images([photos / "*"], recursive=False)
    assert anything.skipped == {FOLDER: 1, NOT_AN_IMAGE: 2}


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "eye[1].jpg").write_bytes(JPEG)
    (tmp_path / "eye1.jpg").write_bytes(JPEG)
    assert names(plan_images([tmp_path / "eye[1].jpg"], recursive=False)) == ["eye[1].jpg"]


def test_a_mixture_keeps_the_order_given(photos: Path) -> None:
    given = [photos / "sub", photos / "gone.jpg", photos / "notes.txt", photos / "a.*"]
    plan = plan_images(given, recursive=False)
    assert names(plan) == ["d.jpg", "gone.jpg", "notes.txt", "a.JPG"]


@pytest.mark.parametrize("recursive", [False, True])
def test_nothing_found_is_an_error_that_names_what_was_typed(
    photos: Path, tmp_path: Path, recursive: bool
) -> None:
    (tmp_path / "bare").mkdir()
    for given in (tmp_path / "bare", photos / "*.nothing"):
        with pytest.raises(ConfigError, match="holds no picture") as caught:
            plan_images([photos, given], recursive=recursive)
        assert str(given) in str(caught.value)
        advised = not recursive and given.is_dir()
        assert ("--recursive" in str(caught.value)) == advised


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_listed_is_an_error(photos: Path) -> None:
    (photos / "sub").chmod(0)
    with pytest.raises(ConfigError, match="cannot be listed") as caught:
        plan_images([photos], recursive=True)
    (photos / "sub").chmod(0o700)
    assert "sub" not in str(caught.value)


def test_a_failure_to_list_names_the_folder_that_was_typed_alone(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def scandir(path: object) -> object:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ConfigError, match="cannot be listed") as caught:
        plan_images([photos], recursive=True)
    assert str(photos) in str(caught.value)
    assert "sub" not in str(caught.value)


def test_a_fifo_in_a_folder_does_not_hang(photos: Path) -> None:
    os.mkfifo(photos / "pipe")
    assert plan_images([photos], recursive=False).skipped[NOT_AN_IMAGE] == 3


def test_an_examination_id_belongs_to_one_picture(photos: Path) -> None:
    with pytest.raises(ConfigError, match="6 pictures"):
        plan_images([photos], recursive=False, examination_id="x")
    (one,) = plan_images([photos / "b.jpg"], recursive=False, examination_id="x").examinations
    assert one.examination_id == "x"


def test_two_eyes_are_one_examination() -> None:
    (one,) = plan_two_eyes(Path("right.jpg"), None, examination_id="v").examinations
    assert [(eye.eye, eye.name) for eye in one.eyes] == [("OD", "right.jpg"), ("OS", "-")]
    assert "right" not in repr(one)


def test_an_eye_has_a_name_of_the_field_and_a_place_for_a_picture() -> None:
    with pytest.raises(ValueError, match="eye"):
        PlannedEye(eye="left", pictures=())
