"""Pairing as a whole: every raw row ends in one place, and the data set passes its own check."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from datetime import date

import numpy as np
import pytest
from dataset_factory import make_scan, write_image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pairing_factory import COLUMNS, RawFolder, read_csv, reasons

from edge_runtime.errors import ConfigError, DataError
from train.data.check import check_dataset
from train.data.index import read_index
from train.data.scans import read_scan
from train.pairing.csv_list import read_csv_list
from train.pairing.pair import pair_list
from train.pairing.privacy import Pseudonyms
from train.pairing.reasons import Reason
from train.pairing.settings import PairSettings
from train.pairing.split import draw_split


@pytest.fixture
def folder(tmp_path):
    return RawFolder(tmp_path / "raw")


def _pair(folder, out, *, labels=(), columns=COLUMNS, pseudonyms=None, **options):
    raw = read_csv_list(folder.write(columns), labels=labels)
    return pair_list(raw, out, settings=PairSettings(**options), pseudonyms=pseudonyms)


def test_a_whole_visit_becomes_a_row(folder, tmp_path):
    folder.visit(eye="OS")
    _pair(folder, tmp_path / "out")
    assert check_dataset(tmp_path / "out") == []
    (visit,) = read_index(tmp_path / "out").visits
    assert (visit.patient_id, visit.eye, visit.site) == ("P1", "OS", "north")
    assert visit.acquired == date(2026, 1, 5)
    assert set(visit.files) == {"cfp", "oct_h", "oct_v"}
    original = folder.root / folder.rows[0]["path"]
    assert visit.files["cfp"].read_bytes() == original.read_bytes()
    np.testing.assert_array_equal(read_scan(visit.files["oct_h"]), make_scan(2))
    np.testing.assert_array_equal(read_scan(visit.files["oct_v"]), make_scan(3))
    assert read_csv(tmp_path / "out" / "audit.csv") == []


@pytest.mark.parametrize(
    ("column", "value"), [("patient_id", "P2"), ("eye", "OS"), ("acquired", "2026-01-06T09:05")]
)
def test_other_patient_eye_or_day_never_pairs(folder, tmp_path, column, value):
    folder.visit()
    folder.rows[1][column] = value
    with pytest.raises(DataError, match="none of the 3 rows"):
        _pair(folder, tmp_path / "out")
    assert reasons(tmp_path / "out") == {2: "no_oct_h", 3: "no_cfp", 4: "no_oct_h"}
    assert not (tmp_path / "out" / "index.csv").exists()
    detail = read_csv(tmp_path / "out" / "audit.csv")[0]["detail"]
    assert ("1 other day" in detail) == (column == "acquired")


def test_the_zone_decides_the_day_by_what_is_written(folder, tmp_path):
    """Half past midnight in Tokyo is still the day before in Greenwich: one visit all the same."""
    for modality, kind, time in (
        ("cfp", "", "2026-01-05T00:30+09:00"),
        ("oct", "macula_h", "2026-01-05T09:30+09:00"),
        ("oct", "macula_v", "2026-01-05T00:35+09:00"),
    ):
        folder.add(modality, kind, time)
    summary = _pair(folder, tmp_path / "out")
    assert summary.to_dict()["largest_gap_s"] == 9 * 3600 + 300


def test_mixed_forms_of_time_refuse_the_list(folder, tmp_path):
    folder.visit()
    folder.rows[2]["acquired"] += "Z"
    with pytest.raises(DataError, match=r"row 2 .* row 4"):
        _pair(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("allow", "present"),
    [("none", ""), ("oct_v", "cfp oct_h"), ("oct", "cfp"), ("oct", "cfp oct_v")],
)
def test_missing_scans_are_empty_cells_where_allowed(folder, tmp_path, allow, present):
    folder.visit()
    folder.visit(patient_id="P2")
    keep = {"cfp": folder.rows[3], "oct_h": folder.rows[4], "oct_v": folder.rows[5]}
    folder.rows[3:] = [keep[name] for name in (present or "cfp oct_h").split()]
    _pair(folder, tmp_path / "out", allow_missing=allow)
    visits = {visit.patient_id: visit for visit in read_index(tmp_path / "out").visits}
    assert check_dataset(tmp_path / "out") == []
    assert set(visits) == ({"P1", "P2"} if present else {"P1"})
    if present:
        assert set(visits["P2"].files) == set(present.split())


def test_an_image_that_fails_gives_way_to_the_next(folder, tmp_path):
    folder.visit()
    spare = folder.add("oct", "macula_h", "2026-01-05T11:00")
    broken = folder.root / folder.rows[1]["path"]
    broken.write_bytes(broken.read_bytes()[:-30])
    _pair(folder, tmp_path / "out")
    assert reasons(tmp_path / "out") == {3: "unreadable_image"}
    (visit,) = read_index(tmp_path / "out").visits
    assert visit.files["oct_h"].exists()
    assert spare["path"] not in {row["path"] for row in read_csv(tmp_path / "out" / "audit.csv")}


def test_repeated_and_contradicting_rows(folder, tmp_path):
    folder.visit()
    folder.visit(patient_id="P2")
    folder.visit(patient_id="P3")
    folder.rows.append(dict(folder.rows[0]))  # 11: the same row again
    folder.rows.append({**folder.rows[3], "patient_id": "P9"})  # 12: P2's file, other patient
    copied = folder.add("cfp", "macula", "2026-01-05T10:00", patient_id="P3")  # 13
    shutil.copy(folder.root / folder.rows[6]["path"], folder.root / copied["path"])
    wrong = folder.add("oct", "macula_h", "2026-02-01T10:00", patient_id="P1")  # 14
    shutil.copy(folder.root / folder.rows[7]["path"], folder.root / wrong["path"])
    folder.add("cfp", "macula", "2026-01-05T10:00", path="raw/gone.jpg")
    (folder.root / "raw/gone.jpg").unlink()  # 15
    _pair(folder, tmp_path / "out", allow_missing="oct")
    found = reasons(tmp_path / "out")
    assert {row: found[row] for row in (11, 13, 15)} == {
        11: "duplicate_row",
        13: "duplicate_image",
        15: "missing_file",
    }
    assert {found[5], found[12]} == {"conflicting_rows"}
    assert {found[9], found[14]} == {"conflicting_images"}
    assert check_dataset(tmp_path / "out") == []


def test_unwanted_kinds_and_sites(folder, tmp_path):
    folder.visit()
    folder.add("oct", "disc", "2026-01-05T09:05")  # 5
    folder.add("oct", "other", "2026-01-05T09:05")  # 6
    folder.add("cfp", "disc", "2026-01-05T09:00")  # 7
    folder.visit(patient_id="P2")  # 8 to 10
    folder.rows[-1]["site"] = "south"
    folder.visit(patient_id="P3")  # 11 to 13
    folder.visit(patient_id="P3", eye="OS", site="south")  # 14 to 16: the other eye, elsewhere
    _pair(folder, tmp_path / "out")
    found = reasons(tmp_path / "out")
    assert [found[row] for row in range(11, 17)] == ["conflicting_sites"] * 6
    assert [found[row] for row in (5, 6, 7)] == ["unwanted_scan_kind"] * 3
    assert [found[row] for row in (8, 9, 10)] == ["conflicting_sites"] * 3
    _pair(folder, tmp_path / "disc", cfp_fields=("disc",))
    assert reasons(tmp_path / "disc")[2] == "unwanted_scan_kind"


def test_scans_of_two_sizes_need_one_size(folder, tmp_path):
    folder.visit()
    write_image(folder.root / folder.rows[2]["path"], make_scan(9)[:60])
    with pytest.raises(DataError, match="none of the 3"):
        _pair(folder, tmp_path / "out")
    assert reasons(tmp_path / "out")[4] == "shape_mismatch"
    _pair(folder, tmp_path / "sized", oct_size_px=(48, 64))
    (visit,) = read_index(tmp_path / "sized").visits
    assert {read_scan(visit.files[name]).shape for name in ("oct_h", "oct_v")} == {(48, 64)}
    assert check_dataset(tmp_path / "sized") == []


def test_equal_pixels_in_two_encodings_are_found(folder, tmp_path):
    folder.visit()
    write_image(folder.root / folder.rows[2]["path"], np.repeat(make_scan(2)[..., None], 3, 2))
    with pytest.raises(DataError, match="none of the 3"):
        _pair(folder, tmp_path / "out")
    assert reasons(tmp_path / "out")[4] == "conflicting_images"


def test_labels_are_kept_where_the_images_agree(folder, tmp_path):
    folder.visit()
    folder.visit(patient_id="P2")
    values = [("1", "2"), ("1.0", "2"), ("", "3"), ("0", ""), ("0", ""), ("0", "")]
    for row, (glaucoma, grade) in zip(folder.rows, values, strict=True):
        row.update(glaucoma=glaucoma, dr_grade=grade)
    names = ("glaucoma", "dr_grade")
    summary = _pair(folder, tmp_path / "out", labels=names, columns=(*COLUMNS, *names))
    first, second = read_index(tmp_path / "out").visits
    assert first.labels["glaucoma"] == 1
    assert np.isnan(first.labels["dr_grade"])
    assert second.labels["glaucoma"] == 0
    assert summary.to_dict()["label_conflicts"] == {"dr_grade": 1}


def test_pseudonyms_leave_no_id_and_no_path(folder, tmp_path):
    folder.visit(patient_id="MRN-4711")
    folder.add("cfp", "macula", "2026-03-05T09:00", patient_id="MRN-4711", path="raw/4711.jpg")
    _pair(folder, tmp_path / "out", pseudonyms=Pseudonyms(b"k" * 32))
    for path in (tmp_path / "out").rglob("*.*"):
        assert b"4711" not in path.read_bytes()
        assert "4711" not in path.name
    (row,) = read_csv(tmp_path / "out" / "audit.csv")
    assert row["patient_id"] == Pseudonyms(b"k" * 32).replace("MRN-4711")
    assert row["path"] == ""
    other = Pseudonyms(b"l" * 32).replace("MRN-4711")
    assert other != row["patient_id"]


def test_a_short_key_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="31 bytes"):
        Pseudonyms(b"k" * 31)
    with pytest.raises(ConfigError, match="cannot read the pseudonym key"):
        Pseudonyms.from_file(tmp_path / "none")


def test_the_summary_counts_every_row(folder, tmp_path):
    folder.visit()
    folder.visit(patient_id="P2", site="south")
    folder.add("cfp", "macula", "2026-01-05T12:00", patient_id="P2", site="south")
    _pair(folder, tmp_path / "out")
    record = json.loads((tmp_path / "out" / "pairing.json").read_text())
    assert record["rows"] == {"paired": 6, "rejected": 1}
    assert record["by_site"]["south"] == {"visits": 1, "paired": 3, "rejected": 1}
    assert set(record["by_reason"]) == {reason.value for reason in Reason}
    assert record["by_reason"]["surplus"] == 1
    assert sum(part["visits"] for part in record["by_split"].values()) == record["visits"] == 2
    assert record["settings"]["shares"] == [0.7, 0.1, 0.2]


def test_a_used_folder_is_refused(folder, tmp_path):
    folder.visit()
    _pair(folder, tmp_path / "out")
    with pytest.raises(DataError, match="not empty"):
        _pair(folder, tmp_path / "out")


def test_the_index_is_written_last(folder, tmp_path, monkeypatch):
    from train.pairing import records

    folder.visit()
    names = []
    write = records.write_file

    def spy(path, data):
        names.append(path.name)
        write(path, data)

    monkeypatch.setattr(records, "write_file", spy)
    _pair(folder, tmp_path / "out")
    assert names == ["audit.csv", "pairing.json", "index.csv"]


@given(
    st.text("PX-0123456789", min_size=1),
    st.sampled_from([(0.7, 0.1, 0.2), (1.0, 0.0, 0.0), (0.0, 0.5, 0.5)]),
)
def test_splits_depend_on_the_patient_alone(patient_id, shares):
    name = draw_split(patient_id, salt="a", shares=shares)
    assert name == draw_split(patient_id, salt="a", shares=shares)
    assert shares[("train", "val", "test").index(name)] > 0


def test_splits_have_their_shares_and_follow_the_salt():
    ids = [f"P{number}" for number in range(4000)]
    drawn = {salt: [draw_split(i, salt=salt, shares=(0.7, 0.1, 0.2)) for i in ids] for salt in "ab"}
    counts = Counter(drawn["a"])
    # Standard deviation of a share is below 0.8 %: 4 of them.
    for name, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        assert abs(counts[name] / 4000 - share) < 0.032
    assert drawn["a"] != drawn["b"]


@pytest.mark.parametrize(
    "options",
    [
        {"allow_missing": "cfp"},
        {"cfp_fields": ()},
        {"shares": (0.5, 0.5, 0.5)},
        {"shares": (1.2, -0.2, 0.0)},
        {"shares": (float("nan"), 0.5, 0.5)},
        {"oct_size_px": (0, 512)},
    ],
)
def test_settings_out_of_range(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        PairSettings(**options)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Pictures that random lists name, by modality: good ones, copies, damaged, missing."""
    folder = RawFolder(tmp_path_factory.mktemp("pool"))
    paths = {"cfp": [], "oct": []}
    for _ in range(4):
        for modality, kind in (("cfp", "macula"), ("oct", "macula_h")):
            paths[modality].append(folder.add(modality, kind, "")["path"])
    for modality, ending in (("cfp", "jpg"), ("oct", "png")):
        good = (folder.root / paths[modality][0]).read_bytes()
        (folder.root / f"raw/copy.{ending}").write_bytes(good)
        (folder.root / f"raw/cut.{ending}").write_bytes(good[:-30])
        paths[modality] += [f"raw/copy.{ending}", f"raw/cut.{ending}", f"raw/none.{ending}"]
    folder.rows.clear()
    folder.visit()
    folder.add("cfp", "macula", "2026-01-05T02:00")
    folder.add("oct", "macula_v", "2026-01-05T02:00")
    return folder.root, paths, folder.rows


SLOTS = (("cfp", "macula"), ("oct", "macula_h"), ("oct", "macula_v"))


@st.composite
def random_rows(draw):
    """A row that mostly fits: one patient, few times, and now and then anything."""
    modality, kind = draw(st.sampled_from([*SLOTS, *SLOTS, *SLOTS, ("oct", "disc"), ("fa", "")]))
    return {
        "patient_id": draw(st.sampled_from(["P1"] * 6 + ["P2", ""])),
        "eye": draw(st.sampled_from(["OD"] * 6 + ["OS", "R"])),
        "acquired": draw(st.sampled_from([f"2026-01-05T0{hour}:00" for hour in range(6)])),
        "site": draw(st.sampled_from(["north"] * 9 + ["south"])),
        "modality": modality,
        "scan_kind": kind,
        "path": draw(st.integers(0, 6)),
    }


lists = {
    "found": st.lists(random_rows(), min_size=1, max_size=14),
    "allow": st.sampled_from(["none", "oct_v", "oct"]),
    "seed": st.integers(0, 99),
}


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(**lists)
def test_every_raw_row_ends_in_one_place(pool, tmp_path_factory, found, allow, seed):
    _require_whole_account(pool, tmp_path_factory, found, allow, seed)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(**lists)
def test_every_raw_row_ends_in_one_place_at_length(pool, tmp_path_factory, found, allow, seed):
    _require_whole_account(pool, tmp_path_factory, found, allow, seed)


def _require_whole_account(pool, tmp_path_factory, found, allow, seed):
    """No row lost, none counted twice, and the order of rows changes nothing."""
    root, paths, whole_visit = pool
    chosen = [
        {**row, "path": paths["cfp" if row["modality"] == "cfp" else "oct"][row["path"]]}
        for row in found
    ] + whole_visit
    shuffled = random.Random(seed).sample(chosen, len(chosen))
    outcomes = []
    for one in (chosen, shuffled):
        folder = RawFolder(root)
        folder.rows = one
        outcomes.append(_outcome(folder, tmp_path_factory.mktemp("out") / "set", allow))
    assert outcomes[0] == outcomes[1]


def _outcome(folder, out, allow):
    """The index and the audit without row numbers, after checking that no row is lost."""
    try:
        summary = _pair(folder, out, allow_missing=allow)
        used = [image.row for visit in summary.visits for image in visit.triple.images]
        assert check_dataset(out) == []
        index = read_csv(out / "index.csv")
    except DataError:
        assert not (out / "index.csv").exists()
        used, index = [], []
    audit = read_csv(out / "audit.csv")
    assert sorted([*used, *(int(row["row"]) for row in audit)]) == list(
        range(2, len(folder.rows) + 2)
    )
    assert all(row["reason"] in {reason.value for reason in Reason} for row in audit)
    return index, sorted(tuple(row.values())[1:] for row in audit)
