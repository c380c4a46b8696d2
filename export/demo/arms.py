"""The pretraining arms of the demo and what is measured of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from export.demo.model import PretrainingSummary, ProbeAuroc
from export.demo.presets import DemoPreset
from train.controls import gradient_leak, shuffled_oct_loss_ratio
from train.data.index import DataIndex
from train.dataset_arrays import SplitArrays
from train.encoder import CfpEncoder, EncoderConfig
from train.oct_flatten import bruch_rows
from train.oct_targets import make_oct_targets
from train.phantom.truth import read_truth
from train.pretrain import (
    Pretrained,
    pretrain,
    random_encoder,
    save_pretrained,
)
from train.pretrain_config import PretrainConfig
from train.probe import linear_probe, pooled_features
from train.routes import route_table
from train.schedule import Progress

__all__ = ["PROBE_LABELS", "TrainedArms", "flatten_error_rows", "summarize_arms", "train_arms"]

PROBE_LABELS = ("macular_edema", "myopic_schisis", "glaucoma", "referable_dr", "amd")
_BRUCH = 9  # index of Bruch's membrane among the phantom's recorded boundaries
_NUM_CONTROL_EYES = 256


@dataclass(frozen=True, kw_only=True)
class TrainedArms:
    """Finished pretraining arms by name, and how long each took in seconds."""

    pretrained: Mapping[str, Pretrained]
    seconds: Mapping[str, float]


def arm_configs(size: DemoPreset, seed: int) -> dict[str, PretrainConfig]:
    """Three arms on the same network, steps and eyes.

    `cfp_only` gives its one route the whole batch and all the weight; `oct_informed` has it
    as company of the OCT routes (see `train.routes`); `shuffled_oct` differs from that in
    whose OCT it is and in nothing else.
    """
    encoder = EncoderConfig(size_px=size.size_px)

    def config(routes: str, *, shuffle_oct: bool = False) -> PretrainConfig:
        return PretrainConfig(
            routes=route_table(routes),
            shuffle_oct=shuffle_oct,
            num_steps=size.pretrain_steps,
            seed=seed,
            encoder=encoder,
        )

    return {
        "oct_informed": config("oct_informed"),
        "cfp_only": config("cfp_only"),
        "shuffled_oct": config("oct_informed", shuffle_oct=True),
    }


def train_arms(
    data: SplitArrays,
    size: DemoPreset,
    seed: int,
    folder: Path,
    progress: Callable[[str], Progress],
    *,
    device: torch.device | None = None,
) -> TrainedArms:
    """Train every arm on the same eyes and write its checkpoint under `folder`/NAME."""
    assert data.scans_nvzx is not None
    configs = arm_configs(size, seed)
    targets = torch.from_numpy(
        make_oct_targets(data.scans_nvzx, configs["oct_informed"].oct_target)
    )
    done, seconds = {}, {}
    for name, config in configs.items():
        started = time.monotonic()
        done[name] = pretrain(
            data, config, oct_targets=targets, progress=progress(name), device=device
        )
        seconds[name] = time.monotonic() - started
        save_pretrained(folder / name, done[name])
    return TrainedArms(pretrained=done, seconds=seconds)


def summarize_arms(
    arms: TrainedArms,
    train: SplitArrays,
    test: SplitArrays,
    size: DemoPreset,
    seed: int,
    flatten_error: Mapping[str, float],
) -> PretrainingSummary:
    """Probe every arm on the test eyes, and run the controls on the OCT-informed one."""
    encoders = {name: arm.model.cfp_encoder for name, arm in arms.pretrained.items()}
    encoders["no_pretraining"] = random_encoder(
        EncoderConfig(size_px=size.size_px), train, seed=seed
    )
    probes = {
        name: _probe_all(encoder, train, test, size, seed) for name, encoder in encoders.items()
    }
    informed = arms.pretrained["oct_informed"]
    images, scans = _control_batch(informed, test)
    leak = gradient_leak(informed.model, images, scans)

    def gain(label: str) -> float:
        return probes["oct_informed"][label].auroc_mean - probes["cfp_only"][label].auroc_mean

    return PretrainingSummary(
        num_labels=size.num_probe_labels,
        arms=probes,
        edema_auroc_gain=gain("macular_edema"),
        schisis_auroc_gain=gain("myopic_schisis"),
        glaucoma_auroc_gain=gain("glaucoma"),
        gradient_leak=leak.constrained,
        gradient_leak_control=leak.control,
        shuffled_oct_loss_ratio=shuffled_oct_loss_ratio(informed.model, images, scans),
        flatten_error_rows=flatten_error,
        num_steps=size.pretrain_steps,
        seconds_per_arm=arms.seconds,
    )


def _probe_all(
    encoder: CfpEncoder, train: SplitArrays, test: SplitArrays, size: DemoPreset, seed: int
) -> dict[str, ProbeAuroc]:
    train_features = pooled_features(encoder, train.images_nhwc)
    test_features = pooled_features(encoder, test.images_nhwc)
    results = {}
    for label in PROBE_LABELS:
        result = linear_probe(
            train_features,
            train,
            test_features,
            test,
            label=label,
            num_labels=size.num_probe_labels,
            seed=seed,
        )
        results[label] = ProbeAuroc(auroc_mean=result.auroc_mean, auroc_sd=result.auroc_sd)
    return results


def _control_batch(arm: Pretrained, test: SplitArrays) -> tuple[torch.Tensor, torch.Tensor]:
    assert test.scans_nvzx is not None
    scans = make_oct_targets(test.scans_nvzx[:_NUM_CONTROL_EYES], arm.config.oct_target)
    return test.images_tensor()[:_NUM_CONTROL_EYES], torch.from_numpy(scans)


def flatten_error_rows(
    index: DataIndex, data: SplitArrays, *, num_eyes: int = 400
) -> dict[str, float]:
    """Error of the image-only Bruch's membrane against the phantom's truth, in scan rows.

    A constant offset moves every scan alike and does not matter; it is reported as the
    bias and taken off the other figures.
    """
    assert data.scans_nvzx is not None
    left_out = {row for row, _ in data.excluded}
    used = [visit for visit in index.split("train") if visit.row_number not in left_out]
    visits = used[:num_eyes]
    truth = np.stack([_true_bruch(index.root, visit.files["cfp"]) for visit in visits])
    scans = data.scans_nvzx[: len(visits)]
    found = bruch_rows(scans.reshape(-1, *scans.shape[2:])).reshape(truth.shape)
    bias = float(np.median(found - truth))
    error = np.abs(found - truth - bias)
    per_scan = error.mean(-1)
    return {
        "bias": bias,
        "mean_absolute_beside_bias": float(error.mean()),
        "p95_absolute_beside_bias": float(np.percentile(error, 95)),
        "share_of_scans_off_by_more_than_6_beside_bias": float((per_scan > 6).mean()),
        "num_scans": float(per_scan.size),
    }


def _true_bruch(root: Path, cfp: Path) -> np.ndarray:
    truth = read_truth(root / "truth" / f"{cfp.stem}.npz")
    boundaries = truth["boundaries_px"]
    assert isinstance(boundaries, np.ndarray)
    return boundaries[:, _BRUCH].astype(np.float32)
