"""The measurement of structure maps: its arithmetic, its table, synthetic and real eyes."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from dataset_factory import make_dataset

from edge_runtime.errors import ConfigError, DataError
from train.data.index import read_index
from train.structure.measure import (
    EyeMeasure,
    main,
    measure_eyes,
    measure_structure,
    summarized,
    table,
)
from train.structure.truth import known_eyes

GUIDE = Path(__file__).resolve().parent.parent / "docs" / "structure.md"
NAN = float("nan")
EYE = EyeMeasure(
    group="gradable",
    seconds=0.01,
    vessels_found=1.0,
    disc_found=1.0,
    macula_found=1.0,
    vessel_auroc=0.9,
    vessel_dice=0.6,
    disc_error=0.1,
    fovea_error=0.3,
    side_right=1.0,
)


def test_summary_counts_what_is_missing_and_what_is_far():
    lost = replace(
        EYE, disc_found=0.0, macula_found=0.0, disc_error=NAN, fovea_error=NAN, side_right=NAN
    )
    far = replace(EYE, disc_error=2.0, fovea_error=0.5, side_right=0.0, vessel_auroc=0.7)
    (row,) = summarized([EYE, EYE, lost, far])
    assert (row.num_eyes, row.disc_missing, row.macula_missing) == (4, 0.25, 0.25)
    assert row.disc_far == pytest.approx(1 / 3)
    assert row.fovea_far == 0
    assert row.side_right == pytest.approx(2 / 3)
    assert row.disc_median == pytest.approx(0.1)
    assert row.vessel_auroc == pytest.approx(0.85)


def test_groups_stay_apart_and_the_unknown_is_a_dash():
    nothing = replace(
        EYE, group="ungradable: dark", disc_error=NAN, fovea_error=NAN, side_right=NAN
    )
    rows = summarized([nothing, EYE])
    assert [row.group for row in rows] == ["gradable", "ungradable: dark"]
    lines = table(rows).splitlines()
    assert len(lines) == 4
    assert lines[3].count(" - ") == 7
    assert "0.900" in lines[2]


@pytest.mark.slow
def test_synthetic_eyes_are_found(phantom_dir):
    measures = measure_structure(read_index(phantom_dir), split="train")
    rows = {row.group: row for row in summarized(measures)}
    assert rows["gradable"].num_eyes >= 10
    assert rows["gradable"].disc_missing < 0.1
    assert rows["gradable"].disc_median < 0.2
    assert rows["gradable"].fovea_median < 0.5
    assert rows["gradable"].vessel_auroc > 0.85
    assert rows["gradable"].side_right == 1
    # The measure can fail: a truth moved by one field radius is far off.
    eyes = list(known_eyes(phantom_dir, "phantom", "train"))[:4]
    moved = [replace(eye, disc_xy_px=(eye.disc_xy_px[0] - 64, eye.disc_xy_px[1])) for eye in eyes]
    assert all(not one.disc_error < 1 for one in measure_eyes(moved, size_px=96))


def test_the_command_prints_a_table(phantom_dir):
    done = CliRunner().invoke(main, ["--data", str(phantom_dir), "--num-eyes", "2"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("| group | num_eyes |")
    assert "2 eyes, " in done.output


def test_refusals(tmp_path):
    make_dataset(tmp_path)
    with pytest.raises(DataError, match=r"P000_OD\.npz is missing; use a folder that phantom"):
        measure_structure(read_index(tmp_path), split="train")
    with pytest.raises(ConfigError, match="layout is 'messidor'; choose one of phantom, drive"):
        known_eyes(tmp_path, "messidor", "test")
    with pytest.raises(ConfigError, match="the GAMMA copy has no splits"):
        list(known_eyes(tmp_path, "gamma", "train"))
    done = CliRunner().invoke(main, ["--data", str(tmp_path / "no"), "--layout", "drive"])
    assert done.exit_code == 1
    assert "index.csv is not in" in done.output


def _real(real_data_dir: Path, name: str, split: str):
    if not (real_data_dir / name).is_dir():
        pytest.skip(f"{name} is not among the real images")
    (row,) = summarized(
        measure_eyes(known_eyes(real_data_dir / name, name_of(name), split), size_px=224)
    )
    return row


def name_of(folder: str) -> str:
    return "gamma" if folder.startswith("gamma") else folder


@pytest.mark.slow
def test_vessels_of_drive(real_data_dir):
    row = _real(real_data_dir, "drive", "train")
    assert row.num_eyes == 20
    assert row.vessel_auroc > 0.9


@pytest.mark.slow
def test_foveas_of_gamma(real_data_dir):
    row = _real(real_data_dir, "gamma1024", "test")
    assert row.num_eyes > 40
    assert row.macula_missing < 0.3
    assert row.fovea_median < 0.6


def test_every_command_of_the_guide_parses():
    lines = [line.strip() for line in GUIDE.read_text(encoding="utf-8").splitlines()]
    commands = [line for line in lines if line.startswith("python -m train.structure.measure")]
    assert len(commands) >= 3
    for line in commands:
        main.make_context("measure", shlex.split(line)[3:])


def test_nan_never_hides_a_missing_eye():
    """A structure that was not found lowers no error but raises the share missing."""
    lost = replace(EYE, disc_found=0.0, disc_error=NAN)
    (row,) = summarized([lost])
    assert row.disc_missing == 1
    assert np.isnan(row.disc_median)
