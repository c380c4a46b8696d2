"""The sections on training: what OCT taught, and teacher, student and INT8 side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from export.demo.cards import triple_gallery
from export.demo.charts import latency_chart, probe_chart, roc_chart
from export.demo.html import (
    Markup,
    data_table,
    duration,
    element,
    label_words,
    mark_verdict,
    paragraph,
    percent,
    section,
    value_with_interval,
)
from export.demo.model import ARMS, DemoReport, ModelRow, ProbeAuroc
from export.demo.pictures import ReportPictures

__all__ = ["model_section", "pretraining_section"]

_ARM_WORDS = {
    "oct_informed": "photograph + OCT (the method)",
    "cfp_only": "photograph only, same network, steps and data",
    "shuffled_oct": "photograph + another eye's OCT (control)",
    "no_pretraining": "no pretraining (random encoder)",
}


def pretraining_section(report: DemoReport, pictures: ReportPictures) -> Markup:
    """Return what OCT taught the photograph's encoder."""
    pretraining = report.pretraining
    labels = _ordered_labels(pretraining.arms)
    lead = (
        "The encoder sees only the photograph. It learned to predict the eye's two OCT scans from "
        f"it; a linear probe with {pretraining.num_labels} labels then shows what it knows."
    )
    charts = element("div", *(probe_chart(n, pretraining.arms) for n in labels), class_="charts")
    return section(
        "pretraining",
        "What OCT taught the photograph",
        lead,
        charts,
        _arm_table(report, labels),
        _control_table(report),
        element("h3", "Test eyes and what the network made of them"),
        triple_gallery(pictures.triples),
        paragraph(
            "The encoder that predicts the scans gets the whole photograph. Patches are hidden "
            "only for rebuilding it. A rebuilt patch is drawn with the brightness and contrast of "
            "the original, which the network does not predict. Scans are predicted flattened, "
            "reduced and z-scored; target and prediction share one grey window (±2.5 sd).",
            class_="note",
        ),
    )


def _ordered_labels(tables: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return every label once, in the order of its first appearance."""
    return list(dict.fromkeys(name for table in tables.values() for name in table))


def _arm_table(report: DemoReport, labels: Sequence[str]) -> Markup:
    arms = report.pretraining.arms
    rows: list[list[object]] = []
    for arm in (name for name in ARMS if name in arms):
        cells = [_probe_cell(arms[arm], label) for label in labels]
        seconds = report.pretraining.seconds_per_arm.get(arm)
        rows.append([_ARM_WORDS[arm], *cells, "-" if seconds is None else duration(seconds)])
    gains = [_gain_cell(report, label) for label in labels]
    rows.append([element("b", "gain of OCT over photograph only"), *gains, ""])
    caption = (
        f"AUROC of linear probes with {report.pretraining.num_labels} labels, "
        f"{report.pretraining.num_steps:,} pretraining steps an arm"
    )
    return data_table(caption, ["arm", *map(label_words, labels), "time"], rows)


def _probe_cell(results: Mapping[str, ProbeAuroc], label: str) -> object:
    if label not in results:
        return "not measured"
    result = results[label]
    return Markup(f"{result.auroc_mean:.3f} <small>± {result.auroc_sd:.3f}</small>")


def _gain_cell(report: DemoReport, label: str) -> object:
    gain = report.pretraining.gain(label)
    return "not measured" if gain is None else element("b", f"{gain:+.3f}")


def _control_table(report: DemoReport) -> Markup:
    pretraining = report.pretraining
    rows = [
        (
            "Gradient of the OCT loss with respect to OCT pixels",
            f"{pretraining.gradient_leak:g}",
            "must be exactly 0: the encoder has not peeked at the scan",
        ),
        (
            "The same gradient where the network does read the scan",
            f"{pretraining.gradient_leak_control:.3g}",
            "must be above 0, or the check above is blind",
        ),
        (
            "OCT loss against another eye's scan / its own",
            f"{pretraining.shuffled_oct_loss_ratio:.3f}",
            "about 1 if only the mean scan were learned, above 1 if this eye's was",
        ),
    ]
    for name, value in pretraining.flatten_error_rows.items():
        what = f"Flattening of the scans: {name.replace('_', ' ')}"
        rows.append((what, _with_unit(name, value), "found from the scan alone, against the truth"))
    head = ("control", "value", "meaning")
    return data_table("Controls of the pretraining", head, rows, words=(2,))


def _with_unit(statistic: str, value: float) -> str:
    """Return a flattening statistic: shares and counts say so in their names, errors are rows."""
    if statistic.startswith("share"):
        return percent(value)
    return f"{value:,.0f}" if statistic.startswith("num") else f"{value:.2f} rows"


def model_section(report: DemoReport, pictures: ReportPictures) -> Markup:
    """Return teacher, student FP32 and student INT8 side by side."""
    labels = _ordered_labels({model.name: model.labels for model in report.models})
    lead = (
        "The student must keep what the teacher knows, and INT8 must keep what the student knows. "
        "Intervals are 95 %, resampled by patient."
    )
    by_label = {name: [c for c in pictures.roc if c.label == name] for name in labels}
    charts = [roc_chart(name, curves, report.models) for name, curves in by_label.items() if curves]
    return section(
        "models",
        "Teacher, student, INT8 student",
        lead,
        _model_table(report.models, labels),
        element("div", *charts, class_="charts"),
        latency_chart(report.models),
        _gate_table(report),
    )


def _model_table(models: Sequence[ModelRow], labels: Sequence[str]) -> Markup:
    rows: list[list[object]] = []
    for name in labels:
        cells = [_auroc_cell(model, name) for model in models]
        rows.append([f"AUROC, {label_words(name)}", *cells])
    means = [element("b", value_with_interval(m.mean_auroc.value, m.mean_auroc.interval))
             for m in models]  # fmt: skip
    rows.append([element("b", "AUROC, mean"), *means])
    rows.append(["size", *(f"{model.size_mib:.2f} MiB" for model in models)])
    rows.append(["parameters", *(f"{model.num_parameters:,}" for model in models)])
    for key in ("p50", "p99"):
        rows.append([f"latency {key}", *(_latency_cell(model, key) for model in models)])
    head = ["test patients", *(model.name for model in models)]
    return data_table("Accuracy, size and speed", head, rows)


def _auroc_cell(model: ModelRow, label: str) -> object:
    if label not in model.labels:
        return "not measured"
    return value_with_interval(model.labels[label].auroc, model.labels[label].interval)


def _latency_cell(model: ModelRow, key: str) -> str:
    if model.latency_ms is None:
        return "not timed"
    return f"{getattr(model.latency_ms, key):.2f} ms"


_GATE_NOTES = {
    "passed": "INT8 was shown to be no worse.",
    "not_shown": "These {num} patients are too few to show it: about {needed} patients of each "
    "class are needed. The camera refuses this INT8 model unless it is told aloud to take it; "
    "the demo does so, and every screening result records it.",
    "failed": "INT8 lost more than a limit. The camera refuses this INT8 model unless it is told "
    "aloud to take it; the demo does so to show what it says, and ends with exit code 8.",
}


def _gate_table(report: DemoReport) -> Markup:
    gate = report.gate
    rows = [
        (
            label_words(label.name),
            f"{label.auroc_fp32:.3f}",
            f"{label.auroc_int8:.3f}",
            value_with_interval(label.drop, label.drop_interval, decimals=4),
            value_with_interval(label.sensitivity.drop, label.sensitivity.drop_interval),
            value_with_interval(label.specificity.drop, label.specificity.drop_interval),
            label.status.replace("_", " "),
        )
        for label in gate.labels
    ]
    head = ("label", "AUROC FP32", "AUROC INT8", "AUROC drop", "sensitivity drop",
            "specificity drop", "")  # fmt: skip
    caption = (
        f"INT8 gate on {gate.num_images:,} pictures of split {gate.split}: ",
        mark_verdict(gate.passed, ("passed", gate.status.replace("_", " "))),
    )
    note = (
        f"To pass, every interval of a disease must end below its limit: AUROC "
        f"{gate.limit_auroc_drop:g}, sensitivity {gate.limit_sensitivity_drop:g}, specificity "
        f"{gate.limit_specificity_drop:g}. Mean AUROC drop {gate.mean_auroc_drop:+.4f}; "
        f"{gate.decision_flips} of {gate.num_decisions} decisions flipped. "
    ) + _GATE_NOTES[gate.status].format(needed=gate.num_patients_needed, num=gate.num_patients)
    return data_table(element("span", *caption), head, rows, note=note)
