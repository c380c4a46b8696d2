"""A bare environment with the device wheel and what it asks for, as a camera has it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from bundle_factory import build_bundle
from fundus_factory import centred_fundus, jpeg_bytes

ROOT = Path(__file__).resolve().parent.parent
# What pip prints when it cannot talk to the package index at all.
_UNREACHABLE = re.compile(
    "Retrying [(]|NewConnectionError|Temporary failure in name resolution|ReadTimeout|ProxyError"
)


class IndexUnreachableError(Exception):
    """Without a package index no environment can be made; nothing is wrong with the wheel."""


def run_away(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run away from the repository, so that nothing of it is imported by accident."""
    environment = {key: text for key, text in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def build_wheel(project: Path, folder: Path) -> Path:
    """Build the wheel of a folder with a pyproject.toml; return its file in `folder`."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder]
    done = run_away(*command, project, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def make_camera(python: str | Path, wheel: Path, folder: Path) -> Path:
    """Make a virtual environment of `python` in `folder`, install the wheel, pinned; return bin/.

    Raises:
        IndexUnreachableError: pip reached no package index.
    """
    made = run_away(python, "-m", "venv", folder / "venv", cwd=folder)
    assert made.returncode == 0, made.stdout + made.stderr
    folder_bin = folder / "venv" / "bin"
    options = ["--disable-pip-version-check", "--retries", "1", "--timeout", "30"]
    options += ["-c", str(ROOT / "constraints.txt")]
    done = run_away(folder_bin / "python", "-m", "pip", "install", *options, wheel, cwd=folder)
    silent = _UNREACHABLE.search(done.stdout + done.stderr)
    if done.returncode != 0 and silent:
        raise IndexUnreachableError(f"the package index cannot be reached (pip: {silent.group()})")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder_bin


def write_camera_folder(folder: Path) -> None:
    """Write what a vendor has: a bundle that finds every eye healthy, its key, two pictures."""
    build_bundle(folder / "bundle", threshold=1.0, gradability_threshold=0.0)
    for seed, name in enumerate(("right.jpg", "left.jpg")):
        (folder / name).write_bytes(jpeg_bytes(centred_fundus(160, seed=seed)))
