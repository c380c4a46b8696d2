"""`edge-screen data pair` from the outside: what it writes, says, refuses and keeps to itself."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from layout_factory import make_eyes, make_gamma, make_topcon_mm
from pairing_factory import COLUMNS, RawFolder, reasons

from edge_runtime.errors import ConfigError, DataError
from edge_runtime.result import NOTICE
from train.data.check import check_dataset
from train.data.cli import data
from train.data.index import read_index


@pytest.fixture
def folder(tmp_path):
    made = RawFolder(tmp_path / "raw")
    made.visit()
    made.visit(patient_id="P2", site="south")
    return made


def _run(*arguments):
    return CliRunner().invoke(data, ["pair", *map(str, arguments)], catch_exceptions=True)


def test_a_list_becomes_a_data_set(folder, tmp_path):
    folder.rows[0]["eye"] = "R"
    done = _run(folder.write(), "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "1 visits from 3 of 6 rows (csv)" in done.output
    assert "bad_eye" in done.output
    assert done.output.rstrip().endswith(NOTICE)
    assert reasons(tmp_path / "out")[2] == "bad_eye"
    assert check_dataset(tmp_path / "out") == []


def test_json_and_every_option_reach_the_settings(folder, tmp_path):
    for row in folder.rows:
        row["glaucoma"] = "1"
    key = tmp_path / "key.bin"
    key.write_bytes(b"k" * 32)
    done = _run(
        *(folder.write((*COLUMNS, "glaucoma")), "--out", tmp_path / "out", "--label", "glaucoma"),
        *("--allow-missing", "oct_v", "--pseudonymize", key, "--cfp-field", "macula"),
        *("--allow-grey-cfp", "--oct-size", 48, 64, "--shares", 0, 0, 1, "--split-salt", "x"),
        "--json",
    )
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["settings"] == {
        "allow_missing": "oct_v",
        "cfp_fields": ["macula"],
        "shares": [0.0, 0.0, 1.0],
        "salt": "x",
        "oct_size_px": [48, 64],
        "allow_grey_cfp": True,
    }
    assert record["pseudonymized"] is True
    assert record["by_split"]["test"] == {"patients": 2, "visits": 2}
    written = json.loads((tmp_path / "out" / "pairing.json").read_text())
    assert {key: written[key] for key in record if key != "notice"} == {
        key: value for key, value in record.items() if key != "notice"
    }
    assert "P1" not in done.output
    assert {visit.labels["glaucoma"] for visit in read_index(tmp_path / "out").visits} == {1.0}


def test_a_published_set(tmp_path):
    make_topcon_mm(tmp_path / "in")
    arguments = ("--layout", "topcon-mm", "--allow-missing", "oct_v", "--site", "lab")
    done = _run(tmp_path / "in", "--out", tmp_path / "out", *arguments)
    assert done.exit_code == 0, done.output
    assert "note: the set names no days" in done.output
    assert {visit.site for visit in read_index(tmp_path / "out").visits} == {"lab"}


def test_a_table_of_eyes(tmp_path):
    make_gamma(tmp_path / "in", num_eyes=1, num_slices=96)
    eyes = make_eyes(tmp_path, _0001="OS")
    done = _run(tmp_path / "in", "--out", tmp_path / "out", "--layout", "gamma", "--eyes", eyes)
    assert done.exit_code == 0, done.output


def test_a_folder_is_read_as_dicom(tmp_path):
    pytest.importorskip("pydicom", reason="DICOM files are read with pydicom")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "readme.txt").write_text("no DICOM")
    done = _run(tmp_path / "in", "--out", tmp_path / "out")
    assert isinstance(done.exception, DataError)
    assert reasons(tmp_path / "out") == {1: "not_dicom"}


@pytest.mark.parametrize(
    ("option", "kind"),
    [
        (("--eyes", "eyes.csv"), "csv"),
        (("--site", "north"), "csv"),
        (("--dicom-region", "macula"), "csv"),
        (("--label", "dr_grade"), "dicom"),
        (("--eyes", "eyes.csv"), "dicom"),
    ],
)
def test_an_option_without_meaning_is_refused(folder, tmp_path, option, kind):
    source = folder.write() if kind == "csv" else folder.root
    done = _run(source, "--out", tmp_path / "out", *option)
    assert isinstance(done.exception, ConfigError)
    assert option[0] in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_a_missing_list_is_an_error_of_the_tree(tmp_path):
    done = _run(tmp_path / "none.csv", "--out", tmp_path / "out")
    assert isinstance(done.exception, DataError)
    assert not (tmp_path / "out").exists()
