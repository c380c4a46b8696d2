"""What CUDA's error codes mean on a camera and what to do about them.

Both bindings carry the driver's own words (`cuGetErrorString` and `cudaGetErrorString` agree on
them), so one table by words serves both. Without a match the general remedy stands.
"""

from __future__ import annotations

from edge_runtime.errors import CudaError

__all__ = ["cuda_error"]

_GENERAL = "close the engine and open it again; if it stays, restart the device"

_NO_DRIVER = "the NVIDIA driver is not installed or not visible in this container"

# Fragment of the lower-case message -> remedy; the first match counts.
_REMEDIES: tuple[tuple[str, str], ...] = (
    (
        "insufficient",
        "the binding is newer than the driver: install the cuda-python whose major version is the "
        "device's CUDA (12 on JetPack 6, 13 on JetPack 7)",
    ),
    ("libcuda", _NO_DRIVER),
    ('function "cu', f"{_NO_DRIVER}, or older than the binding"),  # cuda-python 12.6, second call
    ("no cuda-capable device", "there is no GPU here, or the container was not given one"),
    ("out of memory", "close other programs that use the GPU, or give the board more free memory"),
    ("invalid device context", "a CUDA object was touched outside its owner thread; report this"),
    ("invalid context", "a CUDA object was touched outside its owner thread; report this"),
    ("illegal memory access", f"a buffer was too small or freed; report this; {_GENERAL}"),
    ("stream is capturing", "open the engine with cuda_graph=False"),
    ("capture", "open the engine with cuda_graph=False"),
    ("uncorrectable", "the memory of the device is faulty; have the device repaired"),
    ("timed out", "the GPU hung or is overloaded; restart the device and watch its temperature"),
)


def cuda_error(call: str, detail: str) -> CudaError:
    """Return the error of one failed CUDA call.

    Args:
        call: Name of the CUDA function.
        detail: Name and text of the code, as the binding gives them.
    """
    lower = detail.lower()
    remedy = next((text for fragment, text in _REMEDIES if fragment in lower), _GENERAL)
    return CudaError(f"CUDA: {call} failed ({detail}); {remedy}")
