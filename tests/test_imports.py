"""Light imports: the device and every command line start without the heavy packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("onnx", "onnxruntime", "sklearn", "tensorrt", "timm", "torch", "torchvision")


def _module(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _modules(*packages):
    paths = (path for name in packages for path in (ROOT / name).rglob("*.py"))
    return sorted(_module(path) for path in paths if path.stem != "__main__")


COMMAND_MODULES = sorted(
    _module(path)
    for name in ("calibration", "distill", "edge_runtime", "export", "train")
    for path in (ROOT / name).rglob("cli.py")
)


def _loaded_after_importing(modules):
    """Top-level names in sys.modules after importing `modules` in a fresh interpreter."""
    code = (
        "import importlib, json, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("package", ["edge_runtime", "calibration"])
def test_importing_every_module_loads_nothing_heavy(package):
    modules = _modules(package)
    assert len(modules) > 3
    assert _loaded_after_importing(modules) & set(HEAVY) == set()


def test_importing_every_command_module_loads_nothing_heavy():
    assert "edge_runtime.cli" in COMMAND_MODULES
    assert "train.data.cli" in COMMAND_MODULES
    assert _loaded_after_importing(COMMAND_MODULES) & set(HEAVY) == set()


def test_the_device_imports_no_other_room():
    loaded = _loaded_after_importing(_modules("edge_runtime"))
    assert loaded & {"calibration", "distill", "export", "train"} == set()


def test_the_device_imports_only_its_declared_dependencies():
    """What is loaded beyond the standard library is what the device wheel declares."""
    loaded = _loaded_after_importing(_modules("edge_runtime"))
    third_party = {
        name for name in loaded if not name.startswith("_") and name not in sys.stdlib_module_names
    }
    bare = _loaded_after_importing([])  # .pth files and site hooks of this environment
    allowed = {"click", "cryptography", "cv2", "edge_runtime", "numpy", "simplejpeg"}
    allowed.add("cython_runtime")  # no package: a name that simplejpeg's compiled module adds
    assert third_party - bare - allowed == set()


@pytest.mark.parametrize(
    "heavy", ["onnx", "onnxruntime", pytest.param("torch", marks=pytest.mark.slow)]
)
def test_the_probe_itself_would_notice(heavy):
    pytest.importorskip(heavy)
    assert heavy in _loaded_after_importing([heavy])
