"""Which pictures become the golden vectors: few, from `val`, and one of each finding.

One more picture travels as an encoded file. It is gradable, because a machine is timed on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.run_models import score_models
from edge_runtime.bundle_parts.golden import GoldenVectors
from edge_runtime.errors import DataError, ImageError
from edge_runtime.fundus.quality import CaptureProtocol, QualityLimits, assess_image
from edge_runtime.image import decode_image
from edge_runtime.preprocess import PreprocessSpec, load_for_model
from train.data.index import EyeVisit
from train.teacher import GRADABLE

__all__ = ["make_golden", "order_golden_visits"]

_FRAME_OVER_FIELD = 1.2  # a field smaller than that in its frame is left to the next picture
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def order_golden_visits(
    visits: Sequence[EyeVisit], label_names: Sequence[str], *, num_images: int
) -> list[EyeVisit]:
    """Every visit with a CFP, in the order in which golden pictures are taken.

    First one visit of each label, one ungradable and one without a finding, as far as the
    data set has them; then the rest at equal steps, so that no one site fills the file.
    """
    usable = [visit for visit in visits if "cfp" in visit.files]
    rules: list[Callable[[Mapping[str, float]], bool]] = [
        lambda labels, name=name: labels.get(name) == 1.0  # type: ignore[misc]
        for name in label_names
    ]
    rules.append(lambda labels: labels.get(GRADABLE) == 0.0)
    rules.append(lambda labels: all(labels.get(name) == 0.0 for name in label_names))
    wanted: list[EyeVisit] = []
    for rule in rules:
        matching = (visit for visit in usable if visit not in wanted and rule(visit.labels))
        wanted += [visit for visit in (next(matching, None),) if visit is not None]
    rest = [visit for visit in usable if visit not in wanted]
    step = max(1, len(rest) // max(1, num_images - len(wanted)))
    return wanted + rest[::step] + [visit for i, visit in enumerate(rest) if i % step]


def make_golden(
    visits: Sequence[EyeVisit],
    spec: PreprocessSpec,
    model_bytes: bytes,
    *,
    num_images: int,
    limits: QualityLimits,
    protocol: CaptureProtocol | None = None,
) -> GoldenVectors:
    """Golden inputs and the FP32 model's outputs on this machine.

    Args:
        visits: as `order_golden_visits` gives them; a refused picture is passed over.
        spec: the model's preprocessing.
        model_bytes: the FP32 model.
        num_images: G wanted; fewer when the split has fewer.
        limits: of the quality gate; the encoded picture has to pass it.
        protocol: of the bundle, for the gate's pixels per degree; None leaves those out.

    Raises:
        DataError: no picture can be used, or none may be the encoded one.
    """
    images = _prepared_images(visits, spec, num_images)
    encoded, encoded_image_hwc = _encoded_picture(visits, spec, limits, protocol)
    scores = score_models({"fp32": model_bytes}, images)["fp32"]
    return GoldenVectors(
        image_nhwc=np.stack(images),
        logits={"fp32": scores.logits.astype(np.float32)},
        gradability_logit={"fp32": scores.gradability_logits.astype(np.float32)[:, None]},
        encoded=encoded,
        encoded_image_hwc=encoded_image_hwc,
    )


def _prepared_images(
    visits: Sequence[EyeVisit], spec: PreprocessSpec, num_images: int
) -> list[NDArray[np.uint8]]:
    """The first `num_images` pictures that the runtime accepts, (S, S, 3) each."""
    images: list[NDArray[np.uint8]] = []
    for visit in visits:
        if len(images) == num_images:
            break
        try:
            images.append(load_for_model(visit.files["cfp"].read_bytes(), spec)[1].image_hwc)
        except ImageError:
            continue
    if not images:
        raise DataError("no usable photograph in 'val' for the golden vectors; check the data set")
    return images


def _encoded_picture(
    visits: Sequence[EyeVisit],
    spec: PreprocessSpec,
    limits: QualityLimits,
    protocol: CaptureProtocol | None,
) -> tuple[bytes, NDArray[np.uint8]]:
    """PNG and preprocessed square of the first picture that a camera would be right to screen.

    `verify` reproduces it bit for bit, and `bench` times it when no other picture is given:
    one that the quality gate refuses would never reach the model there. Both are judged on
    the PNG itself, which may be a reduced copy.
    """
    for visit in visits:
        if visit.labels.get(GRADABLE) != 1.0:
            continue
        try:
            encoded = _as_png(visit.files["cfp"].read_bytes(), spec, _least_field_px(protocol))
            decoded, prepared = load_for_model(encoded, spec)
        except ImageError:
            continue
        if assess_image(decoded, prepared, limits, protocol=protocol).gradable:
            return encoded, prepared.image_hwc
    raise DataError(
        f"none of the {len(visits)} photographs in 'val' is labelled gradable and passes the "
        "quality gate, and a bundle carries one that does; add a gradable eye to 'val'"
    )


def _least_field_px(protocol: CaptureProtocol | None) -> int:
    """Pixels across the frame at which a field that nearly fills it has enough per degree."""
    if protocol is None or protocol.min_pixels_per_degree is None:
        return 0
    return ceil(_FRAME_OVER_FIELD * protocol.min_pixels_per_degree * protocol.field_degrees)


def _as_png(data: bytes, spec: PreprocessSpec, least_px: int) -> bytes:
    """The file itself if it is a PNG, or its pixels as a PNG, reduced if it is large.

    PNG is lossless, so that a machine's decoder is either right or wrong. What is left must
    be wide enough for the model, for the smallest field that is accepted and for `least_px`.
    """
    if data.startswith(_PNG_MAGIC):
        return data
    decoded = decode_image(data, target_px=max(4 * spec.size_px, 8 * spec.min_radius_px, least_px))
    encoded = cv2.imencode(".png", np.ascontiguousarray(decoded.image_hwc[..., ::-1]))[1]
    return encoded.tobytes()
