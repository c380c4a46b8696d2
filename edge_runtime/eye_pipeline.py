"""One picture of an eye from its file to its answer: every stage timed, every stop with a reason.

Nothing raised in here leaves: a picture that cannot be judged comes back 'ungradable'. Texts in the
answer never contain a path or a file name, because results are stored and logged by others.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.bundle_parts.manifest import LabelSpec, Manifest
from edge_runtime.decision import decide_label, field_disposition, probability
from edge_runtime.engines import Engine, ModelOutput
from edge_runtime.errors import (
    DecoderStoppedError,
    EngineBusyError,
    EngineError,
    FieldOfViewError,
    ImageError,
    ImageLimitError,
    ImageUnreadableError,
)
from edge_runtime.examination import EyeImage
from edge_runtime.fundus.laterality import guess_laterality
from edge_runtime.image import DecodeLimits
from edge_runtime.loading import LoadedPicture, PictureLoader
from edge_runtime.result import Evidence, EyeQuality, FieldResult, LabelResult

__all__ = ["DOUBTFUL", "LOW_GRADABILITY", "STAGES", "EyePipeline", "StageClock"]

_log = logging.getLogger(__name__)

# `preprocess` holds decoding too: `load_for_model` is one function, so that the device makes the
# model's input by the very call that training makes. Both stages before inference are timed by
# the loader.
STAGES = ("read", "preprocess", "quality", "inference", "decision", "total")
LOW_GRADABILITY = "low gradability probability"
DOUBTFUL = "a probability lies in the abstention band"


class _MissingImageError(Exception):
    """A picture was expected and none was handed in."""


class _HashError(Exception):
    """The content is not what the camera recorded."""


class _LateralityError(Exception):
    """The file says the other eye than the operator."""


class _DeadlineError(Exception):
    """The time the caller allowed has run out."""


# Most derived first: the first match names the reason.
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (_MissingImageError, "missing image"),
    (_HashError, "image differs from its expected SHA-256"),
    (_LateralityError, "laterality conflict"),
    (_DeadlineError, "deadline exceeded"),
    (ImageLimitError, "image too large"),
    (FieldOfViewError, "no field of view found"),
    (DecoderStoppedError, "decoder stopped"),
    (ImageError, "image unreadable"),
    (EngineError, "engine error"),
    (Exception, "internal error"),
)

# What a day in a clinic brings; anything else is for the vendor's log.
_EXPECTED = (_MissingImageError, _HashError, _LateralityError, _DeadlineError, ImageError)


class StageClock:
    """Milliseconds of every stage of one eye, and the moment after which it is too late."""

    def __init__(self, deadline_at: float | None = None) -> None:
        """Start the clock; `deadline_at` is a `time.perf_counter` value in seconds."""
        self._started = time.perf_counter()
        self._deadline_at = deadline_at
        self._timings_ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage; refuse to start it, or to use its outcome, when it is too late."""
        self._check()
        started = time.perf_counter()
        try:
            yield
        except EngineBusyError:
            self._check()  # late because the caller's time is over: that is the reason to name
            raise
        finally:
            self._timings_ms[name] = (time.perf_counter() - started) * 1e3
        self._check()

    def remaining_s(self) -> float | None:
        """Return the seconds that are left, or None without a deadline."""
        return None if self._deadline_at is None else self._deadline_at - time.perf_counter()

    def move_ms(self, value_ms: float, *, source: str, target: str) -> None:
        """Account a part of the time of stage `source` to stage `target`, which ran inside it."""
        moved_ms = min(value_ms, self._timings_ms[source])
        self._timings_ms[source] -= moved_ms
        self._timings_ms[target] = moved_ms

    def timings_ms(self) -> dict[str, float]:
        """Return the stages that ran and `total`, the time since the clock was made."""
        return {**self._timings_ms, "total": (time.perf_counter() - self._started) * 1e3}

    def _check(self) -> None:
        if self._deadline_at is not None and time.perf_counter() > self._deadline_at:
            raise _DeadlineError("the answer would come later than the caller allowed")


@dataclass(kw_only=True)
class _Draft:
    """What is known about an eye so far; local to one call."""

    image_sha256: str | None = None
    input_sha256: str | None = None
    gradable_probability: float | None = None
    reasons: list[str] = field(default_factory=list)
    measures: dict[str, float] = field(default_factory=dict)
    labels: tuple[LabelResult, ...] = ()
    evidence: Evidence | None = None
    warnings: tuple[str, ...] = ()
    error: str | None = None

    def refuse(self, error: Exception) -> None:
        """Turn an error into a reason; whatever the model had said is dropped."""
        reason = next(word for kind, word in _REASONS if isinstance(error, kind))
        self.reasons, self.labels, self.evidence = [reason], (), None
        self.gradable_probability = None
        # Messages of foreign exceptions may hold paths; their type is all that is passed on.
        self.error = type(error).__name__ if reason == "internal error" else str(error)


@dataclass(frozen=True, kw_only=True)
class EyePipeline:
    """The stages with the settings of one bundle; immutable, shared by all threads."""

    manifest: Manifest
    engine: Engine
    loader: PictureLoader

    def screen(
        self,
        eye: EyeImage,
        *,
        evidence: bool = False,
        deadline_at: float | None = None,
        is_alone: bool = True,
    ) -> tuple[FieldResult, tuple[str, ...]]:
        """Judge one picture; return its result and warnings. Never raises for what it holds.

        Args:
            eye: The picture.
            evidence: Whether to keep class-evidence maps.
            deadline_at: A `time.perf_counter` value in seconds.
            is_alone: False for one of several pictures of an examination: the model's input is
                hashed, too, so that one picture in two files is found out.
        """
        draft, clock = _Draft(), StageClock(deadline_at)
        try:
            self._fill(draft, eye, clock, evidence=evidence, is_alone=is_alone)
        except Exception as error:  # the safety boundary: no failure may end the examination
            draft.refuse(error)
            level = logging.INFO if isinstance(error, _EXPECTED) else logging.ERROR
            _log.log(level, "eye %s: %s (%s)", eye.eye, draft.reasons[0], type(error).__name__)
        return self._finish(draft, clock), draft.warnings

    def refused(self, error: Exception) -> FieldResult:
        """Return a field that is ungradable because of an error outside of its stages."""
        draft = _Draft()
        draft.refuse(error)
        return self._finish(draft, StageClock())

    def _fill(
        self, draft: _Draft, eye: EyeImage, clock: StageClock, *, evidence: bool, is_alone: bool
    ) -> None:
        with clock.stage("read"):
            data = _read_source(eye.source, self.loader.settings.decode)
            draft.image_sha256 = hashlib.sha256(data).hexdigest()
            _check_sha256(draft.image_sha256, eye.expected_sha256)
        picture = self.loader.load(data, draft.image_sha256, clock)
        preprocessed, report = picture.preprocessed, picture.report
        draft.warnings = (*picture.decoded.warnings, *preprocessed.warnings)
        draft.warnings += _check_laterality(picture.decoded.laterality, eye.eye)
        is_named = eye.eye in ("OD", "OS")  # otherwise there is no entry to compare with
        side = guess_laterality(preprocessed.image_hwc) if report.gradable and is_named else None
        draft.measures = dict(report.measures)
        draft.warnings += report.warnings
        if side is not None:
            draft.measures["disc_side"] = side.disc_side
            draft.warnings += side.warnings(eye.eye)
        if not report.gradable:
            draft.reasons.extend(report.reasons or ("quality gate",))
            return
        if not is_alone:
            draft.input_sha256 = hashlib.sha256(preprocessed.image_hwc.tobytes()).hexdigest()
        with clock.stage("inference"):
            output = self.engine.run(preprocessed.image_hwc[None], timeout_s=clock.remaining_s())
        with clock.stage("decision"):
            self._decide(draft, output)
        if evidence:
            draft.evidence = self._evidence(output, picture)

    def _decide(self, draft: _Draft, output: ModelOutput) -> None:
        temperature, threshold = _operating_point(self.manifest.gradability)
        draft.gradable_probability = probability(output.gradability_logit, temperature)
        if draft.gradable_probability < threshold:
            draft.reasons.append(LOW_GRADABILITY)
        labels = []
        for label, logit in zip(self.manifest.labels, output.logits, strict=True):
            temperature, threshold = _operating_point(label)
            labels.append(
                decide_label(
                    label.name,
                    float(logit),
                    temperature=temperature,
                    threshold=threshold,
                    doubtful_from=None if label.abstention is None else label.abstention.low,
                )
            )
        draft.labels = tuple(labels)
        # A positive label refers whatever is doubtful beside it.
        undecided = any(one.is_doubtful for one in labels)
        if undecided and not any(one.is_positive for one in labels):
            draft.reasons.append(DOUBTFUL)

    def _evidence(self, output: ModelOutput, picture: LoadedPicture) -> Evidence:
        circle, k = picture.preprocessed.field_of_view, picture.decoded.reduction
        return Evidence(
            label_names=self.manifest.label_names,
            maps_lhw=output.evidence,
            image_hwc=picture.preprocessed.image_hwc,
            field_of_view_px=(circle.cx_px * k, circle.cy_px * k, circle.radius_px * k),
        )

    def _finish(self, draft: _Draft, clock: StageClock) -> FieldResult:
        _, gradable_threshold = _operating_point(self.manifest.gradability)
        return FieldResult(
            image_sha256=draft.image_sha256,
            input_sha256=draft.input_sha256,
            disposition=field_disposition(
                quality_passed=draft.error is None and not draft.reasons,
                gradable_probability=draft.gradable_probability,
                gradable_threshold=gradable_threshold,
                labels_positive=[label.is_positive for label in draft.labels],
                labels_doubtful=[label.is_doubtful for label in draft.labels],
            ),
            quality=EyeQuality(
                gradable=not draft.reasons,
                gradable_probability=draft.gradable_probability,
                gradable_threshold=gradable_threshold,
                reasons=tuple(draft.reasons),
                measures=draft.measures,
            ),
            labels=draft.labels,
            evidence=draft.evidence,
            timings_ms=clock.timings_ms(),
            error=draft.error,
        )


def _operating_point(label: LabelSpec) -> tuple[float, float]:
    """Return temperature and threshold of a label of a calibrated bundle."""
    if label.temperature is None or label.operating_point is None:
        raise ValueError(f"label {label.name!r} has no operating point")
    return label.temperature, label.operating_point.threshold


def _read_source(source: bytes | Path | None, limits: DecodeLimits) -> bytes:
    """Return the bytes of the picture; messages never name the file."""
    if source is None:
        raise _MissingImageError("no image was given for this eye; take or send the picture")
    if isinstance(source, bytes):
        return source
    try:
        if not source.exists():
            raise _MissingImageError("the image file does not exist; check the path and the card")
        if not source.is_file():
            raise ImageUnreadableError(
                "the path is a folder or a device, not a file; give the path of one image file"
            )
        with source.open("rb") as stream:
            # One byte more than allowed is enough for the decoder to refuse the size.
            return stream.read(int(limits.max_megabytes * 1e6) + 1)
    except OSError as error:
        raise ImageUnreadableError(
            f"the image file cannot be read ({error.strerror}); check the card and the permissions"
        ) from error


def _check_sha256(actual: str, expected: str | None) -> None:
    if expected is not None and actual != expected:
        raise _HashError(
            f"the image has SHA-256 {actual}, the camera recorded {expected}; transfer it again"
        )


def _check_laterality(says: str | None, eye: str) -> tuple[str, ...]:
    """Refuse a file that names the other eye; an entry is never changed by what a file says."""
    if says is None or says == eye:
        return ()
    if eye == "unspecified":
        return (f"the file says it shows {says}; the eye stays unspecified as entered",)
    raise _LateralityError(
        f"the image was given as {eye}, its file says {says}; find out which eye it shows"
    )
