"""One engine beside FP32 and INT8 on ONNX Runtime: the same pictures, every decision that differs.

The engine answers to its reference: INT8 to INT8, FP32 and FP16 to FP32. Its probabilities must
lie within the bundle's own tolerance and its decisions must be the same; a reference that lies
within the tolerance of a threshold may fall on either side, which is listed and not counted. INT8
against FP32 is what the INT8 gate decided on when the bundle was made; it is listed for whoever
reads the report and decides nothing here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_runtime.bundle import Bundle
from edge_runtime.checks.golden import golden_tolerance
from edge_runtime.engines import Engine, open_engine
from edge_runtime.errors import ConfigError, ImageError
from edge_runtime.fundus.quality import assess_image
from edge_runtime.label_scores import all_labels, probabilities, run_logits, thresholds
from edge_runtime.preprocess import load_for_model

__all__ = ["Agreement", "EngineRequest", "Flip", "NotCompared", "Picture", "compare_engines"]

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, kw_only=True)
class EngineRequest:
    """Which engine is held against ONNX Runtime, and on what.

    Attributes:
        engine: "onnxruntime" or "tensorrt"; "auto" is refused, a report names what it is about.
        precision: "int8", "fp32" or "fp16".
        pictures_dir: Folder of photographs, or None for the golden pictures alone.
        cache_dir: Root of the engine cache, or None for the default.
    """

    engine: str
    precision: str = "int8"
    pictures_dir: Path | None = None
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        """Refuse an engine that is not named."""
        if self.engine not in ("onnxruntime", "tensorrt"):
            raise ConfigError(
                f"engine is {self.engine!r}; name 'onnxruntime' or 'tensorrt' to verify it"
            )


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An input of the model; `name` is "golden 0" or the SHA-256 of the file."""

    name: str
    image_hwc: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class NotCompared:
    """A photograph that does not reach any model, and why; the same for every engine."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Flip:
    """One decision that differs between two runs of one picture.

    `is_close` says that the first probability lies within the tolerance of the threshold.
    """

    picture: str
    label: str
    threshold: float
    probability_reference: float
    probability_other: float
    is_close: bool


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What was compared and what differs.

    Attributes:
        name: Of the engine; `precision`, `details` and `warnings` as well.
        reference: Precision of ONNX Runtime that the engine answers to.
        atol_probability: How far a probability may be off.
        num_golden: Golden pictures compared.
        num_pictures: Photographs compared.
        not_compared: Photographs that reach no model.
        max_difference: Largest probability difference, engine against reference.
        flips: Decisions of the engine that differ from the reference.
        max_difference_int8_fp32: The same of INT8 against FP32, both on ONNX Runtime.
        flips_int8_fp32: The same.
    """

    name: str
    precision: str
    details: Mapping[str, str]
    warnings: tuple[str, ...]
    reference: str
    atol_probability: float
    num_golden: int
    num_pictures: int
    not_compared: tuple[NotCompared, ...]
    max_difference: float
    flips: tuple[Flip, ...]
    max_difference_int8_fp32: float
    flips_int8_fp32: tuple[Flip, ...]

    @property
    def num_changed(self) -> int:
        """Decisions that differ and are not close to their threshold."""
        return sum(not flip.is_close for flip in self.flips)

    @property
    def problem(self) -> str | None:
        """Why the engine does not agree, or None."""
        if self.num_pictures == 0 and self.not_compared:
            return "no photograph of the folder reaches the model; give gradable photographs"
        if not self.max_difference <= self.atol_probability:  # no number is not within it either
            return "a probability is off by more than the bundle allows"
        if self.num_changed > 0:
            return f"{self.num_changed} decisions differ"
        return None


def compare_engines(bundle: Bundle, request: EngineRequest) -> Agreement:
    """Run every picture through FP32, INT8 and the engine.

    Raises:
        BundleFormatError: The bundle is not calibrated.
        ConfigError: The folder has no photograph.
        EngineError: An engine cannot be opened, or fails on a picture.
    """
    golden = [
        Picture(name=f"golden {index}", image_hwc=image)
        for index, image in enumerate(bundle.golden().image_nhwc)
    ]
    photographs, not_compared = _load_pictures(bundle, request.pictures_dir)
    pictures = [*golden, *photographs]
    fp32, _ = _run(bundle, pictures, EngineRequest(engine="onnxruntime", precision="fp32"))
    int8, _ = _run(bundle, pictures, EngineRequest(engine="onnxruntime", precision="int8"))
    mine, engine = _run(bundle, pictures, request)
    is_int8 = request.precision == "int8"
    atol = golden_tolerance(bundle, request.precision)
    return Agreement(
        name=engine.name,
        precision=engine.precision,
        details=dict(engine.facts.details),
        warnings=engine.facts.warnings,
        reference="int8" if is_int8 else "fp32",
        atol_probability=atol,
        num_golden=len(golden),
        num_pictures=len(photographs),
        not_compared=tuple(not_compared),
        max_difference=_largest(mine, int8 if is_int8 else fp32),
        flips=_flips(bundle, pictures, int8 if is_int8 else fp32, mine, atol),
        max_difference_int8_fp32=_largest(int8, fp32),
        flips_int8_fp32=_flips(bundle, pictures, fp32, int8, golden_tolerance(bundle, "int8")),
    )


def _load_pictures(bundle: Bundle, folder: Path | None) -> tuple[list[Picture], list[NotCompared]]:
    """Preprocess the photographs as screening does; set aside what screening would."""
    loaded: list[Picture] = []
    refused: list[NotCompared] = []
    for data in () if folder is None else _read_folder(folder):
        name = hashlib.sha256(data).hexdigest()
        try:
            decoded, prepared = load_for_model(data, bundle.manifest.preprocess_spec())
        except ImageError as error:
            refused.append(NotCompared(name=name, reason=str(error)))
            continue
        report = assess_image(
            decoded,
            prepared,
            bundle.manifest.quality(),
            protocol=bundle.manifest.protocol,
        )
        if report.gradable:
            loaded.append(Picture(name=name, image_hwc=prepared.image_hwc))
        else:
            reasons = ", ".join(report.reasons) or "quality gate"
            refused.append(NotCompared(name=name, reason=reasons))
    return loaded, refused


def _read_folder(folder: Path) -> Iterator[bytes]:
    """Yield one file after the other: all of them at once may be more than a board's memory."""
    try:
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES)
        if not files:
            words = ", ".join(PICTURE_SUFFIXES)
            raise ConfigError(f"{folder} has no photograph ({words}); give a folder that has some")
        for path in files:
            yield path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{folder} cannot be read ({error.strerror}); check --images") from error


def _run(
    bundle: Bundle, pictures: Sequence[Picture], request: EngineRequest
) -> tuple[NDArray[np.float64], Engine]:
    """Return (N, L + 1) probabilities, and the engine, which is closed."""
    engine = open_engine(
        bundle, engine=request.engine, precision=request.precision, cache_dir=request.cache_dir
    )
    try:
        logits = np.stack([run_logits(engine, picture.image_hwc) for picture in pictures])
    finally:
        engine.close()
    return probabilities(all_labels(bundle), logits), engine


def _largest(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return float(np.abs(first - second).max())


def _flips(
    bundle: Bundle,
    pictures: Sequence[Picture],
    reference: NDArray[np.float64],
    other: NDArray[np.float64],
    atol: float,
) -> tuple[Flip, ...]:
    """List every decision in which two (N, L + 1) sets of probabilities differ."""
    labels, limits = all_labels(bundle), thresholds(all_labels(bundle))
    rows, columns = np.nonzero((reference >= limits) != (other >= limits))
    return tuple(
        Flip(
            picture=pictures[row].name,
            label=labels[column].name,
            threshold=float(limits[column]),
            probability_reference=float(reference[row, column]),
            probability_other=float(other[row, column]),
            is_close=bool(abs(reference[row, column] - limits[column]) <= atol),
        )
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
    )
