"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

_REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full",
        action="store_true",
        help="run the tests marked fuzz and faults with the counts that are promised (minutes)",
    )


@dataclass(frozen=True)
class Scale:
    """Chooses between the count of every day and the one that is promised."""

    full: bool

    def __call__(self, short: int, full: int) -> int:
        """`full` with the option --full, else `short`."""
        return full if self.full else short


@pytest.fixture(scope="session")
def scale(request: pytest.FixtureRequest) -> Scale:
    """How much the fault tests do: see `make fuzz` and `make faults`."""
    return Scale(full=bool(request.config.getoption("--full")))


@pytest.fixture
def say(request: pytest.FixtureRequest, scale: Scale) -> Callable[[str], None]:
    """Print a line of progress or a count past pytest's capture, in full runs only."""
    manager = request.config.pluginmanager.getplugin("capturemanager")

    def write(line: str) -> None:
        if scale.full and manager is not None:
            with manager.global_and_fixture_disabled():
                print(f"\n  {line}", end="", flush=True)

    return write


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded randomness, fresh for each test."""
    return np.random.default_rng(20261123)


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    """The folder of real images: EDGE_SCREEN_DATA, or ../shared/data beside the repository."""
    default = _REPOSITORY.parent / "shared" / "data"
    folder = Path(os.environ.get("EDGE_SCREEN_DATA", default))
    if not folder.is_dir():
        pytest.skip("no real images here; name their folder in EDGE_SCREEN_DATA")
    return folder


@pytest.fixture(scope="session")
def phantom_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic data set: 12 patients, seed 0, 128 px. Read only; copy it to change it."""
    from train.phantom.writer import generate_dataset

    folder = tmp_path_factory.mktemp("phantom") / "data"
    generate_dataset(folder, num_patients=12, seed=0, image_px=128)
    return folder
