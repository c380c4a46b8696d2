"""Builds tiny, complete, signed bundles for tests: a three-node network with the real graph I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from gate_factory import gate_report

from edge_runtime.bundle import MODEL_FILES, write_manifest
from edge_runtime.bundle_parts.golden import GoldenVectors, golden_bytes
from edge_runtime.bundle_parts.manifest import (
    GoldenTolerances,
    HeldOut,
    Int8Record,
    LabelSpec,
    Manifest,
    OperatingPoint,
    Protocol,
)
from edge_runtime.fundus.quality import QualityLimits
from edge_runtime.preprocess import PreprocessSpec, load_for_model
from edge_runtime.signing import KeyPair, generate_keypair, sign_bundle

LABELS = ("macular_edema", "glaucoma")
SIZE_PX = 32
EMBEDDING = 8


@dataclass(frozen=True, kw_only=True)
class BuiltBundle:
    """A bundle on disk and what is needed to use or to re-sign it."""

    folder: Path
    manifest: Manifest
    keys: KeyPair
    trusted_keys: Path

    def write_and_sign(self, manifest: Manifest) -> None:
        """Write another manifest into the bundle and sign it again."""
        write_manifest(self.folder, manifest)
        sign_bundle(self.folder, self.keys.private_key_path)


def build_bundle(
    folder: Path,
    *,
    models: Mapping[str, bytes] | None = None,
    labels: Sequence[str] = LABELS,
    size_px: int = SIZE_PX,
    threshold: float = 0.5,
    gradability_threshold: float = 0.5,
    calibrated: bool = True,
    gate_status: str = "passed",
    signed: bool = True,
    seed: int = 0,
) -> BuiltBundle:
    """Build a bundle in `folder`; its key pair lies beside it, the public key in trusted_keys/.

    `models` replaces the model of a precision ('fp32', 'int8', 'int8_cpu') or adds the optional
    'int8_fp16'; the golden
    outputs are computed with the models that are written. An uncalibrated bundle has no
    operating points and no INT8 files, as export writes it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keys = _make_keys(folder.parent)
    graph = tiny_onnx(num_labels=len(labels), size_px=size_px, seed=seed)
    chosen = {**dict.fromkeys(("fp32", "int8", "int8_cpu"), graph), **(models or {})}
    if not calibrated:
        chosen = {"fp32": chosen["fp32"]}
    for precision, data in chosen.items():
        (folder / MODEL_FILES[precision]).write_bytes(data)
    spec = PreprocessSpec(size_px=size_px)
    (folder / "golden.npz").write_bytes(golden_bytes(make_golden(chosen, spec, seed=seed)))
    (folder / "MODEL_CARD.md").write_text("# Tiny test model\n\nSynthetic. Not medical.\n")
    manifest = tiny_manifest(
        labels=labels,
        spec=spec,
        threshold=threshold,
        gradability_threshold=gradability_threshold,
        calibrated=calibrated,
        gate_status=gate_status,
    )
    written = write_manifest(folder, manifest)
    if signed:
        sign_bundle(folder, keys.private_key_path)
    trusted = folder.parent / "trusted_keys"
    return BuiltBundle(folder=folder, manifest=written, keys=keys, trusted_keys=trusted)


def tiny_manifest(
    *,
    labels: Sequence[str] = LABELS,
    spec: PreprocessSpec | None = None,
    threshold: float = 0.5,
    gradability_threshold: float = 0.5,
    calibrated: bool = True,
    gate_status: str = "passed",
) -> Manifest:
    """Return the manifest of a tiny bundle, without file hashes."""
    spec = spec or PreprocessSpec(size_px=SIZE_PX)
    return Manifest(
        name="tiny",
        version="0.1.0",
        intended_use="research use only; not a medical device",
        labels=tuple(_label(name, threshold, calibrated) for name in labels),
        gradability=_label("gradable", gradability_threshold, calibrated),
        protocol=Protocol(
            fields_per_eye=1,
            field_degrees=45.0,
            cameras=("phantom",),
            min_pixels_per_degree=1.0,
            warn_pixels_per_degree=None,
        ),
        preprocessing=spec.to_dict(),
        preprocessing_sha256=spec.sha256(),
        quality_limits=QualityLimits().to_dict(),
        golden=GoldenTolerances(
            num_images=3, atol_probability_fp32=1e-5, atol_probability_int8=0.02
        ),
        int8=_int8_record(labels, gate_status) if calibrated else None,
        metrics={"auroc_mean": 0.9},
        provenance={"training_data": "synthetic", "seed": 0},
    )


def make_golden(models: Mapping[str, bytes], spec: PreprocessSpec, *, seed: int) -> GoldenVectors:
    """Run the models on three random images and preprocess one photograph."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (3, spec.size_px, spec.size_px, 3)).astype(np.uint8)
    outputs = {
        name: run_onnx(models[name], images) for name in ("fp32", "int8_cpu") if name in models
    }
    encoded = fundus_png()
    return GoldenVectors(
        image_nhwc=images,
        logits={name: output[0] for name, output in outputs.items()},
        gradability_logit={name: output[1] for name, output in outputs.items()},
        encoded=encoded,
        encoded_image_hwc=load_for_model(encoded, spec)[1].image_hwc,
    )


def run_onnx(
    model: bytes, images_nhwc: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return logits (N, L) and gradability logit (N, 1) of a model with batch one."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    wanted = ["logits", "gradability_logit"]
    rows = [session.run(wanted, {"image_nhwc": image[None]}) for image in images_nhwc]
    return np.concatenate([row[0] for row in rows]), np.concatenate([row[1] for row in rows])


def fundus_png(*, side_px: int = 128, seed: int = 0) -> bytes:
    """Return a PNG of a textured orange disc on black, which the field-of-view search accepts."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side_px, :side_px] - (side_px - 1) / 2
    base = np.array([170.0, 90.0, 40.0]) * (1.0 - 0.3 * (x**2 + y**2)[..., None] / side_px**2)
    coarse = rng.normal(0.0, 12.0, (side_px // 4, side_px // 4, 3))  # hue varies, as in an eye
    image = base + cv2.resize(coarse, (side_px, side_px), interpolation=cv2.INTER_LINEAR)
    image += rng.normal(0.0, 2.0, image.shape)
    image[np.hypot(x, y) > 0.45 * side_px] = 0.0
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    encoded, data = cv2.imencode(".png", pixels[..., ::-1])
    assert encoded
    return bytes(data.tobytes())


@lru_cache(maxsize=16)
def tiny_onnx(*, num_labels: int = len(LABELS), size_px: int = SIZE_PX, seed: int = 0) -> bytes:
    """Return ONNX bytes with the graph I/O of every bundle: uint8 NHWC in, four outputs."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)
    constants = {
        "middle": np.float32(128.0),
        "stem": rng.normal(0.0, 0.3, (EMBEDDING, 3, 3, 3)) / 64.0,
        "head": rng.normal(0.0, 2.0, (num_labels, EMBEDDING, 1, 1)),
        "gradable": rng.normal(0.0, 0.1, (1, EMBEDDING)),  # small: images stay gradable
        "gradable_bias": np.full(1, 2.0),
    }
    nodes = [
        helper.make_node("Cast", ["image_nhwc"], ["float_nhwc"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["float_nhwc", "middle"], ["centred_nhwc"]),
        helper.make_node("Transpose", ["centred_nhwc"], ["x"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x", "stem"], ["stem_out"], strides=[4, 4], pads=[1] * 4),
        helper.make_node("Relu", ["stem_out"], ["features"]),
        helper.make_node("Conv", ["features", "head"], ["evidence"]),
        helper.make_node("ReduceMean", ["evidence"], ["logits"], axes=[2, 3], keepdims=0),
        helper.make_node("ReduceMean", ["features"], ["embedding"], axes=[2, 3], keepdims=0),
        helper.make_node(
            "Gemm", ["embedding", "gradable", "gradable_bias"], ["gradability_logit"], transB=1
        ),
    ]
    side = size_px // 4
    shapes = {
        "logits": [1, num_labels],
        "gradability_logit": [1, 1],
        "embedding": [1, EMBEDDING],
        "evidence": [1, num_labels, side, side],
    }
    image = helper.make_tensor_value_info("image_nhwc", TensorProto.UINT8, [1, size_px, size_px, 3])
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    tensors = [numpy_helper.from_array(np.asarray(v, np.float32), n) for n, v in constants.items()]
    graph = helper.make_graph(nodes, "tiny", [image], outputs, tensors)
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _make_keys(parent: Path) -> KeyPair:
    """Return the key pair of the folder, made on first use, with its public key trusted."""
    folder = parent / "keys"
    private, public = folder / "signing.key", folder / "signing.pub"
    trusted = parent / "trusted_keys" / "maker.pub"
    if not private.exists():
        keys = generate_keypair(folder)
        trusted.parent.mkdir(exist_ok=True)
        trusted.write_bytes(public.read_bytes())
        (folder / "key_id").write_text(keys.key_id)
    key_id = (folder / "key_id").read_text()
    return KeyPair(private_key_path=private, public_key_path=public, key_id=key_id)


def _label(name: str, threshold: float, calibrated: bool) -> LabelSpec:
    if not calibrated:
        return LabelSpec(name=name, temperature=None, operating_point=None)
    point = OperatingPoint(
        threshold=threshold,
        target="sensitivity >= 0.90",
        sensitivity=0.9,
        sensitivity_interval=(0.8, 0.95),
        specificity=0.85,
        specificity_interval=(0.8, 0.9),
        num_positive=40,
        num_negative=160,
        split="val",
        held_out=HeldOut(
            num_folds=5,
            sensitivity=0.88,
            sensitivity_interval=(0.76, 0.94),
            specificity=0.84,
            specificity_interval=(0.79, 0.89),
        ),
    )
    return LabelSpec(name=name, temperature=1.5, operating_point=point)


def _int8_record(labels: Sequence[str], gate_status: str) -> Int8Record:
    return Int8Record(
        method="percentile",
        percentile=99.99,
        fingerprint="0123456789abcdef" * 4,
        num_images=64,
        float_nodes=("head",),
        gate=gate_report(labels, gate_status),
    )
