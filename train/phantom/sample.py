"""Draw the two latent eyes of a patient: shared liability, own details, one camera."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date, timedelta
from typing import Literal

import numpy as np

from train.phantom.latent import UNGRADABLE_KINDS, Anatomy, Capture, Disease, LatentEye
from train.phantom.lesions import sample_lesions
from train.phantom.vessels import grow_vessels

__all__ = ["SITES", "PairDraws", "patient_name", "sample_patient"]

# Camera offsets of each site: (gain, tint, vignette, share of patients, share with high DR
# liability). The last two differ a little, which makes the site a mild confounder of DR.
SITES: dict[str, tuple[float, float, float, float, float]] = {
    "north": (1.03, 0.015, -0.05, 0.40, 0.30),
    "harbour": (0.96, -0.025, 0.06, 0.35, 0.30),
    "hospital": (1.00, 0.010, 0.00, 0.25, 0.40),
}
UNGRADABLE_RATE = 0.06
FIRST_DAY = date(2023, 1, 2)


class PairDraws:
    """Random numbers of one eye that correlate with the fellow eye's.

    Both eyes read the same shared stream in the same order, so every draw must be made
    whether or not it is used. `rho` is the correlation of the underlying normals
    (Gaussian copula); the marginal distribution does not depend on it.
    """

    def __init__(self, shared: np.random.Generator, own: np.random.Generator) -> None:
        """Take the stream that both eyes read and the one of this eye alone."""
        self._shared = shared
        self._own = own

    def standard(self, rho: float) -> float:
        """Return a standard normal number."""
        common, private = self._shared.standard_normal(), self._own.standard_normal()
        return float(math.sqrt(rho) * common + math.sqrt(1.0 - rho) * private)

    def fraction(self, rho: float) -> float:
        """Return a number uniform in 0 to 1."""
        return 0.5 * (1.0 + math.erf(self.standard(rho) / math.sqrt(2.0)))

    def normal(self, mean: float, deviation: float, rho: float = 0.0) -> float:
        """Return a normal number."""
        return mean + deviation * self.standard(rho)

    def uniform(self, low: float, high: float, rho: float = 0.0) -> float:
        """Return a uniform number."""
        return low + (high - low) * self.fraction(rho)


def patient_name(patient_number: int) -> str:
    """Return the patient id, such as P000123."""
    return f"P{patient_number:06d}"


def sample_patient(seed: int, patient_number: int) -> tuple[LatentEye, LatentEye]:
    """Draw both eyes of one patient.

    Args:
        seed: Seed of the data set.
        patient_number: Number of the patient; the result depends on these two only.

    Returns:
        The right eye (OD) and the left eye (OS).
    """
    root = np.random.SeedSequence([seed, patient_number])
    patient_seed, shared_seed, od_seed, os_seed = root.spawn(4)
    person = np.random.default_rng(patient_seed)
    liability = float(person.standard_normal())
    site = _sample_site(person, liability)
    acquired = FIRST_DAY + timedelta(days=int(person.integers(0, 1000)))
    age = float(person.uniform(25, 85))

    def eye(laterality: Literal["OD", "OS"], own_seed: np.random.SeedSequence) -> LatentEye:
        own = np.random.default_rng(own_seed)
        draws = PairDraws(np.random.default_rng(shared_seed), own)
        anatomy, disease = _sample_body(draws, laterality, age, liability)
        capture = _sample_capture(draws, own, site, age)
        reach = 1.08 + math.hypot(*capture.field_shift_xy)
        return LatentEye(
            patient_id=patient_name(patient_number),
            acquired=acquired,
            anatomy=anatomy,
            disease=disease,
            vessels=grow_vessels(own, anatomy, reach=reach),
            lesions=sample_lesions(own, anatomy, disease),
            capture=capture,
            render_seed=int(own.integers(2**31)),
        )

    return eye("OD", od_seed), eye("OS", os_seed)


def _sample_site(person: np.random.Generator, liability: float) -> str:
    column = 4 if liability > 0.4 else 3
    names = list(SITES)
    return names[int(person.choice(len(names), p=[SITES[name][column] for name in names]))]


def _sample_body(
    draws: PairDraws, laterality: Literal["OD", "OS"], age: float, liability: float
) -> tuple[Anatomy, Disease]:
    long_eye = draws.fraction(0.9) < 0.22
    length = draws.normal(24.2, 1.5, 0.9) + long_eye * draws.uniform(2.0, 4.5, 0.8)
    length = float(np.clip(length, 21.5, 31.0))
    myopia = float(np.clip((length - 25.2) / 4.5, 0.0, 1.0))
    disease = _sample_disease(draws, age, myopia, liability)
    return _sample_anatomy(draws, laterality, age, length, myopia, disease.glaucoma), disease


def _sample_disease(draws: PairDraws, age: float, myopia: float, liability: float) -> Disease:
    severity = [draws.uniform(0.3, 1.0, rho) for rho in (0.4, 0.5, 0.6)]
    chance = [draws.fraction(rho) for rho in (0.5, 0.6, 0.7, 0.8)]
    dr_amount, amd_amount = draws.uniform(0.2, 1.0, 0.8), draws.uniform(0.25, 1.0, 0.8)
    own_liability = math.sqrt(0.9) * liability + math.sqrt(0.1) * draws.standard(0.0)
    has_dr = own_liability > 0.41246  # the upper 34 % of a standard normal
    has_schisis = myopia > 0.2 and chance[1] < 0.55
    has_edema = not has_schisis and chance[0] < (0.36 if has_dr else 0.24)
    dr = dr_amount if has_dr else 0.0
    amd = amd_amount if age > 55 and chance[3] < 0.35 else 0.0
    return Disease(
        edema=severity[0] if has_edema else 0.0,
        edema_offset_xy=(draws.normal(0, 0.035), draws.normal(0, 0.035)),
        edema_radius=draws.uniform(0.13, 0.24),
        edema_type=draws.fraction(0.0),
        schisis=severity[1] if has_schisis else 0.0,
        schisis_rays=11 + int(draws.uniform(0, 5)),
        schisis_phase=draws.uniform(0, 2 * math.pi),
        glaucoma=severity[2] if chance[2] < 0.24 else 0.0,
        dr=dr,
        dr_grade=int(np.searchsorted([1e-9, 0.35, 0.65, 0.85], dr)),
        amd=amd,
        atrophy=max(0.0, (amd - 0.85) / 0.15),
    )


def _sample_anatomy(
    draws: PairDraws,
    laterality: Literal["OD", "OS"],
    age: float,
    length: float,
    myopia: float,
    glaucoma: float,
) -> Anatomy:
    nasal = 1 if laterality == "OD" else -1
    fovea = (draws.normal(0, 0.045), draws.normal(0, 0.04))
    disc_offset = (draws.uniform(0.52, 0.63, 0.8), draws.normal(-0.05, 0.025, 0.3))
    cup = float(np.clip(draws.normal(0.38, 0.09, 0.7) + 0.38 * glaucoma, 0.12, 0.92))
    room = 0.9 * (1.0 - cup)
    reflex = (draws.fraction(0.6) < 0.55) * draws.uniform(0.2, 1.0, 0.6)
    return Anatomy(
        laterality=laterality,
        age_years=age,
        axial_length_mm=length,
        myopia=myopia,
        pigment=draws.uniform(0, 1, 0.98),
        fovea_xy=fovea,
        disc_xy=(fovea[0] + nasal * disc_offset[0], fovea[1] + disc_offset[1]),
        disc_radius=draws.uniform(0.095, 0.125, 0.7),
        disc_aspect=draws.uniform(1.0, 1.18, 0.5),
        cup_ratio=cup,
        cup_shift=float(np.clip(draws.normal(0, 0.04), -room, room)),
        cup_tilt=draws.normal(0, 0.03),
        macular_pigment=float(np.clip(draws.normal(0.6, 0.22, 0.8), 0.1, 1.1)),
        foveal_reflex=float(np.clip(reflex * (1 - (age - 25) / 90), 0, 1)),
        retina_scale=draws.normal(1, 0.05, 0.8),
        pit_depth=draws.uniform(0.45, 0.72, 0.8),
        pit_width=draws.uniform(0.09, 0.14, 0.8),
        choroid_thickness=float(
            np.clip(draws.normal(0.20, 0.03, 0.7) * (1 - 0.6 * myopia), 0.05, 0.3)
        ),
    )


def _sample_capture(draws: PairDraws, own: np.random.Generator, site: str, age: float) -> Capture:
    gain, tint, vignette, *_ = SITES[site]
    clouding = max(0.0, (age - 60) / 80) * draws.uniform(0, 1.2, 0.6)
    media = float(np.clip(abs(draws.normal(0, 0.35, 0.4)) + clouding, 0, 1.2))
    capture = Capture(
        site=site,
        gain=gain * draws.uniform(0.79, 1.18, 0.5),
        tint=tint + draws.normal(0, 0.045, 0.6),
        illumination_xy=(draws.normal(0, 0.10, 0.2), draws.normal(0, 0.10, 0.2)),
        vignette=max(0.05, vignette + draws.uniform(0.17, 0.48, 0.6)),
        sensor_noise=draws.uniform(0.006, 0.02, 0.7),
        media_opacity=media,
    )
    return _spoil(own, capture) if draws.fraction(0.3) < UNGRADABLE_RATE else capture


def _spoil(own: np.random.Generator, capture: Capture) -> Capture:
    """Make a picture that cannot be graded, in one of the known ways."""
    kind = UNGRADABLE_KINDS[int(own.integers(len(UNGRADABLE_KINDS)))]
    amount, angle = float(own.random()), float(own.uniform(0, 2 * math.pi))
    spoiled = replace(capture, ungradable_kind=kind)
    if kind == "media":
        opacity = capture.media_opacity + 1.4 + amount
        return replace(spoiled, media_opacity=opacity, veil=0.50 + 0.30 * amount)
    if kind == "defocus":
        return replace(spoiled, defocus=4.0 + 3.5 * amount)
    if kind == "dark":
        return replace(spoiled, gain=0.09 + 0.13 * amount)
    if kind == "overexposed":
        return replace(spoiled, gain=2.4 + 0.9 * amount, veil=0.28)
    if kind == "lid":
        cover, tilt = 0.40 + 0.25 * amount, float(own.normal(0, 0.25))
        return replace(spoiled, lid_cover=cover, lid_angle=tilt)
    shift = 0.60 + 0.25 * amount
    return replace(spoiled, field_shift_xy=(shift * math.cos(angle), shift * math.sin(angle)))
