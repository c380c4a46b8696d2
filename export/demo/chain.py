"""The whole chain, stage by stage, through the same functions that the commands call.

    OUT/
    ├── data/             synthetic eyes, with camera/ pictures of test eyes
    ├── encoders/ARM/     one checkpoint a pretraining arm
    ├── teacher/ student/ checkpoints
    ├── signing/          the demo's private key; trusted_keys/ its public key
    ├── bundle/           what a camera gets
    └── report.json, report.html

Stages hand over files, as they would between machines. Test eyes are read once, at the
end, and nothing is chosen on them.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from calibration.config import CalibrationConfig
from calibration.pipeline import calibrate_bundle
from distill.stage import read_teacher_record
from distill.student import StudentConfig, load_student
from distill.teaching import DistillConfig, distill, save_distilled
from edge_runtime import __version__
from edge_runtime.bundle import read_bundle
from edge_runtime.bundle_parts.gate_record import FAILED, GateReport
from edge_runtime.errors import ConfigError, GateRefusedError
from edge_runtime.signing import generate_keypair
from export.assemble import ExportConfig, assemble_bundle
from export.demo.arms import TrainedArms, flatten_error_rows, summarize_arms, train_arms
from export.demo.gallery import pretraining_triples
from export.demo.model import DataSummary, DemoReport
from export.demo.models import (
    FP32,
    INT8,
    TEACHER,
    latencies,
    model_rows,
    operating_point_rows,
    roc_curves,
    score,
)
from export.demo.pictures import ReportPictures
from export.demo.presets import DemoPreset
from export.demo.report import write_report
from export.demo.screening import screen_camera_set
from export.demo.targets import judge_targets
from train.data.index import DataIndex, read_index
from train.data.origin import read_origin
from train.dataset_arrays import SplitArrays, load_split
from train.finetune import FinetuneConfig, finetune, save_finetuned
from train.phantom.camera_set import write_camera_set
from train.phantom.writer import generate_dataset
from train.pretrain import load_encoder, pretrained_record
from train.schedule import Progress
from train.teacher import load_teacher

__all__ = ["DemoRun", "prepare_folder", "require_usable"]

Say = Callable[[str], None]
_MARKER, _WRITTEN_BY = "demo.json", "edge-screen demo"
_CHILDREN = {
    _MARKER, "data", "encoders", "teacher", "student", "signing", "trusted_keys", "bundle",
    "gate.json", "report.json", "report.html",
}  # fmt: skip


def prepare_folder(out: Path, size: DemoPreset, seed: int) -> None:
    """Make `out` empty; an earlier demo is replaced, anything else is left alone.

    Raises:
        ConfigError: `out` holds something that no demo wrote.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; give a folder with --out")
    if out.exists() and any(out.iterdir()):
        if not _is_demo(out):
            raise ConfigError(
                f"{out} is not empty and not an earlier demo; give another folder with --out"
            )
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    marker = {"written_by": _WRITTEN_BY, "seed": seed, **asdict(size)}
    (out / _MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")


def _is_demo(folder: Path) -> bool:
    """Whether the marker in the folder is ours and nothing foreign lies beside it."""
    try:
        marker = json.loads((folder / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    ours = isinstance(marker, dict) and marker.get("written_by") == _WRITTEN_BY
    # A stage that was stopped leaves its unfinished file or folder under a longer name.
    names = {path.name.split(".part")[0] for path in folder.iterdir()}
    return ours and all(name in _CHILDREN or ".bundle" in name for name in names)


class DemoRun:
    """One run: `run()` goes through the stages and returns the report."""

    def __init__(
        self,
        out: Path,
        size: DemoPreset,
        *,
        seed: int,
        workers: int,
        say: Say,
        device: torch.device | None = None,
    ) -> None:
        """Nothing is done before `run`; `device` is where training runs, None = the CPU."""
        self.out, self.size, self.seed, self.workers, self.say = out, size, seed, workers, say
        self.device = device
        self.seconds: dict[str, float] = {}
        self.data, self.bundle = out / "data", out / "bundle"

    def run(self) -> DemoReport:
        """All stages.

        The demo's `val` set is small, so the gate rarely shows what a release needs; the demo
        takes the INT8 model all the same, says so, and so does every result.

        Raises:
            GateRefusedError: INT8 lost too much; the report is written before.
            EdgeScreenError: a stage failed; what earlier stages wrote stays.
        """
        with self._stage("phantom"):
            self._phantom()
        with self._stage("load"):
            index = read_index(self.data)
            train = load_split(index, "train", size_px=self.size.size_px, with_oct=True)
        with self._stage("pretrain"):
            arms = train_arms(
                train, self.size, self.seed, self.out / "encoders", self._steps, device=self.device
            )
        with self._stage("finetune"):
            self._finetune(train)
        with self._stage("distill"):
            self._distill(train)
        with self._stage("export"):
            assembled = assemble_bundle(
                self.out / "student",
                self.data,
                self.bundle,
                ExportConfig(name=f"edge-screen-demo-{self.size.name}", version=__version__),
            )
            largest = max(one.relative for one in assembled.parity.outputs)
            self.say(f"  largest difference to the student: {largest:.1e} of an output's range")
        with self._stage("calibrate"):
            self._calibrate()
        report = self._evaluate(index, train, arms)
        require_usable(report.gate, self.out / "report.html")
        return report

    def _phantom(self) -> None:
        generate_dataset(
            self.data,
            num_patients=self.size.num_patients,
            seed=self.seed,
            image_px=self.size.image_px,
            num_workers=self.workers,
            progress=self._counter("patients"),
        )
        write_camera_set(
            self.data,
            seed=self.seed,
            num_patients=self.size.num_patients,
            num_pictures=self.size.num_camera_pictures,
            width_px=self.size.camera_width_px,
        )

    def _finetune(self, train: SplitArrays) -> None:
        encoder, _ = load_encoder(self.out / "encoders" / "oct_informed")
        config = FinetuneConfig(
            head_steps=self.size.head_steps, num_steps=self.size.finetune_steps, seed=self.seed
        )
        teacher = finetune(
            encoder, train, config, progress=self._steps("teacher"), device=self.device
        )
        save_finetuned(
            self.out / "teacher",
            teacher,
            config,
            data_fingerprint=train.fingerprint,
            pretrained=pretrained_record(self.out / "encoders" / "oct_informed"),
        )

    def _distill(self, train: SplitArrays) -> None:
        teacher, record = load_teacher(self.out / "teacher")
        config = DistillConfig(
            student=StudentConfig(size_px=self.size.size_px),
            num_steps=self.size.distill_steps,
            seed=self.seed,
        )
        done = distill(teacher, train, config, progress=self._steps("student"), device=self.device)
        save_distilled(
            self.out / "student",
            done,
            teacher=read_teacher_record(self.out / "teacher", record),
            origin=read_origin(self.data, fingerprint=train.fingerprint),
        )

    def _calibrate(self) -> None:
        keys = generate_keypair(self.out / "signing")
        trusted = self.out / "trusted_keys"
        trusted.mkdir()
        shutil.copy(keys.public_key_path, trusted / "demo.pub")
        gate = calibrate_bundle(
            self.bundle,
            self.data,
            keys.private_key_path,
            CalibrationConfig(
                num_images=self.size.num_int8_images,
                min_eyes=self.size.min_val_eyes,
                seed=self.seed,
            ),
            report_path=self.out / "gate.json",
            write_failed=True,
        ).gate.report
        self.say(f"  mean AUROC drop of INT8 on val: {gate.mean_auroc_drop:+.4f}")
        if not gate.passed:
            self.say(
                f"  gate {gate.status.replace('_', ' ')} on {gate.num_patients} patients (about "
                f"{gate.num_patients_needed} of each class would be needed): the demo takes this "
                "INT8 model all the same, and every result says so"
            )

    def _evaluate(self, index: DataIndex, train: SplitArrays, arms: TrainedArms) -> DemoReport:
        with self._stage("evaluate"):
            test = load_split(index, "test", size_px=self.size.size_px, with_oct=True)
            bundle = read_bundle(self.bundle, trusted_keys=self.out / "trusted_keys")
            teacher, _ = load_teacher(self.out / "teacher")
            student, _ = load_student(self.out / "student")
            scores = score(teacher, bundle, test, seed=self.seed)
            flatten_error = flatten_error_rows(index, train)
            pretraining = summarize_arms(arms, train, test, self.size, self.seed, flatten_error)
            triples = pretraining_triples(arms.pretrained["oct_informed"], test)
        with self._stage("screen"):
            self.say("  damaged files are among them: the decoder complains of them on purpose")
            screened = screen_camera_set(
                self.data, self.bundle, trusted_keys=self.out / "trusted_keys"
            )
            latency = latencies(bundle, [bundle.golden().encoded], repeats=self.size.bench_repeats)
        assert bundle.manifest.int8 is not None
        means = {name: one.mean_auroc for name, one in scores.reports.items()}
        teacher_mean, fp32_mean, int8_mean = (means[n] for n in (TEACHER, FP32, INT8))
        assert teacher_mean is not None
        assert fp32_mean is not None
        assert int8_mean is not None
        ratio = fp32_mean.value / teacher_mean.value
        drop = fp32_mean.value - int8_mean.value
        report = DemoReport(
            scale=self.size.name,
            seed=self.seed,
            code_version=__version__,
            machine=_machine(),
            duration_s=self.seconds,
            data=_describe(index, train, test),
            pretraining=pretraining,
            models=model_rows(
                scores,
                teacher,
                bundle,
                self.out / "teacher" / "model.safetensors",
                student.num_parameters,
                latency,
            ),
            student_to_teacher_ratio=ratio,
            int8_mean_auroc_drop=drop,
            operating_points=operating_point_rows(bundle, scores, test),
            gate=bundle.manifest.int8.gate,
            screening=screened.summary,
            targets=judge_targets(self.size.name, pretraining, ratio, drop, screened.summary),
        )
        pictures = ReportPictures(
            triples=triples, screened=screened.eyes, roc=roc_curves(scores, test)
        )
        write_report(self.out, report, pictures)
        return report

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        self.say(f"{name} ...")
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started
        self.say(f"{name}: {self.seconds[name]:.0f} s")

    def _steps(self, name: str) -> Progress:
        """Steps of a training stage, a line every tenth."""

        def show(done: int, total: int, text: str) -> None:
            if done * 10 // total > (done - 20) * 10 // total:
                self.say(f"  {name} step {done}/{total}  {text}")

        return show

    def _counter(self, what: str) -> Callable[[int, int], None]:
        def show(done: int, total: int) -> None:
            if done * 5 // total > (done - 1) * 5 // total:
                self.say(f"  {done}/{total} {what}")

        return show


def require_usable(gate: GateReport, page: Path) -> None:
    """End a demo whose INT8 lost too much, once its report is written.

    Raises:
        GateRefusedError: the gate failed.
    """
    if gate.status == FAILED:
        raise GateRefusedError(
            f"the gate failed: {'; '.join(gate.reasons)}. {page} shows what INT8 cost; the bundle "
            "is not for use. Train for longer: --scale small"
        )


def _describe(index: DataIndex, train: SplitArrays, test: SplitArrays) -> DataSummary:
    splits = {name: index.split(name) for name in ("train", "val", "test")}
    visits = [visit for split in splits.values() for visit in split]
    return DataSummary(
        num_patients=len({visit.patient_id for visit in visits}),
        num_eyes={name: len(split) for name, split in splits.items()},
        prevalence={
            name: float(np.nanmean([visit.labels[name] for visit in visits]))
            for name in index.label_names
            if name != "dr_grade"
        },
        excluded=len(train.excluded) + len(test.excluded),
    )


def _machine() -> dict[str, str]:
    import onnxruntime

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_threads": str(torch.get_num_threads()),
        "onnxruntime": onnxruntime.__version__,
    }
