"""The published layouts, on trees made like them: rows, labels, what they do not say."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from layout_factory import (
    SLICE_SHAPE,
    make_eyes,
    make_gamma,
    make_mmc_amd,
    make_olives,
    make_slice,
    make_topcon_mm,
    write_text,
)
from pairing_factory import reasons

from edge_runtime.errors import ConfigError, DataError
from train.data.check import check_dataset
from train.data.index import read_index
from train.data.scans import read_scan
from train.pairing.cli import _LAYOUTS
from train.pairing.layouts import LAYOUTS, LayoutOptions
from train.pairing.layouts.common import volume_sources
from train.pairing.layouts.eyes import read_eye_table
from train.pairing.layouts.gamma import _SLICE
from train.pairing.pair import pair_list
from train.pairing.pixels import encode_png
from train.pairing.settings import PairSettings
from train.pairing.sources import VolumeColumn

# A volume's slices are JPEG in these trees: pixels come back nearly, not exactly.
JPEG_MEAN_ERROR = 12


def _pair(name, root, out, *, eyes=None, **options):
    table = read_eye_table(eyes) if eyes else None
    raw = LAYOUTS[name](root, LayoutOptions(eyes=table))
    summary = pair_list(raw, out, settings=PairSettings(**options))
    assert check_dataset(out) == []
    return summary, read_index(out)


def test_the_command_offers_every_layout():
    assert sorted(LAYOUTS) == sorted(_LAYOUTS)


def test_gamma(tmp_path):
    make_gamma(tmp_path / "in")
    eyes = make_eyes(tmp_path, _0001="OD", _0002="OS")
    summary, index = _pair("gamma", tmp_path / "in", tmp_path / "out", eyes=eyes)
    assert summary.rejections == ()
    by_patient = {visit.patient_id: visit for visit in index.visits}
    assert {name: visit.eye for name, visit in by_patient.items()} == {
        "gamma-0001": "OD",
        "gamma-0002": "OS",
    }
    assert {visit.acquired for visit in index.visits} == {date(1900, 1, 1)}
    first, second = by_patient["gamma-0001"], by_patient["gamma-0002"]
    assert (first.labels["glaucoma"], first.labels["glaucoma_grade"]) == (1, 1)
    assert (second.labels["glaucoma"], second.labels["glaucoma_grade"]) == (1, 2)
    original = tmp_path / "in/multi-modality_images/0001/0001.jpg"
    assert first.files["cfp"].read_bytes() == original.read_bytes()
    middle = read_scan(first.files["oct_h"]).astype(int)
    assert np.abs(middle - make_slice(1050)).mean() < JPEG_MEAN_ERROR
    assert read_scan(first.files["oct_v"]).shape == SLICE_SHAPE
    assert any("placeholder" in note for note in summary.raw.notes)


def test_gamma_without_eyes_is_refused_and_an_unknown_eye_is_in_the_audit(tmp_path):
    make_gamma(tmp_path / "in", num_slices=96)
    with pytest.raises(ConfigError, match="not guessed"):
        LAYOUTS["gamma"](tmp_path / "in", LayoutOptions())
    eyes = make_eyes(tmp_path, _0001="OD")
    _, index = _pair("gamma", tmp_path / "in", tmp_path / "out", eyes=eyes)
    assert [visit.patient_id for visit in index.visits] == ["gamma-0001"]
    assert Counter(reasons(tmp_path / "out").values()) == {"unknown_eye": 1}


def test_gamma_labels_that_are_still_a_sheet(tmp_path):
    make_gamma(tmp_path / "in", num_slices=1)
    table = tmp_path / "in/glaucoma_grading_training_GT.csv"
    table.rename(table.with_suffix(".xlsx"))
    eyes = LayoutOptions(eyes=read_eye_table(make_eyes(tmp_path, _0001="OD")))
    with pytest.raises(DataError, match="save the sheet as"):
        LAYOUTS["gamma"](tmp_path / "in", eyes)
    table.with_suffix(".xlsx").unlink()
    assert LAYOUTS["gamma"](tmp_path / "in", eyes).label_names == ()
    write_text(table, "data,non,early,mid_advanced", "1,1,1,0")
    with pytest.raises(DataError, match="not one grade"):
        LAYOUTS["gamma"](tmp_path / "in", eyes)


def test_gaps_in_a_volume_are_refused(tmp_path):
    make_gamma(tmp_path / "in", num_eyes=1)
    (tmp_path / "in/multi-modality_images/0001/0001/17_image.jpg").unlink()
    eyes = make_eyes(tmp_path, _0001="OD")
    _pair("gamma", tmp_path / "in", tmp_path / "out", eyes=eyes, allow_missing="oct")
    assert list(reasons(tmp_path / "out").values()) == ["ambiguous_geometry"]


def test_the_vertical_scan_is_the_middle_column_of_every_slice(tmp_path):
    """Against the volume itself: lossless slices, as many as a slice is wide."""
    height, width = SLICE_SHAPE
    volume = np.stack([make_slice(seed) for seed in range(width)])  # (slice, Z, X)
    names = []
    for number, pixels in enumerate(volume):
        names.append(f"{number}_image.png")
        (tmp_path / names[-1]).write_bytes(encode_png(pixels))
    column = VolumeColumn(root=tmp_path, slices=tuple(names))
    np.testing.assert_array_equal(column.oct_zx(), volume[:, :, width // 2].T)
    assert column.oct_zx().shape == (height, width)


@pytest.mark.parametrize(("count", "kinds"), [(95, ["macula_h"]), (96, ["macula_h", "macula_v"])])
def test_a_coarse_volume_has_no_vertical_scan(tmp_path, count, kinds):
    slices = [tmp_path / f"{number}_image.jpg" for number in range(count)]
    found = volume_sources(tmp_path, slices, _SLICE)
    assert [kind for kind, _ in found] == kinds
    assert found[0][1].name == f"{count // 2}_image.jpg"


def test_mmc_amd_keeps_its_own_splits(tmp_path):
    make_mmc_amd(tmp_path / "in")
    eyes = make_eyes(tmp_path, h_11="OD", d_12="OS", p_13="OD", w_14="OD")
    args = {"eyes": eyes, "allow_missing": "oct_v"}
    summary, index = _pair("mmc-amd", tmp_path / "in", tmp_path / "out", **args)
    assert {visit.patient_id: visit.split for visit in index.visits} == {
        "mmc-amd-h-11": "train",
        "mmc-amd-d-12": "train",
        "mmc-amd-p-13": "val",
        "mmc-amd-w-14": "test",
    }
    labels = {visit.patient_id[-4:]: visit.labels for visit in index.visits}
    assert labels["h-11"] == {"amd": 0, "dry_amd": 0, "pcv": 0, "wet_amd": 0}
    assert labels["p-13"] == {"amd": 1, "dry_amd": 0, "pcv": 1, "wet_amd": 0}
    assert Counter(reasons(tmp_path / "out").values()) == {"surplus": 4}  # second B-scans
    assert any("own (splitAP" in note for note in summary.raw.notes)


def test_mmc_amd_refuses_what_it_cannot_place(tmp_path):
    make_mmc_amd(tmp_path / "in")
    images = tmp_path / "in/mmc-amd/ImageData/cfp-clahe-448x448"
    shutil.copy(images / "f-h-11.jpg", images / "f-h-11-trs.jpg")  # the authors' synthetic ones
    shutil.copy(images / "f-h-11.jpg", images / "f-h-99.jpg")
    eyes = make_eyes(tmp_path, h_11="OD", h_99="OS")
    _pair("mmc-amd", tmp_path / "in", tmp_path / "out", eyes=eyes, allow_missing="oct_v")
    found = Counter(reasons(tmp_path / "out").values())
    assert found == {"unknown_eye": 9, "unknown_file": 1, "not_listed": 1, "surplus": 1}


def test_mmc_amd_an_eye_or_a_patient_in_two_splits(tmp_path):
    make_mmc_amd(tmp_path / "in")
    table = "eye_id,eye,patient_id"
    eyes = write_text(tmp_path / "eyes.csv", table, "h-11,OD,A", "w-14,OS,A")
    with pytest.raises(DataError, match="two splits"):
        LAYOUTS["mmc-amd"](tmp_path / "in", LayoutOptions(eyes=read_eye_table(eyes)))
    write_text(tmp_path / "in/mmc-amd-splitAP-val/ImageSets/oct.txt", "o-h-11_0")
    with pytest.raises(DataError, match="two split lists"):
        LAYOUTS["mmc-amd"](tmp_path / "in", LayoutOptions(eyes=read_eye_table(eyes)))


def test_topcon_mm(tmp_path):
    make_topcon_mm(tmp_path / "in")
    summary, index = _pair("topcon-mm", tmp_path / "in", tmp_path / "out", allow_missing="oct_v")
    assert {(visit.patient_id, visit.eye) for visit in index.visits} == {
        ("topcon-7", "OS"),
        ("topcon-7", "OD"),
        ("topcon-8", "OD"),
    }
    for visit in index.visits:
        assert (visit.labels["amd"], visit.labels["any_dr"], visit.labels["wet_amd"]) == (1, 1, 0)
        assert np.isnan(visit.labels["fluid"])  # seen on the OCT, not on the photograph
    assert summary.to_dict()["label_conflicts"] == {"fluid": 3}


@pytest.mark.parametrize("row", ["image,oedema", "image,dr"])
def test_topcon_mm_refuses_findings_it_does_not_know(tmp_path, row):
    make_topcon_mm(tmp_path / "in")
    write_text(tmp_path / "in/oct_labels.csv", row, "7-L-1.png,2")
    with pytest.raises(DataError, match="not a known finding"):
        LAYOUTS["topcon-mm"](tmp_path / "in", LayoutOptions())


def test_olives(tmp_path):
    make_olives(tmp_path / "in")
    _, index = _pair("olives", tmp_path / "in", tmp_path / "out", allow_missing="oct_v")
    found = {(visit.patient_id, visit.eye, visit.acquired): visit for visit in index.visits}
    prime, trex = "olives-prime-02-010", "olives-trex-0201"
    assert set(found) == {
        (prime, "OD", date(1900, 1, 1)),
        (prime, "OD", date(1900, 1, 29)),  # week 4
        (trex, "OD", date(1900, 1, 2)),  # visit 1; both study eyes are one patient
        (trex, "OS", date(1900, 1, 2)),
    }
    first = found[prime, "OD", date(1900, 1, 1)]
    assert first.labels == {"macular_edema": 1, "bcva_letters_value": 70, "cst_um_value": 280}
    assert found[trex, "OS", date(1900, 1, 2)].labels["macular_edema"] == 0
    np.testing.assert_array_equal(read_scan(first.files["oct_h"]), make_slice(24))
    assert {visit.files["cfp"].suffix for visit in index.visits} == {".png"}


def test_olives_near_infrared_is_no_photograph(tmp_path):
    make_olives(tmp_path / "in", num_slices=3, colour=False)
    with pytest.raises(DataError, match="none of the"):
        _pair("olives", tmp_path / "in", tmp_path / "out", allow_missing="oct_v")
    assert Counter(reasons(tmp_path / "out").values())["not_colour"] == 4
    options = {"allow_missing": "oct_v", "allow_grey_cfp": True}
    _, index = _pair("olives", tmp_path / "in", tmp_path / "grey", **options)
    assert len(index.visits) == 4


def test_olives_edema_is_unknown_unless_every_slice_was_graded(tmp_path):
    make_olives(tmp_path / "in", num_slices=3)
    table = next((tmp_path / "in").rglob("Biomarker*.csv"))
    lines = table.read_text().splitlines()
    kept = [line for line in lines if "W4" not in line or "/2.png" not in line]
    write_text(table, *kept)
    _, index = _pair("olives", tmp_path / "in", tmp_path / "out", allow_missing="oct_v")
    by_day = {visit.acquired: visit.labels for visit in index.visits if "prime" in visit.patient_id}
    assert np.isnan(by_day[date(1900, 1, 29)]["macular_edema"])
    assert by_day[date(1900, 1, 29)]["cst_um_value"] == 281


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_another_folder_is_not_taken_for_the_set(tmp_path, name):
    eyes = make_eyes(tmp_path, _0001="OD")
    with pytest.raises(DataError, match=r"--layout"):
        LAYOUTS[name](tmp_path, LayoutOptions(eyes=read_eye_table(eyes)))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("eye_id,eye", "1,R"), "do not guess"),
        (("eye_id,eye", "1,OD", "1,OS"), "there already"),
        (("eye_id,eye", ",OD"), "empty"),
        (("eye_id,side", "1,OD"), "missing"),
        (("eye_id,eye,acquired", "1,OD,2026-01-05T09:00"), "not a day"),
        (("eye_id,eye", "1"), "1 cells"),
        ((), "empty"),
    ],
)
def test_a_table_of_eyes_in_doubt_is_refused_whole(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        read_eye_table(write_text(tmp_path / "eyes.csv", *rows))


def test_the_table_of_eyes_names_patients_and_days(tmp_path):
    make_gamma(tmp_path / "in", num_slices=96)
    lines = ("eye_id,eye,patient_id,acquired", "0001,OD,A,2020-02-03", "0002,OS,A,2020-02-03")
    eyes = write_text(tmp_path / "eyes.csv", *lines)
    _, index = _pair("gamma", tmp_path / "in", tmp_path / "out", eyes=eyes)
    assert {visit.patient_id for visit in index.visits} == {"A"}
    assert {visit.acquired for visit in index.visits} == {date(2020, 2, 3)}
    assert len({visit.split for visit in index.visits}) == 1


def test_real_gamma_photographs_pass(real_data_dir, tmp_path):
    """Real photographs of GAMMA in its layout, with made slices: the real volumes are not here."""
    source = real_data_dir / "gamma1024"
    if not source.is_dir():
        pytest.skip("EDGE_SCREEN_DATA holds no gamma1024")
    with (source / "index.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))[:3]
    root, names, grades = tmp_path / "in", [], []
    for row in rows:
        name = f"{int(row['image_id']):04d}"
        folder = root / "multi-modality_images" / name
        folder.mkdir(parents=True)
        shutil.copy(source / row["image"], folder / f"{name}.jpg")
        (folder / name).mkdir()
        (folder / name / "0_image.png").write_bytes(encode_png(make_slice(int(name))))
        grade = row["glaucoma_grade"]
        flags = ",".join(str(int(grade == one)) for one in ("non", "early", "mid_advanced"))
        grades.append(f"{int(name)},{flags}")
        names.append(f"{name},OD")  # made up: only the mechanism is tested
    write_text(root / "glaucoma_grading_training_GT.csv", "data,non,early,mid_advanced", *grades)
    eyes = write_text(tmp_path / "eyes.csv", "eye_id,eye", *names)
    _, index = _pair("gamma", root, tmp_path / "out", eyes=eyes, allow_missing="oct_v")
    assert len(index.visits) == 3
    for visit, row in zip(
        sorted(index.visits, key=lambda one: one.patient_id),
        sorted(rows, key=lambda one: int(one["image_id"])),
        strict=True,
    ):
        copied = visit.files["cfp"].read_bytes()
        assert copied == Path(source / row["image"]).read_bytes()
        assert visit.labels["glaucoma"] == (row["glaucoma_grade"] != "non")
