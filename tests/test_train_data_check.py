"""`edge-screen data check`: every planted fault is found, named, and nothing else is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from dataset_factory import make_cfp, make_dataset, make_scan, write_image, write_index

from train.data.check import check_dataset, examine_dataset
from train.data.cli import data


def _only(problems):
    assert len(problems) == 1, [str(problem) for problem in problems]
    return problems[0]


def _run(*arguments):
    return CliRunner().invoke(data, ["check", *map(str, arguments)])


def test_a_correct_data_set_has_no_problem(tmp_path):
    make_dataset(tmp_path)
    assert check_dataset(tmp_path) == []


def test_counts_and_labels(tmp_path):
    rows = make_dataset(tmp_path, num_patients=4)
    rows[0].update(oct_h="", oct_v="")
    write_index(tmp_path, rows)
    report = examine_dataset(tmp_path)
    assert report.counts["train"] == {
        "visits": 4,
        "patients": 2,
        "cfp": 4,
        "oct": 3,
        "paired": 3,
    }
    assert report.counts["val"]["patients"] == 1
    # numbers 0..7: glaucoma = number % 2; dr_grade = number % 5, unknown for number 1
    assert report.labels["glaucoma"] == {"known": 8, "positive": 4}
    assert report.labels["dr_grade"] == {"known": 7, "positive": 5}
    assert not report.synthetic


def test_progress_reaches_the_end(tmp_path):
    make_dataset(tmp_path)
    calls = []
    check_dataset(tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 6) for done in range(1, 7)]


@pytest.mark.parametrize("column", ["cfp", "oct_h", "oct_v", "vessels", "lesions"])
@pytest.mark.parametrize("keep", [0, 40, 0.5, -1])
def test_a_truncated_png_is_found(tmp_path, column, keep):
    make_dataset(tmp_path)
    path = tmp_path / column / "P001_OS.png"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep) if isinstance(keep, float) else keep])
    problem = _only(check_dataset(tmp_path))
    assert (problem.row, problem.column) == (5, column)
    assert problem.file == f"{column}/P001_OS.png"


@pytest.mark.parametrize("column", ["cfp", "oct_h", "disc"])
def test_a_changed_byte_inside_a_png_is_found(tmp_path, column):
    make_dataset(tmp_path)
    path = tmp_path / column / "P000_OD.png"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)
    problem = _only(check_dataset(tmp_path))
    assert (problem.row, problem.column) == (2, column)
    assert "damaged" in problem.message


@pytest.mark.parametrize("column", ["cfp", "oct_h", "cup"])
def test_a_file_that_is_no_image_is_found(tmp_path, column):
    make_dataset(tmp_path)
    (tmp_path / column / "P000_OD.png").write_text("not an image")
    assert _only(check_dataset(tmp_path)).column == column


def test_a_missing_file_and_the_rest_are_all_listed(tmp_path):
    rows = make_dataset(tmp_path)
    (tmp_path / rows[0]["cfp"]).unlink()
    (tmp_path / rows[4]["oct_h"]).write_bytes(b"")
    rows[5]["eye"] = "both"
    write_index(tmp_path, rows)
    problems = check_dataset(tmp_path)
    assert [(p.row, p.column) for p in problems] == [(2, "cfp"), (6, "oct_h"), (7, "eye")]


@pytest.mark.parametrize("column", ["cfp", "oct_h", "oct_v"])
def test_a_duplicated_image_under_another_name_is_found(tmp_path, column):
    make_dataset(tmp_path)
    shutil.copy(tmp_path / column / "P000_OD.png", tmp_path / column / "P002_OS.png")
    problem = _only(check_dataset(tmp_path))
    assert (problem.row, problem.file) == (7, f"{column}/P002_OS.png")
    assert f"same content as column '{column}' of row 2 (patient 'P000', OD)" in problem.message


def test_one_scan_in_both_directions_is_found(tmp_path):
    make_dataset(tmp_path)
    shutil.copy(tmp_path / "oct_h" / "P000_OD.png", tmp_path / "oct_v" / "P000_OD.png")
    assert "same content as column 'oct_h' of row 2" in _only(check_dataset(tmp_path)).message


def test_equal_masks_are_no_problem(tmp_path):
    make_dataset(tmp_path)
    first, second = (tmp_path / "lesions" / name for name in ("P000_OD.png", "P001_OD.png"))
    assert first.read_bytes() == second.read_bytes()
    assert check_dataset(tmp_path) == []


def test_a_file_named_after_the_other_eye_is_found(tmp_path):
    rows = make_dataset(tmp_path)
    rows[0]["oct_h"], rows[1]["oct_h"] = rows[1]["oct_h"], rows[0]["oct_h"]
    write_index(tmp_path, rows)
    problems = check_dataset(tmp_path)
    assert [(p.row, p.column) for p in problems] == [(2, "oct_h"), (3, "oct_h")]
    assert "'P000_OS.png' is named OS, the row says OD" in problems[0].message


def test_scans_of_two_shapes_and_masks_that_do_not_fit_are_found(tmp_path):
    make_dataset(tmp_path)
    write_image(tmp_path / "oct_v" / "P000_OD.png", make_scan(7)[:90])
    write_image(tmp_path / "disc" / "P000_OS.png", np.zeros((64, 64), np.uint8))
    problems = check_dataset(tmp_path)
    assert [(p.row, p.column) for p in problems] == [(2, "oct_v"), (3, "disc")]
    assert "is 128 x 90 px where oct_h has 128 x 96" in problems[0].message
    assert "is 64 x 64 px where cfp has 128 x 128" in problems[1].message


def test_a_smoothed_mask_is_found(tmp_path):
    make_dataset(tmp_path)
    mask = np.zeros((128, 128), np.uint8)
    mask[10, 10] = 77
    write_image(tmp_path / "cup" / "P001_OD.png", mask)
    assert (
        "has pixel value 77; a mask holds only 0 and 255" in _only(check_dataset(tmp_path)).message
    )


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((96, 128, 3), 9, np.uint8), "8 bits, colour type 2; save it as 8-bit grey"),
        (np.full((96, 128), 900, np.uint16), "16 bits, colour type 0; save it as 8-bit grey"),
    ],
)
def test_a_scan_of_another_format_is_found(tmp_path, image, message):
    make_dataset(tmp_path)
    path = tmp_path / "oct_h" / "P000_OD.png"
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    assert message in _only(check_dataset(tmp_path)).message


def test_a_jpeg_scan_is_refused_by_format(tmp_path):
    make_dataset(tmp_path)
    path = tmp_path / "oct_h" / "P000_OD.png"
    path.write_bytes(cv2.imencode(".jpg", make_scan(1))[1].tobytes())
    assert "is not a PNG file; convert OCT scans" in _only(check_dataset(tmp_path)).message


def test_a_grayscale_cfp_is_found(tmp_path):
    make_dataset(tmp_path)
    write_image(tmp_path / "cfp" / "P000_OD.png", make_cfp(0)[..., 1])
    assert "one channel" in _only(check_dataset(tmp_path)).message


def test_command_text(tmp_path):
    make_dataset(tmp_path)
    result = _run(tmp_path)
    assert result.exit_code == 0, result.output
    assert "no problem found" in result.output
    assert any(line.split() == ["train", "1", "2", "2", "2", "2"] for line in _lines(result))
    assert any(line.split() == ["glaucoma", "6", "3", "50.0%"] for line in _lines(result))


def test_command_exit_code_and_list(tmp_path):
    rows = make_dataset(tmp_path)
    rows[1]["split"] = "test"
    rows[4]["acquired"] = "yesterday"
    write_index(tmp_path, rows)
    result = _run(tmp_path)
    assert result.exit_code == 6
    assert "index.csv, row 3, column 'split': patient 'P000' is in 'test'" in result.output
    assert "index.csv, row 6, column 'acquired': 'yesterday' is not a date" in result.output
    assert _lines(result)[-1] == "2 problems found"


def test_command_json(tmp_path):
    rows = make_dataset(tmp_path)
    (tmp_path / rows[3]["oct_v"]).write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "dataset.json").write_text('{"synthetic": true}')
    result = _run(tmp_path, "--json")
    assert result.exit_code == 6
    report = json.loads(result.stdout)
    assert report["ok"] is False
    assert report["synthetic"] is True
    assert report["counts"]["train"]["paired"] == 2
    (problem,) = report["problems"]
    assert (problem["row"], problem["file"], problem["column"]) == (5, "oct_v/P001_OS.png", "oct_v")


def test_command_on_a_missing_folder(tmp_path):
    result = _run(tmp_path / "nowhere")
    assert result.exit_code == 6
    assert "give the folder that holds index.csv" in result.output


def test_help_has_an_example():
    result = _run("--help")
    assert result.exit_code == 0
    assert "  edge-screen data check runs/phantom\n" in result.output


def test_a_phantom_data_set_passes(phantom_dir):
    report = examine_dataset(phantom_dir)
    assert [str(problem) for problem in report.problems] == []
    assert report.synthetic
    assert sum(count["patients"] for count in report.counts.values()) == 12


@pytest.mark.slow
def test_help_is_quick_because_it_loads_nothing_heavy():
    code = "import sys; from train.data.cli import data; print(sorted(sys.modules))"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "numpy" not in output
    assert "cv2" not in output


def _lines(result):
    return result.output.strip().splitlines()
