"""From the bytes of one picture to what an eye's answer needs of it, behind one exchangeable door.

`InProcessLoader` works in this process; `edge_runtime.isolation.IsolatedLoader` has a capped child
process do the same. Both give equal answers.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from edge_runtime.bundle_parts.manifest import Protocol as CaptureProtocol
from edge_runtime.fundus.quality import QualityLimits, QualityReport, assess_image
from edge_runtime.image import DecodedImage, DecodeLimits
from edge_runtime.preprocess import Preprocessed, PreprocessSpec, load_for_model

__all__ = [
    "InProcessLoader",
    "LoadSettings",
    "LoadedPicture",
    "PictureLoader",
    "StageTimer",
    "load_picture",
]


@dataclass(frozen=True, kw_only=True)
class LoadSettings:
    """Everything that decides what a picture becomes.

    Attributes:
        spec: the preprocessing of the model.
        quality: where the quality gate refuses.
        protocol: the capture protocol, for the pixels that a degree needs.
        decode: what is refused before decoding.
    """

    spec: PreprocessSpec
    quality: QualityLimits
    protocol: CaptureProtocol
    decode: DecodeLimits = field(default_factory=DecodeLimits)


@dataclass(frozen=True, kw_only=True)
class LoadedPicture:
    """What is kept of a picture once it is decoded.

    Attributes:
        decoded: the facts of the decoded image, without its pixels: `image_hwc` is (0, 0, 3).
        preprocessed: the model's input.
        report: the quality gate's answer.
    """

    decoded: DecodedImage
    preprocessed: Preprocessed
    report: QualityReport


class StageTimer(Protocol):
    """What a loader needs of `edge_runtime.eye_pipeline.StageClock`."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Time one stage."""

    def remaining_s(self) -> float | None:
        """Return the seconds that the caller still waits; None: without end."""

    def move_ms(self, value_ms: float, *, source: str, target: str) -> None:
        """Account a part of one stage's time to another."""


class PictureLoader(Protocol):
    """Makes the model's input from a file's bytes; may be called from several threads at once."""

    @property
    def settings(self) -> LoadSettings:
        """What pictures become."""

    def load(self, data: bytes, sha256: str, clock: StageTimer) -> LoadedPicture:
        """Decode, preprocess and assess one picture, timed as `preprocess` and `quality`.

        Args:
            data: the file's bytes.
            sha256: of `data`, hexadecimal; the answer is of exactly these bytes.
            clock: of the eye.

        Raises:
            ImageError: the picture cannot be used.
            EngineError: the loader itself cannot work (closed, no process to be had).
            EngineBusyError: the caller's time is over.
        """

    def warm_up(self) -> None:
        """Do now what the first picture would wait for.

        Raises:
            EngineError: the loader cannot work.
        """

    def close(self) -> None:
        """Release what the loader holds."""


class InProcessLoader:
    """Decodes in the process that calls."""

    def __init__(self, settings: LoadSettings) -> None:
        """Keep the settings; nothing is started."""
        self._settings = settings

    @property
    def settings(self) -> LoadSettings:
        """What pictures become."""
        return self._settings

    def load(self, data: bytes, sha256: str, clock: StageTimer) -> LoadedPicture:
        """As `PictureLoader.load`."""
        return load_picture(data, self._settings, clock, sha256=sha256)

    def warm_up(self) -> None:
        """Nothing to do: this process has everything loaded."""

    def close(self) -> None:
        """Nothing to release."""


def load_picture(
    data: bytes, settings: LoadSettings, clock: StageTimer, *, sha256: str | None = None
) -> LoadedPicture:
    """Decode, preprocess and assess one picture here.

    Args:
        data: the file's bytes.
        settings: what it becomes.
        clock: of the eye.
        sha256: of `data`, where the caller has it already; None: computed here.

    Raises:
        ImageError: the picture cannot be used.
    """
    with clock.stage("preprocess"):
        decoded, preprocessed = load_for_model(
            data, settings.spec, limits=settings.decode, sha256=sha256
        )
    with clock.stage("quality"):
        report = assess_image(decoded, preprocessed, settings.quality, protocol=settings.protocol)
    return LoadedPicture(decoded=_without_pixels(decoded), preprocessed=preprocessed, report=report)


def _without_pixels(decoded: DecodedImage) -> DecodedImage:
    """Return the facts with `image_hwc` of shape (0, 0, 3): its memory can be released."""
    return replace(decoded, image_hwc=np.empty((0, 0, 3), np.uint8))
