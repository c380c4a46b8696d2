"""Ranges beside those of ONNX Runtime's own calibrators on the same small network and images."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from calibration_graphs import build_student, images
from onnxruntime.quantization.calibrate import (
    CalibrationMethod,
    HistogramCollector,
    create_calibrator,
)

from calibration.observers import RangeMethod
from calibration.quantize import plan_quantization
from calibration.ranges import observe_activations, ranges_of, with_outputs
from calibration.run_models import open_session


class Reader:
    """What ONNX Runtime's calibrators take images from."""

    def __init__(self, pictures: np.ndarray) -> None:
        self._pictures = iter(pictures)

    def get_next(self) -> dict[str, np.ndarray] | None:
        picture = next(self._pictures, None)
        return None if picture is None else {"image_nhwc": picture[None]}


def onnxruntime_ranges(folder, model, pictures, method, **options) -> dict[str, float]:
    path = folder / "model.onnx"
    path.write_bytes(model)
    calibrator = create_calibrator(
        path,
        augmented_model_path=str(folder / "augmented.onnx"),
        calibrate_method=method,
        extra_options=options,
    )
    calibrator.collect_data(Reader(pictures))
    data = calibrator.compute_data()
    return {t: float(np.abs(data[t].range_value).max()) for t in data.keys()}  # noqa: SIM118


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("percentile", [99.0, 99.99])
def test_percentile_equals_onnxruntimes(seed, percentile, tmp_path):
    model, pictures = build_student(seed, size_px=64), images(6, 64)
    tensors = plan_quantization(model).observed
    histograms = observe_activations(model, tensors, pictures)
    ours = ranges_of(histograms, RangeMethod(percentile=percentile))
    theirs = onnxruntime_ranges(
        tmp_path,
        model,
        pictures,
        CalibrationMethod.Percentile,
        percentile=percentile,
        symmetric=True,
    )
    for name in tensors:
        # Each takes an edge of its own bins; theirs are 1/2048 of the largest value.
        allowed = histograms[name].largest / 2048 + histograms[name].bin_width
        assert abs(ours[name] - theirs[name]) <= allowed


def test_minmax_equals_onnxruntimes(tmp_path):
    model, pictures = build_student(size_px=64), images(6, 64)
    tensors = plan_quantization(model).observed
    histograms = observe_activations(model, tensors, pictures)
    ours = ranges_of(histograms, RangeMethod(name="minmax"))
    theirs = onnxruntime_ranges(tmp_path, model, pictures, CalibrationMethod.MinMax, symmetric=True)
    for name in tensors:
        # They run the graph without optimisation, which adds up in another order.
        assert ours[name] == pytest.approx(theirs[name], rel=1e-5)


def test_entropy_is_near_onnxruntimes():
    """Both minimise KL(P || Q), but theirs merges floor(i / 255) bins a level, adds the rest to
    the last one and cuts Q to whole numbers, so single tensors differ; the middle must agree."""
    model, pictures = build_student(size_px=64), images(6, 64)
    tensors = plan_quantization(model).observed
    ours = ranges_of(observe_activations(model, tensors, pictures), RangeMethod(name="entropy"))
    session = open_session(with_outputs(model, tensors))
    runs = [session.run(list(tensors), {"image_nhwc": image[None]}) for image in pictures]
    ratios = []
    for name, *arrays in zip(tensors, *runs, strict=True):
        collector = HistogramCollector("entropy", True, 513, 255, None, "same")
        collector.collect({name: [np.concatenate(arrays)]})
        low, high = collector.compute_collection_result()[name][:2]
        ratios.append(ours[name] / max(-float(low), float(high)))
    assert 0.75 < statistics.median(ratios) < 1.33
    assert all(0.2 < ratio < 5 for ratio in ratios)
