"""The contestants of `end_to_end.py`: from a JPEG's bytes to the decision, each in one call.

    A          PIL full decode, threshold box, torchvision transforms, PyTorch eager
    B          the same preprocessing, ONNX Runtime fp32
    O          the same preprocessing, OpenVINO INT8; where openvino is installed
    ours ...   Screener: hash, checks, reduced decode, circle, quality gate, model, typed result
    floor      our decoder alone, at the scale that our pipeline ends at

All run the same weights on one thread. O gets the pixels as uint8, without ToTensor and
Normalize, because its graph holds them: less work than A and B have. Imports are inside, so
that a fresh process loads what its contestant needs and nothing else.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

__all__ = ["OURS", "Contestant", "labels_of", "open_contestant", "openvino_installed"]

OURS = {"ours fp32": "fp32", "ours int8": "int8"}
_BOX_LEVEL = 12  # grey level that parts the field from the camera's black
# ToTensor and Normalize that give what the student was trained on: (pixel - 128) / 64.
_MEAN, _STD = (128 / 255,) * 3, (64 / 255,) * 3


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One pipeline, open: `run` takes the bytes of a picture.

    Attributes:
        name: as above.
        run: returns logits or, for ours, the ScreeningResult.
        reached: whether an answer of `run` came from the model.
    """

    name: str
    run: Callable[[bytes], Any]
    reached: Callable[[Any], bool] = bool


def open_contestant(name: str, material: Any, *, threads: int = 1) -> Contestant:
    """Open one by its name; `threads` are those inside one run of PyTorch.

    Args:
        name: "A", "B", "O", "floor", or one of `OURS`.
        material: `end_to_end_bundle.Material`, or anything with its attributes.
        threads: for A only.
    """
    if name in OURS:
        return _open_ours(name, material)
    builders = {"A": _open_eager, "B": _open_onnxruntime, "O": _open_openvino, "floor": _open_floor}
    if name == "A":
        return _open_eager(material, threads)
    return builders[name](material)


def labels_of(result: Any) -> Any:
    """Labels of the one eye of a ScreeningResult; empty when the model was not asked."""
    return result.eyes[0].fields[0].labels


def openvino_installed() -> bool:
    """Whether contestant O can run here."""
    return find_spec("openvino") is not None


def _open_ours(name: str, material: Any) -> Contestant:
    import cv2

    from edge_runtime.screener import Screener

    cv2.setNumThreads(1)
    screener = Screener.open(
        material.bundle,
        trusted_keys=material.trusted_keys,
        engine="onnxruntime",
        precision=OURS[name],
        allow_unproven_int8=True,  # what is timed decides nothing
    )
    return Contestant(
        name=name, run=screener.screen, reached=lambda result: bool(labels_of(result))
    )


def _open_floor(material: Any) -> Contestant:
    """Our decoder alone; the scale that the pipeline ends at is found on first sight."""
    from edge_runtime.image import decode_image
    from edge_runtime.preprocess import PreprocessSpec, load_for_model

    spec = PreprocessSpec(size_px=material.size_px)
    reductions: dict[bytes, int] = {}

    def run(data: bytes) -> Any:
        if data not in reductions:
            reductions[data] = load_for_model(data, spec)[0].reduction
        return decode_image(data, target_px=spec.size_px, max_reduction=reductions[data])

    return Contestant(name="floor", run=run, reached=lambda decoded: decoded is not None)


def _open_eager(material: Any, threads: int) -> Contestant:
    import torch

    from distill.student import load_student  # imports timm, as whoever trained with it would

    student, _ = load_student(_path(material.student))
    torch.set_num_threads(threads)
    to_pixels, to_batch = _obvious_transforms(material.size_px)

    def run(data: bytes) -> Any:
        batch = to_batch(to_pixels(_obvious_crop(data)))[None]
        with torch.inference_mode():
            return torch.sigmoid(student(batch).logits).tolist()

    return Contestant(name="A", run=run)


def _open_onnxruntime(material: Any) -> Contestant:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        material.float_model, options, providers=["CPUExecutionProvider"]
    )
    to_pixels, to_batch = _obvious_transforms(material.size_px)

    def run(data: bytes) -> Any:
        batch = to_batch(to_pixels(_obvious_crop(data)))[None].numpy()
        return _sigmoid(session.run(["logits"], {"batch_nchw": batch})[0])

    return Contestant(name="B", run=run)


def _open_openvino(material: Any) -> Contestant:
    import numpy as np
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    path = _path(material.bundle) / "model.int8.onnx"
    compiled = core.compile_model(str(path), "CPU", settings)
    request = compiled.create_infer_request()
    logits = compiled.output("logits")
    to_pixels, _ = _obvious_transforms(material.size_px)

    def run(data: bytes) -> Any:
        image = np.asarray(to_pixels(_obvious_crop(data)))
        return _sigmoid(request.infer({"image_nhwc": image[None]})[logits])

    return Contestant(name="O", run=run)


def _obvious_crop(data: bytes) -> Any:
    """Decode in full and cut the box of what is not black, all inside PIL."""
    from PIL import Image

    image = Image.open(io.BytesIO(data)).convert("RGB")
    box = image.convert("L").point(lambda level: 255 * (level > _BOX_LEVEL)).getbbox()
    return image.crop(box)


def _obvious_transforms(size_px: int) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Resize to the square, and ToTensor with Normalize."""
    from train.timm_door import import_timm

    import_timm()  # where torchvision's library cannot load, this makes its import work
    from torchvision import transforms

    resize = transforms.Resize((size_px, size_px), antialias=True)
    batch = transforms.Compose([transforms.ToTensor(), transforms.Normalize(_MEAN, _STD)])
    return resize, batch


def _sigmoid(logits: Any) -> list[float]:
    import numpy as np

    return [float(value) for value in 1.0 / (1.0 + np.exp(-logits.ravel()))]


def _path(text: str) -> Any:
    from pathlib import Path

    return Path(text)
