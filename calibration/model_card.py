"""The model card's section on INT8, probabilities and operating points."""

from __future__ import annotations

from collections.abc import Iterator

from edge_runtime.bundle_parts.gate_record import GateReport, PairedShare
from edge_runtime.bundle_parts.manifest import LabelSpec, Manifest
from edge_runtime.strict_json import JsonValue

__all__ = ["model_card"]

_BEGIN = "<!-- begin: calibrate -->"
_END = "<!-- end: calibrate -->"
_STATUS = {
    "passed": "passed: INT8 was shown to be no worse than the limits allow.",
    "not_shown": "not shown: nothing was lost beyond a limit, but the eyes are too few to show "
    "that. A screener refuses this INT8 model unless it is told to take it.",
    "failed": "FAILED: INT8 lost more than a limit. A screener refuses this INT8 model unless it "
    "is told to take it.",
}


def model_card(text: str, manifest: Manifest) -> str:
    """The model card with one section of this stage; an older one is replaced."""
    before, begin, rest = text.partition(_BEGIN)
    after = rest.partition(_END)[2] if begin else ""
    section = "\n".join(_lines(manifest))
    tail = f"\n{after.strip()}\n" if after.strip() else ""
    return f"{before.rstrip()}\n\n{_BEGIN}\n{section}\n{_END}\n{tail}"


def _lines(manifest: Manifest) -> Iterator[str]:
    record = manifest.int8
    assert record is not None
    gate, data = record.gate, manifest.provenance.get("training_data", "unknown data")
    yield "## INT8, probabilities and operating points"
    yield f"Chosen on the split `{gate.split}` of: {data}. Research use only; not a medical device."
    yield "Held-out columns: each eye judged at a threshold chosen on other patients."
    yield ""
    yield from _operating_points((*manifest.labels, manifest.gradability))
    yield ""
    yield from _screening(manifest)
    yield f"INT8 ranges: {record.method} on {record.num_images} training images."
    yield ""
    yield from _gate(gate)


def _operating_points(specs: tuple[LabelSpec, ...]) -> Iterator[str]:
    head = ("output", "temperature", "threshold", "target", "sensitivity held out (95 %)")
    yield f"| {' | '.join(head)} | specificity held out (95 %) | n+ | n- |"
    yield "|---|---|---|---|---|---|---|---|"
    for spec in specs:
        point = spec.operating_point
        assert point is not None
        held = point.held_out
        yield (
            f"| {spec.name} | {spec.temperature:.3f} | {point.threshold:.4f} | {point.target} "
            f"| {_share(held.sensitivity, held.sensitivity_interval)} "
            f"| {_share(held.specificity, held.specificity_interval)} "
            f"| {point.num_positive} | {point.num_negative} |"
        )
    for spec in specs:
        if spec.abstention is not None:
            band = spec.abstention
            yield ""
            yield (
                f"{spec.name}: from {band.low:.4f} to the threshold nothing is said. Of patients "
                f"like the {band.num_patients} of `val` at most {band.risk:.1%} have a diseased "
                "eye below that band (conformal risk control)."
            )


def _screening(manifest: Manifest) -> Iterator[str]:
    """Ungradable counted as referred: floors and predictive values."""
    figures = manifest.metrics.get("int8_val", {})
    head = ("disease, ungradable = refer", "sensitivity", "above 85 %", "specificity")
    yield f"| {' | '.join(head)} | above 82.5 % | prevalence: PPV / NPV |"
    yield "|---|---|---|---|---|---|"
    for name in manifest.label_names:
        found = figures[name]["screening"]["ungradable_refer"]
        values = "; ".join(
            f"{one['prevalence']:.0%}: {one['ppv']:.2f} / {one['npv']:.3f}"
            for one in found["predictive_values"]
        )
        yield (
            f"| {name} | {_share(found['sensitivity'], found['sensitivity_interval'])} "
            f"| {_floor(found['sensitivity_floor'])} "
            f"| {_share(found['specificity'], found['specificity_interval'])} "
            f"| {_floor(found['specificity_floor'])} | {values} |"
        )
    yield ""


def _gate(gate: GateReport) -> Iterator[str]:
    which = f"{gate.num_images} images of {gate.num_patients} patients"
    yield f"Gate on {which}: {_STATUS[gate.status]}"
    yield (
        f"Mean AUROC drop {gate.mean_auroc_drop:.4f} (limit {gate.limit_auroc_drop:.4f}), "
        f"{gate.decision_flips} of {gate.num_decisions} decisions flipped, largest change of a "
        f"probability {gate.max_probability_change:.4f}."
    )
    yield ""
    yield "| output | AUROC FP32 | AUROC INT8 | drop (95 %) | Se drop (95 %) | Sp drop (95 %) | |"
    yield "|---|---|---|---|---|---|---|"
    for row in gate.labels:
        low, high = row.drop_interval
        yield (
            f"| {row.name} | {row.auroc_fp32:.4f} | {row.auroc_int8:.4f} "
            f"| {row.drop:.4f} ({low:.4f} to {high:.4f}) | {_drop(row.sensitivity)} "
            f"| {_drop(row.specificity)} | {row.status.replace('_', ' ')} |"
        )
    if gate.reasons:
        yield ""
        yield from (f"- {reason}" for reason in gate.reasons)


def _floor(floor: JsonValue) -> str:
    if floor["status"] == "too_few":
        return f"n too small: about {floor['num_patients_needed']} patients needed"
    return str(floor["status"])


def _drop(share: PairedShare) -> str:
    low, high = share.drop_interval
    return f"{share.drop:.4f} ({low:.4f} to {high:.4f})"


def _share(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"
