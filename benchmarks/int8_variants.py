"""One way of finding INT8 ranges, timed in this process; used by int8_calibration.py.

python benchmarks/int8_variants.py VARIANT MODEL IMAGES COUNT     prints one JSON object
"""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

OURS = "ours"
PERCENTILE = 99.99
_SIDE = re.compile(r"_(\d+)px")


def read_images(path: Path, count: int) -> Iterator[NDArray[np.uint8]]:
    """Yield `count` (S, S, 3) uint8 images of the file, over and over if it has fewer.

    The file is read, not mapped: mapped pages would count as memory of the process.
    """
    match = _SIDE.search(path.name)
    assert match is not None
    side = int(match[1])
    num_bytes = 3 * side**2
    available = path.stat().st_size // num_bytes
    with path.open("rb") as stream:
        for number in range(count):
            stream.seek(number % available * num_bytes)
            yield np.frombuffer(stream.read(num_bytes), np.uint8).reshape(side, side, 3)


def ours(
    model: Path, images: Iterator[NDArray[np.uint8]], method: str, num_threads: int | None
) -> dict[str, float]:
    """Ranges by edge-screen."""
    from calibration.observers import RangeMethod
    from calibration.quantize import plan_quantization
    from calibration.ranges import observe_activations, ranges_of

    data = model.read_bytes()
    tensors = plan_quantization(data).observed
    histograms = observe_activations(data, tensors, images, num_threads=num_threads)
    return ranges_of(histograms, RangeMethod(name=method, percentile=PERCENTILE))


def onnxruntime_ranges(
    model: Path, images: Iterator[NDArray[np.uint8]], method: str, **options: Any
) -> dict[str, float]:
    """Ranges by ONNX Runtime, for the operators that edge-screen quantises."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    class Reader:
        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            image = next(images, None)
            return None if image is None else {"image_nhwc": image[None]}

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        calibrator = create_calibrator(
            model,
            ["Conv", "Add"],
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=CalibrationMethod[method],
            extra_options={"symmetric": True, **options},
        )
        calibrator.collect_data(Reader())
        data = calibrator.compute_data()
    return {t: float(max(abs(v) for v in data[t].range_value)) for t in data.keys()}  # noqa: SIM118


VARIANTS: dict[str, Callable[[Path, Iterator[NDArray[np.uint8]]], dict[str, float]]] = {
    OURS: lambda model, images: ours(model, images, "percentile", None),
    "ours 1 thread": lambda model, images: ours(model, images, "percentile", 1),
    "ours mse": lambda model, images: ours(model, images, "mse", None),
    "ours entropy": lambda model, images: ours(model, images, "entropy", None),
    "ort percentile": lambda model, images: onnxruntime_ranges(
        model, images, "Percentile", percentile=PERCENTILE
    ),
    "ort entropy": lambda model, images: onnxruntime_ranges(model, images, "Entropy"),
}


def prepare_images(folder: Path, options: dict[str, Any], count: int) -> Path:
    """Write up to `count` preprocessed images, one after the other, and return the file."""
    side = image_side(options["model"])
    path = folder / f"images_{side}px.bin"
    with path.open("wb") as stream:
        for image in _images(options, side, min(count, 256)):
            stream.write(image.tobytes())
    return path


def image_side(model: Path) -> int:
    """Side of the model's picture in pixels."""
    import onnx

    shape = onnx.load(str(model)).graph.input[0].type.tensor_type.shape
    return int(shape.dim[1].dim_value)


def _images(options: dict[str, Any], side: int, count: int) -> Iterator[NDArray[np.uint8]]:
    if options["data"] is None:
        yield from _discs(side, count, options["seed"])
        return
    from calibration.dataset import ImageStream, read_eyes
    from calibration.strata import choose_int8_eyes
    from edge_runtime.preprocess import PreprocessSpec

    eyes = choose_int8_eyes(read_eyes(options["data"], []), count, options["seed"])
    yield from ImageStream(eyes, PreprocessSpec(size_px=side))


def _discs(side: int, count: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    """Blurred noise in a disc on black: what matters for time is the size alone."""
    import cv2

    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] - side / 2
    disc = (y**2 + x**2 < (0.48 * side) ** 2)[:, :, None]
    for _ in range(count):
        coarse = generator.normal((150, 80, 50), 30, (16, 16, 3)).astype(np.float32)
        fine = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
        yield (np.clip(fine, 0, 255) * disc).astype(np.uint8)


def prepare_model(folder: Path, options: dict[str, Any]) -> Path:
    """The given model, or an untrained student of `arch` with BatchNorm statistics."""
    if options["model"] is not None:
        return Path(options["model"]).resolve()
    script = Path(__file__).with_name("untrained_student.py")
    path = folder / f"{options['arch']}_{options['size_px']}px.onnx"
    import subprocess

    command = [sys.executable, str(script), options["arch"], str(options["size_px"]), str(path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return path


def peak_mib() -> float:
    """Largest resident set of this process (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert match is not None
    return int(match[1]) / 1024


def main() -> None:
    """Run one variant and print what it took."""
    variant, model, images, count = sys.argv[1:]
    for module in ("calibration.quantize", "calibration.ranges", "onnxruntime.quantization"):
        importlib.import_module(module)  # nobody's imports are timed
    wall, cpu = time.perf_counter(), time.process_time()
    ranges = VARIANTS[variant](Path(model), read_images(Path(images), int(count)))
    result = {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "peak_mib": peak_mib(),
        "ranges": ranges,
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
