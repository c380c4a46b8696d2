"""When the gate refuses INT8: cheap moves first, then the worst groups of layers in float.

    1. equalise channels and correct biases (calibration.equalize, bias_correction), gate again
    2. one sweep over the groups: SQNR of the logits and AUROC on labelled eyes (sensitivity)
    3. the shortest prefix of that ranking which passes in float (search)

The gate is handed in, so that what decides here is what decides about a release. All moves
work on the better of the model as it was and the model of step 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.equalize import equalize
from calibration.groups import LayerGroup, find_groups
from calibration.int8_models import Int8Files, write_files
from calibration.placement import plan_quantization
from calibration.search import SearchOutcome, TrialResult, search_float_groups
from calibration.sensitivity import GroupSensitivity, measure_sensitivity, rank_worst_first
from edge_runtime.errors import ConfigError
from edge_runtime.strict_json import JsonValue

__all__ = ["AccuracyOutcome", "LabelledImages", "SearchConfig", "improve_int8"]

Gate = Callable[[Int8Files], TrialResult]
Observe = Callable[[bytes], Mapping[str, float]]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Settings.

    Attributes:
        max_seconds: no step is begun after this time.
        num_images: images of train for the first moves, and eyes of val for the sensitivities.
    """

    max_seconds: float = 3600.0
    num_images: int = 32

    def __post_init__(self) -> None:
        """Check both."""
        if not self.max_seconds > 0 or self.num_images < 2:
            raise ConfigError(
                f"the search has {self.max_seconds} s and {self.num_images} images; give more than "
                "0 s and at least 2 images"
            )


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """(N, S, S, 3) uint8 and the (N, K) truth of the K outputs, NaN where it is unknown."""

    images_nhwc: NDArray[np.uint8]
    labels: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class AccuracyOutcome:
    """What was found, and how.

    Attributes:
        files: of the model found; the best one if none passed.
        first_moves: what the gate said after equalisation and bias correction; None: no time.
        num_equalized: pairs of convolutions that were equalised.
        used_first_moves: whether the model found is built on them.
        sensitivities: of every group, worst first; empty where step 1 was enough.
        search: of step 3; None where step 1 was enough.
    """

    files: Int8Files
    first_moves: TrialResult | None
    num_equalized: int
    used_first_moves: bool
    sensitivities: tuple[GroupSensitivity, ...]
    search: SearchOutcome | None

    @property
    def passed(self) -> bool:
        """Whether the gate passed."""
        if self.search is not None:
            return self.search.passed
        return self.first_moves is not None and self.first_moves.passed

    def sentence(self) -> str:
        """What was reverted and why the search ended, for a person."""
        moves = "on equalised and bias-corrected INT8" if self.used_first_moves else "on plain INT8"
        if self.search is None:
            return "equalisation and bias correction were enough"
        names = ", ".join(group.name for group in self.search.float_groups) or "nothing"
        found = "found" if self.passed else "best found, which does not pass"
        return (
            f"{found} {moves}: {len(self.search.float_groups)} of {len(self.sensitivities)} groups "
            f"in float ({names}); {self.search.stopped}"
        )

    def to_dict(self) -> dict[str, JsonValue]:
        """JSON types: every move, sensitivity and trial."""
        reverted = set() if self.search is None else set(self.search.float_groups)
        rows: list[JsonValue] = [
            {
                "group": item.group.name,
                "num_convs": item.group.num_convs,
                # JSON has no infinity: null says that the logits did not change at all.
                "sqnr_db": item.sqnr_db if np.isfinite(item.sqnr_db) else None,
                "task_loss": item.task_loss,
                "is_float": item.group in reverted,
            }
            for item in self.sensitivities
        ]
        trials = () if self.search is None else self.search.trials
        return {
            "passed": self.passed,
            "summary": self.sentence(),
            "num_equalized": self.num_equalized,
            "first_moves": None if self.first_moves is None else _result(self.first_moves),
            "used_first_moves": self.used_first_moves,
            "sensitivities": rows,
            "trials": [{"num_float": t.num_float, **_result(t.result)} for t in trials],
        }


def _result(result: TrialResult) -> dict[str, JsonValue]:
    return {**asdict(result), "reasons": list(result.reasons)}


def improve_int8(
    fp32: bytes,
    plain: tuple[Int8Files, TrialResult],
    ranges: Mapping[str, float],
    *,
    gate: Gate,
    observe: Observe,
    train_nhwc: NDArray[np.uint8],
    val: LabelledImages,
    check_images_nhwc: NDArray[np.uint8],
    residual_pairs: str = "both",
    config: SearchConfig,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> AccuracyOutcome:
    """Look for INT8 that the gate lets pass.

    Args:
        fp32: the model as exported.
        plain: the INT8 files that were refused, and what the gate said.
        ranges: that `plain` was made from.
        gate: asks the gate about some files.
        observe: ranges of another FP32 model, on the INT8-calibration images.
        train_nhwc: images for the first moves.
        val: eyes for the sensitivities.
        check_images_nhwc: as in `write_files`.
        residual_pairs: as in `plan_quantization`.
        config: settings.
        progress: called with (step, done, in all).
        clock: seconds, for tests.
    """
    started = clock()

    def write(
        model: bytes, held: Mapping[str, float], groups: Sequence[LayerGroup], *, correct: bool
    ) -> Int8Files:
        return write_files(
            model,
            held,
            check_images_nhwc=check_images_nhwc,
            residual_pairs=residual_pairs,
            excluded=[name for group in groups for name in group.nodes],
            correction_nhwc=train_nhwc if correct else None,
        )

    equal, num_equalized = equalize(fp32, train_nhwc)
    equal_ranges = observe(equal)
    moved = write(equal, equal_ranges, (), correct=True)
    first = gate(moved)
    if first.passed:
        return AccuracyOutcome(
            files=moved,
            first_moves=first,
            num_equalized=num_equalized,
            used_first_moves=True,
            sensitivities=(),
            search=None,
        )
    better = first.loss < plain[1].loss
    ground, held = (equal, equal_ranges) if better else (fp32, ranges)
    made = {0: moved if better else plain[0]}
    answers = {0: first if better else plain[1]}
    measured = rank_worst_first(
        measure_sensitivity(
            ground,
            find_groups(ground, plan_quantization(ground, residual_pairs=residual_pairs)),
            held,
            val.images_nhwc,
            val.labels,
            residual_pairs=residual_pairs,
            progress=None if progress is None else lambda a, b: progress("sensitivity", a, b),
        )
    )

    def evaluate(groups: Sequence[LayerGroup]) -> TrialResult:
        size = len(groups)
        if size not in made:
            made[size] = write(ground, held, groups, correct=better)
            answers[size] = gate(made[size])
        return answers[size]

    search = search_float_groups(
        [item.group for item in measured],
        evaluate,
        max_seconds=max(config.max_seconds - (clock() - started), np.finfo(float).tiny),
        clock=clock,
    )
    return AccuracyOutcome(
        files=made[len(search.float_groups)],
        first_moves=first,
        num_equalized=num_equalized,
        used_first_moves=better,
        sensitivities=measured,
        search=search,
    )
