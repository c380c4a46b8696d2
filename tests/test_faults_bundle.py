"""Hostile and damaged bundles: none is accepted, and none makes the reader open another file.

The hostile models lie in bundles that are whole and signed by a trusted key, so that the check of
the model alone stands in their way. `make faults` runs the promised counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundle_factory import BuiltBundle, build_bundle, tiny_onnx
from conftest import Scale
from file_watch import FileWatch
from hostile_onnx import external_models, hostile_models

from edge_runtime.bundle import read_bundle
from edge_runtime.errors import BundleError, BundleFormatError
from edge_runtime.screener import Screener
from edge_runtime.signing import TRUSTED_KEYS_VARIABLE, sign_bundle

pytestmark = pytest.mark.faults

_MODEL = "model.int8-cpu.onnx"
# Ways to name `canary.bin`, which lies in the folder in which the reader runs.
_LOCATIONS = ("absolute", "parent", "symbolic link", "below", "link below", "URL")


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TRUSTED_KEYS_VARIABLE, raising=False)


@pytest.fixture
def built(tmp_path: Path) -> BuiltBundle:
    return build_bundle(tmp_path / "made" / "bundle", models={"int8_fp16": tiny_onnx()})


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of sixteen readable bytes, with the ways to it that `_LOCATIONS` names."""
    inner = tmp_path / "inner"
    (inner / "sub").mkdir(parents=True)
    path = inner / "canary.bin"
    path.write_bytes(np.arange(2, dtype=np.int64).tobytes())
    (inner / "link.bin").symlink_to(path)
    (inner / "sub" / "link.bin").symlink_to(path)
    monkeypatch.chdir(inner)
    return path


def location_of(way: str, canary: Path) -> str:
    return {
        "absolute": str(canary),
        "parent": "../inner/canary.bin",
        "symbolic link": "link.bin",
        "below": "canary.bin",
        "link below": "sub/link.bin",
        "URL": canary.as_uri(),
    }[way]


def put_in(built: BuiltBundle, model: bytes) -> None:
    """Replace a model and sign the bundle again, as its maker's key would sign anything."""
    (built.folder / _MODEL).write_bytes(model)
    files = {**built.manifest.files, _MODEL: hashlib.sha256(model).hexdigest()}
    manifest = replace(built.manifest, files=files)
    (built.folder / "bundle.json").write_text(json.dumps(manifest.to_dict()))
    sign_bundle(built.folder, built.keys.private_key_path)


def refused(built: BuiltBundle) -> str:
    """The reason for which both doors refuse the bundle."""
    with pytest.raises(BundleFormatError) as caught:
        read_bundle(built.folder, trusted_keys=built.trusted_keys)
    with pytest.raises(BundleFormatError):
        Screener.open(built.folder, trusted_keys=built.trusted_keys)
    return str(caught.value)


def test_the_bundle_signed_in_this_way_is_good_before(built: BuiltBundle) -> None:
    put_in(built, tiny_onnx(seed=1))
    assert read_bundle(built.folder, trusted_keys=built.trusted_keys).key_id == built.keys.key_id


def test_the_watch_sees_a_file_opened(canary: Path) -> None:
    with FileWatch(canary) as watch:
        assert not watch.was_opened()
        Path("link.bin").read_bytes()
        assert watch.was_opened()
        assert not watch.was_opened()


@pytest.mark.parametrize("way", _LOCATIONS)
def test_no_hostile_model_is_accepted_or_opens_a_file(
    way: str, built: BuiltBundle, canary: Path, say: Callable[[str], None]
) -> None:
    forms = hostile_models(location_of(way, canary))
    if way != _LOCATIONS[0]:
        forms = external_models(location_of(way, canary))  # the others name no file
    with FileWatch(canary) as watch:
        for name, model in forms.items():
            put_in(built, model)
            assert f"{_MODEL} is refused" in refused(built), name
            assert not watch.was_opened(), name
    say(f"{way}: {len(forms)} hostile models refused, the file never opened")
    assert len(forms) >= (30 if way == _LOCATIONS[0] else 15)


def test_what_the_engine_itself_would_open(canary: Path, say: Callable[[str], None]) -> None:
    """Why the check is there: handed the same bytes, the engine reads the file."""
    import onnxruntime as ort

    opened = []
    with FileWatch(canary) as watch:
        for way in _LOCATIONS:
            for name, model in external_models(location_of(way, canary)).items():
                with contextlib.suppress(Exception):  # its refusals have many types
                    ort.InferenceSession(model, providers=["CPUExecutionProvider"])
                if watch.was_opened():
                    opened.append(f"{name} ({way})")
    say(f"ONNX Runtime {ort.__version__} alone opens the file in {len(opened)} cases: {opened}")
    assert opened, "the engine refuses them all by itself now: say so where this is explained"


def test_flipped_bytes(
    built: BuiltBundle, scale: Scale, rng: np.random.Generator, say: Callable[[str], None]
) -> None:
    num = scale(12, 1000)
    names = sorted(path.name for path in built.folder.iterdir())
    for name in names:
        path = built.folder / name
        whole = path.read_bytes()
        for position in rng.integers(len(whole), size=num):
            flipped = bytearray(whole)
            flipped[position] ^= int(rng.integers(1, 256))
            path.write_bytes(flipped)
            with pytest.raises(BundleError):
                read_bundle(built.folder, trusted_keys=built.trusted_keys)
        path.write_bytes(whole)
    say(f"{num} flipped bytes in each of {len(names)} files: none accepted")
    assert len(names) == 8
    assert read_bundle(built.folder, trusted_keys=built.trusted_keys).key_id == built.keys.key_id


@pytest.mark.parametrize("order", ["by name", "bundle.json first"])
def test_interrupted_copies(
    order: str,
    built: BuiltBundle,
    tmp_path: Path,
    scale: Scale,
    rng: np.random.Generator,
    say: Callable[[str], None],
) -> None:
    """A copy that stopped at any byte: the files before it whole, one cut, the rest missing."""
    paths = sorted(built.folder.iterdir())
    if order != "by name":
        paths.sort(key=lambda path: not path.name.startswith("bundle"))
    whole = [(path.name, path.read_bytes()) for path in paths]
    total = sum(len(data) for _, data in whole)
    stops = [0, 1, total - 1, *rng.integers(total, size=scale(20, 1000))]
    for stop in stops:
        folder = tmp_path / "copy"
        folder.mkdir()
        left = int(stop)
        for name, data in whole:
            if left > 0:
                (folder / name).write_bytes(data[:left])
            left -= len(data)
        with pytest.raises(BundleError):
            read_bundle(folder, trusted_keys=built.trusted_keys)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    say(f"copies interrupted at {len(stops)} places, {order}: none accepted")
