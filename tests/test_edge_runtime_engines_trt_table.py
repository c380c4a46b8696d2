"""The table of versions against the census; the recipe made from it, its key and its twins."""

from __future__ import annotations

import ctypes
import shlex
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_tensorrt.census import present_in, versions
from fake_tensorrt.fake import FakeTensorRT
from trt_factory import ORIN, verified_bundle

from edge_runtime.bundle import MODEL_FILES, Bundle
from edge_runtime.engines import trt_recipe
from edge_runtime.engines.trt_capabilities import check_recipe, member, network_bits
from edge_runtime.engines.trt_device import DeviceIdentity, read_device
from edge_runtime.engines.trt_equivalents import polygraphy_line, trtexec_line
from edge_runtime.engines.trt_recipe import EngineRecipe, cache_key, make_recipe
from edge_runtime.engines.trt_table import (
    TRT_PRECISIONS,
    WINDOWS,
    Refused,
    Variant,
    variant_for,
    window_for,
)
from edge_runtime.errors import BundleFormatError, ConfigError, EngineError
from edge_runtime.strict_json import read_dataclass


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return verified_bundle(tmp_path_factory.mktemp("table") / "bundle")


def recipe_of(bundle: Bundle, version: str = "10.3.0", precision: str = "int8") -> EngineRecipe:
    return make_recipe(bundle, tensorrt_version=version, precision=precision)[0]


def with_strong_file(bundle: Bundle, patch: pytest.MonkeyPatch) -> Bundle:
    """The bundle with the optional file whose INT8 graph is FP16 elsewhere."""
    files = {**MODEL_FILES, "int8_fp16": "model.int8fp16.onnx"}
    patch.setattr(trt_recipe, "MODEL_FILES", files)
    contents = {**bundle.contents, "model.int8fp16.onnx": b"strong"}
    return replace(bundle, contents=contents)


def test_windows_follow_each_other_and_cover_what_is_supported() -> None:
    for window in WINDOWS:
        assert window.since < window.below
        assert set(window.variants) == set(TRT_PRECISIONS)
    for before, after in pairwise(WINDOWS):
        assert before.below <= after.since
    for version in versions():
        variant_for(version, "int8")


@pytest.mark.parametrize("version", versions())
@pytest.mark.parametrize("precision", TRT_PRECISIONS)
def test_every_name_of_the_table_is_in_the_binding_it_is_for(version: str, precision: str) -> None:
    if (precision, version.partition(".")[0]) == ("fp16", "11"):
        assert isinstance(window_for(version).variants[precision], Refused)
        return
    variant = variant_for(version, precision)
    network = [f"NetworkDefinitionCreationFlag.{name}" for name in variant.network_flags]
    builder = [f"BuilderFlag.{name}" for name in (*variant.set_flags, *variant.cleared_flags)]
    for path in (*network, *builder):
        assert version in present_in(path), path
    major = int(version.partition(".")[0])
    assert ("EXPLICIT_BATCH" in variant.network_flags) == (major < 10)
    assert ("STRONGLY_TYPED" in variant.network_flags) == (variant.typing == "strong")
    assert not (variant.typing == "strong" and variant.set_flags)
    assert major < 11 or variant.typing == "strong"


def test_a_name_that_the_binding_lacks_is_an_error_and_never_left_out(bundle: Bundle) -> None:
    recipe = replace(recipe_of(bundle), set_flags=("FP16", "INT8"))
    with pytest.raises(EngineError, match=r"11\.4\.0\.106 has no BuilderFlag\.FP16"):
        check_recipe(FakeTensorRT("11.4.0.106").module, recipe)
    with pytest.raises(EngineError, match="has no NetworkDefinitionCreationFlag"):
        network_bits(FakeTensorRT("8.6.1").module, ("STRONGLY_TYPED",))
    check_recipe(FakeTensorRT("10.3.0").module, recipe)


def test_bits_are_taken_from_the_binding() -> None:
    bits = [
        network_bits(FakeTensorRT(v).module, ("STRONGLY_TYPED",)) for v in ("10.3.0", "11.4.0.106")
    ]
    assert bits == [2, 1]
    trt = FakeTensorRT("10.3.0").module
    assert member(trt, "BuilderFlag", "INT8") is trt.BuilderFlag.INT8
    assert network_bits(trt, ()) == 0


@pytest.mark.parametrize("version", ["8.5.3", "9.3.0", "12.0", "7", "ten", "", "10", "10.x"])
def test_versions_outside_the_table_are_refused(version: str) -> None:
    with pytest.raises(EngineError, match="TensorRT"):
        variant_for(version, "int8")


@pytest.mark.parametrize(
    ("version", "typing", "role"),
    [
        ("8.6", "weak", "int8"),
        ("10.0", "weak", "int8"),
        ("10.11.0.33", "weak", "int8"),
        ("10.12", "strong", "int8_fp16"),
        ("10.16.1.11", "strong", "int8_fp16"),
        ("11.4.0.106", "strong", "int8_fp16"),
    ],
)
def test_the_file_follows_the_version_where_the_bundle_has_it(
    version: str, typing: str, role: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = with_strong_file(bundle, monkeypatch)
    recipe, notes = make_recipe(whole, tensorrt_version=version, precision="int8")
    assert (recipe.typing, recipe.role, notes) == (typing, role, ())
    recipe, notes = make_recipe(bundle, tensorrt_version=version, precision="int8")
    assert (recipe.role, len(notes)) == ("int8", int(typing == "strong"))


def test_fp32_is_fp32() -> None:
    for window in WINDOWS:
        variant = window.variants["fp32"]
        assert isinstance(variant, Variant)
        assert (variant.roles, variant.set_flags, variant.cleared_flags) == (
            ("fp32",),
            (),
            ("TF32",),
        )


def test_a_bundle_without_int8_has_no_int8_engine(tmp_path: Path) -> None:
    plain = verified_bundle(tmp_path / "bundle", calibrated=False)
    with pytest.raises(BundleFormatError, match=r"none of model\.int8\.onnx"):
        make_recipe(plain, tensorrt_version="10.3.0", precision="int8")
    assert recipe_of(plain, precision="fp16").int8_fingerprint is None


def test_an_unknown_precision_is_refused(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="fp32, fp16, int8"):
        make_recipe(bundle, tensorrt_version="10.3.0", precision="int4")


def test_the_key_covers_every_field_and_the_device(bundle: Bundle) -> None:
    recipe = recipe_of(bundle)
    keys = {cache_key(recipe, ORIN)}
    for one in fields(EngineRecipe):
        value = getattr(recipe, one.name)
        other: Any = {str: "x", int: 77, tuple: ("x",)}[type(value)]
        keys.add(cache_key(replace(recipe, **{one.name: other}), ORIN))
    for change in ({"name": "Thor"}, {"compute_capability": "11.0"}, {"integrated": False}):
        keys.add(cache_key(recipe, replace(ORIN, **change)))
    assert len(keys) == 1 + len(fields(EngineRecipe)) + 3
    assert cache_key(recipe, ORIN) == cache_key(recipe_of(bundle), ORIN)


def test_a_recipe_survives_json(bundle: Bundle) -> None:
    recipe = recipe_of(bundle)
    assert read_dataclass(EngineRecipe, recipe.to_dict()) == recipe
    assert recipe.int8_fingerprint == bundle.manifest.int8.fingerprint  # type: ignore[union-attr]


def options(line: str) -> set[str]:
    return {word.partition("=")[0] for word in shlex.split(line) if word.startswith("--")}


@pytest.mark.parametrize("precision", TRT_PRECISIONS)
@pytest.mark.parametrize("version", ["8.6.1", "10.3.0", "10.16.1.11", "11.4.0.106"])
def test_equivalent_lines_say_what_the_recipe_says(
    version: str, precision: str, bundle: Bundle
) -> None:
    if isinstance(WINDOWS[-1].variants[precision], Refused) and version.startswith("11"):
        return
    recipe = recipe_of(bundle, version, precision)
    path = Path("a folder/model.onnx")
    trtexec = trtexec_line(recipe, onnx_path=path, workspace_bytes=64 << 20)
    polygraphy = polygraphy_line(recipe, onnx_path=path, workspace_bytes=64 << 20)
    assert "--onnx=a folder/model.onnx" in shlex.split(trtexec)
    assert "a folder/model.onnx" in shlex.split(polygraphy)
    assert "--memPoolSize=workspace:64" in shlex.split(trtexec)
    assert "workspace:64M" in shlex.split(polygraphy)
    for line in (trtexec, polygraphy):
        assert ("--int8" in options(line)) == ("INT8" in recipe.set_flags)
        assert ("--fp16" in options(line)) == ("FP16" in recipe.set_flags)
    assert ("--noTF32" in options(trtexec)) == (precision == "fp32")
    assert ("--tf32" in options(polygraphy)) == (precision != "fp32")
    assert ("--strongly-typed" in options(polygraphy)) == (recipe.typing == "strong")
    asked = recipe.typing == "strong" and not version.startswith("11")
    assert ("--stronglyTyped" in options(trtexec)) == asked


class FakeDriver:
    """libcuda's functions that are asked, with an Orin behind them or an error."""

    def __init__(self, failing: str = "", code: int = 100) -> None:
        self.failing, self.code = failing, code

    def answer(self, name: str) -> int:
        return self.code if name == self.failing else 0

    def cuInit(self, flags: int) -> int:
        assert flags == 0
        return self.answer("cuInit")

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        assert ordinal == 0
        device._obj.value = 5
        return self.answer("cuDeviceGet")

    def cuDeviceGetName(self, name: Any, size: int, device: ctypes.c_int) -> int:
        assert (size, device.value) == (256, 5)
        name.value = b"Orin"
        return self.answer("cuDeviceGetName")

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: ctypes.c_int) -> int:
        assert device.value == 5
        value._obj.value = {75: 8, 76: 7, 18: 1}[attribute]
        return self.answer("cuDeviceGetAttribute")

    def cuGetErrorString(self, code: int, text: Any) -> int:
        text._obj.value = f"error {code}".encode()
        return 0


def test_the_device_is_read_from_the_driver() -> None:
    asked = []

    def load(name: str) -> FakeDriver:
        asked.append(name)
        return FakeDriver()

    assert read_device(load=load) == ORIN
    assert asked == ["libcuda.so.1"]


@pytest.mark.parametrize(
    "function", ["cuInit", "cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute"]
)
def test_every_refusal_of_the_driver_is_an_error(function: str) -> None:
    with pytest.raises(EngineError, match=rf"{function} returned 100 \(error 100\)"):
        read_device(load=lambda _name: FakeDriver(function))


def test_a_machine_without_a_driver_is_told_apart() -> None:
    def load(name: str) -> SimpleNamespace:
        raise OSError(f"{name}: cannot open shared object file")

    with pytest.raises(EngineError, match="no CUDA driver here"):
        read_device(load=load)


@pytest.mark.parametrize("changes", [{"name": ""}, {"compute_capability": "87"}])
def test_an_impossible_device_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        DeviceIdentity(
            **{"name": "Orin", "compute_capability": "8.7", "integrated": True, **changes}
        )  # type: ignore[arg-type]
