from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from bundle_factory import build_bundle, run_onnx, tiny_onnx

from edge_runtime import safe_files
from edge_runtime.bundle import MODEL_FILES, read_bundle, write_manifest
from edge_runtime.bundle_parts.golden import read_golden
from edge_runtime.errors import (
    BundleError,
    BundleFormatError,
    BundleIntegrityError,
    BundleSignatureError,
)
from edge_runtime.preprocess import load_for_model
from edge_runtime.signing import (
    TRUSTED_KEYS_VARIABLE,
    find_trusted_keys,
    generate_keypair,
    sign_bundle,
)

_FILES = (
    "MODEL_CARD.md",
    "bundle.json",
    "bundle.sig",
    "golden.npz",
    "model.fp32.onnx",
    "model.int8-cpu.onnx",
    "model.int8.onnx",
    "model.int8fp16.onnx",
)


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(TRUSTED_KEYS_VARIABLE, raising=False)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """With the optional file, so that all of a bundle is damaged in turn."""
    folder = tmp_path_factory.mktemp("made") / "bundle"
    return build_bundle(folder, models={"int8_fp16": tiny_onnx()})


@pytest.fixture
def built(pristine, tmp_path):
    """A copy of the bundle and its keys that the test may damage."""
    root = tmp_path / "copy"
    shutil.copytree(pristine.folder.parent, root)
    keys = dataclasses.replace(pristine.keys, private_key_path=root / "keys" / "signing.key")
    return dataclasses.replace(
        pristine, folder=root / "bundle", keys=keys, trusted_keys=root / "trusted_keys"
    )


def _read(built, **options):
    return read_bundle(built.folder, trusted_keys=built.trusted_keys, **options)


def test_models_that_nobody_keeps_are_verified_and_let_go(built):
    bundle = _read(built, keep_models=("int8_cpu",))
    assert bundle.model_bytes("int8_cpu")
    assert bundle.golden()
    assert set(bundle.contents) == {"MODEL_CARD.md", "golden.npz", "model.int8-cpu.onnx"}
    with pytest.raises(ValueError, match=r"model\.fp32\.onnx was verified and not kept"):
        bundle.model_bytes("fp32")
    fp32 = built.folder / "model.fp32.onnx"
    fp32.write_bytes(fp32.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleIntegrityError, match=r"model\.fp32\.onnx has SHA-256"):
        _read(built, keep_models=("int8_cpu",))


def test_round_trip(built):
    bundle = _read(built)
    assert bundle.manifest == built.manifest
    assert bundle.manifest.calibrated
    assert bundle.key_id == built.keys.key_id
    assert str(built.trusted_keys) in bundle.trusted_from
    raw = (built.folder / "bundle.json").read_bytes()
    assert bundle.sha256 == hashlib.sha256(raw).hexdigest()
    for precision, name in MODEL_FILES.items():
        assert bundle.model_bytes(precision) == (built.folder / name).read_bytes()
    assert tuple(sorted(p.name for p in built.folder.iterdir())) == _FILES


def test_the_file_for_strongly_typed_builds_may_be_left_out_but_not_lost(built):
    half = built.folder / MODEL_FILES["int8_fp16"]
    data = half.read_bytes()
    half.unlink()
    with pytest.raises(BundleIntegrityError, match=r"int8fp16\.onnx is missing"):
        _read(built)
    without = write_manifest(built.folder, built.manifest)
    assert half.name not in without.files
    bundle = read_bundle(built.folder, trusted_keys=None, require_signature=False)
    with pytest.raises(BundleFormatError, match=r"has no model\.int8fp16\.onnx"):
        bundle.model_bytes("int8_fp16")
    half.write_bytes(data)  # not named by bundle.json: foreign
    with pytest.raises(BundleIntegrityError, match="does not belong"):
        read_bundle(built.folder, trusted_keys=None, require_signature=False)


def test_trust_is_found_beside_the_bundle_or_given_as_keys(built):
    assert read_bundle(built.folder, trusted_keys=None).key_id == built.keys.key_id
    keys = find_trusted_keys(built.folder, None)
    assert read_bundle(built.folder, trusted_keys=keys).key_id == built.keys.key_id
    with pytest.raises(BundleSignatureError, match="not trusted"):
        read_bundle(built.folder, trusted_keys=[])


@pytest.mark.parametrize("name", _FILES)
def test_any_changed_byte_is_refused(built, name):
    path = built.folder / name
    whole = path.read_bytes()
    last = len(whole) - 1
    for position in sorted({0, 1, last // 3, last // 2, 2 * last // 3, last - 1, last}):
        for flip in (0x01, 0x80):
            changed = bytearray(whole)
            changed[position] ^= flip
            path.write_bytes(bytes(changed))
            with pytest.raises((BundleIntegrityError, BundleSignatureError)):
                _read(built)
    path.write_bytes(whole)
    assert _read(built).key_id == built.keys.key_id


@pytest.mark.parametrize("name", _FILES)
@pytest.mark.parametrize("change", ["cut", "append", "empty"])
def test_a_shorter_or_longer_file_is_refused(built, name, change):
    path = built.folder / name
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-1], "append": whole + b"\n", "empty": b""}[change])
    with pytest.raises((BundleIntegrityError, BundleSignatureError)):
        _read(built)


@pytest.mark.parametrize("name", _FILES)
def test_a_missing_file_is_named(built, name):
    (built.folder / name).unlink()
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        _read(built)


@pytest.mark.parametrize("require_signature", [True, False])
@pytest.mark.parametrize("name", ["weights.bin", ".hidden", "engine.plan", "bundle.json.bak"])
def test_an_extra_file_is_named(built, name, require_signature):
    (built.folder / name).write_bytes(b"x")
    with pytest.raises(BundleIntegrityError, match=name.replace(".", r"\.")):
        _read(built, require_signature=require_signature)


@pytest.mark.parametrize("name", _FILES)
def test_a_link_is_refused_even_to_the_same_content(built, name, tmp_path):
    outside = tmp_path / "outside"
    shutil.move(built.folder / name, outside)
    (built.folder / name).symlink_to(outside)
    with pytest.raises(BundleIntegrityError, match="symbolic link"):
        _read(built)


def test_folders_and_pipes_are_refused(built):
    (built.folder / "sub").mkdir()
    with pytest.raises(BundleIntegrityError, match="sub is not a file"):
        _read(built)
    (built.folder / "sub").rmdir()
    (built.folder / "MODEL_CARD.md").unlink()
    os.mkfifo(built.folder / "MODEL_CARD.md")
    with pytest.raises(BundleIntegrityError, match=r"MODEL_CARD\.md is not a file"):
        _read(built)


def test_another_folder_is_told_from_a_damaged_bundle(tmp_path):
    (tmp_path / "bundle").mkdir()
    with pytest.raises(BundleIntegrityError, match=r"no bundle\.json in .*; give the folder"):
        read_bundle(tmp_path, trusted_keys=None)


def test_no_folder_is_a_clear_error(tmp_path):
    for path in (tmp_path / "absent", tmp_path / "file"):
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(BundleIntegrityError, match="no bundle folder"):
            read_bundle(path, trusted_keys=None)


def test_unsigned_is_refused_unless_asked_for_and_then_visible(built):
    (built.folder / "bundle.sig").unlink()
    with pytest.raises(BundleSignatureError, match="unsigned"):
        _read(built)
    bundle = _read(built, require_signature=False)
    assert bundle.key_id is None
    assert bundle.trusted_from is None


def test_skipping_the_signature_is_visible_even_when_one_is_there(built):
    assert _read(built, require_signature=False).key_id is None


def test_skipping_the_signature_still_checks_every_hash(built):
    (built.folder / "MODEL_CARD.md").write_text("another card")
    with pytest.raises(BundleIntegrityError, match=r"MODEL_CARD\.md has SHA-256"):
        _read(built, require_signature=False)


def test_a_wrong_key_is_refused(built, tmp_path):
    other = generate_keypair(tmp_path / "other")
    with pytest.raises(BundleSignatureError, match=built.keys.key_id):
        read_bundle(built.folder, trusted_keys=other.public_key_path)
    sign_bundle(built.folder, other.private_key_path)
    with pytest.raises(BundleSignatureError, match=other.key_id):
        _read(built)


def test_a_signature_of_another_bundle_is_refused(built, tmp_path):
    shutil.copytree(built.folder.parent / "keys", tmp_path / "two" / "keys")
    (tmp_path / "two" / "trusted_keys").mkdir()
    other = build_bundle(tmp_path / "two" / "bundle", seed=1)
    assert other.keys.key_id == built.keys.key_id
    shutil.copy(other.folder / "bundle.sig", built.folder / "bundle.sig")
    with pytest.raises(BundleSignatureError, match="does not fit"):
        _read(built)


def test_the_signature_is_checked_before_the_manifest_is_parsed(built):
    (built.folder / "bundle.json").write_bytes(b"not JSON at all")
    with pytest.raises(BundleSignatureError, match="does not fit"):
        _read(built)
    with pytest.raises(BundleFormatError, match="not valid JSON"):
        _read(built, require_signature=False)


def _rewrite(built, change):
    """Change the parsed bundle.json by hand and sign it again, as a careless maker would."""
    path = built.folder / "bundle.json"
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))
    sign_bundle(built.folder, built.keys.private_key_path)


def _rename_file(name):
    def change(content):
        content["files"][name] = content["files"].pop("MODEL_CARD.md")

    return change


def _preprocess_more(content):
    content["preprocessing"]["gamma"] = 2.2
    text = json.dumps(content["preprocessing"], sort_keys=True, separators=(",", ":"))
    content["preprocessing_sha256"] = hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_rename_file("../MODEL_CARD.md"), "unknown file"),
        (_rename_file("/etc/passwd"), "unknown file"),
        (lambda content: content["files"].pop("golden.npz"), r"files\.golden\.npz is missing"),
        (lambda content: content.pop("protocol"), "protocol is missing"),
        (lambda content: content.update(extra=1), "extra is an unknown key"),
        (lambda content: content.update(int8=None), "int8"),
        (lambda content: content["quality_limits"].update(other=1), "quality_limits"),
        (_preprocess_more, "gamma"),
    ],
)
def test_a_signed_but_malformed_manifest_is_refused(built, change, reason):
    _rewrite(built, change)
    with pytest.raises(BundleError, match=reason):
        _read(built)


def test_a_signed_bundle_with_external_data_is_refused(built):
    model = onnx.ModelProto.FromString(tiny_onnx())
    tensor = model.graph.initializer[1]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "MODEL_CARD.md"
    hostile = model.SerializeToString()
    path = built.folder / "model.int8.onnx"
    path.write_bytes(hostile)
    with pytest.raises(BundleFormatError, match="another file"):
        write_manifest(built.folder, built.manifest)

    def rehash(content):
        content["files"][path.name] = hashlib.sha256(hostile).hexdigest()

    _rewrite(built, rehash)
    with pytest.raises(BundleFormatError, match=r"model\.int8\.onnx is refused"):
        _read(built)


@pytest.mark.parametrize(
    ("name", "limit"),
    [("bundle.json", "MAX_MANIFEST_BYTES"), ("model.fp32.onnx", "_MAX_MODEL_BYTES")],
)
def test_files_over_the_size_limit_are_refused(built, monkeypatch, name, limit):
    size = (built.folder / name).stat().st_size
    monkeypatch.setattr(f"edge_runtime.bundle.{limit}", size)
    assert _read(built)
    monkeypatch.setattr(f"edge_runtime.bundle.{limit}", size - 1)
    with pytest.raises(BundleFormatError, match=f"{name} is larger than the limit"):
        _read(built)


def test_every_file_is_read_once_and_later_changes_have_no_effect(built, monkeypatch):
    opened = []

    def record(path, *, max_bytes):
        opened.append(path.name)
        return safe_files.read_file(path, max_bytes=max_bytes)

    monkeypatch.setattr("edge_runtime.bundle.read_file", record)
    bundle = _read(built)
    assert tuple(sorted(opened)) == _FILES
    shutil.rmtree(built.folder)
    assert bundle.model_bytes("fp32") == tiny_onnx()
    assert bundle.golden().image_nhwc.shape == (3, 32, 32, 3)


def test_a_model_swapped_between_listing_and_reading_is_refused(built, monkeypatch):
    def swap(path, *, max_bytes):
        if path.name == "model.fp32.onnx":
            target = path.with_name("target")
            path.replace(target)
            path.symlink_to(target)
        return safe_files.read_file(path, max_bytes=max_bytes)

    monkeypatch.setattr("edge_runtime.bundle.read_file", swap)
    with pytest.raises(BundleIntegrityError, match=r"model\.fp32\.onnx cannot be opened"):
        _read(built)


def test_uncalibrated_unsigned_bundle_of_export(tmp_path):
    built = build_bundle(tmp_path / "bundle", calibrated=False, signed=False)
    bundle = _read(built, require_signature=False)
    assert not bundle.manifest.calibrated
    assert set(bundle.golden().logits) == {"fp32"}
    with pytest.raises(BundleFormatError, match="edge-screen calibrate"):
        bundle.model_bytes("int8_cpu")
    with pytest.raises(ValueError, match="fp16"):
        bundle.model_bytes("fp16")
    shutil.copy(built.folder / "model.fp32.onnx", built.folder / "model.int8.onnx")
    with pytest.raises(BundleIntegrityError, match="does not belong"):
        _read(built, require_signature=False)


def test_writing_a_manifest_removes_the_old_signature(built):
    manifest = dataclasses.replace(built.manifest, version="0.2.0")
    written = write_manifest(built.folder, manifest)
    assert not (built.folder / "bundle.sig").exists()
    assert written.files == built.manifest.files
    with pytest.raises(BundleSignatureError, match="unsigned"):
        _read(built)
    built.write_and_sign(manifest)
    assert _read(built).manifest.version == "0.2.0"


def test_writing_needs_every_file_and_no_other(built):
    (built.folder / "golden.npz").rename(built.folder / "other.npz")
    with pytest.raises(BundleIntegrityError, match=r"other\.npz does not belong"):
        write_manifest(built.folder, built.manifest)
    (built.folder / "other.npz").unlink()
    with pytest.raises(BundleIntegrityError, match=r"golden\.npz is missing"):
        write_manifest(built.folder, built.manifest)


def test_writing_refuses_values_that_json_cannot_hold(built):
    before = (built.folder / "bundle.json").read_bytes()
    manifest = dataclasses.replace(built.manifest, metrics={"auroc": np.float32(0.9)})
    with pytest.raises(BundleFormatError, match=r"metrics\.auroc"):
        write_manifest(built.folder, manifest)
    assert (built.folder / "bundle.json").read_bytes() == before
    assert _read(built).key_id == built.keys.key_id


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "bundle.json"
    safe_files.write_file(path, b"old")

    def fail(_descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(safe_files.os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        safe_files.write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["bundle.json"]


def test_the_same_input_gives_the_same_bytes(tmp_path, built):
    again = build_bundle(tmp_path / "again" / "bundle", models={"int8_fp16": tiny_onnx()})
    for name in set(_FILES) - {"bundle.sig"}:
        assert (again.folder / name).read_bytes() == (built.folder / name).read_bytes()


def test_golden_vectors_reproduce(built):
    bundle = _read(built)
    golden = bundle.golden()
    logits, gradability = run_onnx(bundle.model_bytes("int8_cpu"), golden.image_nhwc)
    np.testing.assert_array_equal(logits, golden.logits["int8_cpu"])
    np.testing.assert_array_equal(gradability, golden.gradability_logit["int8_cpu"])
    assert np.ptp(golden.logits["fp32"], axis=0).min() > 0.01  # the images are told apart
    spec = bundle.manifest.preprocess_spec()
    image_hwc = load_for_model(golden.encoded, spec)[1].image_hwc
    np.testing.assert_array_equal(image_hwc, golden.encoded_image_hwc)
    assert image_hwc.max() > 100


def _golden_with(data: bytes, **changes) -> bytes:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        content = {name: arrays[name] for name in arrays.files}
    content.update(changes)
    stream = io.BytesIO()
    np.savez(stream, **{name: value for name, value in content.items() if value is not None})
    return stream.getvalue()


def _zip_bomb() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for index in range(3):
            archive.writestr(f"{index}.npy", bytes(1_000_000))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"logits_fp32": None}, "logits_fp32"),
        ({"surprise": np.zeros(1)}, "surprise"),
        ({"image_nhwc": np.zeros((2, 32, 32, 3), np.uint8)}, "image_nhwc"),
        ({"image_nhwc": np.zeros((3, 32, 32, 3), np.float32)}, "image_nhwc"),
        ({"logits_fp32": np.zeros((3, 5), np.float32)}, "logits_fp32"),
        ({"logits_int8_cpu": np.zeros((3, 2))}, "logits_int8_cpu"),
        ({"logits_int8_cpu": np.full((3, 2), np.nan, np.float32)}, "not finite"),
        ({"gradability_logit_fp32": np.zeros(3, np.float32)}, "gradability_logit_fp32"),
        ({"encoded": np.zeros(0, np.uint8)}, "encoded is empty"),
        ({"encoded_image_hwc": np.zeros((16, 16, 3), np.uint8)}, "encoded_image_hwc"),
        ({"encoded": np.array([object()], dtype=object)}, "cannot be read"),
    ],
)
def test_golden_files_that_do_not_fit_are_refused(built, changes, reason):
    path = built.folder / "golden.npz"
    path.write_bytes(_golden_with(path.read_bytes(), **changes))
    built.write_and_sign(built.manifest)
    with pytest.raises(BundleFormatError, match=reason):
        _read(built).golden()


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "array"])
def test_golden_files_that_are_no_archive_are_refused(built, kind):
    path = built.folder / "golden.npz"
    whole = path.read_bytes()
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    bad = {"empty": b"", "text": b"hello", "cut": whole[:-30], "array": array.getvalue()}
    path.write_bytes(bad[kind])
    built.write_and_sign(built.manifest)
    with pytest.raises(BundleFormatError, match="cannot be read"):
        _read(built).golden()


def test_a_golden_zip_bomb_is_refused_before_unpacking(built, monkeypatch):
    monkeypatch.setattr("edge_runtime.bundle_parts.golden._MAX_UNPACKED_BYTES", 2_999_999)
    (built.folder / "golden.npz").write_bytes(_zip_bomb())
    built.write_and_sign(built.manifest)
    with pytest.raises(BundleFormatError, match="over the limit"):
        _read(built).golden()


def test_golden_damage_never_crashes(built, rng):
    whole = (built.folder / "golden.npz").read_bytes()
    headers = [i for i in range(len(whole)) if b"PK" in whole[max(0, i - 40) : i + 1]]
    refused = 0
    for turn in range(400):  # every second time in the archive's own structures
        damaged = bytearray(whole)
        where = headers[rng.integers(len(headers))] if turn % 2 else rng.integers(len(whole))
        damaged[where] ^= 1 << rng.integers(8)
        try:
            read_golden(bytes(damaged), num_images=3, num_labels=2, size_px=32, has_int8=True)
        except BundleFormatError:
            refused += 1
    assert refused > 250  # what passes are flips in dates, attributes and other unused fields


def test_importing_the_reader_loads_no_heavy_library():
    code = (
        "import sys, edge_runtime.bundle; "
        "print([m for m in ('cryptography', 'onnxruntime', 'onnx', 'numpy', 'cv2') "
        "if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_without_contents_keeps_what_the_bundle_says_and_no_bytes(tmp_path):
    built = build_bundle(tmp_path / "bundle")
    bundle = read_bundle(built.folder, trusted_keys=built.trusted_keys)
    slim = bundle.without_contents()
    assert dict(slim.contents) == {}
    assert dataclasses.replace(slim, contents=bundle.contents) == bundle
    assert bundle.golden().image_nhwc.size > 0  # the bundle itself is left as it was
    for use in (slim.golden, lambda: slim.model_bytes("fp32")):
        with pytest.raises(BundleFormatError, match="read the bundle again"):
            use()
