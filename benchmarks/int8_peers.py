"""Quantise a student with NNCF or ModelOpt, in an environment of their own.

    PYTHON benchmarks/int8_peers.py nncf|modelopt MODEL IMAGES COUNT OUT

Both are asked for what edge-screen makes: symmetric INT8 as Q/DQ, for a network that convolves.
Needs of edge-screen only the file beside it, which reads the images.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from int8_variants import read_images
from numpy.typing import NDArray


def quantize_nncf(model: Path, images: list[NDArray[np.uint8]], out: Path) -> None:
    """nncf.quantize on the ONNX backend, preset 'performance' (symmetric)."""
    import nncf
    import onnx

    data = nncf.Dataset(images, lambda image: {"image_nhwc": image[None]})
    quantized = nncf.quantize(
        onnx.load(str(model)),
        data,
        preset=nncf.QuantizationPreset.PERFORMANCE,
        subset_size=len(images),
    )
    onnx.save(quantized, str(out))


def quantize_modelopt(model: Path, images: list[NDArray[np.uint8]], out: Path) -> None:
    """modelopt.onnx.quantization on the CPU, entropy as it does by default."""
    from modelopt.onnx.quantization import quantize

    quantize(
        onnx_path=str(model),
        quantize_mode="int8",
        calibration_data={"image_nhwc": np.stack(images)},
        calibration_method="entropy",
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=str(out),
    )


def main() -> None:
    """Quantise and print the time as JSON on the last line."""
    peer, model, images, count, out = sys.argv[1:]
    pictures = list(read_images(Path(images), int(count)))
    quantizers = {"nncf": quantize_nncf, "modelopt": quantize_modelopt}
    wall, cpu = time.perf_counter(), time.process_time()
    quantizers[peer](Path(model), pictures, Path(out))
    spent = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    sys.stdout.write("\n" + json.dumps(spent) + "\n")


if __name__ == "__main__":
    main()
