"""A gate record cannot say more than its own numbers carry."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from gate_factory import gate_label, gate_report, paired_share

from edge_runtime.bundle_parts.gate_record import GateReport, worst_status
from edge_runtime.errors import BundleFormatError, ConfigError
from edge_runtime.strict_json import dataclass_to_dict, read_dataclass

LABELS = ("macular_edema", "glaucoma")
STATUSES = ("passed", "not_shown", "failed")


@pytest.mark.parametrize("status", STATUSES)
def test_every_ending_round_trips(status):
    report = gate_report(LABELS, status)
    assert report.passed == (status == "passed")
    read = read_dataclass(GateReport, json.loads(json.dumps(dataclass_to_dict(report))))
    assert read == report


@pytest.mark.parametrize(("first", "second"), list(itertools.product(STATUSES, STATUSES)))
def test_the_worst_status_decides_whatever_the_order(first, second):
    worst = worst_status((first, second))
    assert worst == worst_status((second, first))
    assert STATUSES.index(worst) == max(STATUSES.index(first), STATUSES.index(second))


@pytest.mark.parametrize("claimed", STATUSES)
@pytest.mark.parametrize("actual", STATUSES)
def test_a_report_may_be_stricter_than_its_labels_but_never_milder(claimed, actual):
    honest = gate_report(LABELS, actual)
    reasons = () if claimed == "passed" else ("a reason",)
    if STATUSES.index(claimed) < STATUSES.index(actual):
        with pytest.raises(ConfigError, match="no better than its parts"):
            replace(honest, status=claimed, reasons=reasons)
    else:
        assert replace(honest, status=claimed, reasons=reasons).status == claimed


@pytest.mark.parametrize("part", ["sensitivity", "specificity"])
@pytest.mark.parametrize("status", ["not_shown", "failed"])
def test_a_label_is_no_better_than_its_parts(part, status):
    with pytest.raises(ConfigError, match="no better than its parts"):
        gate_label("x", **{part: paired_share(status=status)})


@pytest.mark.parametrize(
    "changes",
    [
        {"drop_interval": (0.0, 0.01)},
        {"sensitivity": paired_share(drop_interval=(0.0, 0.02))},
        {"specificity": paired_share(drop_interval=(0.0, 0.5))},
    ],
)
def test_passed_is_refused_when_an_interval_reaches_its_limit(changes):
    with pytest.raises(ConfigError, match=r"status is 'passed'; it must be not passed: intervals"):
        gate_report(("x",), labels=(gate_label("x", **changes),))


def test_a_label_that_is_not_required_fails_the_gate_but_need_not_be_shown():
    wide = paired_share(status="not_shown", drop_interval=(-0.3, 0.3))
    unseen = gate_label("gradable", required=False, specificity=wide, status="not_shown")
    assert gate_report(("x",), labels=(gate_label("x"), unseen)).passed
    lost = replace(unseen, specificity=replace(wide, status="failed"), status="failed")
    with pytest.raises(ConfigError, match="no better than its parts, failed"):
        gate_report(("x",), labels=(gate_label("x"), lost))
    with pytest.raises(ConfigError, match="at least one that is required"):
        gate_report(("x",), labels=(unseen,))


def test_a_loss_in_a_subgroup_or_in_the_mean_is_a_failure():
    report = gate_report(LABELS)
    (group,) = report.subgroups
    lost = replace(group, sensitivity=paired_share(status="failed"))
    for changes in ({"subgroups": (lost,)}, {"mean_auroc_drop": 0.011}):
        with pytest.raises(ConfigError, match="no better than its parts, failed"):
            replace(report, **changes)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"status": "shown"}, "status"),
        ({"reasons": ("but",)}, "reasons"),
        ({"rule": ""}, "rule"),
        ({"level": 1.0}, "level"),
        ({"num_folds": 1}, "num_folds"),
        ({"labels": ()}, "labels"),
        ({"decision_flips": 0}, "decision_flips"),
        ({"max_probability_change": float("nan")}, "max_probability_change"),
        ({"num_patients": 0}, "num_patients"),
        ({"limit_specificity_drop": 1.5}, "limit_specificity_drop"),
    ],
)
def test_a_malformed_report_is_refused_by_the_name_of_its_field(changes, field):
    with pytest.raises(ConfigError, match=f"^{field} is"):
        gate_report(LABELS, **changes)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"fp32": 1.1}, "fp32"),
        ({"lost": -1}, "lost"),
        ({"gained": 1001}, "gained"),
        ({"design_effect": 0.5}, "design_effect"),
        ({"design_effect": float("nan")}, "design_effect"),
        ({"drop_interval": (0.1, 0.0)}, "drop_interval"),
        ({"num_patients_needed": 0}, "num_patients_needed"),
        ({"status": "ok"}, "status"),
    ],
)
def test_a_malformed_share_is_refused_by_the_name_of_its_field(changes, field):
    with pytest.raises(ConfigError, match=f"^{field} is"):
        paired_share(**changes)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("flips", 0, "image_sha256"), "eye-7.jpg", r"flips\[0\].image_sha256"),
        (("flips", 0, "truth"), 2, r"flips\[0\].truth"),
        (("flips", 0, "truth"), 0.5, r"flips\[0\].truth"),
        (("subgroups", 0, "num_flips"), 91, r"subgroups\[0\].num_flips"),
        (("subgroups", 0, "value"), "", r"subgroups\[0\].value"),
        (("passed",), True, "passed is an unknown key"),
    ],
)
def test_the_reader_names_the_path(path, value, message):
    content = json.loads(json.dumps(dataclass_to_dict(gate_report(LABELS))))
    target = content
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(BundleFormatError, match=f"^{message}"):
        read_dataclass(GateReport, content)


def test_patients_needed_are_those_of_the_hardest_required_label():
    assert gate_report(LABELS).num_patients_needed == 240
    assert gate_report(LABELS, "not_shown").num_patients_needed == 900
    ranked = gate_label("x", num_patients_needed=5000)
    assert gate_report(("x",), labels=(ranked,)).num_patients_needed == 5000
    assert gate_report(("x",), labels=(replace(ranked, num_patients_needed=None),))
