"""The ladder of moves: first moves, then layers in float; what was done is recorded."""

from __future__ import annotations

import json

import numpy as np
import pytest
from calibration_graphs import images
from test_calibration_equalize import uneven_student
from test_calibration_quantize import MINMAX

from calibration.accuracy import LabelledImages, SearchConfig, improve_int8
from calibration.int8_models import Int8Files, write_files
from calibration.placement import plan_quantization
from calibration.ranges import observe_activations, ranges_of
from calibration.search import TrialResult
from calibration.sensitivity import logits_of
from edge_runtime.errors import ConfigError

MODEL, PICTURES = uneven_student(), images(6)
EXACT = logits_of(MODEL, PICTURES)


def observe(model: bytes) -> dict[str, float]:
    plan = plan_quantization(model)
    return dict(ranges_of(observe_activations(model, plan.observed, PICTURES), MINMAX))


def gate_at(limit: float):
    """Passes below a root mean square error of the logits."""

    def gate(files: Int8Files) -> TrialResult:
        loss = float(np.sqrt(np.square(logits_of(files.cpu, PICTURES) - EXACT).mean()))
        reasons = () if loss < limit else (f"off by {loss:.3g}",)
        return TrialResult(passed=loss < limit, loss=loss, reasons=reasons)

    return gate


def improve(limit: float, **changes):
    ranges, gate = observe(MODEL), gate_at(limit)
    plain = write_files(MODEL, ranges, check_images_nhwc=PICTURES)
    options = {
        "gate": gate,
        "observe": observe,
        "train_nhwc": PICTURES,
        "val": LabelledImages(
            images_nhwc=PICTURES, labels=(np.median(EXACT, axis=0) < EXACT).astype(float)
        ),
        "check_images_nhwc": PICTURES,
        "config": SearchConfig(num_images=6),
        **changes,
    }
    return improve_int8(MODEL, (plain, gate(plain)), ranges, **options), gate(plain)


def test_the_first_moves_may_be_enough():
    _, plain = improve(1e-9)
    outcome, _ = improve(0.8 * plain.loss)
    assert outcome.passed
    assert outcome.used_first_moves
    assert outcome.search is None
    assert outcome.num_equalized == 4
    assert outcome.sentence() == "equalisation and bias correction were enough"
    assert json.loads(json.dumps(outcome.to_dict()))["trials"] == []


def test_layers_go_to_float_until_the_gate_passes():
    first, _ = improve(1e-9)
    limit = 0.6 * first.first_moves.loss
    steps = []
    outcome, _ = improve(limit, progress=lambda *step: steps.append(step))
    assert outcome.passed
    assert gate_at(limit)(outcome.files).passed
    assert 0 < len(outcome.search.float_groups) < len(outcome.sensitivities)
    reverted = {group.name for group in outcome.search.float_groups}
    assert reverted <= set(outcome.files.float_nodes)
    worst = outcome.sensitivities[: len(reverted)]
    assert {item.group.name for item in worst} == reverted
    record = json.loads(json.dumps(outcome.to_dict(), allow_nan=False))
    assert sum(row["is_float"] for row in record["sensitivities"]) == len(reverted)
    assert record["trials"][-1]["num_float"] >= 0
    assert steps[-1][0] == "sensitivity"
    assert outcome.sentence().startswith("found on equalised and bias-corrected INT8")


def test_unreachable_returns_the_best_and_says_so():
    outcome, plain = improve(-1.0)
    assert not outcome.passed
    assert outcome.search.best.result.loss < plain.loss
    assert "best found, which does not pass" in outcome.sentence()
    assert "even with every group in float" in outcome.sentence()


def test_the_time_budget_holds_for_the_whole_ladder():
    ticks = iter(np.arange(0.0, 1e6, 100.0))
    outcome, _ = improve(
        1e-9, config=SearchConfig(max_seconds=150.0, num_images=6), clock=lambda: float(next(ticks))
    )
    assert not outcome.passed
    assert len(outcome.search.trials) <= 2
    assert "was spent before the gate passed" in outcome.search.stopped


@pytest.mark.parametrize("changes", [{"max_seconds": 0.0}, {"num_images": 1}])
def test_settings_are_checked(changes):
    with pytest.raises(ConfigError, match="the search has"):
        SearchConfig(**changes)
