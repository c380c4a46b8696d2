"""Write a calibrated bundle in a folder of its own, then move it to its place: all or nothing."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from calibration.dataset import ImageStream
from calibration.gate import GateOutcome
from calibration.model_card import model_card
from calibration.run_models import score_models
from edge_runtime.bundle import MODEL_FILES, Bundle, read_bundle, write_manifest
from edge_runtime.bundle_parts.golden import golden_bytes
from edge_runtime.bundle_parts.manifest import FLOAT_FILES, Manifest
from edge_runtime.errors import ConfigError
from edge_runtime.safe_files import write_file
from edge_runtime.signing import sign_bundle
from edge_runtime.strict_json import JsonValue, dataclass_to_dict

__all__ = ["Written", "check_free", "check_signing_key", "write_gate_report", "write_release"]


@dataclass(frozen=True, kw_only=True)
class Written:
    """The bundle that was written: its manifest, the hash of bundle.json and the signing key."""

    manifest: Manifest
    sha256: str
    key_id: str


def check_signing_key(signing_key: Path) -> None:
    """Sign something with the key, so that a wrong one is found before the long work.

    Raises:
        ConfigError: the key is missing, unreadable or not Ed25519.
    """
    with tempfile.TemporaryDirectory() as name:
        write_file(Path(name) / "bundle.json", b"{}\n")
        sign_bundle(Path(name), signing_key)


def check_free(out_dir: Path) -> Path:
    """Return the folder, resolved, once it is certain that nothing is there.

    Raises:
        ConfigError: something is there, or its parent is no folder.
    """
    folder = out_dir.resolve()
    if folder.exists() or out_dir.is_symlink():
        raise ConfigError(f"{out_dir} exists already; give --out a new folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder.parent} cannot be made: {error}; check --out") from error
    return folder


def write_gate_report(
    path: Path,
    outcome: GateOutcome,
    val: ImageStream,
    *,
    search: Mapping[str, JsonValue] | None = None,
) -> None:
    """Write the gate's report as JSON, with the row of index.csv of every image that flipped.

    Rows are in this file only: the bundle names images by their hash and no patient at all.
    `search` is the record of a search for better INT8, if there was one.

    Raises:
        ConfigError: the file cannot be written.
    """
    rows = dict(zip(val.hashes, (eye.row_number for eye in val.used), strict=True))
    flipped = {flip.image_sha256: rows[flip.image_sha256] for flip in outcome.report.flips}
    content = {"report": dataclass_to_dict(outcome.report), "rows_of_flips": flipped}
    if search is not None:
        content["search"] = dict(search)
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    try:
        write_file(path, text.encode("utf-8"))
    except OSError as error:
        raise ConfigError(
            f"gate report {path} cannot be written: {error}; check --report"
        ) from error


def write_release(
    target_dir: Path,
    bundle: Bundle,
    manifest: Manifest,
    models: Mapping[str, bytes],
    signing_key: Path,
) -> Written:
    """Write the calibrated and signed form of a bundle; a folder that is there is replaced.

    Args:
        target_dir: where it belongs, resolved.
        bundle: as read; its FP32 model, golden inputs and model card are kept.
        manifest: complete but for the file hashes.
        models: bytes of 'int8', 'int8_cpu' and, if there is one, 'int8_fp16'.
        signing_key: private key.

    Raises:
        ConfigError: the folder cannot be written.
        BundleError: what was written cannot be read back.
    """
    with _folder_beside(target_dir) as folder:
        for name in FLOAT_FILES:
            write_file(folder / name, bundle.contents[name])
        for precision, data in models.items():
            write_file(folder / MODEL_FILES[precision], data)
        write_file(folder / "golden.npz", _golden_with_int8(bundle, models["int8_cpu"]))
        card = model_card(bundle.contents["MODEL_CARD.md"].decode("utf-8"), manifest)
        write_file(folder / "MODEL_CARD.md", card.encode("utf-8"))
        write_manifest(folder, manifest)
        key_id = sign_bundle(folder, signing_key)
        written = read_bundle(folder, trusted_keys=None, require_signature=False)
        written.golden()
        _take_place(folder, target_dir)
    return Written(manifest=written.manifest, sha256=written.sha256, key_id=key_id)


def _golden_with_int8(bundle: Bundle, cpu_model: bytes) -> bytes:
    """golden.npz with the CPU file's outputs on the golden images beside the FP32 ones."""
    golden = bundle.golden()
    scores = score_models({"int8_cpu": cpu_model}, golden.image_nhwc)["int8_cpu"]
    gradability = scores.gradability_logits[:, None].astype("float32")
    return golden_bytes(
        replace(
            golden,
            logits={**golden.logits, "int8_cpu": scores.logits.astype("float32")},
            gradability_logit={**golden.gradability_logit, "int8_cpu": gradability},
        )
    )


@contextmanager
def _folder_beside(target_dir: Path) -> Iterator[Path]:
    """A new folder on the same file system, removed unless it was moved away."""
    try:
        name = tempfile.mkdtemp(prefix=f".{target_dir.name}.new-", dir=target_dir.parent)
    except OSError as error:
        raise ConfigError(
            f"no folder can be made in {target_dir.parent}: {error}; make it writable"
        ) from error
    folder = Path(name)
    try:
        if target_dir.exists():
            shutil.copymode(target_dir, folder)
        else:
            folder.chmod(0o755)  # a temporary folder is closed to everyone else
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _take_place(new: Path, old: Path) -> None:
    """Put `new` where `old` is, if it is; if that fails, `old` is put back."""
    if not old.exists():
        new.rename(old)
        return
    with tempfile.TemporaryDirectory(prefix=f".{old.name}.old-", dir=old.parent) as name:
        aside = Path(name) / old.name
        old.rename(aside)
        try:
            new.rename(old)
        except OSError:
            aside.rename(old)
            raise
