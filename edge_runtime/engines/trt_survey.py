"""What TensorRT there is on this machine, and what it would build: without building anything."""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.bundle import MODEL_FILES
from edge_runtime.engines.trt_capabilities import import_tensorrt, tensorrt_version
from edge_runtime.engines.trt_device import DeviceIdentity, read_device
from edge_runtime.engines.trt_table import TRT_PRECISIONS, Refused, window_for
from edge_runtime.errors import EngineError

__all__ = ["TrtChoice", "TrtSurvey", "survey_tensorrt"]


@dataclass(frozen=True, kw_only=True)
class TrtChoice:
    """How one precision would be built.

    Attributes:
        precision: "fp32", "fp16" or "int8".
        typing: "weak" or "strong"; None when it is refused.
        files: Files of a bundle, best first; the first that a bundle has is built.
        refused: Why there is no such engine, None when there is.
    """

    precision: str
    typing: str | None
    files: tuple[str, ...]
    refused: str | None


@dataclass(frozen=True, kw_only=True)
class TrtSurvey:
    """The state of TensorRT here.

    Attributes:
        version: Of the binding, None when it cannot be used.
        device: The GPU, None when there is none.
        choices: One a precision; empty when `version` is None.
        problem: What stands in the way of an engine, None when nothing does.
    """

    version: str | None
    device: DeviceIdentity | None
    choices: tuple[TrtChoice, ...]
    problem: str | None


def survey_tensorrt() -> TrtSurvey:
    """Look for TensorRT and a GPU; never raises for what is missing."""
    version, device, problem, no_device = None, None, None, None
    choices: tuple[TrtChoice, ...] = ()
    try:
        version = tensorrt_version(import_tensorrt())
        choices = _choices(version)
    except EngineError as error:
        problem = str(error)
    try:
        device = read_device()
    except EngineError as error:
        no_device = str(error)
    return TrtSurvey(version=version, device=device, choices=choices, problem=problem or no_device)


def _choices(version: str) -> tuple[TrtChoice, ...]:
    variants = window_for(version).variants
    found = []
    for precision in TRT_PRECISIONS:
        one = variants[precision]
        if isinstance(one, Refused):
            found.append(TrtChoice(precision=precision, typing=None, files=(), refused=one.reason))
        else:
            files = tuple(MODEL_FILES[role] for role in one.roles if role in MODEL_FILES)
            found.append(
                TrtChoice(precision=precision, typing=one.typing, files=files, refused=None)
            )
    return tuple(found)
