"""The pretraining arms: what they differ in, and that errors are taken on matching eyes."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from export.demo.arms import arm_configs, flatten_error_rows
from export.demo.presets import preset
from train.data.index import DataIndex, read_index
from train.dataset_arrays import SplitArrays, load_split


def test_arms_differ_in_routes_and_pairing_only() -> None:
    configs = arm_configs(preset("smoke"), 3)
    informed = asdict(configs.pop("oct_informed"))
    assert {
        name: {key for key, value in asdict(config).items() if value != informed[key]}
        for name, config in configs.items()
    } == {"cfp_only": {"routes"}, "shuffled_oct": {"shuffle_oct"}}
    assert informed["seed"] == 3
    assert not informed["shuffle_oct"]


@pytest.fixture(scope="module")
def damaged_set(
    phantom_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[DataIndex, SplitArrays]:
    """The phantom with its first training photograph unreadable."""
    root = tmp_path_factory.mktemp("damaged") / "data"
    shutil.copytree(phantom_dir, root)
    index = read_index(root)
    index.split("train")[0].files["cfp"].write_bytes(b"not an image")
    return index, load_split(index, "train", size_px=32, with_oct=True)


def test_an_excluded_visit_does_not_shift_truth_against_scans(
    phantom_dir: Path, damaged_set: tuple[DataIndex, SplitArrays]
) -> None:
    index, data = damaged_set
    whole_index = read_index(phantom_dir)
    whole = load_split(whole_index, "train", size_px=32, with_oct=True)
    assert len(data) == len(whole) - 1
    assert data.excluded[0][0] == index.split("train")[0].row_number
    found = flatten_error_rows(index, data)
    assert found["num_scans"] == 2 * len(data)
    assert found["mean_absolute_beside_bias"] < 1.0
    assert found["p95_absolute_beside_bias"] < 3.0
    complete = flatten_error_rows(whole_index, whole)
    assert found["mean_absolute_beside_bias"] == pytest.approx(
        complete["mean_absolute_beside_bias"], abs=0.3
    )


def test_a_shift_by_one_visit_would_show(damaged_set: tuple[DataIndex, SplitArrays]) -> None:
    """The control: the same scans against the truth of their neighbours."""
    index, data = damaged_set
    found = flatten_error_rows(index, replace(data, excluded=()), num_eyes=len(data))
    assert found["mean_absolute_beside_bias"] > 2.0
    assert found["share_of_scans_off_by_more_than_6_beside_bias"] > 0.1
