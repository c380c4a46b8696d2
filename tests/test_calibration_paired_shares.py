"""Tango's interval against published values and a slow reference; patients against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from calibration.paired_shares import (
    count_pairs,
    num_eyes_needed,
    num_patients_needed,
    paired_interval,
    tango_interval,
)


@pytest.mark.parametrize(
    ("lost", "gained", "n", "level", "low", "high"),
    [
        # Airway hyper-responsiveness (Bentur et al. 2009), the worked example of Fagerland,
        # Lydersen and Laake, Statistical Analysis of Contingency Tables, 2017, chapter 8.
        (1, 7, 21, 0.95, -0.517, -0.026),
        # R, PropCIs::scoreci.mp(25, 28, 618, 0.90).
        (28, 25, 618, 0.90, -0.0148, 0.0247),
    ],
)
def test_published_values(lost, gained, n, level, low, high):
    interval = tango_interval(lost, gained, n, level)
    digits = 3 if level == 0.95 else 4
    assert (round(interval.low, digits), round(interval.high, digits)) == (low, high)


def slow_score(lost, gained, n, difference):
    """The same statistic with the nuisance parameter found by maximising the likelihood."""

    def loss(q):
        shares = (q + difference, q, 1 - 2 * q - difference)
        counts = (lost, gained, n - lost - gained)
        return -sum(c * np.log(max(p, 1e-300)) for c, p in zip(counts, shares, strict=True) if c)

    low, high = max(0.0, -difference), (1 - difference) / 2
    q = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return (lost - gained - n * difference) / np.sqrt(n * (2 * q + difference - difference**2))


@pytest.mark.parametrize(
    ("lost", "gained", "n"), [(1, 7, 21), (5, 3, 40), (12, 30, 100), (2.5, 1.25, 60.0)]
)
def test_both_ends_lie_where_the_slow_score_is_z(lost, gained, n):
    interval = tango_interval(lost, gained, n)
    assert slow_score(lost, gained, n, interval.low) == pytest.approx(1.959964, abs=1e-4)
    assert slow_score(lost, gained, n, interval.high) == pytest.approx(-1.959964, abs=1e-4)


def test_without_a_difference_the_end_is_known_in_closed_form():
    z2 = 1.959963984540054**2
    for n in (1, 20, 188, 1000):
        interval = tango_interval(0, 0, n)
        assert interval.high == pytest.approx(z2 / (n + z2), abs=1e-12)
        assert interval.low == pytest.approx(-interval.high, abs=1e-15)


@pytest.mark.parametrize(("lost", "gained", "n"), [(0, 0, 5), (5, 0, 5), (0, 5, 5), (3, 2, 5)])
def test_swapping_the_models_mirrors_the_interval_and_it_holds_the_value(lost, gained, n):
    there, back = tango_interval(lost, gained, n), tango_interval(gained, lost, n)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-12)
    assert -1.0 <= there.low <= there.value <= there.high <= 1.0


@pytest.mark.parametrize(
    ("lost", "gained", "n", "level"),
    [(-1, 0, 5, 0.95), (3, 3, 5, 0.95), (0, 0, 0, 0.95), (0, 0, 5, 1.0), (float("nan"), 0, 5, 0.9)],
)
def test_no_table_is_refused(lost, gained, n, level):
    with pytest.raises(ValueError, match=r"no paired table|level is"):
        tango_interval(lost, gained, n, level)


def test_numbers_needed_are_more_than_the_formula_without_the_margin_promises():
    # ((1.645 + 1.282) / margin)^2 discordance: one-sided 5 %, power 90 %, margin 2 points.
    simple = {0.005: 107, 0.01: 214, 0.02: 428}
    found = {d: num_eyes_needed(d, 0.02, level=0.9) for d in simple}
    assert all(found[d] > simple[d] for d in simple)


@pytest.mark.slow
@pytest.mark.parametrize("discordance", [0.01, 0.02, 0.05])
def test_the_number_of_eyes_has_the_promised_power(discordance):
    rng = np.random.default_rng(7)
    needed = num_eyes_needed(discordance, 0.02)
    counts = rng.multinomial(needed, [discordance / 2, discordance / 2, 1 - discordance], 1500)
    shown = [tango_interval(int(b), int(c), needed).high < 0.02 for b, c, _ in counts]
    # The counts are small whole numbers, so that power moves in steps of several points.
    assert np.mean(shown) == pytest.approx(0.9, abs=0.05)
    simple = round(((1.959964 + 1.281552) / 0.02) ** 2 * discordance)
    counts = rng.multinomial(simple, [discordance / 2, discordance / 2, 1 - discordance], 1500)
    fewer = [tango_interval(int(b), int(c), simple).high < 0.02 for b, c, _ in counts]
    assert np.mean(fewer) < (0.85 if discordance <= 0.02 else 0.9)


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_least_number_is_where_no_flip_at_all_is_just_enough(level):
    least = num_eyes_needed(0.0, 0.02, level=level)
    assert tango_interval(0, 0, least, level).high < 0.02
    assert tango_interval(0, 0, least - 1, level).high >= 0.02
    for margin in (0.0, 1.1):
        with pytest.raises(ValueError, match="no share"):
            num_eyes_needed(0.1, margin)
    assert num_eyes_needed(0.1, 1.0) == 1


def judged(num_patients, pattern):
    """Two eyes a patient; `pattern` gives (right in FP32, right in INT8) of every eye."""
    patients = np.repeat(np.arange(num_patients), 2).astype(str)
    pairs = np.array(pattern, bool)
    return count_pairs(patients, pairs[:, 0], pairs[:, 1])


def test_counts():
    counts = judged(2, [(1, 0), (0, 1), (1, 1), (1, 0)])
    assert (counts.num_eyes, counts.num_patients, counts.num_right_fp32) == (4, 2, 3)
    assert (counts.lost, counts.gained, counts.drop, counts.discordance) == (2, 1, 0.25, 0.75)
    with pytest.raises(ValueError, match="one or more eyes"):
        count_pairs(np.array([], str), np.array([], bool), np.array([], bool))


def test_few_discordant_patients_count_as_if_their_eyes_always_agreed():
    counts = judged(50, [(1, 0)] + [(1, 1)] * 99)
    assert counts.design_effect == 2.0
    alone = count_pairs(np.arange(100).astype(str), np.ones(100, bool), np.arange(100) > 0)
    assert alone.design_effect == 1.0
    assert paired_interval(counts).high > paired_interval(alone).high
    assert num_patients_needed(counts, 0.02) == pytest.approx(
        num_patients_needed(alone, 0.02), abs=1
    )


def test_eyes_that_agree_cost_twice_and_eyes_that_oppose_are_not_rewarded():
    same = judged(200, [(1, 0)] * 40 + [(1, 1)] * 360)
    assert same.design_effect == pytest.approx(2.0, rel=0.01)
    opposed = judged(200, [(1, 0), (0, 1)] * 20 + [(1, 1)] * 360)
    assert opposed.design_effect == 1.0
    assert paired_interval(opposed) == tango_interval(20, 20, 400)


def test_a_model_that_loses_every_eye_has_no_variance_and_still_an_interval():
    counts = judged(20, [(1, 0)] * 40)
    assert counts.design_effect == 2.0
    assert paired_interval(counts).high == 1.0
    assert paired_interval(counts).low > 0.5


def test_the_design_effect_is_the_ratio_of_two_variances_written_out():
    rng = np.random.default_rng(3)
    patients = rng.integers(0, 150, 260).astype(str)
    fp32, int8 = rng.random(260) < 0.8, rng.random(260) < 0.7
    change = fp32.astype(float) - int8.astype(float)
    names = np.unique(patients)
    sums = [change[patients == p].sum() - change.mean() * np.sum(patients == p) for p in names]
    clustered = names.size / (names.size - 1) * np.sum(np.square(sums)) / change.size**2
    independent = change.var() / change.size
    found = count_pairs(patients, fp32, int8).design_effect
    assert found == pytest.approx(max(1.0, clustered / independent))


def simulate(num_patients, lost, gained, same, rng):
    """60 % of the patients have two eyes, whose outcomes are one with probability `same`."""
    two = rng.random(num_patients) < 0.6
    shares = [lost, gained, 1 - lost - gained]
    first, other = (rng.choice(3, num_patients, p=shares) for _ in range(2))
    second = np.where(rng.random(num_patients) < same, first, other)[two]
    outcome = np.concatenate([first, second])
    patients = np.concatenate([np.arange(num_patients), np.arange(num_patients)[two]])
    return count_pairs(patients.astype(str), outcome != 1, outcome != 0)


@pytest.mark.slow
@pytest.mark.parametrize("same", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("num_patients", [60, 300])
@pytest.mark.parametrize(("lost", "gained"), [(0.025, 0.005), (0.04, 0.02)])
def test_a_true_loss_of_the_margin_passes_in_no_more_than_its_share(
    num_patients, lost, gained, same
):
    rng = np.random.default_rng(11)
    draws = 800
    counts = [simulate(num_patients, lost, gained, same, rng) for _ in range(draws)]
    passed = np.mean([paired_interval(one).high < lost - gained for one in counts])
    # 2.5 %, and three standard errors of 800 draws.
    assert passed <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / draws)
    if same == 1.0:
        naive = [tango_interval(one.lost, one.gained, one.num_eyes).high for one in counts]
        assert np.mean(np.array(naive) < lost - gained) > passed


@pytest.mark.slow
def test_the_number_of_patients_asked_for_has_the_promised_power():
    rng = np.random.default_rng(5)
    pilot = simulate(3000, 0.01, 0.01, 0.3, rng)
    needed = num_patients_needed(pilot, 0.02)
    shown = [
        paired_interval(simulate(needed, 0.01, 0.01, 0.3, rng)).high < 0.02 for _ in range(400)
    ]
    # A design effect below 1 is never taken, so that a little more is asked for than needed.
    assert 0.85 < np.mean(shown) < 0.97
