"""The latent eyes: prevalences, correlated fellow eyes, sites, labels, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_runtime.errors import ConfigError
from train.phantom.latent import LABEL_NAMES, UNGRADABLE_KINDS, Disease, LatentEye
from train.phantom.sample import SITES, PairDraws, sample_patient

NUM_PATIENTS = 200


@pytest.fixture(scope="module")
def pairs() -> list[tuple[LatentEye, LatentEye]]:
    return [sample_patient(5, number) for number in range(NUM_PATIENTS)]


@pytest.fixture(scope="module")
def labels(pairs: list[tuple[LatentEye, LatentEye]]) -> dict[str, np.ndarray]:
    return {
        name: np.array([[eye.labels()[name] for eye in pair] for pair in pairs], float)
        for name in LABEL_NAMES
    }


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("macular_edema", 0.17, 0.31),
        ("myopic_schisis", 0.07, 0.21),
        ("glaucoma", 0.16, 0.31),
        ("referable_dr", 0.19, 0.35),
        ("amd", 0.10, 0.25),
        ("gradable", 0.90, 0.975),
    ],
)
def test_prevalences_lie_in_their_range(
    labels: dict[str, np.ndarray], name: str, low: float, high: float
) -> None:
    assert low < labels[name].mean() < high


def test_every_dr_grade_and_every_failure_occurs(
    pairs: list[tuple[LatentEye, LatentEye]], labels: dict[str, np.ndarray]
) -> None:
    assert set(labels["dr_grade"].ravel()) == {0, 1, 2, 3, 4}
    assert np.array_equal(labels["referable_dr"] == 1, labels["dr_grade"] >= 2)
    kinds = {eye.capture.ungradable_kind for pair in pairs for eye in pair}
    assert kinds == {"", *UNGRADABLE_KINDS}


def test_edema_is_commoner_with_dr_and_never_with_schisis(
    labels: dict[str, np.ndarray], pairs: list[tuple[LatentEye, LatentEye]]
) -> None:
    edema, dr = labels["macular_edema"].ravel(), labels["dr_grade"].ravel() > 0
    assert edema[dr].mean() > edema[~dr].mean()
    assert not np.any(edema * labels["myopic_schisis"].ravel())
    for eye in (eye for pair in pairs for eye in pair if eye.disease.schisis > 0):
        assert eye.anatomy.myopia > 0.2


@pytest.mark.parametrize("name", ["macular_edema", "glaucoma", "referable_dr", "amd"])
def test_fellow_eyes_agree_more_than_chance_but_not_always(
    labels: dict[str, np.ndarray], name: str
) -> None:
    assert 0.1 < np.corrcoef(labels[name].T)[0, 1] < 0.95


def test_fellow_eyes_share_what_a_person_shares(
    pairs: list[tuple[LatentEye, LatentEye]],
) -> None:
    for od, os in pairs:
        assert (od.anatomy.laterality, os.anatomy.laterality) == ("OD", "OS")
        assert od.acquired == os.acquired
        assert od.capture.site == os.capture.site
        assert od.anatomy.age_years == os.anatomy.age_years
        assert od.render_seed != os.render_seed
    lengths = np.array([[eye.anatomy.axial_length_mm for eye in pair] for pair in pairs])
    pigment = np.array([[eye.anatomy.pigment for eye in pair] for pair in pairs])
    assert np.corrcoef(lengths.T)[0, 1] > 0.7
    assert np.corrcoef(pigment.T)[0, 1] > 0.9


def test_site_is_a_mild_confounder(pairs: list[tuple[LatentEye, LatentEye]]) -> None:
    tints = {name: [] for name in SITES}
    for od, _ in pairs:
        tints[od.capture.site].append(od.capture.tint)
    means = {name: np.mean(values) for name, values in tints.items()}
    assert min(len(values) for values in tints.values()) > 30
    assert means["north"] > means["harbour"]


def test_dr_lesions_follow_the_grade(pairs: list[tuple[LatentEye, LatentEye]]) -> None:
    hemorrhages: dict[int, list[int]] = {grade: [] for grade in range(5)}
    for eye in (eye for pair in pairs for eye in pair):
        grade, lesions = eye.disease.dr_grade, eye.lesions
        hemorrhages[grade].append(len(lesions.hemorrhages))
        assert (len(lesions.microaneurysms) > 0) == (grade >= 1)
        assert (len(lesions.hemorrhages) > 0) == (grade >= 2)
        assert bool(lesions.new_vessels) == (grade == 4)
    assert np.mean(hemorrhages[3]) > 2 * np.mean(hemorrhages[2])


def test_layout_of_left_eyes_mirrors_right_eyes(
    pairs: list[tuple[LatentEye, LatentEye]],
) -> None:
    for od, os in pairs:
        assert od.anatomy.disc_xy[0] > od.anatomy.fovea_xy[0] + 0.4
        assert os.anatomy.disc_xy[0] < os.anatomy.fovea_xy[0] - 0.4


def test_cup_fits_into_the_disc(pairs: list[tuple[LatentEye, LatentEye]]) -> None:
    for eye in (eye for pair in pairs for eye in pair):
        assert abs(eye.anatomy.cup_shift) + eye.anatomy.cup_ratio < 1.0


def test_same_seed_same_eye_and_other_seed_other_eye() -> None:
    first, again, other = (sample_patient(seed, 3)[0] for seed in (1, 1, 2))
    assert first.scalars() == again.scalars()
    assert np.array_equal(first.vessels[0].points_xy, again.vessels[0].points_xy)
    assert first.scalars() != other.scalars()


def test_vessels_spare_the_fovea_and_reach_the_periphery(
    pairs: list[tuple[LatentEye, LatentEye]],
) -> None:
    for eye in (eye for pair in pairs[:60] for eye in pair):
        points = np.concatenate([vessel.points_xy for vessel in eye.vessels])
        from_fovea = np.hypot(*(points - np.array(eye.anatomy.fovea_xy)).T)
        assert from_fovea.min() > 0.05
        assert np.hypot(*points.T).max() > 0.9
        trunks = [vessel for vessel in eye.vessels if vessel.order == 0]
        assert len(trunks) == 4
        assert all(vessel.widths[0] > vessel.widths[-1] for vessel in trunks)
        heights = sorted(
            np.sign(np.mean(v.points_xy[10:30, 1]) - eye.anatomy.fovea_xy[1]) for v in trunks
        )
        assert heights == [-1, -1, 1, 1]


def test_pair_draws_have_the_stated_correlation_and_range() -> None:
    both = []
    for seed in range(2):
        draws = PairDraws(np.random.default_rng(9), np.random.default_rng(seed))
        both.append([draws.uniform(2.0, 4.0, 0.7) for _ in range(4000)])
    values = np.array(both)
    assert values.min() >= 2.0
    assert values.max() <= 4.0
    assert values.mean() == pytest.approx(3.0, abs=0.03)
    assert np.corrcoef(values)[0, 1] == pytest.approx(0.68, abs=0.04)


def test_values_out_of_range_are_refused() -> None:
    eye = sample_patient(0, 0)[0]
    with pytest.raises(ConfigError, match=r"Disease.edema is 1.5"):
        Disease(edema=1.5)
    with pytest.raises(ConfigError, match="dr_grade is 5"):
        Disease(dr_grade=5)
    with pytest.raises(ConfigError, match="laterality"):
        replace(eye.anatomy, laterality="left")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="ungradable_kind"):
        replace(eye.capture, ungradable_kind="rain")
