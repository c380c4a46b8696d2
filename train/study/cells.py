"""One cell of the study: pretrain one arm with one seed, then measure it; done once.

    OUT/cells/<name>-<key>/encoder/          the pretrained checkpoint (none if untrained)
                           states/           where an interrupted run goes on from
                           seconds.json      how long pretraining took
                           tasks-<key>/      results.json, predictions.npz, and
                                    cell.json   all settings and figures, written last

Keys are hashes of every setting and of the data, the first of what pretraining depends on,
the second of the rest: a changed setting is a new folder, and what is unchanged is never
computed twice.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from train.controls import gradient_leak, shuffled_oct_loss_ratio
from train.device import CPU
from train.encoder import EncoderConfig
from train.engine.settings import EngineConfig
from train.oct_targets import make_oct_targets
from train.pretrain import (
    Pretrained,
    load_pretrained,
    pretrain,
    random_encoder,
    save_pretrained,
)
from train.pretrain_config import PretrainConfig
from train.pretrain_model import PretrainModel
from train.tasks.data import TaskData
from train.tasks.heads import heads_of
from train.tasks.retrieval import OctCodes
from train.tasks.run import run_tasks
from train.tasks.run_files import load_run, save_run
from train.tasks.settings import TaskSettings

__all__ = ["Cell", "CellRecord", "finish_cell", "read_cell"]

_SAVE_EVERY = 250
_NUM_CONTROL_EYES = 256
_DONE = "cell.json"
_MEASURING = ("settings", "tasks")


def _key(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One arm with one seed, and how it is measured.

    Attributes:
        group: 'arms' or 'ablations'.
        arm: name of the arm or ablation, as the report shows it.
        seed: of pretraining, label draws and fine-tuning.
        pretrain: settings; None = an untrained encoder.
        encoder: shape of the encoder.
        settings: protocol of the tasks.
        tasks: names of the tasks; None = all sixteen.
    """

    group: str
    arm: str
    seed: int
    pretrain: PretrainConfig | None
    encoder: EncoderConfig
    settings: TaskSettings
    tasks: tuple[str, ...] | None = None

    def identity(self, data_fingerprint: str) -> dict[str, Any]:
        """Everything that the result depends on, as JSON types."""
        record = {**asdict(self), "data_fingerprint": data_fingerprint}
        identity: dict[str, Any] = json.loads(json.dumps(record))
        return identity

    def folder(self, root: Path, data_fingerprint: str) -> Path:
        """Where the encoder lives below `root`."""
        identity = self.identity(data_fingerprint)
        key = _key({name: identity[name] for name in identity if name not in _MEASURING})
        words = "".join(c if c.isalnum() else "-" for c in self.arm.lower()).strip("-")
        return root / f"{self.group}-{words}-s{self.seed}-{key}"

    def tasks_folder(self, root: Path, data_fingerprint: str) -> Path:
        """Where the measurements of the encoder live."""
        identity = self.identity(data_fingerprint)
        key = _key({name: identity[name] for name in _MEASURING})
        return self.folder(root, data_fingerprint) / f"tasks-{key}"


@dataclass(frozen=True, kw_only=True)
class CellRecord:
    """A finished cell.

    Attributes:
        folder: of its measurements: `load_run` reads it.
        identity: its settings and data.
        seconds: 'pretrain', 'waiting' (of it, for data) and 'tasks', wall time.
        losses: mean loss of each route over the last steps.
        controls: 'gradient_leak', 'gradient_leak_control', 'shuffled_oct_loss_ratio', where the
            arm has the routes for them.
        device: where the networks ran.
    """

    folder: Path
    identity: dict[str, Any]
    seconds: dict[str, float]
    losses: dict[str, float]
    controls: dict[str, float]
    device: str = "cpu"


def finish_cell(
    cell: Cell,
    root: Path,
    data: TaskData,
    *,
    codes: OctCodes | None = None,
    say: Callable[[str], None] | None = None,
    device: torch.device = CPU,
) -> CellRecord:
    """Do what is not done yet of a cell; an interrupted pretraining goes on where it stopped.

    Args:
        cell: what to do.
        root: folder of all cells.
        data: the eyes.
        codes: `oct_codes(data, cell.settings.num_oct_components)` made before, to share them.
        say: told the steps.
        device: where the networks run. It is no part of the keys: what is finished on one is
            not done again on another.
    """
    fingerprint = data.train.fingerprint
    folder, measured = cell.folder(root, fingerprint), cell.tasks_folder(root, fingerprint)
    done = read_cell(measured)
    if done is not None:
        return done
    seconds: dict[str, float] = {}
    losses: dict[str, float] = {}
    controls: dict[str, float] = {}
    arm = _pretrained(cell, folder, data, seconds, losses, controls, say, device)
    if arm is None:
        encoder = random_encoder(cell.encoder, data.train, seed=cell.seed).to(device)
    else:
        encoder = arm.model.to(device).cfp_encoder
    started = time.perf_counter()
    run = run_tasks(
        encoder,
        data,
        cell.settings,
        seed=cell.seed,
        tasks=cell.tasks,
        retrieval_heads=None if arm is None else heads_of(arm),
        codes=codes,
    )
    save_run(measured, run)
    seconds["tasks"] = time.perf_counter() - started
    record: dict[str, Any] = {
        "identity": cell.identity(fingerprint),
        "seconds": seconds,
        "losses": losses,
        "controls": controls,
        "device": device.type,
    }
    part = measured / f"{_DONE}.part"
    part.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(measured / _DONE)
    shutil.rmtree(folder / "states", ignore_errors=True)
    return CellRecord(folder=measured, **record)


def read_cell(folder: Path) -> CellRecord | None:
    """A finished cell, or None where it is not finished."""
    if not (folder / _DONE).is_file():
        return None
    load_run(folder)  # a damaged run is refused here, not in the middle of a report
    record = json.loads((folder / _DONE).read_text(encoding="utf-8"))
    return CellRecord(folder=folder, **record)


def _pretrained(
    cell: Cell,
    folder: Path,
    data: TaskData,
    seconds: dict[str, float],
    losses: dict[str, float],
    controls: dict[str, float],
    say: Callable[[str], None] | None,
    device: torch.device,
) -> Pretrained | None:
    """The cell's arm, trained unless its checkpoint is there; fills in its figures."""
    if cell.pretrain is None:
        return None
    checkpoint = folder / "encoder"
    times = folder / "seconds.json"
    if not (checkpoint / "config.json").is_file():
        started = time.perf_counter()
        engine = EngineConfig(states=folder / "states", save_every=_SAVE_EVERY, resume=True)
        done = pretrain(
            data.train,
            cell.pretrain,
            engine=engine,
            progress=None if say is None else lambda *step: say(f"{step[0]}/{step[1]} {step[2]}"),
            device=device,
        )
        took = {"pretrain": time.perf_counter() - started, "waiting": done.seconds["waiting"]}
        times.write_text(json.dumps(took), encoding="utf-8")
        save_pretrained(checkpoint, done)
    seconds.update(json.loads(times.read_text(encoding="utf-8")))
    pretrained = load_pretrained(checkpoint)
    losses.update(pretrained.metrics)
    names = {route.name for route in pretrained.model.routes}
    if {"oct<-cfp", "oct<-oct"} <= names and not cell.pretrain.structure.needs_structures:
        controls.update(_controls(cell.pretrain, data, pretrained.model.to(device)))
    return pretrained


def _controls(config: PretrainConfig, data: TaskData, model: PretrainModel) -> dict[str, float]:
    """Measured on test eyes that the arm never saw."""
    assert data.test.scans_nvzx is not None
    targets = make_oct_targets(data.test.scans_nvzx[:_NUM_CONTROL_EYES], config.oct_target)
    images, scans = data.test.images_tensor()[:_NUM_CONTROL_EYES], torch.from_numpy(targets)
    leak = gradient_leak(model, images, scans)
    return {
        "gradient_leak": leak.constrained,
        "gradient_leak_control": leak.control,
        "shuffled_oct_loss_ratio": shuffled_oct_loss_ratio(model, images, scans),
    }
