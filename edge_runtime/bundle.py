"""A model bundle on disk: read only when signature and every hash fit.

    bundle.json  bundle.sig  model.fp32.onnx  golden.npz  MODEL_CARD.md
    model.int8.onnx  model.int8-cpu.onnx      (only with an INT8 record)
    model.int8fp16.onnx                       (only with an INT8 record, and may be left out)

Every file is read once. The bytes that were verified are the bytes that are used, so
that a file swapped after the check has no effect. `write_manifest` writes bundle.json
atomically; the other files are there before it and are written by others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from edge_runtime.bundle_parts.manifest import Manifest
from edge_runtime.bundle_parts.onnx_safety import check_onnx
from edge_runtime.errors import BundleFormatError, BundleIntegrityError, BundleSignatureError
from edge_runtime.safe_files import read_file, write_file
from edge_runtime.signing import (
    MAX_MANIFEST_BYTES,
    MAX_SIGNATURE_BYTES,
    TrustedKey,
    find_trusted_keys,
    verify_signature,
)
from edge_runtime.strict_json import parse_json_object

if TYPE_CHECKING:
    from edge_runtime.bundle_parts.golden import GoldenVectors

__all__ = ["MODEL_FILES", "Bundle", "read_bundle", "write_manifest"]

#: Precision -> file. 'int8' is the portable symmetric graph, 'int8_cpu' carries the same
#: integers in the form that ONNX Runtime's CPU kernels run fastest, 'int8_fp16' is the portable
#: graph in float16 for strongly typed TensorRT builds.
MODEL_FILES: Mapping[str, str] = MappingProxyType(
    {
        "fp32": "model.fp32.onnx",
        "int8": "model.int8.onnx",
        "int8_cpu": "model.int8-cpu.onnx",
        "int8_fp16": "model.int8fp16.onnx",
    }
)

_MAX_MODEL_BYTES = 512 * 1024 * 1024
_MAX_GOLDEN_BYTES = 64 * 1024 * 1024
_MAX_TEXT_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle whose hashes, and unless `key_id` is None whose signature, were verified.

    `sha256` is the hash of bundle.json, which names every other file by its hash.
    `trusted_from` says where the trust in `key_id` comes from. `contents` holds the
    verified bytes by file name: none after `without_contents`, no model that nobody asked for.
    """

    manifest: Manifest
    sha256: str
    key_id: str | None
    trusted_from: str | None
    contents: Mapping[str, bytes] = field(repr=False)

    def model_bytes(self, precision: str) -> bytes:
        """Return the verified ONNX bytes of a precision of `MODEL_FILES`.

        Raises:
            ValueError: Another word.
            BundleFormatError: This bundle has no such model, or its bytes were let go.
        """
        if precision not in MODEL_FILES:
            raise ValueError(f"precision {precision!r} is not one of {sorted(MODEL_FILES)}")
        name = MODEL_FILES[precision]
        self._require_contents()
        if name not in self.contents and name in self.manifest.files:
            raise ValueError(f"{name} was verified and not kept (keep_models of `read_bundle`)")
        if name not in self.contents:
            raise BundleFormatError(f"the bundle has no {name}; run `edge-screen calibrate` on it")
        return self.contents[name]

    def golden(self) -> GoldenVectors:
        """Return the golden inputs and expected outputs.

        Raises:
            BundleFormatError: golden.npz does not fit the manifest, or its bytes were let go.
        """
        from edge_runtime.bundle_parts.golden import read_golden

        self._require_contents()
        manifest = self.manifest
        return read_golden(
            self.contents["golden.npz"],
            num_images=manifest.golden.num_images,
            num_labels=len(manifest.labels),
            size_px=manifest.preprocess_spec().size_px,
            has_int8=manifest.int8 is not None,
        )

    def without_contents(self) -> Bundle:
        """Return the bundle as an open engine still needs it: all that it says, no file's bytes.

        The models and golden pictures are as large as the rest of a screening process's data.
        """
        return replace(self, contents=MappingProxyType({}))

    def _require_contents(self) -> None:
        if not self.contents:
            raise BundleFormatError(
                f"the bytes of bundle {self.manifest.name!r} were let go when its engine was "
                "opened; read the bundle again"
            )


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Write bundle.json with the hashes of the files that lie in `folder`.

    A bundle.sig of an earlier manifest is removed first: the result is unsigned until
    `signing.sign_bundle` signs it.

    Returns:
        The manifest as written, with `files` filled.

    Raises:
        BundleFormatError: The manifest would not be read back equal, or a model is unsafe.
        BundleIntegrityError: A file of the bundle is missing or a foreign one is there.
    """
    present = _list_folder(folder)
    optional = present & set(manifest.optional_files)
    contents = _read_files(folder, {*manifest.required_files, *optional}, present=present)
    for name in _model_names(contents):
        check_onnx(contents[name], name=name)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    written = Manifest.from_dict(replace(manifest, files=hashes).to_dict())
    _check_parts(written)
    (folder / "bundle.sig").unlink(missing_ok=True)
    text = json.dumps(written.to_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    write_file(folder / "bundle.json", text.encode("utf-8"))
    return written


def read_bundle(
    folder: Path,
    *,
    trusted_keys: Sequence[TrustedKey] | Path | None,
    require_signature: bool = True,
    keep_models: Collection[str] | None = None,
) -> Bundle:
    """Read and verify a bundle: signature, then manifest, then every file, then the models.

    Args:
        folder: The bundle.
        trusted_keys: The keys, or what `signing.find_trusted_keys` takes as explicit path
            (None: environment variable, then the folder beside the bundle).
        require_signature: False reads an unsigned bundle, as export writes it; no
            signature is checked then and `Bundle.key_id` is None.
        keep_models: precisions of `MODEL_FILES` whose bytes are kept; None: all. The others
            are verified like every file and let go, which a camera's memory feels.

    Raises:
        BundleSignatureError: Unsigned, not signed by a trusted key, or bundle.json changed.
        BundleFormatError: The manifest or a model breaks a rule.
        BundleIntegrityError: A file is missing, extra, a link, or its hash differs.
    """
    folder = Path(folder)
    present = _list_folder(folder, is_written=True)
    raw = read_file(folder / "bundle.json", max_bytes=MAX_MANIFEST_BYTES)
    key_id, trusted_from = None, None
    if require_signature:
        key_id, trusted_from = _verify(folder, raw, trusted_keys, present)
    manifest = Manifest.from_dict(parse_json_object(raw, name="bundle.json"))
    contents = _read_files(folder, set(manifest.expected_files), present=present)
    _check_hashes(manifest, contents)
    for name in _model_names(contents):
        check_onnx(contents[name], name=name)
    _check_parts(manifest)
    if keep_models is not None:
        for name in set(MODEL_FILES.values()) - {MODEL_FILES[word] for word in keep_models}:
            contents.pop(name, None)
    return Bundle(
        manifest=manifest,
        sha256=hashlib.sha256(raw).hexdigest(),
        key_id=key_id,
        trusted_from=trusted_from,
        contents=MappingProxyType(contents),
    )


def _list_folder(folder: Path, *, is_written: bool = False) -> set[str]:
    """Return the names in the folder; each must be a regular file, not a link or a folder.

    `is_written`: bundle.json must be there; without it, it is some other folder.
    """
    if not folder.is_dir():
        raise BundleIntegrityError(f"no bundle folder at {folder}; check the path")
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        reason = error.strerror or str(error)
        raise BundleIntegrityError(f"the bundle folder cannot be listed: {reason}") from error
    if is_written and "bundle.json" not in {entry.name for entry in entries}:
        raise BundleIntegrityError(f"no bundle.json in {folder}; give the folder that holds it")
    for entry in entries:
        if entry.is_symlink():
            raise BundleIntegrityError(
                f"{entry.name} is a symbolic link; a bundle holds files only"
            )
        if not entry.is_file():
            raise BundleIntegrityError(f"{entry.name} is not a file; a bundle holds files only")
    return {entry.name for entry in entries}


def _verify(
    folder: Path,
    raw: bytes,
    trusted_keys: Sequence[TrustedKey] | Path | None,
    present: set[str],
) -> tuple[str, str]:
    """Verify bundle.sig over `raw`; return key id and where its trust comes from."""
    if "bundle.sig" not in present:
        raise BundleSignatureError(
            "the bundle is unsigned: bundle.sig is missing; sign it with "
            "`edge-screen calibrate --signing-key`"
        )
    signature = read_file(folder / "bundle.sig", max_bytes=MAX_SIGNATURE_BYTES)
    if trusted_keys is None or isinstance(trusted_keys, (str, Path)):
        explicit = None if trusted_keys is None else Path(trusted_keys)
        trusted_keys = find_trusted_keys(folder, explicit)
    key_id = verify_signature(raw, signature, trusted_keys)
    return key_id, next(key.source for key in trusted_keys if key.key_id == key_id)


def _read_files(folder: Path, expected: set[str], *, present: set[str]) -> dict[str, bytes]:
    """Read the files that the manifest expects; refuse missing and foreign ones."""
    extra = sorted(present - expected - {"bundle.json", "bundle.sig"})
    if extra:
        raise BundleIntegrityError(f"{', '.join(extra)} does not belong to the bundle; remove it")
    missing = sorted(expected - present)
    if missing:
        raise BundleIntegrityError(f"{', '.join(missing)} is missing; copy the bundle again")
    return {name: read_file(folder / name, max_bytes=_limit(name)) for name in sorted(expected)}


def _limit(name: str) -> int:
    if name.endswith(".onnx"):
        return _MAX_MODEL_BYTES
    return _MAX_GOLDEN_BYTES if name.endswith(".npz") else _MAX_TEXT_BYTES


def _check_hashes(manifest: Manifest, contents: Mapping[str, bytes]) -> None:
    """Compare every file with the hash that bundle.json names."""
    unnamed = sorted(set(contents) - set(manifest.files))
    if unnamed:
        raise BundleFormatError(f"bundle.json: files.{unnamed[0]} is missing; write it again")
    for name, data in contents.items():
        actual, stated = hashlib.sha256(data).hexdigest(), manifest.files[name]
        if actual != stated:
            raise BundleIntegrityError(
                f"{name} has SHA-256 {actual[:16]}..., bundle.json says {stated[:16]}...; "
                f"the file was changed: copy the bundle again"
            )


def _check_parts(manifest: Manifest) -> None:
    """Have the owners of the free-form parts read them, so that a bad one fails here."""
    actual, stated = manifest.preprocess_spec().sha256(), manifest.preprocessing_sha256
    if actual != stated:
        raise BundleFormatError(
            f"bundle.json: preprocessing_sha256 is {stated[:16]}..., this program computes "
            f"{actual[:16]}...; export the bundle again"
        )
    manifest.quality()


def _model_names(contents: Mapping[str, bytes]) -> list[str]:
    return [name for name in contents if name.endswith(".onnx")]
