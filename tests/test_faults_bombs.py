"""Bombs: files that claim or unpack to far more than a picture, each refused at once.

Every bomb is decoded in a process of its own, whose time and peak memory are read. A `refused`
that comes too late or costs too much is a failure, and so is any picture.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from bombs import BOMBS
from conftest import Scale

pytestmark = pytest.mark.faults

_LIMIT_S, _LIMIT_MIB = 1.0, 300.0
_ROOT = Path(__file__).resolve().parent.parent
# What the fast tests try: small files that are quickly built, at least one of every format.
_SHORT = (
    "jpeg claims 65500 x 65500",
    "jpeg of 200 scans",
    "jpeg of 121 thin scans of 39 megapixels",
    "png whose data unpack to 1 GB",
    "png of 6400 x 6300 zeros",
    "bmp claims 65500 x 65500",
    "tiff that follows itself",
    "tiff of 4 billion strips",
    "dicom of 100,000 nested sequences",
    "dicom wraps a jpeg of 65500 x 65500",
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


def is_kept(facts: dict[str, object]) -> bool:
    return (
        str(facts["outcome"]).startswith("refused: ")
        and float(str(facts["seconds"])) <= _LIMIT_S
        and float(str(facts["peak_mib"])) <= _LIMIT_MIB
    )


def test_bombs_are_refused_at_once(scale: Scale, say: Callable[[str], None]) -> None:
    names = list(BOMBS) if scale.full else list(_SHORT)
    found = try_bombs(names)
    late = [name for name, facts in found.items() if not is_kept(facts)]
    found |= try_bombs(late) if late else {}  # once more, where other work may have been in the way
    for name, facts in found.items():
        say(
            f"{facts['seconds']:5.2f} s {facts['peak_mib']:4.0f} MiB  {name}: "
            f"{str(facts['outcome'])[:90]}"
        )
    broken = {name: facts for name, facts in found.items() if not is_kept(facts)}
    slowest = max(float(str(facts["seconds"])) for facts in found.values())
    largest = max(float(str(facts["peak_mib"])) for facts in found.values())
    say(f"{len(found)} bombs, at most {slowest:.2f} s and {largest:.0f} MiB, {len(broken)} failed")
    assert broken == {}
    assert list(found) == names
    assert len(names) >= (25 if scale.full else 10)


def test_a_picture_is_not_taken_for_a_bomb() -> None:
    """The measuring process itself is far from the limits, and sees what is decoded."""
    (facts,) = try_bombs(["a picture"]).values()
    assert str(facts["outcome"]).startswith("decoded to (64, 64, 3)")
    assert not is_kept(facts)
    assert float(str(facts["peak_mib"])) < _LIMIT_MIB / 2
