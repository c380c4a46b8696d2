"""The calibrate stage: make a bundle INT8, give it operating points, gate it and sign it.

    images of train -> ranges -> model.int8.onnx -> model.int8-cpu.onnx
    images of val   -> FP32 and INT8 scores -> temperatures, thresholds, gate
    new folder beside its place -> files, bundle.json, bundle.sig -> moved there

Temperatures and thresholds come from the INT8 scores, because INT8 is what the camera runs, and
from images that pass the camera's cheap gate, because no others reach the model. A failed gate, or
any other error, writes no bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from calibration.accuracy import AccuracyOutcome
from calibration.config import CalibrationConfig
from calibration.dataset import Eye, ImageStream, read_eyes
from calibration.gate import GateOutcome, judge, require_not_failed
from calibration.int8_models import Int8Files, Int8Models, make_int8_models
from calibration.performance import camera_view, output_figures, screening_figures
from calibration.placement import plan_quantization
from calibration.release import (
    Written,
    check_free,
    check_signing_key,
    write_gate_report,
    write_release,
)
from calibration.run_models import ModelScores, score_models
from calibration.search_stage import search_int8
from calibration.strata import Stratum
from calibration.trt_cache import CacheTarget, cache_scales
from calibration.validation import (
    CalibratedOutput,
    calibrate_output,
    require_enough_eyes,
    split_outputs,
)
from edge_runtime.bundle import Bundle, read_bundle
from edge_runtime.bundle_parts.gate_record import FAILED
from edge_runtime.bundle_parts.manifest import Int8Record, Manifest
from edge_runtime.errors import ConfigError
from edge_runtime.strict_json import JsonValue

__all__ = ["CalibrationOutcome", "calibrate_bundle"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class CalibrationOutcome:
    """What the stage did: the bundle that was written, the gate's outcome, the images used."""

    written: Written
    gate: GateOutcome
    search: AccuracyOutcome | None
    num_int8_images: int
    num_val_images: int
    num_refused_images: int
    strata: tuple[Stratum, ...]


def calibrate_bundle(
    bundle_dir: Path,
    data_dir: Path,
    signing_key: Path,
    config: CalibrationConfig,
    *,
    out_dir: Path | None = None,
    report_path: Path | None = None,
    cache: CacheTarget | None = None,
    write_failed: bool = False,
    progress: Progress | None = None,
) -> CalibrationOutcome:
    """Calibrate, gate and sign the bundle in `bundle_dir`.

    Args:
        bundle_dir: a bundle as export wrote it, or an earlier calibrated one.
        data_dir: data set with `train` and `val` eyes; images of `test` are never read.
        signing_key: private key of `edge-screen keygen`.
        config: every setting.
        out_dir: new folder for the calibrated bundle; None replaces `bundle_dir`.
        report_path: where to write the gate's report as JSON, however it ended.
        write_failed: write the bundle although the gate failed; its record says so, and a
            screener refuses its INT8 model unless it is told to take it.
        cache: where to write the same ranges for TensorRT's implicit INT8; None = nowhere.
        progress: called with (stage, images done, images in all).

    Raises:
        BundleError: the bundle or its graph cannot be used.
        DataError: the data set breaks its contract or has too few eyes of a class.
        ParityError: the two INT8 files do not compute the same integers.
        ConfigError: `out_dir` exists, a file cannot be written, or both a search and a cache
            are asked for.
        GateRefusedError: INT8 lost too much; no bundle was written.
    """
    if cache is not None and config.search is not None:
        raise ConfigError(
            f"both a search and {cache.path} are asked for: a search changes weights and leaves "
            "layers float, which scales for the FP32 file cannot say; leave one of them out"
        )
    bundle_dir = bundle_dir.resolve()
    target_dir = bundle_dir if out_dir is None else check_free(out_dir)
    bundle = read_bundle(bundle_dir, trusted_keys=None, require_signature=False)
    check_signing_key(signing_key)
    spec, fp32 = bundle.manifest.preprocess_spec(), bundle.model_bytes("fp32")
    eyes = read_eyes(data_dir, bundle.manifest.label_names)
    val = [eye for eye in eyes if eye.split == "val"]
    require_enough_eyes(val, bundle.manifest, config.min_eyes)
    check_images = bundle.golden().image_nhwc
    models = make_int8_models(
        fp32,
        eyes,
        spec,
        method=config.method,
        num_images=config.num_images,
        seed=config.seed,
        check_images_nhwc=check_images,
        residual_pairs=config.residual_pairs,
        progress=_of_stage(progress, "INT8 calibration"),
    )

    def judge_files(files: Int8Files) -> _Judged:
        return _judge_files(bundle, files, val, config, _of_stage(progress, "validation"))

    judged, search = judge_files(models.files), None
    if config.search is not None and judged.gate.report.status == FAILED:
        search = search_int8(
            fp32,
            models,
            judged.gate,
            lambda files: judge_files(files).gate,
            eyes=eyes,
            label_names=bundle.manifest.label_names,
            spec=spec,
            method=config.method,
            num_images=config.num_images,
            residual_pairs=config.residual_pairs,
            seed=config.seed,
            check_images_nhwc=check_images,
            config=config.search,
            progress=progress,
        )
        models = replace(models, files=search.files)
        judged = judge_files(models.files)
    outputs, gate, stream, scores = judged.outputs, judged.gate, judged.val, judged.scores
    if report_path is not None:
        record = None if search is None else search.to_dict()
        write_gate_report(report_path, gate, stream, search=record)
    if not write_failed:
        require_not_failed(gate, found="" if search is None else search.sentence())
    figures = _figures(outputs, scores["int8"], stream, config)
    manifest = _manifest(bundle, models, outputs, gate, config, stream, figures)
    if search is not None:
        found = {"search": search.to_dict()}
        manifest = replace(manifest, provenance={**manifest.provenance, **found})
    files = models.files.by_precision()
    written = write_release(target_dir, bundle, manifest, files, signing_key)
    if cache is not None:
        plan = plan_quantization(fp32, residual_pairs=config.residual_pairs)
        cache.write(cache_scales(fp32, plan, models.ranges))
    return CalibrationOutcome(
        written=written,
        search=search,
        gate=gate,
        num_int8_images=models.num_images,
        num_val_images=len(stream.used),
        num_refused_images=len(stream.refused) + models.num_refused,
        strata=models.strata,
    )


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """One INT8 model on val: calibrated outputs, the gate, the eyes and the scores."""

    outputs: list[CalibratedOutput]
    gate: GateOutcome
    val: ImageStream
    scores: dict[str, ModelScores]


def _judge_files(
    bundle: Bundle,
    files: Int8Files,
    val: Sequence[Eye],
    config: CalibrationConfig,
    progress: Callable[[int, int], None] | None,
) -> _Judged:
    """Score, calibrate and gate one INT8 model on the val eyes."""
    manifest = bundle.manifest
    stream = ImageStream(
        val,
        manifest.preprocess_spec(),
        progress,
        limits=manifest.quality(),
        protocol=manifest.protocol,
    )
    scores = score_models({"fp32": bundle.model_bytes("fp32"), "int8": files.cpu}, stream)
    outputs = [
        calibrate_output(output, config)
        for output in split_outputs(manifest, stream.used, stream.hashes, scores)
    ]
    gate = judge(
        [output.gate_case() for output in outputs],
        config.limits,
        num_images=len(stream.used),
        num_draws=config.num_draws,
        seed=config.seed,
    )
    return _Judged(outputs=outputs, gate=gate, val=stream, scores=scores)


def _of_stage(progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(name, done, total)


def _manifest(
    bundle: Bundle,
    models: Int8Models,
    outputs: Sequence[CalibratedOutput],
    gate: GateOutcome,
    config: CalibrationConfig,
    val: ImageStream,
    figures: dict[str, JsonValue],
) -> Manifest:
    """The manifest with everything that this stage decided; file hashes come on writing."""
    is_percentile = config.method.name == "percentile"
    record = Int8Record(
        method=config.method.name,
        percentile=config.method.percentile if is_percentile else None,
        fingerprint=models.fingerprint,
        num_images=models.num_images,
        float_nodes=models.files.float_nodes,
        gate=gate.report,
    )
    old = bundle.manifest
    return replace(
        old,
        labels=tuple(output.spec for output in outputs[:-1]),
        gradability=outputs[-1].spec,
        int8=record,
        metrics={**old.metrics, "int8_val": figures},
        provenance={**old.provenance, "calibrate": _provenance(models, config, val)},
        files={},
    )


def _figures(
    outputs: Sequence[CalibratedOutput],
    int8: ModelScores,
    val: ImageStream,
    config: CalibrationConfig,
) -> dict[str, JsonValue]:
    """Figures of every output on `val`, for the manifest; diseases as the camera sees them."""
    *diseases, gradability = outputs
    figures: dict[str, JsonValue] = {
        output.scores.name: output_figures(output, config) for output in outputs
    }
    for index, disease in enumerate(diseases):
        view = camera_view(
            disease,
            index,
            gradability,
            scored=val.used,
            scores=int8,
            refused=[eye for eye, _ in val.refused],
        )
        figures[disease.scores.name]["screening"] = screening_figures(view, config)
    return figures


def _provenance(
    models: Int8Models, config: CalibrationConfig, val: ImageStream
) -> dict[str, JsonValue]:
    """How to repeat this stage: every setting, the ranges, the data, the program versions."""
    import onnx
    import onnxruntime

    return {
        "config": asdict(config),
        "ranges": dict(models.ranges),
        "strata": [asdict(stratum) for stratum in models.strata],
        "num_refused_train_images": models.num_refused,
        "val_fingerprint": val.fingerprint(),
        "num_refused_val_images": len(val.refused),
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
