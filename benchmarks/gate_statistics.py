"""How often the gate's bounds err: simulated patients with two eyes, naive counting beside ours.

    python benchmarks/gate_statistics.py
    python benchmarks/gate_statistics.py --draws 4000 --seed 1 --json

`false passes` is the share of sets in which a true sensitivity drop of exactly the margin is
called smaller; nominal 2.5 %. `power` is the share in which INT8 that loses nothing is shown to,
with as many eyes as `num_eyes_needed` asks for, and with the simpler formula that leaves the
margin's variance out.
"""

from __future__ import annotations

import json
from statistics import NormalDist

import click
import numpy as np
from numpy.typing import NDArray

from calibration.paired_shares import (
    PairedCounts,
    count_pairs,
    num_eyes_needed,
    paired_interval,
    tango_interval,
)

MARGIN = 0.02


@click.command()
@click.option("--draws", default=2000, show_default=True, help="Simulated sets a row.")
@click.option("--num-patients", default=300, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(draws: int, num_patients: int, seed: int, as_json: bool) -> None:
    """Simulate and print both tables."""
    rng = np.random.default_rng(seed)
    agreements = (0.0, 0.5, 1.0)
    errors = [false_passes(num_patients, same, draws, rng) for same in agreements]
    powers = [power(discordance, draws, rng) for discordance in (0.005, 0.01, 0.02)]
    if as_json:
        click.echo(json.dumps({"false_passes": errors, "power": powers}))
        return
    click.echo(f"false passes, {num_patients} patients, 60 % with two eyes, {draws} sets a row")
    for row in errors:
        click.echo(
            f"  flips of two eyes agree with probability {row['same']:.1f}: as if independent "
            f"{row['naive']:.1%}, by design effect {row['clustered']:.1%}"
        )
    click.echo("power, independent eyes, no loss in truth, one-sided 2.5 %, margin 2 points")
    for row in powers:
        click.echo(
            f"  discordance {row['discordance']:.1%}: {row['needed']:.0f} eyes {row['power']:.1%}; "
            f"simpler formula {row['simple']:.0f} eyes {row['simple_power']:.1%}"
        )


def false_passes(
    num_patients: int, same: float, draws: int, rng: np.random.Generator
) -> dict[str, float]:
    """Share of sets whose upper end misses a true drop of the margin, naive and clustered."""
    sets = [simulate(num_patients, 2 * MARGIN, MARGIN, same, rng) for _ in range(draws)]
    naive = [tango_interval(one.lost, one.gained, one.num_eyes).high < MARGIN for one in sets]
    clustered = [paired_interval(one).high < MARGIN for one in sets]
    return {
        "same": same,
        "naive": float(np.mean(naive)),
        "clustered": float(np.mean(clustered)),
    }


def power(discordance: float, draws: int, rng: np.random.Generator) -> dict[str, float]:
    """Share of sets that show no loss, with the eyes each formula asks for."""
    z = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.9)
    numbers = (num_eyes_needed(discordance, MARGIN), round((z / MARGIN) ** 2 * discordance))
    shown = [_share_shown(count, discordance, draws, rng) for count in numbers]
    return {
        "discordance": discordance,
        "needed": numbers[0],
        "power": shown[0],
        "simple": numbers[1],
        "simple_power": shown[1],
    }


def simulate(
    num_patients: int, lost: float, gained: float, same: float, rng: np.random.Generator
) -> PairedCounts:
    """60 % of the patients have two eyes, whose outcomes are one with probability `same`."""
    two = rng.random(num_patients) < 0.6
    shares = [lost, gained, 1.0 - lost - gained]
    first, other = (rng.choice(3, num_patients, p=shares) for _ in range(2))
    second = np.where(rng.random(num_patients) < same, first, other)[two]
    outcome: NDArray[np.int64] = np.concatenate([first, second])
    patients = np.concatenate([np.arange(num_patients), np.arange(num_patients)[two]])
    return count_pairs(patients.astype(str), outcome != 1, outcome != 0)


def _share_shown(count: int, discordance: float, draws: int, rng: np.random.Generator) -> float:
    half = discordance / 2
    tables = rng.multinomial(count, [half, half, 1.0 - discordance], draws)
    highs = [tango_interval(int(lost), int(gained), count).high for lost, gained, _ in tables]
    return float(np.mean(np.array(highs) < MARGIN))


if __name__ == "__main__":
    main()
