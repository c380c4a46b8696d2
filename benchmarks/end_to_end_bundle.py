"""What the contestants of `end_to_end.py` run on: one student in every form, with its bundle.

Without a trained student one is made: the default of the catalogue with random weights and
settled BatchNorm, exported and calibrated by the project's own code on a few synthetic eyes whose
labels are dealt in turn. Speed does not depend on weights. Its answers mean nothing, which its
gate records: the bundle is opened with `allow_unproven_int8`.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

__all__ = ["Material", "make_material", "trained_material"]

LABELS = ("macular_edema", "glaucoma", "referable_dr")
_NUM_PATIENTS, _SETTLING_EYES = 24, 8
_FLOAT_MODEL = "obvious.fp32.onnx"


@dataclass(frozen=True, kw_only=True)
class Material:
    """Paths of one student in every form; JSON-able, so that a child process can be told.

    Attributes:
        size_px: side S of the network's input.
        bundle: signed and calibrated bundle.
        trusted_keys: public key that signed it.
        student: checkpoint that PyTorch runs.
        float_model: ONNX file that takes normalised float32 NCHW, as anybody would export it.
        trained: whether its answers mean anything.
    """

    size_px: int
    bundle: str
    trusted_keys: str | None
    student: str
    float_model: str
    trained: bool

    def to_json(self) -> str:
        """One line for a child process."""
        return json.dumps(asdict(self))


def make_material(folder: Path, *, backbone: str, size_px: int, data: Path) -> Material:
    """Build, or find again, an untrained student of the catalogue and its bundle.

    Args:
        folder: where it is kept; a finished one is used again.
        backbone: name in `distill.catalogue`.
        size_px: side S.
        data: folder for the synthetic eyes, made on first use.
    """
    place = folder / f"{backbone}-{size_px}"
    done = place / "material.json"
    if done.is_file():
        return Material(**json.loads(done.read_text(encoding="utf-8")))
    shutil.rmtree(place, ignore_errors=True)  # of a build that was stopped
    _make_data(data)
    student_dir = place / "student"
    _save_student(student_dir, backbone, size_px, data)
    bundle, public_key = _calibrated_bundle(place, student_dir, data)
    float_model = place / _FLOAT_MODEL
    export_float(student_dir, float_model)
    material = Material(
        size_px=size_px,
        bundle=str(bundle),
        trusted_keys=str(public_key),
        student=str(student_dir),
        float_model=str(float_model),
        trained=False,
    )
    done.write_text(material.to_json() + "\n", encoding="utf-8")
    return material


def trained_material(
    folder: Path, *, bundle: Path, student: Path, trusted_keys: Path | None
) -> Material:
    """The forms of a trained student; refuses a bundle that was made from another one.

    Raises:
        SystemExit: the bundle's FP32 graph does not compute what the student computes.
    """
    from distill.student import load_student
    from edge_runtime.bundle import read_bundle
    from export.parity import check_parity

    read = read_bundle(bundle, trusted_keys=trusted_keys)
    loaded, _ = load_student(student)
    check_parity(loaded, read.model_bytes("fp32"), read.golden().image_nhwc)
    folder.mkdir(parents=True, exist_ok=True)
    float_model = folder / f"trained-{read.sha256[:16]}.{_FLOAT_MODEL}"
    export_float(student, float_model)
    return Material(
        size_px=read.manifest.preprocess_spec().size_px,
        bundle=str(bundle),
        trusted_keys=None if trusted_keys is None else str(trusted_keys),
        student=str(student),
        float_model=str(float_model),
        trained=True,
    )


def export_float(student_dir: Path, path: Path) -> None:
    """Write the student as ONNX with normalised float32 NCHW input: logits, gradability."""
    import torch

    from calibration.onnx_graph import load_model, save_model
    from distill.student import load_student

    student, _ = load_student(student_dir)
    side = student.config.size_px

    class Heads(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student = student

        def forward(self, batch_nchw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            out = self.student(batch_nchw)
            return out.logits, out.gradability_logit

    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Heads().eval(),
            (torch.zeros(1, 3, side, side),),
            stream,
            dynamo=False,
            opset_version=17,
            input_names=["batch_nchw"],
            output_names=["logits", "gradability_logit"],
        )
    model = load_model(stream.getvalue())
    model.ir_version = 8
    path.write_bytes(save_model(model))


def _make_data(data: Path) -> None:
    """A few synthetic eyes; half of them `val`, every label dealt in turn."""
    from train.phantom.writer import generate_dataset

    if data.exists():
        return
    generate_dataset(data, num_patients=_NUM_PATIENTS, seed=0, image_px=256)
    index = data / "index.csv"
    with index.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    patients = sorted({row["patient_id"] for row in rows})
    for number, row in enumerate(rows):
        patient = patients.index(row["patient_id"])
        row["split"] = "train" if patient % 4 == 0 else "val"
        row.update({name: str((number + i) % 2) for i, name in enumerate(LABELS)})
        row["gradable"] = "0" if number % 5 == 0 else "1"
    with index.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _save_student(folder: Path, backbone: str, size_px: int, data: Path) -> None:
    import torch

    from distill.catalogue import student_config
    from distill.student import Student, save_student
    from edge_runtime.preprocess import PreprocessSpec, load_for_model
    from train.arrays import normalize_cfp
    from train.data.index import read_index
    from train.data.origin import read_origin

    torch.manual_seed(0)
    student = Student(student_config(backbone, size_px=size_px), LABELS)
    index, spec = read_index(data), PreprocessSpec(size_px=size_px)
    files = sorted((data / "cfp").rglob("*.*"))[:_SETTLING_EYES]
    pictures = np.stack([load_for_model(one.read_bytes(), spec)[1].image_hwc for one in files])
    _settle(student, normalize_cfp(torch.from_numpy(pictures)))
    origin = read_origin(data, fingerprint=index.fingerprint())
    record = {
        "metrics": {},
        "training_data": asdict(origin),
        "teacher": {"sha256": "0" * 64, "seeds": {}},
        "distill": {"seed": 0},
    }
    save_student(folder, student, record)


def _settle(student, batch) -> None:
    """Give BatchNorm the statistics of a batch, and the heads logits of a few units."""
    import torch

    for module in student.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        student.train()(batch)
        out = student.eval()(batch)
        for head, logits in (
            (student.evidence, out.logits),
            (student.gradability, out.gradability_logit),
        ):
            scale = 1.0 / max(float(logits.std()), 1e-6)
            head.weight *= scale
            head.bias += -scale * logits.mean(0)
        student.gradability.bias += 2.0


def _calibrated_bundle(place: Path, student_dir: Path, data: Path) -> tuple[Path, Path]:
    """The project's own export and calibration; the gate may fail, which the record then says."""
    from calibration.config import CalibrationConfig
    from calibration.pipeline import calibrate_bundle
    from edge_runtime.signing import generate_keypair
    from export.assemble import ExportConfig, assemble_bundle

    config = ExportConfig(name="untrained", version="0.0.0", num_golden=2)
    assemble_bundle(student_dir, data, place / "exported", config)
    keys = generate_keypair(place / "keys")
    calibrate_bundle(
        place / "exported",
        data,
        keys.private_key_path,
        CalibrationConfig(num_images=8, min_eyes=1, num_folds=2, num_draws=100),
        out_dir=place / "bundle",
        write_failed=True,
    )
    return place / "bundle", keys.public_key_path
