"""Importers on real files, where they are at hand: reduced copies, and their trees rebuilt."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from layout_factory import write_text

from train.data.check import check_dataset
from train.data.index import DataIndex, read_index
from train.imports.records import ReadOptions
from train.imports.run import import_set

PREPARED = ReadOptions(prepared=True)
FOLDERS = {"odir-5k": "odir256", "eyepacs": "eyepacs400", "gamma": "gamma1024", "drive": "drive"}


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _imported(real_data_dir: Path, name: str, out: Path) -> tuple[list[dict[str, str]], DataIndex]:
    folder = real_data_dir / FOLDERS[name]
    if not folder.is_dir():
        pytest.skip(f"no {FOLDERS[name]} among the real images")
    import_set(name, folder, out, options=PREPARED)
    assert check_dataset(out) == []
    return _rows(folder), read_index(out)


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_a_reduced_copy_keeps_rows_splits_and_bytes(name, real_data_dir, tmp_path):
    rows, index = _imported(real_data_dir, name, tmp_path / "out")
    assert len(index.visits) == len(rows)
    source = {Path(row["image"]).stem: row for row in rows}
    moved = 0
    for visit in index.visits:
        path = visit.files["cfp"]
        row = source[path.stem]
        assert path.read_bytes() == (real_data_dir / FOLDERS[name] / row["image"]).read_bytes()
        assert visit.eye == row.get("eye", "")
        moved += row.get("split", visit.split) != visit.split
    # DRIVE names no val: three of its twenty train pictures become it.
    assert moved == (3 if name == "drive" else 0)
    record = json.loads((tmp_path / "out/import.json").read_text(encoding="utf-8"))
    assert record["left_out"] == []


@pytest.mark.slow
def test_odir_keywords_give_the_labels_that_somebody_else_read(real_data_dir, tmp_path):
    """The set's own layout, rebuilt from the reduced copy, against labels made independently."""
    folder = real_data_dir / "odir256"
    if not folder.is_dir():
        pytest.skip("no odir256 among the real images")
    rows = {Path(row["image"]).stem: row for row in _rows(folder)}
    pairs = sorted({stem.partition("_")[0] for stem in rows})
    both = [n for n in pairs if {f"{n}_left", f"{n}_right"} <= set(rows)][:300]
    root = tmp_path / "in"
    (root / "ODIR-5K_Training_Dataset").mkdir(parents=True)
    lines = []
    for number in both:
        left, right = rows[f"{number}_left"], rows[f"{number}_right"]
        for row in (left, right):
            shutil.copy(folder / row["image"], root / "ODIR-5K_Training_Dataset")
        words = (row["keywords"].replace("; ", "\uff0c") for row in (left, right))
        sex = {"F": "Female", "M": "Male"}[left["sex"]]
        person = f"{number},{left['age'] or 1},{sex},{number}_left.jpg,{number}_right.jpg"
        lines.append(",".join((person, *words)))
    head = "ID,Patient Age,Patient Sex,Left-Fundus,Right-Fundus,"
    head += "Left-Diagnostic Keywords,Right-Diagnostic Keywords"
    write_text(root / "ODIR-5K_Training_Annotations(Updated)_V2.csv", head, *lines)
    import_set("odir-5k", root, tmp_path / "out")
    assert check_dataset(tmp_path / "out") == []
    names = ("normal", "diabetic_retinopathy", "glaucoma", "cataract", "amd", "hypertensive")
    names += ("pathological_myopia", "other", "dr_grade")
    visits = read_index(tmp_path / "out").visits
    assert len(visits) == 2 * len(both)
    for visit in visits:
        row = rows[visit.files["cfp"].stem]
        assert visit.eye == row["eye"]
        for name in names:
            value = visit.labels[name]
            assert ("" if math.isnan(value) else str(int(value))) == row[name], (row, name)


@pytest.mark.slow
def test_eyepacs_and_eyeq_in_the_published_layout(real_data_dir, tmp_path):
    folder = real_data_dir / "eyepacs400"
    if not folder.is_dir():
        pytest.skip("no eyepacs400 among the real images")
    rows = _rows(folder)
    quality = {"good": 0, "usable": 1, "reject": 2}
    levels, eyeq = [], []
    for row in rows:
        stem = Path(row["image"]).stem
        target = tmp_path / "in/train" / f"{stem}.jpeg"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / row["image"], target)
        levels.append(f"{stem},{row['dr_grade']}")
        if row["quality"]:
            eyeq.append(f"{len(eyeq)},{stem}.jpeg,{quality[row['quality']]},{row['dr_grade']}")
    write_text(tmp_path / "in/trainLabels.csv", "image,level", *levels)
    table = write_text(tmp_path / "eyeq.csv", ",image,quality,DR_grade", *eyeq)
    options = ReadOptions(quality_tables=(table,))
    import_set("eyepacs", tmp_path / "in", tmp_path / "out", options=options)
    assert check_dataset(tmp_path / "out") == []
    source = {Path(row["image"]).stem: row for row in rows}
    for visit in read_index(tmp_path / "out").visits:
        row = source[visit.files["cfp"].stem]
        assert (visit.patient_id, visit.eye) == (row["patient_id"], row["eye"])
        assert visit.labels["dr_grade"] == float(row["dr_grade"])
        assert math.isnan(visit.labels["gradable"]) == (not row["quality"])


@pytest.mark.slow
def test_drive_masks_are_unchanged(real_data_dir, tmp_path):
    rows, index = _imported(real_data_dir, "drive", tmp_path / "out")
    for visit in index.visits:
        stem = visit.files["cfp"].stem
        for kind in ("vessels", "fov"):
            ours, theirs = (
                cv2.imread(str(root / kind / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
                for root in (tmp_path / "out", real_data_dir / "drive")
            )
            np.testing.assert_array_equal(ours, theirs)
    second = list((tmp_path / "out/vessels_second_observer").iterdir())
    assert len(second) == sum(bool(row["vessels_second_observer"]) for row in rows)
