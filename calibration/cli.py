"""The commands `edge-screen calibrate` and `edge-screen keygen`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from calibration.operating_point import Target
    from calibration.pipeline import CalibrationOutcome

__all__ = ["calibrate", "keygen"]

_NOTICE = "research use only; not a medical device"
_PATH = click.Path(path_type=Path)
_share = click.FloatRange(0.0, 1.0)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


@click.command()
@click.argument("bundle", type=_PATH, metavar="BUNDLE")
@click.option("--data", "data_dir", type=_PATH, required=True, help="Data set with train and val.")
@click.option("--signing-key", type=_PATH, required=True, help="signing.key of keygen.")
@click.option("--out", "out_dir", type=_PATH, help="New folder for the calibrated bundle.")
@click.option("--in-place", is_flag=True, help="Replace BUNDLE instead of --out.")
@click.option(
    "--method",
    type=click.Choice(["percentile", "mse", "entropy", "minmax"]),
    default="percentile",
    show_default=True,
    help="How INT8 ranges follow from activations.",
)
@click.option("--percentile", default=99.99, show_default=True, help="Used by that method.")
@click.option(
    "--num-images",
    type=click.IntRange(1),
    default=512,
    show_default=True,
    help="INT8-calibration images of train.",
)
@click.option(
    "--target-sensitivity",
    type=_share,
    help="Each disease threshold reaches it on val. [default: 0.9]",
)
@click.option(
    "--target-specificity",
    type=_share,
    help="Each disease threshold reaches it instead, with the sensitivity that is left.",
)
@click.option(
    "--target-ungradable",
    type=_share,
    default=0.90,
    show_default=True,
    help="Share of ungradable val eyes to catch.",
)
@click.option(
    "--min-eyes",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Fewest val eyes with, and without, a label.",
)
@click.option(
    "--prevalence",
    "prevalences",
    type=_share,
    multiple=True,
    help="State PPV and NPV there; repeat for more. [default: 0.03, 0.05, 0.1, 0.2]",
)
@click.option(
    "--abstain-risk",
    type=_share,
    help="Say nothing near a threshold: at most this share of patients with a disease has a "
    "diseased eye below the band. [default: no band]",
)
@click.option("--max-auroc-drop", type=_share, default=0.01, show_default=True)
@click.option("--max-sensitivity-drop", type=_share, default=0.02, show_default=True)
@click.option("--max-specificity-drop", type=_share, default=0.02, show_default=True)
@click.option(
    "--write-failed",
    is_flag=True,
    help="Write the bundle though the gate failed; `screen` refuses its INT8 model.",
)
@click.option(
    "--search", is_flag=True, help="If the gate fails, equalise, then revert layers to float."
)
@click.option(
    "--search-seconds",
    type=click.FloatRange(0.0, min_open=True),
    default=3600.0,
    show_default=True,
    help="Time budget of --search.",
)
@click.option(
    "--residual-pairs",
    type=click.Choice(["both", "identity"]),
    default="both",
    show_default=True,
    help="Q/DQ at a residual Add; 'identity' leaves TensorRT a fusion and a CPU float layers.",
)
@click.option("--report", type=_PATH, help="Write the gate's report there, however it ended.")
@click.option("--trt-cache", type=_PATH, help="Write the ranges for TensorRT's implicit INT8, too.")
@click.option(
    "--trt-version",
    default="8.6.1",
    show_default=True,
    help="TensorRT that reads --trt-cache; it takes a cache of its own version only.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@_json
def calibrate(
    bundle: Path,
    data_dir: Path,
    signing_key: Path,
    out_dir: Path | None,
    in_place: bool,
    write_failed: bool,
    report: Path | None,
    trt_cache: Path | None,
    trt_version: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Make BUNDLE INT8, choose its thresholds on val, gate it against FP32 and sign it.

    The bundle is written as a whole, or not at all. The gate ends as passed, as not shown (too
    few patients: the bundle is written, and `screen` refuses its INT8 model unless told to take
    it), or as failed: exit code 8 with the numbers, and nothing is written.

    \b
    Example:
      edge-screen keygen --out keys
      edge-screen calibrate runs/bundle --data runs/eyes --signing-key keys/signing.key \\
        --out runs/bundle8
    """  # noqa: D301 (click needs the backspace itself)
    from calibration.pipeline import calibrate_bundle
    from calibration.trt_cache import CacheTarget

    if (out_dir is not None) == in_place:
        raise click.UsageError("Give either --out DIR or --in-place.")
    target = bundle if out_dir is None else out_dir
    outcome = calibrate_bundle(
        bundle,
        data_dir,
        signing_key,
        _config(settings),
        out_dir=out_dir,
        report_path=report,
        cache=None if trt_cache is None else CacheTarget(path=trt_cache, tensorrt=trt_version),
        write_failed=write_failed,
        progress=_show_progress if sys.stderr.isatty() else None,
    )
    if as_json:
        click.echo(json.dumps(_as_dict(target, outcome), indent=2, allow_nan=False))
    else:
        click.echo("\n".join(_as_text(target, outcome)))


@click.command()
@click.option("--out", type=_PATH, required=True, help="Folder for signing.key and signing.pub.")
@_json
def keygen(out: Path, as_json: bool) -> None:
    """Make an Ed25519 key pair; keep signing.key secret, give signing.pub to the cameras.

    \b
    Example:
      edge-screen keygen --out keys
    """  # noqa: D301 (click needs the backspace itself)
    from edge_runtime.signing import generate_keypair

    pair = generate_keypair(out)
    if as_json:
        content = {
            "key_id": pair.key_id,
            "private_key": str(pair.private_key_path),
            "public_key": str(pair.public_key_path),
        }
        click.echo(json.dumps(content, indent=2))
        return
    click.echo(f"key id       {pair.key_id}")
    click.echo(f"private key  {pair.private_key_path} (secret; only the signer needs it)")
    click.echo(f"public key   {pair.public_key_path} (copy it into trusted_keys/ of the camera)")


def _config(settings: dict[str, Any]) -> Any:
    """The configuration that the options ask for."""
    from calibration.accuracy import SearchConfig
    from calibration.config import CalibrationConfig
    from calibration.gate import GateLimits
    from calibration.observers import RangeMethod
    from calibration.operating_point import Target
    from calibration.predictive_values import PREVALENCES

    return CalibrationConfig(
        method=RangeMethod(name=settings["method"], percentile=settings["percentile"]),
        num_images=settings["num_images"],
        target=_target(settings["target_sensitivity"], settings["target_specificity"]),
        gradability_target=Target(measure="specificity", value=settings["target_ungradable"]),
        min_eyes=settings["min_eyes"],
        prevalences=settings["prevalences"] or PREVALENCES,
        abstain_risk=settings["abstain_risk"],
        limits=GateLimits(
            max_auroc_drop=settings["max_auroc_drop"],
            max_sensitivity_drop=settings["max_sensitivity_drop"],
            max_specificity_drop=settings["max_specificity_drop"],
        ),
        residual_pairs=settings["residual_pairs"],
        search=(
            SearchConfig(max_seconds=settings["search_seconds"]) if settings["search"] else None
        ),
        seed=settings["seed"],
    )


def _target(sensitivity: float | None, specificity: float | None) -> Target:
    """The one that was asked for; sensitivity 0.9 if none was."""
    from calibration.operating_point import Target

    if sensitivity is not None and specificity is not None:
        raise click.UsageError("Give either --target-sensitivity or --target-specificity.")
    if specificity is not None:
        return Target(measure="specificity", value=specificity)
    return Target() if sensitivity is None else Target(value=sensitivity)


def _show_progress(stage: str, done: int, total: int) -> None:
    if done % 20 == 0 or done == total:
        end = "\n" if done == total else ""
        click.echo(f"\r{stage}: {done} of {total} images{end}", err=True, nl=False)


def _as_dict(bundle: Path, outcome: CalibrationOutcome) -> dict[str, Any]:
    from edge_runtime.strict_json import dataclass_to_dict

    manifest = outcome.written.manifest
    return {
        "bundle": str(bundle),
        "sha256": outcome.written.sha256,
        "key_id": outcome.written.key_id,
        "num_int8_images": outcome.num_int8_images,
        "num_val_images": outcome.num_val_images,
        "num_refused_images": outcome.num_refused_images,
        "strata": dataclass_to_dict(outcome.strata),
        "labels": dataclass_to_dict(manifest.labels),
        "gradability": dataclass_to_dict(manifest.gradability),
        "gate": dataclass_to_dict(outcome.gate.report),
        "search": None if outcome.search is None else outcome.search.to_dict(),
        "figures": dataclass_to_dict(manifest.metrics["int8_val"]),
        "notice": _NOTICE,
    }


def _as_text(bundle: Path, outcome: CalibrationOutcome) -> list[str]:
    from calibration.strata import FEWEST_IMAGES, thin_strata

    manifest, report = outcome.written.manifest, outcome.gate.report
    thin = thin_strata(outcome.strata)
    lines = [
        f"{bundle} is calibrated and signed by key {outcome.written.key_id}",
        f"INT8 from {outcome.num_int8_images} train images, thresholds from "
        f"{outcome.num_val_images} val images, {outcome.num_refused_images} images refused",
        *(f"fewer than {FEWEST_IMAGES} INT8-calibration images of {stratum}" for stratum in thin),
        f"{'output':20} {'threshold':>9} {'held-out Se':>11} {'Sp':>6} {'AUROC FP32':>11} "
        f"{'INT8':>7}  gate",
    ]
    rows = {row.name: row for row in report.labels}
    for spec in (*manifest.labels, manifest.gradability):
        point, row = spec.operating_point, rows[spec.name]
        assert point is not None
        lines.append(
            f"{spec.name:20} {point.threshold:9.4f} {point.held_out.sensitivity:11.3f} "
            f"{point.held_out.specificity:6.3f} {row.auroc_fp32:11.4f} {row.auroc_int8:7.4f}  "
            f"{row.status.replace('_', ' ')}"
        )
    lines.append(
        f"gate {report.status.replace('_', ' ')}: mean AUROC drop {report.mean_auroc_drop:.4f} "
        f"(limit {report.limit_auroc_drop:.4f}), {report.decision_flips} of "
        f"{report.num_decisions} decisions flipped"
    )
    lines += [f"  {reason}" for reason in report.reasons]
    if outcome.search is not None:
        lines.append(f"search: {outcome.search.sentence()}")
    return [*lines, _NOTICE]
