"""Both wheels, built for real: what is in them, what is not, and the camera's one at work."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path, PurePosixPath

import pytest
from bundle_factory import build_bundle
from fundus_factory import centred_fundus, jpeg_bytes

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"calibration", "distill", "edge_runtime", "export", "train"}
MAX_FILE_BYTES = 1_000_000
# What pip prints when it cannot talk to the package index at all.
UNREACHABLE = re.compile(
    "Retrying [(]|NewConnectionError|Temporary failure in name resolution|ReadTimeout|ProxyError"
)
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
    assert len(base[0]) == 6


def test_commands(root_wheel, device_wheel):
    for wheel in (root_wheel, device_wheel):
        assert "edge-screen = edge_runtime.cli:main" in _entry_points(wheel)
    assert "[edge_screen.commands]" in _entry_points(root_wheel)
    assert "edge_screen.commands" not in _entry_points(device_wheel)


def _run(*command, cwd):
    """Run away from the repository, so that nothing of it is imported by accident."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def camera_bin(device_wheel, tmp_path_factory):
    """bin/ of a fresh environment that has the device wheel and what it asks for, pinned."""
    folder = tmp_path_factory.mktemp("camera")
    made = _run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    assert made.returncode == 0, made.stdout + made.stderr
    python = folder / "venv" / "bin" / "python"
    options = ["--disable-pip-version-check", "--retries", "1", "--timeout", "30"]
    options += ["-c", ROOT / "constraints.txt"]
    done = _run(python, "-m", "pip", "install", *options, device_wheel.filename, cwd=folder)
    silent = UNREACHABLE.search(done.stdout + done.stderr)
    if done.returncode != 0 and silent:
        pytest.skip(f"the package index cannot be reached (pip: {silent.group()})")
    assert done.returncode == 0, done.stdout + done.stderr
    return python.parent


@pytest.fixture
def camera_folder(tmp_path):
    """What a vendor has: a bundle that finds every eye healthy, its key, two pictures."""
    build_bundle(tmp_path / "bundle", threshold=1.0, gradability_threshold=0.0)
    for seed, name in enumerate(("right.jpg", "left.jpg")):
        (tmp_path / name).write_bytes(jpeg_bytes(centred_fundus(160, seed=seed)))
    return tmp_path


def test_the_camera_gets_the_runtime_and_nothing_of_training(camera_bin, tmp_path):
    names = ["torch", "torchvision", "timm", "onnx", "sklearn", "safetensors"]
    names += sorted(PACKAGES - {"edge_runtime"})
    code = f"""
import edge_runtime, importlib.util, json, sys
found = [name for name in {names} if importlib.util.find_spec(name)]
print(json.dumps([found, edge_runtime.__file__.startswith(sys.prefix)]))
"""
    done = _run(camera_bin / "python", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[], True]


def test_the_camera_gets_the_pinned_versions(camera_bin, tmp_path):
    pins = set((ROOT / "constraints.txt").read_text().splitlines())
    done = _run(camera_bin / "python", "-m", "pip", "list", "--format=freeze", cwd=tmp_path)
    installed = {line.lower() for line in done.stdout.splitlines()}
    for name in ("click", "cryptography", "opencv-python-headless", "simplejpeg"):
        assert [line for line in installed if line.startswith(f"{name}==")] != []
    unpinned = {line.partition("==")[0] for line in installed} - {
        pin.partition("==")[0] for pin in pins
    }
    assert unpinned <= {"edge-screen-runtime", "pip"}


def test_doctor_finds_the_camera_ready(camera_bin, tmp_path):
    done = _run(camera_bin / "edge-screen", "doctor", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["engine"] == "onnxruntime"
    assert report["distributions"]["edge-screen-runtime"] == report["version"]
    assert report["distributions"]["edge-screen"] is None


def test_the_camera_screens(camera_bin, camera_folder):
    screen = [camera_bin / "edge-screen", "screen", "bundle", "--json"]
    done = _run(*screen, "--od", "right.jpg", "--os", "left.jpg", cwd=camera_folder)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["disposition"] == "no_refer"
    (camera_folder / "left.jpg").write_bytes(b"not an image")
    done = _run(*screen, "--od", "right.jpg", "--os", "left.jpg", cwd=camera_folder)
    assert done.returncode == 3, done.stdout + done.stderr


def test_the_vendors_lines_of_the_readme_run(camera_bin, camera_folder):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    # The deadline of a loaded test machine.
    (camera_folder / "vendor.py").write_text(code.replace("deadline_ms=2000", "deadline_ms=600000"))
    done = _run(camera_bin / "python", "-W", "error", "vendor.py", cwd=camera_folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""
    result = json.loads((camera_folder / "result.json").read_text())
    assert result["disposition"] == "no_refer"
    assert [eye["eye"] for eye in result["eyes"]] == ["OD", "OS"]
