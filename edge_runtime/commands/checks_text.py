"""What inspect, verify and doctor print: the finding first, then the numbers."""

from __future__ import annotations

from collections.abc import Iterator

from edge_runtime.bundle import Bundle
from edge_runtime.bundle_parts.manifest import SYNTHETIC_WARNING, LabelSpec, Protocol
from edge_runtime.checks.agreement import Agreement, Flip
from edge_runtime.checks.doctor import DoctorReport
from edge_runtime.checks.verify import VerificationReport
from edge_runtime.engines.trt_survey import TrtSurvey
from edge_runtime.reports.result_words import printable
from edge_runtime.result import NOTICE

__all__ = [
    "bundle_text",
    "doctor_text",
    "synthetic_lines",
    "verification_text",
]


def bundle_text(bundle: Bundle) -> str:
    """Return what `edge-screen inspect` prints."""
    manifest = bundle.manifest
    signed = f"key {bundle.key_id}, trusted from {bundle.trusted_from}"
    protocol = manifest.protocol
    lines = [
        f"{manifest.name} {manifest.version}: {manifest.intended_use}",
        *synthetic_lines(manifest.is_synthetic),
        f"SHA-256    {bundle.sha256}",
        f"signature  {signed if bundle.key_id else 'NOT CHECKED (--allow-unsigned)'}",
        f"protocol   {protocol.fields_per_eye} field(s) an eye, {protocol.field_degrees:g} degrees"
        + ("; operating points are set on one" if protocol.fields_per_eye > 1 else ""),
        f"pixels     {_density_text(protocol)}",
        f"cameras    {', '.join(protocol.cameras)}",
        f"input      {manifest.preprocess_spec().size_px} px, "
        f"preprocessing {manifest.preprocessing_sha256[:16]}",
        *(_label_line(label) for label in (*manifest.labels, manifest.gradability)),
        _int8_line(bundle),
    ]
    return "\n".join([*(printable(line) for line in lines), NOTICE])


def _density_text(protocol: Protocol) -> str:
    least, enough = protocol.min_pixels_per_degree, protocol.warn_pixels_per_degree
    return (
        ("any number per degree" if least is None else f"at least {least:g} per degree")
        + "; "
        + ("no warning" if enough is None else f"a warning below {enough:g}")
    )


def synthetic_lines(is_synthetic: bool) -> list[str]:
    """Return the warning that a bundle learned from synthetic eyes; nothing where it did not."""
    return [f"SYNTHETIC  {SYNTHETIC_WARNING}"] if is_synthetic else []


def _label_line(label: LabelSpec) -> str:
    point = label.operating_point
    if point is None:
        return f"  {label.name:<22} no operating point yet"
    held = point.held_out
    return (
        f"  {label.name:<22} threshold {point.threshold:.3f}  "
        f"held-out Se {held.sensitivity:.3f} [{held.sensitivity_interval[0]:.3f}, "
        f"{held.sensitivity_interval[1]:.3f}]  "
        f"Sp {held.specificity:.3f} [{held.specificity_interval[0]:.3f}, "
        f"{held.specificity_interval[1]:.3f}]  on {point.split}, "
        f"{point.num_positive}+{point.num_negative}"
        + (f"  doubtful from {label.abstention.low:.3f}" if label.abstention else "")
    )


def _int8_line(bundle: Bundle) -> str:
    record = bundle.manifest.int8
    if record is None:
        return "INT8       none yet (edge-screen calibrate)"
    gate = record.gate
    return (
        f"INT8       {record.method}, {record.num_images} pictures; gate "
        f"{gate.status.replace('_', ' ').upper()} on {gate.num_images} pictures of "
        f"{gate.num_patients} patients ({gate.split}): mean AUROC drop {gate.mean_auroc_drop:+.4f} "
        f"(limit {gate.limit_auroc_drop:.4f}), {gate.decision_flips} of "
        f"{gate.num_decisions} decisions changed"
        + (f"; about {gate.num_patients_needed} patients a class needed" if not gate.passed else "")
    )


def verification_text(report: VerificationReport) -> str:
    """Return what `edge-screen verify` prints."""
    lines = [
        f"{report.bundle_name} {report.bundle_version}  SHA-256 {report.bundle_sha256[:16]}...",
        *synthetic_lines(report.synthetic),
        f"signed by key {report.key_id}, trusted from {report.trusted_from}",
        *(
            f"  {'ok    ' if check.passed else 'FAILED'}  {check.name:<19} {check.detail}"
            for check in report.checks
        ),
        *([] if report.agreement is None else _agreement_lines(report.agreement)),
        "VERIFIED on this machine" if report.passed else "NOT REPRODUCED on this machine",
    ]
    return "\n".join([*(printable(line) for line in lines), NOTICE])


def _agreement_lines(agreement: Agreement) -> list[str]:
    """The engine, what it runs on, and every decision that differs."""
    reference = f"onnxruntime {agreement.reference}"
    engine = f"{agreement.name} {agreement.precision}"
    return [
        f"engine {engine}: " + ", ".join(f"{k} {v}" for k, v in agreement.details.items()),
        *(f"  warning: {text}" for text in agreement.warnings),
        *(f"  not compared: {one.name[:16]} ({one.reason})" for one in agreement.not_compared),
        *(_flip_line(flip, reference, engine) for flip in agreement.flips),
        f"  for information, INT8 against FP32 on ONNX Runtime: largest difference "
        f"{agreement.max_difference_int8_fp32:.2e}, {len(agreement.flips_int8_fp32)} decisions "
        "differ",
        *(_flip_line(flip, "fp32", "int8") for flip in agreement.flips_int8_fp32),
    ]


def _flip_line(flip: Flip, reference: str, other: str) -> str:
    close = f", {reference} within the tolerance of it" if flip.is_close else ""
    return (
        f"    {flip.picture[:16]}  {flip.label}: {reference} {flip.probability_reference:.4f}, "
        f"{other} {flip.probability_other:.4f}, threshold {flip.threshold:.4f}{close}"
    )


def doctor_text(report: DoctorReport) -> str:
    """Return what `edge-screen doctor` prints."""
    packages = ", ".join(f"{k} {v or 'missing'}" for k, v in report.packages.items())
    installed = ", ".join(f"{k} {v}" for k, v in report.distributions.items() if v)
    bindings = ", ".join(f"{k} {v or 'found'}" for k, v in report.cuda_bindings.items())
    lines = [
        f"edge-screen {report.version} ({installed or 'not installed'})",
        f"system     {report.system}, Python {report.python}"
        + (f", {report.device_model}" if report.device_model else ""),
        f"packages   {packages}",
        f"CPU        {', '.join(report.cpu_features) or 'no INT8 instructions recognised'}",
        f"providers  {', '.join(report.providers) or 'none'} "
        f"(--provider {' or '.join(report.askable_providers) or 'none'})",
        f"CUDA       {bindings}",
        f"engine     {report.engine or 'NONE'}: {report.engine_reason}",
        *_tensorrt_lines(report.tensorrt),
        *(f"PROBLEM    {problem}" for problem in report.problems),
    ]
    return "\n".join([*(printable(line) for line in lines), NOTICE])


def _tensorrt_lines(survey: TrtSurvey) -> Iterator[str]:
    """Which engine each precision would get; nothing where there is no TensorRT."""
    if survey.version is None:
        return
    device = survey.device
    where = "no GPU" if device is None else f"{device.name}, {device.compute_capability}"
    yield f"TensorRT   {survey.version} ({where})"
    for one in survey.choices:
        if one.refused is not None:
            yield f"  {one.precision:<8} none: {one.refused}"
        else:
            files = ", else ".join(one.files)
            yield f"  {one.precision:<8} {files}, {one.typing}ly typed"
