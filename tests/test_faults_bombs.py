"""Bombs: files that claim or unpack to far more than a picture, each refused at once.

Every bomb is decoded in a process of its own, whose processor time and peak memory are read. One
that is refused too late or at too high a cost is a failure, and so is one that gives a picture.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from bombs import BOMBS, HEAVY
from conftest import Scale

pytestmark = pytest.mark.faults

_LIMIT_S, _LIMIT_MIB = 1.0, 300e6 / 2**20
_ROOT = Path(__file__).resolve().parent.parent
# What the fast tests try: small files that are quickly built, at least one of every format.
_SHORT = (
    "jpeg claims 65500 x 65500",
    "jpeg of 200 scans",
    "jpeg of 121 thin scans of 39 megapixels",
    "jpeg of 60 MB of restart markers in its scan",
    "png claims 39 megapixels, holds 1 kB",
    "png of 6400 x 6300 zeros",
    "bmp claims 65500 x 65500",
    "tiff that follows itself",
    "tiff of 4 billion strips",
    "tiff LZW of 3 megapixels of noise",
    "dicom of 100,000 nested sequences",
    "dicom wraps a jpeg of 65500 x 65500",
)
_SHORT_HEAVY = (
    "jpeg of previews in previews",
    "jpeg with an endless EXIF directory",
    "tiff LZW of 0.6 megapixels of noise",
)


def try_bombs(names: list[str]) -> dict[str, dict[str, object]]:
    """What `bomb_child.py` prints of every bomb, by name."""
    path = os.pathsep.join([str(_ROOT), str(_ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, str(_ROOT / "tests" / "bomb_child.py"), *names],
        env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    facts = [json.loads(line) for line in done.stdout.splitlines()]
    return {one["name"]: one for one in facts}


def is_cheap(facts: dict[str, object]) -> bool:
    seconds, peak_mib = (float(str(facts[name])) for name in ("seconds", "peak_mib"))
    return seconds <= _LIMIT_S and 0 < peak_mib <= _LIMIT_MIB


def is_refused(facts: dict[str, object]) -> bool:
    return str(facts["outcome"]).startswith("refused: ")


def is_answered(facts: dict[str, object]) -> bool:
    return str(facts["outcome"]).startswith(("refused: ", "decoded to "))


def tell(found: dict[str, dict[str, object]], say: Callable[[str], None]) -> None:
    for name, facts in found.items():
        say(
            f"{facts['seconds']:5.2f} s {facts['peak_mib']:4.0f} MiB  {name}: "
            f"{str(facts['outcome'])[:90]}"
        )
    worst = [max(float(str(one[key])) for one in found.values()) for key in ("seconds", "peak_mib")]
    say(f"{len(found)} files, at most {worst[0]:.2f} s and {worst[1]:.0f} MiB")


def test_bombs_are_refused_at_once(scale: Scale, say: Callable[[str], None]) -> None:
    names = list(BOMBS) if scale.full else list(_SHORT)
    found = try_bombs(names)
    tell(found, say)
    assert {n: one for n, one in found.items() if not (is_refused(one) and is_cheap(one))} == {}
    assert list(found) == names
    assert len(names) >= (25 if scale.full else 10)


def test_heavy_pictures_cost_little(scale: Scale, say: Callable[[str], None]) -> None:
    names = list(HEAVY) if scale.full else list(_SHORT_HEAVY)
    found = try_bombs(names)
    tell(found, say)
    assert {n: one for n, one in found.items() if not (is_answered(one) and is_cheap(one))} == {}
    assert list(found) == names != []


def test_a_picture_is_not_taken_for_a_bomb() -> None:
    """The measuring process itself is far from the limits, and sees what is decoded."""
    (facts,) = try_bombs(["a picture"]).values()
    assert facts["outcome"] == "decoded to (64, 64, 3)"
    assert is_cheap(facts)
    assert float(str(facts["peak_mib"])) < _LIMIT_MIB / 2


def test_a_measurement_beyond_a_limit_is_a_failure() -> None:
    facts = {"seconds": 0.5, "peak_mib": 100.0, "outcome": "refused: x"}
    assert is_cheap(facts)
    assert not is_cheap({**facts, "seconds": 1.01})
    assert not is_cheap({**facts, "peak_mib": 287.0})
    ended = {**facts, "outcome": "ended by signal or status 9"}
    assert not is_refused(ended)
    assert not is_answered(ended)
