"""Every error that edge-screen raises on purpose, as one tree with exit codes.

    EdgeScreenError                 1   root; never raised itself
    ├── ConfigError                 2   a setting is out of its range or unknown
    ├── ImageError                  3   an image cannot be used; never becomes 'no refer'
    │   ├── ImageUnreadableError        damaged, truncated, not an image, unsupported format
    │   │   └── DecoderStoppedError     its decoding child ended; it may be the machine
    │   ├── ImageLimitError             larger than the limits allow, refused before decoding
    │   └── FieldOfViewError            no circular fundus field was found
    ├── BundleError                 4   a bundle cannot be trusted or used
    │   ├── BundleFormatError           missing, unknown or malformed content
    │   ├── BundleIntegrityError        a file's SHA-256 differs, or a file is missing or extra
    │   └── BundleSignatureError        unsigned, or signed by a key that is not trusted
    ├── EngineError                 5   the inference engine is missing or failed
    │   ├── CudaError                   a CUDA call failed; the engine cannot be used again
    │   ├── EngineBusyError             too many waiting, or not answered in time
    │   └── EngineNotBuiltError         TensorRT is there, its engine for this bundle is not
    ├── DataError                   6   a data set, or a stored result, breaks its contract
    ├── CheckpointError             7   a checkpoint cannot be read or does not fit
    ├── GateRefusedError            8   INT8 is not shown to be as good as FP32; it is not used
    ├── ParityError                 9   an exported graph differs from its source
    └── VerificationError          10   a bundle does not reproduce its golden vectors here

A message gives the event, the value and the remedy. Programmer errors (a wrong
shape, a wrong type) stay ValueError and TypeError.
"""

from __future__ import annotations

__all__ = [
    "BundleError",
    "BundleFormatError",
    "BundleIntegrityError",
    "BundleSignatureError",
    "CheckpointError",
    "ConfigError",
    "CudaError",
    "DataError",
    "DecoderStoppedError",
    "EdgeScreenError",
    "EngineBusyError",
    "EngineError",
    "EngineNotBuiltError",
    "FieldOfViewError",
    "GateRefusedError",
    "ImageError",
    "ImageLimitError",
    "ImageUnreadableError",
    "ParityError",
    "VerificationError",
]


class EdgeScreenError(Exception):
    """Root of the tree. `exit_code` is what the command line ends with."""

    exit_code: int = 1


class ConfigError(EdgeScreenError):
    """A setting is unknown or out of its range."""

    exit_code = 2


class ImageError(EdgeScreenError):
    """An image cannot be used for screening."""

    exit_code = 3


class ImageUnreadableError(ImageError):
    """The bytes are not one whole image of a supported format."""


class DecoderStoppedError(ImageUnreadableError):
    """The decoding child ended before it answered: by the picture, or by a machine under load."""


class ImageLimitError(ImageError):
    """The image claims more bytes, pixels or scans than the limits allow."""


class FieldOfViewError(ImageError):
    """No circular field of view of sufficient size was found."""


class BundleError(EdgeScreenError):
    """A model bundle cannot be used."""

    exit_code = 4


class BundleFormatError(BundleError):
    """The bundle has missing, unknown or malformed content."""


class BundleIntegrityError(BundleError):
    """A file of the bundle is missing, extra, or its SHA-256 differs."""


class BundleSignatureError(BundleError):
    """The bundle is unsigned or its signature does not match a trusted key."""


class EngineError(EdgeScreenError):
    """The inference engine asked for is missing, or a run failed."""

    exit_code = 5


class CudaError(EngineError):
    """A CUDA call returned an error code; what follows on the same context may fail, too."""


class EngineBusyError(EngineError):
    """A run was not begun, or not answered within the time that the caller waits."""


class EngineNotBuiltError(EngineError):
    """No engine of this bundle was built for the TensorRT and the GPU of this machine."""


class DataError(EdgeScreenError):
    """A data set breaks the contract of its index, or a stored result that of its schema."""

    exit_code = 6


class CheckpointError(EdgeScreenError):
    """A checkpoint cannot be read, or does not fit the model it is loaded into."""

    exit_code = 7


class GateRefusedError(EdgeScreenError):
    """INT8 lost more than the gate allows, or it was not shown that it does not."""

    exit_code = 8


class ParityError(EdgeScreenError):
    """An exported graph does not compute what its source computes."""

    exit_code = 9


class VerificationError(EdgeScreenError):
    """A bundle does not reproduce its golden vectors on this machine."""

    exit_code = 10
