"""Camera pictures and damaged files through a signed bundle, with the control that can refute."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from bundle_factory import BuiltBundle, build_bundle, fundus_png
from fundus_factory import jpeg_bytes

from edge_runtime.bundle import Bundle, read_bundle
from edge_runtime.engines import open_engine
from edge_runtime.errors import ImageError
from edge_runtime.image import decode_image
from edge_runtime.result import Decision
from edge_runtime.screener import Screener
from export.demo.screening import damaged_files, permissive, screen_camera_set
from train.phantom.latent import LABEL_NAMES


def camera_jpeg(seed: int = 0) -> bytes:
    """A baseline JPEG of the picture that the tiny bundles find gradable."""
    png = np.frombuffer(fundus_png(side_px=256, seed=seed), np.uint8)
    return jpeg_bytes(cv2.imdecode(png, cv2.IMREAD_COLOR)[..., ::-1])


JPEG = camera_jpeg()
DAMAGED = damaged_files(JPEG)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltBundle:
    """A bundle that calls every label of every eye positive."""
    folder = tmp_path_factory.mktemp("screening") / "bundle"
    return build_bundle(folder, threshold=0.0, gradability_threshold=0.5)


@pytest.fixture(scope="module")
def bundle(built: BuiltBundle) -> Bundle:
    return read_bundle(built.folder, trusted_keys=built.trusted_keys)


@pytest.fixture(scope="module")
def screener(bundle: Bundle) -> Screener:
    """The screener of the check: everything that can be read is 'no refer'."""
    allowed = permissive(bundle)
    return Screener(allowed, open_engine(allowed))


def test_the_damages_are_all_different() -> None:
    assert len(DAMAGED) == 9
    assert len(set(DAMAGED.values())) == len(DAMAGED)
    assert JPEG not in DAMAGED.values()


@pytest.mark.parametrize("damage", DAMAGED)
def test_every_damaged_file_is_refused_by_the_decoder(damage: str) -> None:
    assert decode_image(JPEG).full_size_px == (256, 256)
    with pytest.raises(ImageError):
        decode_image(DAMAGED[damage])


@pytest.mark.parametrize("damage", DAMAGED)
def test_no_damaged_file_is_no_refer_where_everything_readable_is(
    screener: Screener, damage: str
) -> None:
    assert screener.screen(JPEG).disposition is Decision.NO_REFER
    result = screener.screen(DAMAGED[damage])
    assert result.disposition is Decision.UNGRADABLE
    assert result.eyes[0].fields[0].quality.reasons in (("image unreadable",), ("image too large",))
    assert result.eyes[0].fields[0].labels == ()


def test_permissive_changes_thresholds_only(bundle: Bundle, screener: Screener) -> None:
    with Screener(bundle, open_engine(bundle)) as strict:
        assert strict.screen(JPEG).disposition is Decision.REFER
    allowed = screener.bundle.manifest
    specs = (*allowed.labels, allowed.gradability)
    assert [spec.operating_point.threshold for spec in specs if spec.operating_point] == [1, 1, 0]
    before = (*bundle.manifest.labels, bundle.manifest.gradability)
    thresholds = [spec.operating_point.threshold for spec in before if spec.operating_point]
    assert thresholds == [0, 0, 0.5]
    assert [spec.temperature for spec in specs] == [spec.temperature for spec in before]
    assert permissive(bundle).contents is bundle.contents


ROWS = (
    {"id": "P000001_OD", "macular_edema": 1, "gradable": 1},
    {"id": "P000001_OS", "gradable": 0},
    {"id": "P000002_OD", "gradable": 1},
)


@pytest.fixture(scope="module")
def camera_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients, three pictures; the ungradable one is black."""
    folder = tmp_path_factory.mktemp("data") / "camera"
    folder.mkdir()
    columns = ("id", *LABEL_NAMES)
    with (folder / "index.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, restval="0")
        writer.writeheader()
        writer.writerows(ROWS)
    for seed, row in enumerate(ROWS):
        black = jpeg_bytes(np.zeros((256, 256, 3), np.uint8))
        data = camera_jpeg(seed) if row["gradable"] else black
        (folder / f"{row['id']}.jpg").write_bytes(data)
    return folder.parent


def test_a_camera_set_is_screened_patient_by_patient(camera_set: Path, built: BuiltBundle) -> None:
    screened = screen_camera_set(camera_set, built.folder, trusted_keys=built.trusted_keys)
    summary = screened.summary
    assert summary.num_pictures == 3
    assert summary.dispositions == {"refer": 2, "no_refer": 0, "ungradable": 1}
    assert summary.agreement == {
        "diseased": {"refer": 1},
        "ungradable": {"ungradable": 1},
        "healthy": {"refer": 1},
    }
    assert [exam["examination_id"] for exam in summary.eyes] == ["P000001", "P000002"]
    assert [[eye["eye"] for eye in exam["eyes"]] for exam in summary.eyes] == [["OD", "OS"], ["OD"]]
    assert all(
        field["evidence"] is None
        for exam in summary.eyes
        for eye in exam["eyes"]
        for field in eye["fields"]
    )


def test_the_unreadable_check_has_a_control(camera_set: Path, built: BuiltBundle) -> None:
    """The bundle itself refers everything; the check is made where 'no refer' is possible."""
    screened = screen_camera_set(camera_set, built.folder, trusted_keys=built.trusted_keys)
    files = screened.summary.unreadable_files
    assert files.num == 3 * len(DAMAGED)
    assert files.num_no_refer == 0
    assert (files.num_control, files.num_control_no_refer) == (3, 2)


def test_what_the_page_shows_of_an_eye(camera_set: Path, built: BuiltBundle) -> None:
    screened = screen_camera_set(camera_set, built.folder, trusted_keys=built.trusted_keys)
    sick, ungradable, healthy = screened.eyes
    assert [eye.truth for eye in screened.eyes] == ["macular edema", "ungradable", "no disease"]
    assert sick.evidence_hw is not None
    assert sick.probability is not None
    assert sick.probability >= (sick.threshold or 0.0)
    assert sick.reason == healthy.reason == ""
    assert ungradable.reason != ""
    assert ungradable.label is None
    assert ungradable.evidence_hw is None
    assert not ungradable.image_hwc.any()
    assert sick.image_hwc.shape == ungradable.image_hwc.shape == (384, 384, 3)
