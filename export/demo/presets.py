"""The three scales of the demo: how many synthetic patients, how many steps, at what price."""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.errors import ConfigError

__all__ = ["PRESETS", "DemoPreset", "preset"]


@dataclass(frozen=True, kw_only=True)
class DemoPreset:
    """Sizes of one scale; every other setting is the stages' default.

    Attributes:
        name: 'smoke', 'small' or 'full'.
        cost: what it takes, printed before anything starts.
        num_patients: synthetic patients, two eyes each.
        image_px: side of the stored photographs.
        size_px: side of the network input.
        pretrain_steps: optimiser steps of every pretraining arm.
        head_steps: fine-tuning steps of the heads alone.
        finetune_steps: fine-tuning steps of everything.
        distill_steps: steps of the student.
        num_probe_labels: labelled training eyes of each linear probe.
        num_camera_pictures: full-size test photographs that are screened.
        camera_width_px: their width.
        min_val_eyes: fewest validation eyes with and without a label that a threshold is set on.
        num_int8_images: training photographs for INT8 calibration.
        bench_repeats: timed rounds.
    """

    name: str
    cost: str
    num_patients: int
    image_px: int = 128
    size_px: int = 96
    pretrain_steps: int
    head_steps: int
    finetune_steps: int
    distill_steps: int
    num_probe_labels: int = 300
    num_camera_pictures: int = 16
    camera_width_px: int = 3000
    min_val_eyes: int = 10
    num_int8_images: int = 256
    bench_repeats: int = 50


PRESETS = {
    one.name: one
    for one in (
        DemoPreset(
            name="smoke",
            cost="about 8 minutes on 2 CPU cores, 2 GiB of memory, 200 MB of disk",
            num_patients=1600,
            min_val_eyes=5,
            pretrain_steps=400,
            head_steps=150,
            finetune_steps=300,
            distill_steps=500,
        ),
        DemoPreset(
            name="small",
            cost="about 40 minutes on 2 CPU cores, 5 GiB of memory, 800 MB of disk",
            num_patients=6000,
            pretrain_steps=2500,
            head_steps=150,
            finetune_steps=1000,
            distill_steps=1500,
        ),
        DemoPreset(
            name="full",
            cost="designed for one data-centre GPU and 16 cores, a day as a guess; never run",
            num_patients=60_000,
            image_px=256,
            size_px=224,
            pretrain_steps=60_000,
            head_steps=1000,
            finetune_steps=20_000,
            distill_steps=60_000,
            num_int8_images=512,
            num_camera_pictures=64,
        ),
    )
}


def preset(name: str) -> DemoPreset:
    """A preset by name.

    Raises:
        ConfigError: no preset has this name.
    """
    if name not in PRESETS:
        raise ConfigError(f"scale {name!r} is unknown; choose from {', '.join(PRESETS)}")
    return PRESETS[name]
