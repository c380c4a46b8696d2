"""Both wheels, built for real: what is in them, and what is not."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path, PurePosixPath

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"calibration", "distill", "edge_runtime", "export", "train"}
MAX_FILE_BYTES = 1_000_000
IMAGES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".svg", ".tif", ".tiff", ".webp"}


def _build(project, folder):
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run(
        [*command, str(project)], capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel)


@pytest.fixture(scope="module")
def root_wheel(tmp_path_factory):
    with _build(ROOT, tmp_path_factory.mktemp("root_wheel")) as wheel:
        yield wheel


@pytest.fixture(scope="module")
def device_wheel(tmp_path_factory):
    with _build(ROOT / "edge_runtime", tmp_path_factory.mktemp("device_wheel")) as wheel:
        yield wheel


def _content(wheel):
    """Paths outside the metadata folder."""
    return {name for name in wheel.namelist() if ".dist-info/" not in name}


def _sources(*packages):
    paths = (path for name in packages for path in (ROOT / name).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix() for path in paths}


def _metadata(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


def _entry_points(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("/entry_points.txt"))
    return wheel.read(name).decode()


def test_the_device_wheel_holds_the_runtime_alone(device_wheel):
    assert _content(device_wheel) == {*_sources("edge_runtime"), "edge_runtime/py.typed"}


def test_the_root_wheel_holds_the_five_packages(root_wheel):
    typed = {f"{name}/py.typed" for name in PACKAGES}
    assert _content(root_wheel) >= _sources(*PACKAGES) | typed
    assert {PurePosixPath(name).parts[0] for name in _content(root_wheel)} == PACKAGES


@pytest.mark.parametrize("fixture", ["root_wheel", "device_wheel"])
def test_no_project_files_images_or_large_files(fixture, request):
    wheel = request.getfixturevalue(fixture)
    for entry in wheel.infolist():
        path = PurePosixPath(entry.filename)
        assert path.suffix.lower() not in IMAGES, entry.filename
        assert entry.file_size < MAX_FILE_BYTES, entry.filename
        assert path.name not in {"pyproject.toml", "README.md", "constraints.txt"}, entry.filename
        assert path.name != "LICENSE" or ".dist-info" in path.parts[0], entry.filename
        assert "tests" not in path.parts, entry.filename


@pytest.mark.parametrize("fixture", ["root_wheel", "device_wheel"])
def test_the_licence_travels_with_the_wheel(fixture, request):
    wheel = request.getfixturevalue(fixture)
    licences = [name for name in wheel.namelist() if name.endswith("/licenses/LICENSE")]
    assert len(licences) == 1
    assert "Apache License" in wheel.read(licences[0]).decode()
    assert _metadata(wheel)["License-Expression"] == "Apache-2.0"


def test_versions_and_base_requirements_agree(root_wheel, device_wheel):
    root, device = _metadata(root_wheel), _metadata(device_wheel)
    assert root["Version"] == device["Version"]
    assert root["Requires-Python"] == device["Requires-Python"] == ">=3.10"
    base = [
        {text for text in meta.get_all("Requires-Dist") if "extra ==" not in text}
        for meta in (root, device)
    ]
    assert base[0] == base[1]
    assert len(base[0]) == 5


def test_commands(root_wheel, device_wheel):
    for wheel in (root_wheel, device_wheel):
        assert "edge-screen = edge_runtime.cli:main" in _entry_points(wheel)
    assert "[edge_screen.commands]" in _entry_points(root_wheel)
    assert "edge_screen.commands" not in _entry_points(device_wheel)
