"""Write a calibrated bundle beside the old one, then put it in its place: all or nothing."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from calibration.gate import GateOutcome
from calibration.run_models import score_models
from edge_runtime.bundle import MODEL_FILES, Bundle, read_bundle, write_manifest
from edge_runtime.errors import ConfigError
from edge_runtime.golden import golden_bytes
from edge_runtime.manifest import FLOAT_FILES, Manifest
from edge_runtime.safe_files import write_file
from edge_runtime.signing import sign_bundle
from edge_runtime.strict_json import dataclass_to_dict

__all__ = ["Written", "check_signing_key", "model_card", "write_gate_report", "write_release"]

_CARD_BEGIN = "<!-- begin: calibrate -->"
_CARD_END = "<!-- end: calibrate -->"


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


def write_gate_report(path: Path, outcome: GateOutcome) -> None:
    """Write the gate's report, with the reasons of a refusal, as JSON.

    Raises:
        ConfigError: the file cannot be written.
    """
    content = {"report": dataclass_to_dict(outcome.report), "reasons": list(outcome.reasons)}
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    try:
        write_file(path, text.encode("utf-8"))
    except OSError as error:
        raise ConfigError(
            f"gate report {path} cannot be written: {error}; check --report"
        ) from error


def write_release(
    bundle_dir: Path,
    bundle: Bundle,
    manifest: Manifest,
    models: Mapping[str, bytes],
    signing_key: Path,
) -> Written:
    """Replace the bundle in `bundle_dir` by its calibrated and signed form.

    Args:
        bundle_dir: folder of `bundle`, resolved.
        bundle: as read; its FP32 model, golden inputs and model card are kept.
        manifest: complete but for the file hashes.
        models: bytes of 'int8' and 'int8_cpu'.
        signing_key: private key.

    Raises:
        ConfigError: the folder cannot be written.
        BundleError: what was written cannot be read back.
    """
    with _folder_beside(bundle_dir) as folder:
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
        _take_place(folder, bundle_dir)
    return Written(manifest=written.manifest, sha256=written.sha256, key_id=key_id)


def model_card(text: str, manifest: Manifest) -> str:
    """The model card with one section on INT8 and operating points; an older one is replaced."""
    before, begin, rest = text.partition(_CARD_BEGIN)
    after = rest.partition(_CARD_END)[2] if begin else ""
    section = "\n".join(_card_lines(manifest))
    tail = f"\n{after.strip()}\n" if after.strip() else ""
    return f"{before.rstrip()}\n\n{_CARD_BEGIN}\n{section}\n{_CARD_END}\n{tail}"


def _card_lines(manifest: Manifest) -> Iterator[str]:
    record = manifest.int8
    assert record is not None
    gate, data = record.gate, manifest.provenance.get("training_data", "unknown data")
    yield "## INT8, probabilities and operating points"
    yield f"Chosen on the split `{gate.split}` of: {data}. Research use only; not a medical device."
    yield ""
    head = ("output", "temperature", "threshold", "target", "sensitivity (95 %)")
    yield f"| {' | '.join(head)} | specificity (95 %) | n+ | n- |"
    yield "|---|---|---|---|---|---|---|---|"
    for spec in (*manifest.labels, manifest.gradability):
        point = spec.operating_point
        assert point is not None
        yield (
            f"| {spec.name} | {spec.temperature:.3f} | {point.threshold:.4f} | {point.target} "
            f"| {_share(point.sensitivity, point.sensitivity_interval)} "
            f"| {_share(point.specificity, point.specificity_interval)} "
            f"| {point.num_positive} | {point.num_negative} |"
        )
    yield ""
    yield (
        f"INT8 ranges: {record.method} on {record.num_images} training images. Gate on "
        f"{gate.num_images} images: mean AUROC drop {gate.mean_auroc_drop:.4f} (limit "
        f"{gate.limit_auroc_drop:.4f}), {gate.decision_flips} decision flips."
    )
    yield ""
    yield "| output | AUROC FP32 | AUROC INT8 | drop (95 %) |"
    yield "|---|---|---|---|"
    for row in gate.labels:
        low, high = row.drop_interval
        yield (
            f"| {row.name} | {row.auroc_fp32:.4f} | {row.auroc_int8:.4f} "
            f"| {row.drop:.4f} ({low:.4f} to {high:.4f}) |"
        )


def _share(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


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
def _folder_beside(bundle_dir: Path) -> Iterator[Path]:
    """A new folder on the same file system, removed unless it was moved away."""
    try:
        name = tempfile.mkdtemp(prefix=f".{bundle_dir.name}.new-", dir=bundle_dir.parent)
    except OSError as error:
        raise ConfigError(
            f"no folder can be made in {bundle_dir.parent}: {error}; make it writable"
        ) from error
    folder = Path(name)
    try:
        shutil.copymode(bundle_dir, folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _take_place(new: Path, old: Path) -> None:
    """Put `new` where `old` is; if that fails, `old` is put back."""
    with tempfile.TemporaryDirectory(prefix=f".{old.name}.old-", dir=old.parent) as name:
        aside = Path(name) / old.name
        old.rename(aside)
        try:
            new.rename(old)
        except OSError:
            aside.rename(old)
            raise
