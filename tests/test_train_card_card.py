"""A card from its tables: joins, counts of ungradable eyes, subgroups, comparisons, the gate."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from card_factory import QUICK, eyes, facts, predictions, without_label

from edge_runtime.errors import ConfigError, DataError
from edge_runtime.metrics import auroc
from train.card.card import Card, CellReport, make_card, write_json
from train.card.cells import Cell, cells_of, verdicts_of
from train.card.comparison import MEAN, compare_models, mean_aurocs
from train.card.config import CardConfig
from train.card.measures import NO_THRESHOLD
from train.card.quality import quality_of
from train.card.subgroups import group_of, subgroups_of, worst_of
from train.card.tables import EyeRow, PredictionRow
from train.card.ungradable import count_ungradable
from train.tasks.statistics import holm

EYES = eyes()
ROWS = predictions(EYES)
OTHER = predictions(EYES, "N", strength=0.1, seed=1, threshold=None)


def card(rows: list[PredictionRow], own: list[EyeRow] = EYES, config: CardConfig = QUICK) -> Card:
    return make_card(config, [facts()], [], own, rows)


def cell(name: str = "glaucoma", rows: list[PredictionRow] = ROWS) -> Cell:
    return next(one for one in cells_of(EYES, rows) if one.output == name)


def test_the_order_of_rows_and_eyes_changes_no_number() -> None:
    plain = card([*ROWS, *OTHER])
    order = np.random.default_rng(0).permutation(len(ROWS))
    shuffled = [[rows[k] for k in order] for rows in (ROWS, OTHER)]
    mixed_eyes = [EYES[k] for k in np.random.default_rng(1).permutation(len(EYES))]
    mixed = card([*shuffled[0], *shuffled[1]], mixed_eyes)
    for one in plain.cells:
        other = next(c for c in mixed.cells if (c.model, c.output) == (one.model, one.output))
        assert _numbers(one) == pytest.approx(_numbers(other))
        assert one.worst_subgroup == other.worst_subgroup


def _numbers(one: CellReport) -> list[float]:
    intervals = [m.interval for m in one.measures if m.interval is not None]
    return [end for i in intervals for end in (i.value, i.low, i.high)]


def test_auroc_is_over_the_eyes_that_were_answered() -> None:
    one = cell()
    found = card(ROWS).cells[0].measure("auroc").interval
    assert found is not None
    assert found.value == pytest.approx(
        auroc(one.truth[~one.refused], one.probability[~one.refused]), abs=1e-6
    )
    assert 0 < one.refused.sum() < len(one.refused)


def test_ungradable_eyes_are_counted_three_ways_by_hand() -> None:
    one = cell()
    called = one.probability >= 0.5
    right = {
        "gradable_only": (called & ~one.refused, ~one.refused),
        "ungradable_refer": (called | one.refused, np.ones(len(called), bool)),
        "worst_case": (np.where(one.refused, ~one.truth, called), np.ones(len(called), bool)),
    }
    for found in count_ungradable(one, QUICK):
        calls, counted = right[found.way]
        assert found.sensitivity.interval is not None
        assert found.specificity.interval is not None
        assert found.sensitivity.interval.value == pytest.approx(calls[one.truth & counted].mean())
        assert found.specificity.interval.value == pytest.approx(
            1 - calls[~one.truth & counted].mean()
        )
        assert found.num_eyes == counted.sum()
    worst = count_ungradable(one, QUICK)[2]
    refer = count_ungradable(one, QUICK)[1]
    assert worst.sensitivity.interval.value < refer.sensitivity.interval.value


def test_no_wrong_call_is_not_certainty() -> None:
    perfect = [
        replace(row, probability=eye.values[row.label], verdict="passed", gradable_probability=1.0)
        for eye, row in zip(np.repeat(np.array(EYES, object), 2), ROWS, strict=True)
    ]
    found = card(perfect).cells[0]
    for name in ("auroc", "auprc", "sensitivity", "specificity", "balanced_accuracy"):
        assert found.measure(name).interval.value == pytest.approx(1.0)
    assert found.measure("brier").interval.value == 0.0
    assert found.measure("sensitivity").interval.low < 0.95
    assert found.measure("sensitivity_at_0.95_specificity").interval.low < 0.95


def test_a_model_without_a_threshold_says_so() -> None:
    found = next(one for one in card([*ROWS, *OTHER]).cells if one.model == "N")
    assert found.measure("sensitivity").reason == NO_THRESHOLD
    assert found.measure("auroc").interval is not None
    assert all(one.sensitivity.reason == NO_THRESHOLD for one in found.ungradable)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_one_class_cannot_be_computed_and_is_strict_json(tmp_path: Path, value: float) -> None:
    own = [replace(one, values={**one.values, "glaucoma": value}) for one in EYES]
    found = card([*ROWS, *OTHER], own)
    one = next(c for c in found.cells if c.output == "glaucoma")
    assert one.measure("auroc").reason.startswith("cannot be computed")
    assert one.roc == ()
    only = "sensitivity" if value else "specificity"
    assert one.measure(only).interval is not None
    difference = next(d for d in found.comparisons if d.output == "glaucoma")
    assert difference.interval is None
    assert difference.p_holm is None
    assert found.means[0].outputs == ("amd",)
    write_json(tmp_path / "card.json", found)
    read = json.loads((tmp_path / "card.json").read_text())
    assert read["config"]["num_draws"] == QUICK.num_draws
    assert "NaN" not in (tmp_path / "card.json").read_text()


def test_every_eye_refused_cannot_be_computed() -> None:
    dark = [replace(r, probability=None, gradable_probability=None, verdict="dark") for r in ROWS]
    one = card(dark).cells[0]
    assert one.num_refused == len(EYES)
    assert one.measure("auroc").interval is None
    worst = one.ungradable[2]
    assert worst.sensitivity.interval.value == 0.0


def test_labels_that_a_data_set_lacks_are_named() -> None:
    found = card(ROWS, without_label(EYES, "amd"))
    assert [one.output for one in found.cells] == ["glaucoma"]
    assert found.unscored == ("'amd' is not scored on 'clinic', which has no such label (M)",)


def test_unknown_labels_of_some_eyes_leave_those_out() -> None:
    own = [*without_label(EYES[:40], "amd"), *EYES[40:]]
    found = card(ROWS, own)
    assert [one.num_eyes for one in found.cells] == [120, 80]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS[2:], "lack 1 of 120 eyes"),
        ([replace(one, dataset="elsewhere") for one in ROWS], "'elsewhere', which is not"),
        ([*ROWS, replace(ROWS[0], patient_id="stranger")], "name 1 eyes that data set"),
        ([replace(ROWS[0], threshold=0.4), *ROWS[1:]], "has the thresholds"),
    ],
)
def test_tables_that_do_not_fit_are_refused(rows: list[PredictionRow], message: str) -> None:
    with pytest.raises(DataError, match=message):
        card(rows)


def test_a_grade_is_no_truth_and_an_unknown_reference_is_refused() -> None:
    with pytest.raises(DataError, match="is no label of 0 and 1"):
        cells_of(EYES, ROWS, [("glaucoma", "age_value")])
    with pytest.raises(ConfigError, match="no model is called 'X'; the models are M"):
        make_card(QUICK, [facts()], [], EYES, ROWS, reference="X")
    with pytest.raises(ConfigError, match="output 'glaucoma' and label 'nothing'"):
        card(ROWS, config=replace(QUICK, also=(("glaucoma", "nothing"),)))


def test_an_output_is_held_against_another_label_when_asked() -> None:
    found = card(ROWS, config=replace(QUICK, also=(("glaucoma", "amd"),)))
    crossed = next(one for one in found.cells if one.title == "glaucoma against amd")
    assert crossed.measure("auroc").interval.value == pytest.approx(0.5, abs=0.15)
    assert found.means[0].outputs == ("glaucoma", "amd")


def test_subgroups_hold_every_answered_eye_once_and_small_ones_are_suppressed() -> None:
    one = cell()
    groups = subgroups_of(one, QUICK)
    for axis in ("age", "sex", "eye", "quality", "site"):
        own = [group for group in groups if group.axis == axis]
        assert sum(group.num_eyes for group in own) == (~one.refused).sum()
    for group in groups:
        small = group.num_patients < 20 or group.num_positive < 5
        assert bool(group.suppressed) == small
        assert bool(group.measures) != small
    assert any(group.suppressed for group in groups)
    values = [g.measures[0].interval.value for g in groups if g.measures and g.measures[0].interval]
    worst = worst_of(groups)
    assert worst is not None
    assert worst.measures[0].interval.value == min(values)


def test_a_subgroup_of_few_patients_is_suppressed_whatever_its_positives() -> None:
    groups = subgroups_of(cell(), replace(QUICK, min_patients=40))
    north = next(group for group in groups if group.group == "north")
    assert north.num_positive >= QUICK.min_positives
    assert north.suppressed == f"suppressed: {north.num_patients} patients, fewer than 40"
    assert north.measures == ()


def test_a_subgroup_is_scored_as_if_it_were_alone() -> None:
    one = cell()
    group = next(g for g in subgroups_of(one, QUICK) if (g.axis, g.group) == ("site", "north"))
    inside = np.array([eye.site == "north" for eye in one.eyes]) & ~one.refused
    assert group.measures[0].interval.value == pytest.approx(
        auroc(one.truth[inside], one.probability[inside]), abs=1e-6
    )


def test_groups_come_from_the_vocabulary_of_imports() -> None:
    eye = replace(EYES[0], site="clinic-a/camera-b", eye="", values={"age_value": 60.0})
    found = group_of(eye, QUICK)
    assert found == {"age": "60 to under 75", "site": "clinic-a", "camera": "camera-b"}
    assert group_of(replace(eye, values={"age_value": 75.0}), QUICK)["age"] == "75 and over"
    assert group_of(replace(eye, values={"age_value": 39.9}), QUICK)["age"] == "under 40"
    assert group_of(replace(eye, values={"sex_female": 1.0}), QUICK)["sex"] == "female"


def test_a_model_against_itself_differs_by_nothing() -> None:
    twin = [replace(one, model="twin") for one in ROWS]
    for one in compare_models(cells_of(EYES, [*ROWS, *twin]), "M", QUICK):
        assert (one.interval.value, one.interval.low, one.interval.high) == (0, 0, 0)
        assert one.p_holm == 1.0


def test_differences_are_paired_on_shared_eyes_and_corrected_by_holm() -> None:
    late = [
        replace(row, probability=None, gradable_probability=None, verdict="dark")
        if row.patient_id < "P010"
        else row
        for row in OTHER
    ]
    third = predictions(EYES, "O", strength=0.2, seed=2)
    cells = cells_of(EYES, [*ROWS, *late, *third])
    found = compare_models(cells, "M", QUICK)
    a, b = (next(c for c in cells if c.model == m and c.output == "amd") for m in ("N", "M"))
    both = ~a.refused & ~b.refused
    one = next(d for d in found if (d.model, d.output) == ("N", "amd"))
    wanted = auroc(a.truth[both], a.probability[both]) - auroc(b.truth[both], b.probability[both])
    assert one.interval.value == pytest.approx(wanted, abs=1e-6)
    assert one.num_eyes == both.sum()
    labels = [d for d in found if d.output != MEAN]
    assert len(labels) == 4
    assert [d.p_holm for d in labels] == pytest.approx(holm([d.p_value for d in labels]))
    means = [d for d in found if d.output == MEAN]
    assert [d.p_holm for d in means] == pytest.approx(holm([d.p_value for d in means]))


def test_mean_auroc_is_the_mean_over_labels_of_eyes_that_all_answer() -> None:
    cells = cells_of(EYES, [*ROWS, *OTHER])
    shared = ~np.any([one.refused for one in cells], axis=0)
    for found in mean_aurocs(cells, QUICK):
        own = [one for one in cells if one.model == found.model]
        wanted = np.mean([auroc(c.truth[shared], c.probability[shared]) for c in own])
        assert found.measure.interval.value == pytest.approx(wanted, abs=1e-6)
        assert found.num_eyes == shared.sum()
    models = {found.model: found.measure.interval.value for found in mean_aurocs(cells, QUICK)}
    mean = next(d for d in compare_models(cells, "M", QUICK) if d.output == MEAN)
    assert mean.interval.value == pytest.approx(models["N"] - models["M"])


def test_the_gate_separates_reject_from_good_and_a_gated_picture_ranks_last() -> None:
    rows = [
        replace(row, gradable_probability=None, probability=None, verdict="dark")
        if eye.values["quality_grade"] == 2
        else replace(row, gradable_probability=0.2, probability=0.5, verdict="passed")
        for eye, row in zip(np.repeat(np.array(EYES, object), 2), ROWS, strict=True)
    ]
    found = quality_of(verdicts_of(EYES, rows)[0], QUICK)
    assert found.against == "reject against good"
    assert found.auroc.interval.value == 1.0
    shares = {one.quality: one for one in found.shares}
    counts = {w: sum(e.values["quality_grade"] == k for e in EYES) for w, k in
              (("good", 0), ("usable", 1), ("reject", 2))}  # fmt: skip
    assert {word: shares[word].num_eyes for word in counts} == counts
    assert all(one.num_refused == one.num_eyes for one in found.shares)  # 0.2 is below 0.5
    assert shares["reject"].num_gated == counts["reject"]
    assert shares["good"].num_gated == 0
    assert shares["good"].share.low < 1.0


def test_the_gate_of_a_set_without_quality_has_shares_alone() -> None:
    own = [replace(one, values={}) for one in EYES]
    found = quality_of(verdicts_of(own, ROWS)[0], QUICK)
    assert found.auroc is None
    assert [one.quality for one in found.shares] == ["all"]
    gradable = [replace(one, values={"gradable": float(k % 2)}) for k, one in enumerate(EYES)]
    assert (
        quality_of(verdicts_of(gradable, ROWS)[0], QUICK).against == "ungradable against gradable"
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"split": "all"},
        {"level": 1.0},
        {"specificities": (0.9, 1.0)},
        {"age_edges": (60.0, 40.0)},
        {"num_bins": 0},
        {"min_patients": 0},
        {"num_draws": 0},
    ],
)
def test_a_setting_out_of_range_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        CardConfig(**wrong)
