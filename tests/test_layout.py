"""The shape of the repository: packages, module sizes, packaging metadata, pinned versions."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it where the standard library lacks it

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("calibration", "distill", "edge_runtime", "export", "train")
MODULES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
MAX_LINES = 400
# Dependencies, and the standard library's modules that would be shadowed inside a folder.
FORBIDDEN_STEMS = {
    *("click", "cryptography", "cv2", "numpy", "onnx", "onnxruntime", "safetensors", "sklearn"),
    *("tensorrt", "timm", "torch", "torchvision", "hypothesis", "pytest", "simplejpeg", "pydicom"),
}


def _name(path):
    return path.relative_to(ROOT).as_posix()


def _toml(path):
    return tomllib.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def root_project():
    return _toml(ROOT / "pyproject.toml")


@pytest.fixture(scope="module")
def device_project():
    return _toml(ROOT / "edge_runtime" / "pyproject.toml")


@pytest.fixture(scope="module")
def pins():
    """Name -> exact version, as constraints.txt has them for this Python."""
    found = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", line
            assert "+" not in specifier.version, line
            if requirement.marker is None or requirement.marker.evaluate():
                name = canonicalize_name(requirement.name)
                assert name not in found, f"{name} is pinned twice for this Python"
                found[name] = specifier.version
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_typed(package):
    assert (ROOT / package / "py.typed").is_file()
    folders = {path.parent for path in (ROOT / package).rglob("*.py")}
    assert [_name(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_module_form(path):
    text = path.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring, "a module starts with a docstring"
    first = docstring.splitlines()[0]
    assert len(first) > 20, f"the first line says what the module is for, not '{first}'"
    assert len(text.splitlines()) <= MAX_LINES
    assert path.stem not in FORBIDDEN_STEMS, "a module named after a dependency imports itself"


def test_there_are_modules_to_look_at():
    assert len(MODULES) > 20
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(PACKAGES)


def test_the_guide_names_every_room_and_module_of_the_runtime():
    text = (ROOT / "docs" / "engineer.md").read_text(encoding="utf-8")
    section = text.split("## Where the runtime's code is\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    named = [name for row in rows for name in re.findall(r"`(\w+/?)`", row)]
    rooms = [f"{path.parent.name}/" for path in (ROOT / "edge_runtime").glob("*/__init__.py")]
    modules = [path.stem for path in (ROOT / "edge_runtime").glob("[!_]*.py")]
    assert sorted(named) == sorted(rooms + modules)


def _listed_in(room):
    """The names in the first column of the list in a room's docstring."""
    tree = ast.parse((room / "__init__.py").read_text(encoding="utf-8"))
    text = ast.get_docstring(tree, clean=False)
    columns = [re.split(r"  +", line[4:])[0] for line in text.splitlines() if line[:4] == "    "]
    return sorted(name for column in columns for name in column.split(", "))


def test_a_room_of_the_runtime_lists_its_modules():
    """All but those whose modules follow a rule: one a format, a command, an engine's part."""
    by_rule = {"commands", "engines", "formats"}
    rooms = [path.parent for path in (ROOT / "edge_runtime").glob("*/__init__.py")]
    assert by_rule < {room.name for room in rooms}
    for room in rooms:
        if room.name not in by_rule:
            assert _listed_in(room) == sorted(path.stem for path in room.glob("[!_]*.py")), room


def test_tests_are_flat():
    assert list((ROOT / "tests").rglob("__init__.py")) == []
    assert [_name(path) for path in (ROOT / "tests").glob("*/**/test_*.py")] == []


def test_both_distributions_agree(root_project, device_project):
    root, device = root_project["project"], device_project["project"]
    for key in ("requires-python", "dependencies", "dynamic", "license", "scripts"):
        assert root[key] == device[key], key
    for extra in ("dicom", "tensorrt"):
        assert root["optional-dependencies"][extra] == device["optional-dependencies"][extra]
    assert root_project["build-system"] == device_project["build-system"]


def test_both_distributions_take_the_version_from_one_file(root_project, device_project):
    from edge_runtime import __version__

    sources = {
        (folder / project["tool"]["hatch"]["version"]["path"]).resolve()
        for folder, project in ((ROOT, root_project), (ROOT / "edge_runtime", device_project))
    }
    assert sources == {ROOT / "edge_runtime" / "__init__.py"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_the_root_distribution_ships_every_package(root_project):
    shipped = root_project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert sorted(shipped) == list(PACKAGES)


def test_torch_and_timm_are_extras_only(root_project):
    names = {Requirement(text).name for text in root_project["project"]["dependencies"]}
    assert names == {
        *("click", "cryptography", "numpy", "onnxruntime", "opencv-python-headless", "simplejpeg"),
    }


def test_the_device_folder_carries_the_same_licence():
    """A wheel takes its licence file from beside its own pyproject.toml."""
    texts = {(folder / "LICENSE").read_bytes() for folder in (ROOT, ROOT / "edge_runtime")}
    assert len(texts) == 1
    assert b"Apache License" in texts.pop()


def test_no_gitignore_line_hides_a_package():
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    assert {line.strip("/") for line in lines} & {*PACKAGES, "tests", "docs", "benchmarks"} == set()


def test_timm_is_imported_through_its_door_only():
    users = {
        _name(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in _imported(node)
        if name.partition(".")[0] in {"timm", "torchvision"}
    }
    assert users == set()
    assert 'import_module("timm")' in (ROOT / "train" / "timm_door.py").read_text()


def _imported(node):
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [alias.name for alias in node.names]


def test_continuous_integration_runs_the_test_command():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = script.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines
    assert lines[-1] == "make test"


@pytest.mark.parametrize(
    "target",
    [
        "setup",
        "demo",
        "test",
        "test-slow",
        "fuzz",
        "faults",
        "check",
        "wheel",
        "wheel-matrix",
        "wheel-aarch64",
    ],
)
def test_make_knows_the_target(target):
    done = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _commands():
    entries = _toml(ROOT / "pyproject.toml")["project"]["entry-points"]["edge_screen.commands"]
    return sorted(entries.items())


@pytest.mark.parametrize(("name", "target"), _commands())
def test_every_command_resolves(name, target):
    import click

    module, _, attribute = target.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert command.help, "every command says what it does"


def _requirements(project):
    extras = project["project"]["optional-dependencies"]
    texts = list(project["project"]["dependencies"])
    # Neither is installed by `dev`: TensorRT comes with JetPack, Polygraphy only compares engines.
    ours = (items for name, items in extras.items() if name not in ("bench", "tensorrt"))
    texts += [text for items in ours for text in items]
    return [Requirement(text) for text in texts if not text.startswith("edge-screen")]


def test_every_requirement_is_pinned_within_its_range(root_project, pins):
    requirements = _requirements(root_project)
    assert len(requirements) >= 15
    for requirement in requirements:
        version = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} against {version}"


def test_what_is_installed_is_what_is_pinned(root_project, pins):
    """Follows the requirements of the installed packages to the end."""
    waiting = [(requirement, ()) for requirement in _requirements(root_project)]
    seen = set()
    while waiting:
        requirement, extras = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in seen or not _applies(requirement, extras) or _comes_with_cuda(name):
            continue
        seen.add(name)
        assert name in pins, f"{name} is not in constraints.txt"
        assert metadata.version(name).split("+")[0] == pins[name], name
        children = metadata.requires(name) or []
        waiting += [(Requirement(text), requirement.extras) for text in children]
    assert {"torch", "timm", "scipy", "pillow"} <= seen


def _applies(requirement, extras):
    environments = [{"extra": extra} for extra in ("", *extras)]
    return requirement.marker is None or any(map(requirement.marker.evaluate, environments))


def _comes_with_cuda(name):
    return name.startswith(("nvidia-", "cuda-")) or name == "triton"


def test_the_pinned_torch_and_torchvision_fit(pins):
    wanted = [
        Requirement(text)
        for text in metadata.requires("torchvision") or []
        if Requirement(text).name == "torch"
    ]
    assert len(wanted) == 1
    assert wanted[0].specifier.contains(pins["torch"])
