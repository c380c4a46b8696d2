"""Models that can look at a picture: the graphs of a bundle, and a teacher's checkpoint.

A student's checkpoint has no reader of its own: `edge-screen export` makes a bundle of it, and
what is measured is then what a camera would run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edge_runtime.bundle import read_bundle
from edge_runtime.bundle_parts.manifest import LabelSpec
from edge_runtime.decision import probability
from edge_runtime.engines import open_engine
from edge_runtime.errors import CheckpointError, ImageError
from edge_runtime.fundus.quality import CaptureProtocol, QualityLimits, assess_image
from edge_runtime.label_scores import all_labels, run_logits
from edge_runtime.preprocess import PreprocessSpec, load_for_model
from train.card.tables import PASSED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_runtime.engines import Engine

__all__ = ["Answer", "BundleReader", "ModelFacts", "Reader", "TeacherReader"]


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a card says of a model.

    Attributes:
        name: as shown.
        sha256: of what decides its answers.
        kind: in words.
        labels: its disease outputs.
        thresholds: locked operating point of each output; None = it has none.
        gradable_threshold: likewise of gradability.
    """

    name: str
    sha256: str
    kind: str
    labels: tuple[str, ...]
    thresholds: tuple[float | None, ...]
    gradable_threshold: float | None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model says of a picture; without probabilities where the gate refused it."""

    verdict: str
    probabilities: tuple[float, ...] | None = None
    gradable_probability: float | None = None


class Reader(Protocol):
    """One or more models that share a picture's preparation."""

    @property
    def models(self) -> tuple[ModelFacts, ...]:
        """The models, in the order of the answers."""

    def read(self, picture: bytes) -> tuple[Answer, ...]:
        """One answer a model; a picture that cannot be used is an answer, too."""

    def close(self) -> None:
        """Release what the models hold."""


class BundleReader:
    """FP32, and INT8 where there is one, of a bundle on ONNX Runtime: one preparation for both."""

    def __init__(
        self, name: str, folder: Path, *, trusted_keys: Path | None, allow_unsigned: bool = False
    ) -> None:
        """Verify the bundle and open its graphs.

        Raises:
            BundleError: the bundle cannot be trusted or used.
        """
        bundle = read_bundle(
            folder, trusted_keys=trusted_keys, require_signature=not allow_unsigned
        )
        manifest = bundle.manifest
        self._specs = all_labels(bundle)
        precisions = ("fp32",) if manifest.int8 is None else ("fp32", "int8")
        self._engines: list[Engine] = [
            open_engine(bundle, engine="onnxruntime", precision=one) for one in precisions
        ]
        self._gate = _Gate(
            spec=manifest.preprocess_spec(), limits=manifest.quality(), protocol=manifest.protocol
        )
        *thresholds, gradable = (_threshold(spec) for spec in self._specs)
        self.models = tuple(
            ModelFacts(
                name=f"{name} {one.upper()}",
                sha256=bundle.sha256,
                kind=f"bundle '{manifest.name}' {manifest.version}, {one.upper()}",
                labels=tuple(manifest.label_names),
                thresholds=tuple(thresholds),
                gradable_threshold=gradable,
            )
            for one in precisions
        )

    def read(self, picture: bytes) -> tuple[Answer, ...]:
        """As `Reader.read`; an uncalibrated bundle gives sigmoid(logit)."""
        image, verdict = self._gate.prepare(picture)
        if image is None:
            return (Answer(verdict=verdict),) * len(self.models)
        return tuple(self._answer(run_logits(engine, image)) for engine in self._engines)

    def close(self) -> None:
        """Close the engines."""
        for engine in self._engines:
            engine.close()

    def _answer(self, logits: NDArray[np.float32]) -> Answer:
        temperatures = [1.0 if one.temperature is None else one.temperature for one in self._specs]
        return _answer(
            [probability(float(z), t) for z, t in zip(logits, temperatures, strict=True)]
        )


class TeacherReader:
    """A 'teacher' checkpoint: no temperature, no operating point; the gate at its defaults."""

    def __init__(self, name: str, folder: Path) -> None:
        """Load the weights.

        Raises:
            CheckpointError: the folder holds no teacher; a student has to be exported first.
        """
        from train.checkpoint import weights_sha256
        from train.teacher import load_teacher

        try:
            self._teacher, _ = load_teacher(folder)
        except CheckpointError as error:
            raise CheckpointError(
                f"{error}; a student is exported (`edge-screen export`) and given by --bundle"
            ) from error
        size_px = self._teacher.encoder.config.size_px
        self._gate = _Gate(
            spec=PreprocessSpec(size_px=size_px), limits=QualityLimits(), protocol=None
        )
        labels = self._teacher.label_names
        facts = ModelFacts(
            name=name,
            sha256=weights_sha256(folder),
            kind="teacher checkpoint, probabilities as trained",
            labels=labels,
            thresholds=(None,) * len(labels),
            gradable_threshold=None,
        )
        self.models = (facts,)

    def read(self, picture: bytes) -> tuple[Answer, ...]:
        """As `Reader.read`."""
        from train.evaluate import teacher_logits

        image, verdict = self._gate.prepare(picture)
        if image is None:
            return (Answer(verdict=verdict),)
        logits = teacher_logits(self._teacher, image[None])
        values = [*logits.diseases[0], logits.gradability[0]]
        return (_answer([probability(float(one), 1.0) for one in values]),)

    def close(self) -> None:
        """Nothing to release."""


@dataclass(frozen=True, kw_only=True)
class _Gate:
    """Preparation and the cheap quality gate, as on the camera."""

    spec: PreprocessSpec
    limits: QualityLimits
    protocol: CaptureProtocol | None

    def prepare(self, picture: bytes) -> tuple[NDArray[np.uint8] | None, str]:
        """(S, S, 3) uint8 and 'passed', or None and the reasons."""
        try:
            decoded, prepared = load_for_model(picture, self.spec)
        except ImageError as error:
            return None, type(error).__name__
        report = assess_image(decoded, prepared, self.limits, protocol=self.protocol)
        if not report.gradable:
            return None, "; ".join(report.reasons or ("quality gate",))
        return prepared.image_hwc, PASSED


def _answer(values: Sequence[float]) -> Answer:
    return Answer(verdict=PASSED, probabilities=tuple(values[:-1]), gradable_probability=values[-1])


def _threshold(spec: LabelSpec) -> float | None:
    return None if spec.operating_point is None else spec.operating_point.threshold
