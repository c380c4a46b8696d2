"""Feed images to TensorRT's own INT8 calibration (8 and 10, implicit) through CUDA memory.

For engineers who want TensorRT to choose the ranges; edge-screen's own way is the Q/DQ of
model.int8.onnx. Needs the extra `tensorrt`; nothing of it is imported before it is used:

    with implicit_calibrator(images, cache_path=Path("student.cache")) as calibrator:
        config.int8_calibrator = calibrator
        plan = builder.build_serialized_network(network, config)

TensorRT calls back through C++, where a Python exception would end the process or be lost, so a
failure is kept, the images end, no cache is written, and leaving the block raises it.
Checked against a stand-in for TensorRT; not run on a device.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import ConfigError, EngineError
from edge_runtime.safe_files import write_file

__all__ = ["CLASSES", "DeviceBuffer", "PycudaBuffer", "implicit_calibrator"]

# Names of the base classes by algorithm, in TensorRT 8.6 to 10.16; 11 has none of them.
CLASSES = {
    "EntropyCalibration2": "IInt8EntropyCalibrator2",
    "MinMaxCalibration": "IInt8MinMaxCalibrator",
}


class DeviceBuffer(Protocol):
    """Memory of the device that holds one batch."""

    def upload(self, array: NDArray[np.uint8]) -> int:
        """Copy `array` there and return the address."""

    def close(self) -> None:
        """Free it."""


class PycudaBuffer:
    """`DeviceBuffer` on pycuda, in the primary context, which TensorRT uses as well.

    Make, use and close it in one thread.
    """

    def __init__(self) -> None:
        """Take the primary context of the first device.

        Raises:
            EngineError: pycuda is not installed or finds no device.
        """
        try:
            cuda: Any = importlib.import_module("pycuda.driver")
            cuda.init()
            self._context = cuda.Device(0).retain_primary_context()
        except Exception as error:  # pycuda's errors have no base but Exception
            raise EngineError(
                f"pycuda cannot be used: {error}; install it on a machine with CUDA: "
                "pip install 'edge-screen[tensorrt]'"
            ) from error
        self._context.push()
        self._cuda, self._num_bytes = cuda, 0
        self._memory: Any = None

    def upload(self, array: NDArray[np.uint8]) -> int:
        """Copy `array` to the device; the memory is allocated once for arrays of one size."""
        if array.nbytes != self._num_bytes:
            self._free()
            self._memory, self._num_bytes = self._cuda.mem_alloc(array.nbytes), array.nbytes
        self._cuda.memcpy_htod(self._memory, np.ascontiguousarray(array))
        return int(self._memory)

    def close(self) -> None:
        """Free the memory and give the context back; a second call does nothing."""
        if self._context is not None:
            self._free()
            self._context.pop()
            self._context.detach()
            self._context = None

    def _free(self) -> None:
        if self._memory is not None:
            self._memory.free()
            self._memory, self._num_bytes = None, 0


@contextmanager
def implicit_calibrator(
    images_hwc: Iterable[NDArray[np.uint8]],
    *,
    cache_path: Path,
    algorithm: str = "EntropyCalibration2",
    buffer: DeviceBuffer | None = None,
) -> Iterator[Any]:
    """Give an INT8 calibrator for a network with one input, the image.

    Args:
        images_hwc: (S, S, 3) uint8 RGB as `edge_runtime.preprocess` makes them, one a batch.
        cache_path: read if it exists (then no image is used), else written at the end.
        algorithm: a key of CLASSES.
        buffer: device memory; None = pycuda.

    Yields:
        An object for `IBuilderConfig.int8_calibrator`.

    Raises:
        ConfigError: the algorithm is unknown.
        EngineError: TensorRT is missing or has no implicit INT8, memory or an image failed, or
            there was no image.
    """
    base = _base_class(algorithm)
    memory = PycudaBuffer() if buffer is None else buffer
    try:
        calibrator = _calibrator_class(base)(images_hwc, cache_path, memory)
        yield calibrator
    finally:
        memory.close()
    if calibrator.failure is not None:
        raise EngineError(
            f"INT8 calibration ended early: {calibrator.failure}; the engine must not be used"
        ) from calibrator.failure


def _base_class(algorithm: str) -> Any:
    if algorithm not in CLASSES:
        raise ConfigError(f"algorithm is '{algorithm}'; use one of {', '.join(CLASSES)}")
    try:
        trt: Any = importlib.import_module("tensorrt")
    except ImportError as error:
        raise EngineError(
            f"TensorRT cannot be imported: {error}; it comes with JetPack, elsewhere "
            "pip install 'edge-screen[tensorrt]'"
        ) from error
    base = getattr(trt, CLASSES[algorithm], None)
    if base is None:
        raise EngineError(
            f"TensorRT {trt.__version__} has no {CLASSES[algorithm]}: implicit INT8 ended with "
            "TensorRT 10; build model.int8.onnx, which holds its scales itself"
        )
    return base


def _calibrator_class(base: Any) -> Any:
    """A subclass of one of TensorRT's; it can only be made when TensorRT is there."""

    class ImplicitCalibrator(base):  # type: ignore[misc]
        """Called by TensorRT's builder; `failure` is what went wrong, or None."""

        def __init__(
            self, images: Iterable[NDArray[np.uint8]], cache_path: Path, memory: DeviceBuffer
        ) -> None:
            base.__init__(self)  # TensorRT demands this explicit call
            self._images, self._cache_path, self._memory = iter(images), cache_path, memory
            self.num_images = 0
            self.failure: BaseException | None = None

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: Sequence[str], *_: Any) -> list[int] | None:
            try:
                return self._next_batch(names)
            except BaseException as error:
                self.failure = error
                return None

        def read_calibration_cache(self) -> bytes | None:
            try:
                return self._cache_path.read_bytes() if self._cache_path.exists() else None
            except OSError as error:
                self.failure = error
                return None

        def write_calibration_cache(self, cache: Any) -> None:
            if self.failure is not None:
                return
            try:
                write_file(self._cache_path, bytes(cache))
            except OSError as error:
                self.failure = error

        def _next_batch(self, names: Sequence[str]) -> list[int] | None:
            if self.failure is not None:
                return None
            if len(names) != 1:
                raise EngineError(f"the network has the inputs {list(names)}; only one is fed")
            image = next(self._images, None)
            if image is None:
                if self.num_images == 0:
                    raise EngineError("there is no image to calibrate INT8 on")
                return None
            self.num_images += 1
            return [self._memory.upload(image[None])]

    return ImplicitCalibrator
