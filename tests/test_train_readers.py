"""Reader studies: rates by hand, intervals that cover, groups beside the model, the export."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from reader_factory import draw_study, make_rows, true_difference, write_tables

from edge_runtime.errors import ConfigError, DataError
from train.reader_export import imrmc_identifiers, imrmc_text
from train.reader_tables import read_studies
from train.reader_variance import mean_over_readers
from train.readers import MEASURES, evaluate_readers, verdicts
from train.readers_cli import readers


@pytest.fixture
def study(tmp_path):
    return read_studies(*write_tables(tmp_path, *make_rows()))[0]


def slow_rates(decisions, truth):
    """Sensitivity and specificity by counting."""
    pairs = [(d, t) for d, t in zip(decisions, truth, strict=True) if not np.isnan(d)]
    sensitivity = sum(d == 1 for d, t in pairs if t) / sum(bool(t) for _, t in pairs)
    specificity = sum(d == 0 for d, t in pairs if not t) / sum(not t for _, t in pairs)
    return sensitivity, specificity, (sensitivity + specificity) / 2


def test_values_are_the_counted_ones(study):
    report = evaluate_readers(study, num_draws=100)
    expected = [slow_rates(row, study.truth_c) for row in study.decisions_rc]
    for one, rates in zip(report.readers, expected, strict=True):
        assert [one.rates[m].value for m in MEASURES] == pytest.approx(rates)
    model = slow_rates(study.model_c, study.truth_c)
    assert [report.model.rates[m].value for m in MEASURES] == pytest.approx(model)
    for group, rows in zip(report.groups, (slice(0, 2), slice(2, 4)), strict=True):
        mean = np.mean(expected[rows], 0)
        assert [group.rates[m].value for m in MEASURES] == pytest.approx(mean)
        difference = [group.model_minus_group[m].interval.value for m in MEASURES]
        assert difference == pytest.approx(np.array(model) - mean)
        assert group.num_readers == 2
    assert (report.num_cases, report.num_patients, report.num_positive) == (12, 6, 6)


def test_the_order_of_cases_and_readers_does_not_matter(study):
    cases = np.random.default_rng(1).permutation(len(study.truth_c))
    moved = replace(
        study,
        case_ids=study.case_ids[cases],
        patient_ids=study.patient_ids[cases],
        truth_c=study.truth_c[cases],
        score_c=study.score_c[cases],
        model_c=study.model_c[cases],
        decisions_rc=study.decisions_rc[:, cases],
        read_rc=study.read_rc[:, cases],
    )
    first, second = (evaluate_readers(one, num_draws=100).groups[0] for one in (study, moved))
    for measure in MEASURES:
        a, b = first.model_minus_group[measure], second.model_minus_group[measure]
        assert a.interval.low == pytest.approx(b.interval.low)
        assert a.p_value == pytest.approx(b.p_value)


def test_a_difference_is_on_the_cases_that_a_reader_read(study):
    read = study.read_rc.copy()
    read[0, 4:] = False
    report = evaluate_readers(replace(study, read_rc=read), num_draws=100)
    assert report.readers[0].num_cases == 4
    own = [slow_rates(np.where(r, d, np.nan), study.truth_c)[2]
           for d, r in zip(study.decisions_rc[:2], read[:2], strict=True)]  # fmt: skip
    beside = [slow_rates(np.where(r, study.model_c, np.nan), study.truth_c)[2] for r in read[:2]]
    found = report.groups[0].model_minus_group["balanced_accuracy"].interval.value
    assert found == pytest.approx(np.mean(np.array(beside) - own))


def test_what_could_not_tell_counts_as():
    truth = np.array([True, True, False, False])
    decisions = np.array([[np.nan, 1, np.nan, 0]])
    read = np.array([[True, True, True, False]])
    for rule, positive, counted in (
        ("refer", [True, True, True, False], [True, True, True, False]),
        ("wrong", [False, True, True, False], [True, True, True, False]),
        ("leave_out", [False, True, False, False], [False, True, False, False]),
    ):
        found = verdicts(decisions, read, truth, rule)
        assert found.positive_oc.tolist() == [positive]
        assert found.counted_oc.tolist() == [counted]
    with pytest.raises(ConfigError, match="undecided is 'guess'; use one of refer, wrong"):
        verdicts(decisions, read, truth, "guess")


def test_undecided_is_reported_for_readers_and_model(study):
    decisions, model, score = study.decisions_rc.copy(), study.model_c.copy(), study.score_c.copy()
    decisions[1, :3] = np.nan
    model[0] = score[0] = np.nan
    unsure = replace(study, decisions_rc=decisions, model_c=model, score_c=score)
    report = evaluate_readers(unsure, num_draws=100)
    assert [one.num_undecided for one in report.readers] == [0, 3, 0, 0]
    assert report.model.num_undecided == 1
    assert report.model.rates["specificity"].value == pytest.approx(5 / 6)  # referred, not skipped
    left = evaluate_readers(unsure, undecided="leave_out", num_draws=100)
    assert left.model.rates["specificity"].value == 1.0
    assert left.readers[1].num_cases == 9


def test_a_reader_who_cannot_be_scored_is_named(study):
    read = study.read_rc.copy()
    read[2] = study.truth_c
    with pytest.raises(DataError, match="'R2' has 6 positive and 0 negative counted cases"):
        evaluate_readers(replace(study, read_rc=read), num_draws=100)
    with pytest.raises(ConfigError, match="num_draws is 10; give at least 100"):
        evaluate_readers(study, num_draws=10)


def test_one_reader_says_nothing_about_others():
    study = draw_study(np.random.default_rng(0), num_readers=1, num_patients=60, reader_sd=0.3)
    one = evaluate_readers(study, num_draws=200).groups[0].model_minus_group["specificity"]
    assert not one.over_readers
    assert one.interval.low < one.interval.value < one.interval.high


def test_nobody_missed_anything_is_not_certainty(study):
    perfect = np.broadcast_to(study.truth_c.astype(float), study.decisions_rc.shape)
    report = evaluate_readers(replace(study, decisions_rc=perfect), num_draws=100)
    for one in (*report.groups, *report.readers):
        assert one.rates["sensitivity"].value == 1.0
        assert one.rates["sensitivity"].low < 0.7  # three patients have the finding
    same = report.groups[0].model_minus_group["sensitivity"]
    assert (same.interval.value, same.p_value, same.p_holm) == (0.0, 1.0, 1.0)
    assert same.interval.low < 0 < same.interval.high


def test_holm_is_over_the_groups(study):
    report = evaluate_readers(study, num_draws=100)
    for measure in MEASURES:
        p = sorted(g.model_minus_group[measure].p_value for g in report.groups)
        corrected = sorted(g.model_minus_group[measure].p_holm for g in report.groups)
        assert corrected[0] == pytest.approx(min(1, 2 * p[0]))
        assert corrected[1] == pytest.approx(min(1, max(2 * p[0], p[1])))


def test_the_matched_point_is_the_best_that_is_specific_enough(study):
    for group in evaluate_readers(study, num_draws=100).groups:
        wanted = group.rates["specificity"].value
        points = []
        for threshold in (*np.unique(study.score_c), np.inf):
            called = study.score_c >= threshold
            specificity = np.mean(~called[~study.truth_c])
            if specificity >= wanted - 1e-12:
                points.append((np.mean(called[study.truth_c]), specificity))
        assert group.matched.sensitivity == pytest.approx(max(points)[0])
        assert group.matched.specificity >= wanted - 1e-12


def test_variance_of_one_way_cases_is_that_of_the_formula():
    rng = np.random.default_rng(0)
    values, draws = rng.normal(size=4), rng.normal(size=(50, 4)) + rng.normal(size=(50, 1))
    found = mean_over_readers(values, draws, num_patients=20, bounds=(-9, 9))
    pairs = [np.cov(draws[:, a], draws[:, b])[0, 1] for a in range(4) for b in range(a)]
    between, case = values.var(ddof=1), 4 * np.mean(pairs)
    from scipy.stats import ttest_1samp

    # Without a case part it is Student's interval of the readers' mean.
    alone = mean_over_readers(values, np.zeros((50, 4)), num_patients=20, bounds=(-9, 9))
    student = ttest_1samp(values, 0.0)
    assert alone.p_value == pytest.approx(student.pvalue)
    assert alone.interval.low == pytest.approx(student.confidence_interval().low)
    half = found.interval.high - found.interval.value
    assert half > np.sqrt((between + case) / 4) * 1.96
    assert half < alone.interval.high - alone.interval.value + 2.1 * np.sqrt(case / 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_readers", "num_patients", "reader_sd"), [(3, 60, 0.1), (5, 100, 0.1), (5, 100, 0.5)]
)
def test_the_interval_covers_the_true_difference(num_readers, num_patients, reader_sd):
    """About 95 %; and resampling readers and patients together does not, with few readers."""
    rng, truth = np.random.default_rng(20), true_difference(reader_sd)
    covered = together = 0
    num_studies = 300
    for _ in range(num_studies):
        one = draw_study(
            rng, num_readers=num_readers, num_patients=num_patients, reader_sd=reader_sd
        )
        found = evaluate_readers(one, num_draws=200).groups[0].model_minus_group
        interval = found["balanced_accuracy"].interval
        covered += interval.low <= truth <= interval.high
        low, high = two_way_bootstrap(one, rng)
        together += low <= truth <= high
    print(f"covered {covered / num_studies:.3f}, two-way {together / num_studies:.3f}")
    # 300 studies: the binomial standard deviation at 95 % is 1.3 points
    assert 0.90 <= covered / num_studies <= 0.99
    if reader_sd == 0.5:
        assert together < covered


def two_way_bootstrap(study, rng, num_draws=200):
    """Percentiles of the mean difference over resampled readers and resampled patients."""
    patients = study.patient_ids.astype(int)
    num_patients, num_readers = patients.max() + 1, len(study.reader_ids)
    chance = np.full(num_patients, 1 / num_patients)
    weights = rng.multinomial(num_patients, chance, size=num_draws)[:, patients]
    picked = rng.multinomial(num_readers, np.full(num_readers, 1 / num_readers), size=num_draws)
    sides = []
    for case in (study.truth_c, ~study.truth_c):
        gain = (study.model_c == study.truth_c)[None] * 1.0 - (study.decisions_rc == study.truth_c)
        sides.append(weights[:, case] @ gain[:, case].T / weights[:, case].sum(1, keepdims=True))
    means = ((sides[0] + sides[1]) / 2 * picked).sum(1) / num_readers
    return np.quantile(means, [0.025, 0.975])


def test_the_export_holds_every_reading_once_and_the_model_beside_it(study):
    text = imrmc_text(study)
    head, _, body = text.partition("BEGIN DATA:\n")
    assert {"NR: 4", "N0: 6", "N1: 6", "NM: 3"} <= set(head.splitlines())
    rows = [tuple(int(cell) for cell in line.split(",")) for line in body.splitlines()]
    truth = {case: value for reader, case, modality, value in rows if reader == -1}
    assert list(truth.values()) == study.truth_c.astype(int).tolist()
    scores = {row[:3]: row[3] for row in rows if row[0] != -1}
    assert len(scores) == len(rows) - 12 == 4 * 12 * 2
    for (reader, case, modality), score in scores.items():
        row = study.model_c if modality == 3 else study.decisions_rc[reader - 1]
        assert score == row[case - 1]
    # the AUC of 0/1 scores is the balanced accuracy, which is what iMRMC will print
    report = evaluate_readers(study, num_draws=100)
    for reader in range(1, 5):
        own = {c: s for (r, c, m), s in scores.items() if r == reader and m != 3}
        wins = [
            (own[a] > own[b]) + 0.5 * (own[a] == own[b])
            for a in own for b in own if truth[a] > truth[b]
        ]  # fmt: skip
        rate = report.readers[reader - 1].rates["balanced_accuracy"].value
        assert np.mean(wins) == pytest.approx(rate)
    names = [line.split(",") for line in imrmc_identifiers(study).splitlines()]
    assert ["reader", "3", "R2"] in names
    assert [name for kind, _, name in names if kind == "modality"] == ["junior", "senior", "model"]


def run(*arguments: object, code: int = 0):
    result = CliRunner().invoke(readers, [str(one) for one in arguments])
    if code == 0:
        assert result.exit_code == 0, result.output + repr(result.exception)
    return result


def test_the_command_reports_for_people_and_machines(tmp_path):
    paths = write_tables(tmp_path, *make_rows())
    text = run(*paths, "--num-draws", 100).output
    for part in ("12 eyes of 6 patients, 6 positive; not declared synthetic", "junior (mean of 2)",
                 "model minus senior", "research use only; not a medical device"):  # fmt: skip
        assert part in text
    assert "synthetic eyes, no patients" in run(*paths, "--synthetic", "--num-draws", 100).output
    record = json.loads(run(*paths, "--json", "--num-draws", 100).output)
    assert record["notice"] == "research use only; not a medical device"
    (found,) = record["studies"]
    assert found["label"] == "macular_edema"
    assert found["groups"][0]["model_minus_group"]["sensitivity"]["over_readers"] is True


def test_the_command_exports_one_label_only(tmp_path):
    readings, predictions = make_rows()
    target = tmp_path / "study.imrmc"
    both = [{**row, "label": name} for name in ("a", "b") for row in readings]
    cases = [{**row, "label": name} for name in ("a", "b") for row in predictions]
    paths = write_tables(tmp_path, both, cases)
    refused = run(*paths, "--export-mrmc", target, code=2)
    assert isinstance(refused.exception, ConfigError)
    assert "choose with --label" in str(refused.exception)
    assert not target.exists()
    run(*paths, "--label", "b", "--export-mrmc", target, "--num-draws", 100)
    assert target.read_text().count("BEGIN DATA:") == 1
    assert (tmp_path / "study.ids.csv").read_text().startswith("kind,number,name\n")
    missing = run(*paths, "--label", "c", code=2)
    assert "nobody read label 'c'; READERS.csv has a, b" in str(missing.exception)
