"""The device wheel at work under every Python that it promises, as far as they are found here.

`make wheel-matrix` runs these tests; interpreters that are not found are skipped and named. They
are looked for as python3.10 to python3.13 on the path, in the folder of pyenv, and in the folders
that EDGE_SCREEN_PYTHONS lists.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from camera_environment import (
    ROOT,
    IndexUnreachableError,
    build_wheel,
    make_camera,
    run_away,
    write_camera_folder,
)

pytestmark = pytest.mark.slow

VERSIONS = ("3.10", "3.11", "3.12", "3.13")


def _candidates(version: str) -> list[Path]:
    """Files that may be an interpreter of the version, the one on the path first."""
    name = f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    folders = [Path(text) for text in os.environ.get("EDGE_SCREEN_PYTHONS", "").split(":") if text]
    on_path = shutil.which(name)
    found = [Path(on_path)] if on_path else []
    found += [folder / name for folder in folders]
    return found + [folder / "bin" / name for folder in sorted(pyenv.glob(f"{version}.*"))]


def find_python(version: str, folder: Path) -> Path | None:
    """Return an interpreter of exactly this version that can make a virtual environment.

    A candidate is run, because a file of that name may be a stand-in that starts nothing.
    """
    code = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    for python in _candidates(version):
        if python.is_file() and run_away(python, "-c", code, cwd=folder).stdout.strip() == version:
            return python
    return None


@pytest.fixture(scope="module")
def device_wheel(tmp_path_factory):
    return build_wheel(ROOT / "edge_runtime", tmp_path_factory.mktemp("device_wheel"))


@pytest.fixture(scope="module", params=VERSIONS)
def camera(request, device_wheel, tmp_path_factory):
    """Version and bin/ of a fresh environment; skips where there is no such interpreter."""
    folder = tmp_path_factory.mktemp("camera")
    python = find_python(request.param, folder)
    if python is None:
        pytest.skip(f"no Python {request.param} found on this machine: NOT CHECKED")
    try:
        return request.param, make_camera(python, device_wheel, folder)
    except IndexUnreachableError as error:
        pytest.skip(f"Python {request.param} NOT CHECKED: {error}")


def test_an_interpreter_is_only_taken_for_what_it_is(tmp_path, monkeypatch):
    """A file called python3.13 that is another Python, or none, is passed over."""
    for name in ("python3.13", "python3.99"):
        (tmp_path / name).write_text("#!/bin/sh\necho 3.12\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("EDGE_SCREEN_PYTHONS", str(tmp_path))
    assert find_python("3.13", tmp_path) is None
    (tmp_path / "python3.99").write_text("#!/bin/sh\necho 3.99\n")
    assert find_python("3.99", tmp_path) == tmp_path / "python3.99"


def test_the_device_wheel_works(camera, tmp_path):
    version, folder_bin = camera
    write_camera_folder(tmp_path)
    command = folder_bin / "edge-screen"
    done = run_away(command, "doctor", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["python"].startswith(f"{version}.")
    assert (report["can_screen"], report["problems"]) == (True, [])
    done = run_away(command, "verify", "bundle", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    done = run_away(command, "screen", "bundle", "right.jpg", "left.jpg", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["disposition"] for result in results] == ["no_refer", "no_refer"]
    (tmp_path / "right.jpg").write_bytes((tmp_path / "right.jpg").read_bytes()[:400])
    done = run_away(command, "screen", "bundle", "right.jpg", "--json", cwd=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["disposition"]) == (3, "ungradable")


def test_every_module_imports_without_a_warning(camera, tmp_path):
    """A deprecation in a newer Python is found here before it is an error there."""
    _, folder_bin = camera
    code = """
import importlib, pkgutil, edge_runtime
names = [found.name for found in pkgutil.walk_packages(edge_runtime.__path__, "edge_runtime.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(len(names))
"""
    done = run_away(folder_bin / "python", "-W", "error", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40
