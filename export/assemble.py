"""Put a student into a bundle: unsigned and uncalibrated, to be finished by `calibrate`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.student import Student, load_student
from edge_runtime import __version__
from edge_runtime.bundle import MODEL_FILES, write_manifest
from edge_runtime.bundle_parts.golden import GoldenVectors, golden_bytes
from edge_runtime.bundle_parts.manifest import GoldenTolerances, LabelSpec, Manifest, Protocol
from edge_runtime.errors import CheckpointError, ConfigError
from edge_runtime.fundus.quality import QualityLimits
from edge_runtime.preprocess import PreprocessSpec
from edge_runtime.safe_files import write_file
from edge_runtime.strict_json import dataclass_to_dict
from export.golden_images import make_golden, order_golden_visits
from export.model_card import model_card
from export.parity import ParityReport, check_parity, probe_images
from export.to_onnx import MAX_SIZE_MIB, export_onnx
from train.data.index import read_index
from train.data.origin import DataOrigin, read_origin
from train.teacher import GRADABLE

__all__ = ["INTENDED_USE", "Assembled", "ExportConfig", "assemble_bundle"]

INTENDED_USE = "research use only; not a medical device"
_PHANTOM_CAMERAS = ("synthetic phantom",)
# Below and above which a 45 degree camera counts as coarse: ISO 10940's resolving power needs
# 28 at least. Phantoms are drawn as small as the geometry accepts; so are their limits.
_PIXELS_PER_DEGREE = (28.0, 35.0)
_PHANTOM_PIXELS_PER_DEGREE = (1.0, None)


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What a person decides about a bundle.

    Attributes:
        name: of the model.
        version: of the model.
        cameras: camera families it may be used with; empty is allowed for phantom data only.
        fields_per_eye: photographs an eye, 1 or 2. Operating points are set on single pictures;
            with two, either of which can refer, sensitivity rises and specificity falls.
        field_degrees: field of view of a photograph.
        min_pixels_per_degree: a picture with fewer is ungradable. When neither this nor the
            next is given, both are those of cameras, or for phantom data those of phantoms.
        warn_pixels_per_degree: a picture with fewer carries a warning.
        num_golden: golden pictures, at least 2.
        atol_probability_fp32: how far a machine's FP32 probability may be off. Kernels sum in
            different orders; logits of a few units then differ by less than 1e-4.
        atol_probability_int8: the same for INT8, where one rounding flip moves a probability
            by up to 0.016 in networks of this family.
        max_size_mib: a larger FP32 file is refused.
    """

    name: str
    version: str
    cameras: tuple[str, ...] = ()
    fields_per_eye: int = 1
    field_degrees: float = 45.0
    min_pixels_per_degree: float | None = None
    warn_pixels_per_degree: float | None = None
    num_golden: int = 8
    atol_probability_fp32: float = 1e-3
    atol_probability_int8: float = 0.03
    max_size_mib: float = MAX_SIZE_MIB

    def __post_init__(self) -> None:
        """Refuse a golden set that shows nothing; the rest the manifest refuses."""
        if not 2 <= self.num_golden <= 256:
            raise ConfigError(f"num_golden is {self.num_golden}; it must be 2 to 256")
        if not self.max_size_mib > 0:
            raise ConfigError(f"max_size_mib is {self.max_size_mib}; it must be above 0")


@dataclass(frozen=True, kw_only=True)
class Assembled:
    """A bundle that was written: its manifest and how exactly the file equals the student."""

    manifest: Manifest
    parity: ParityReport


def assemble_bundle(
    student_dir: Path, data_dir: Path, out: Path, config: ExportConfig
) -> Assembled:
    """Export a student and write its bundle.

    Args:
        student_dir: a 'student' checkpoint.
        data_dir: data set whose `val` gives the golden pictures.
        out: folder that is empty or does not exist yet.
        config: name, version and protocol.

    Raises:
        ConfigError: `out` is not empty, or a setting is missing or out of range.
        CheckpointError, DataError: student or data set cannot be used.
        ParityError: the file does not compute what the student computes.
    """
    _check_out(out)
    student, record = load_student(student_dir)
    _check_record(student_dir, record)
    index = read_index(data_dir)
    origin = read_origin(data_dir, fingerprint=index.fingerprint())
    spec = PreprocessSpec(size_px=student.config.size_px)
    protocol = _protocol(config, origin)
    model_bytes = export_onnx(
        student,
        metadata=_metadata(config, student, protocol, spec),
        max_size_mib=config.max_size_mib,
    )
    visits = order_golden_visits(
        index.split("val"), student.label_names, num_images=config.num_golden
    )
    limits = QualityLimits()
    golden = make_golden(
        visits,
        spec,
        model_bytes,
        num_images=config.num_golden,
        limits=limits,
        protocol=protocol,
    )
    probes = np.concatenate([probe_images(spec.size_px), golden.image_nhwc])
    parity = check_parity(student, model_bytes, probes)
    manifest = Manifest(
        name=config.name,
        version=config.version,
        intended_use=INTENDED_USE,
        labels=tuple(_uncalibrated(name) for name in student.label_names),
        gradability=_uncalibrated(GRADABLE),
        protocol=protocol,
        preprocessing=spec.to_dict(),
        preprocessing_sha256=spec.sha256(),
        quality_limits=dataclass_to_dict(limits),
        golden=GoldenTolerances(
            num_images=len(golden.image_nhwc),
            atol_probability_fp32=config.atol_probability_fp32,
            atol_probability_int8=config.atol_probability_int8,
        ),
        int8=None,
        metrics=_metrics(record, parity),
        provenance=_provenance(student_dir, record, origin),
    )
    return Assembled(manifest=_write(out, manifest, model_bytes, golden), parity=parity)


def _check_out(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists and is not an empty folder; give a new folder")


def _check_record(student_dir: Path, record: Mapping[str, Any]) -> None:
    """Before the long work: a student that does not say where it comes from is no product."""
    parts = ("metrics", "num_parameters", "training_data", "teacher", "distill")
    missing = [name for name in parts if name not in record]
    if missing:
        raise CheckpointError(
            f"{student_dir}/config.json lacks {', '.join(missing)}; distil the student again with "
            "`edge-screen distill`"
        )


def _protocol(config: ExportConfig, origin: DataOrigin) -> Protocol:
    cameras = config.cameras
    if not cameras and not origin.synthetic:
        raise ConfigError(
            "no camera is named and the data set is not declared synthetic; name every camera "
            "family the model may be used with (--camera)"
        )
    least, enough = config.min_pixels_per_degree, config.warn_pixels_per_degree
    if least is None and enough is None:
        least, enough = _PHANTOM_PIXELS_PER_DEGREE if origin.synthetic else _PIXELS_PER_DEGREE
    return Protocol(
        fields_per_eye=config.fields_per_eye,
        field_degrees=config.field_degrees,
        cameras=cameras or _PHANTOM_CAMERAS,
        min_pixels_per_degree=least,
        warn_pixels_per_degree=enough,
    )


def _uncalibrated(name: str) -> LabelSpec:
    return LabelSpec(name=name, temperature=None, operating_point=None)


def _metadata(
    config: ExportConfig, student: Student, protocol: Protocol, spec: PreprocessSpec
) -> dict[str, str]:
    """The essentials of bundle.json, for whoever has the ONNX file alone; INT8 files keep them."""
    return {
        "name": config.name,
        "version": config.version,
        "labels": ",".join(student.label_names),
        "gradability": GRADABLE,
        "intended_use": INTENDED_USE,
        "input": f"uint8 RGB, 1 x {spec.size_px} x {spec.size_px} x 3",
        "preprocessing_sha256": spec.sha256(),
        "cameras": ", ".join(protocol.cameras),
        "field_degrees": f"{protocol.field_degrees:g}",
    }


def _metrics(record: Mapping[str, Any], parity: ParityReport) -> dict[str, Any]:
    return {
        "distill": record["metrics"],
        "num_parameters": record["num_parameters"],
        "export_parity": parity.to_dict(),
    }


def _provenance(student_dir: Path, record: Mapping[str, Any], origin: DataOrigin) -> dict[str, Any]:
    """Where the weights come from; whether that is synthetic, the student's record says."""
    trained, teacher = DataOrigin(**record["training_data"]), record["teacher"]
    return {
        "training_data": trained.sentence,
        "synthetic": trained.synthetic,
        "data_fingerprint": trained.fingerprint,
        "golden_data": origin.sentence,
        "golden_data_fingerprint": origin.fingerprint,
        "teacher_sha256": teacher["sha256"],
        "student_sha256": _sha256(student_dir / "model.safetensors"),
        "code_version": __version__,
        "seeds": {**teacher["seeds"], **_student_seeds(record)},
    }


def _student_seeds(record: Mapping[str, Any]) -> dict[str, int]:
    """Of the stages that the student went through; only the task stage is in every record."""
    stages = [name for name in ("label_free", "distill", "qat") if name in record]
    return {name: record[name]["seed"] for name in stages}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(out: Path, manifest: Manifest, model_bytes: bytes, golden: GoldenVectors) -> Manifest:
    """Write the files, the manifest last: a folder with bundle.json is whole."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_file(out / MODEL_FILES["fp32"], model_bytes)
        write_file(out / "golden.npz", golden_bytes(golden))
        write_file(out / "MODEL_CARD.md", model_card(manifest).encode("utf-8"))
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error}; check --out") from error
    return write_manifest(out, manifest)
