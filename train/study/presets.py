"""Sizes of the study: eyes, steps, seeds, budgets, and what each preset costs."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_runtime.errors import ConfigError
from train.encoder import EncoderConfig
from train.pretrain_config import PretrainConfig
from train.routes import route_table
from train.study.arms import ABLATIONS, ARMS, MAIN_ARMS, ControlSettings

__all__ = ["PRESETS", "StudyPreset", "preset"]


@dataclass(frozen=True, kw_only=True)
class StudyPreset:
    """One size of the study; every other setting is the stages' default.

    Attributes:
        name: 'pulse', 'cpu' or 'gpu'.
        cost: what it takes, printed before anything starts.
        num_patients: synthetic patients, two eyes each; 70 % train, 10 % val, 20 % test.
        data_seed: of the eyes. Settings were chosen on the eyes of another seed.
        image_px: side of the stored photographs.
        encoder: the encoder of every arm.
        num_steps: optimiser steps of every arm.
        batch_size: eyes a step.
        control: batch and learning rate of the CFP-only arm.
        seeds: pretraining seeds; arms not in `arms_on_every_seed` run on the first alone.
        arms: names of `train.study.arms.ARMS`.
        arms_on_every_seed: the arms that the claims are about.
        ablations: names of `train.study.arms.ABLATIONS`, run on the first seed.
        ablation_steps: optimiser steps of every ablation.
        budgets: labelled eyes of probes and fine-tuning.
        finetune_steps: of the joint fine-tuning with everything trained; 0 = its default.
        mask_labels: labelled eyes of segmentation.
        mask_steps: its steps; 0 = its default.
        probe_draws: label draws of a probe.
        num_draws: bootstrap draws of patients.
    """

    name: str
    cost: str
    num_patients: int
    data_seed: int = 2026
    image_px: int = 128
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    num_steps: int
    batch_size: int = 64
    control: ControlSettings
    seeds: tuple[int, ...]
    arms: tuple[str, ...] = tuple(ARMS)
    arms_on_every_seed: tuple[str, ...] = tuple(ARMS)
    ablations: tuple[str, ...] = tuple(ABLATIONS)
    ablation_steps: int
    budgets: tuple[int, ...] = (100, 300, 1000)
    finetune_steps: int = 0
    mask_labels: int = 300
    mask_steps: int = 0
    probe_draws: int = 10
    num_draws: int = 2000

    def __post_init__(self) -> None:
        """Refuse a study without its two main arms, and names that do not exist."""
        for known, names in ((ARMS, self.arms), (ABLATIONS, self.ablations)):
            unknown = [name for name in names if name not in known]
            if unknown:
                raise ConfigError(f"study '{self.name}' names {unknown}; known: {', '.join(known)}")
        if not set(MAIN_ARMS) <= set(self.arms_on_every_seed) <= set(self.arms):
            raise ConfigError(
                f"study '{self.name}' needs {', '.join(MAIN_ARMS)} on every seed; it has "
                f"{self.arms_on_every_seed}"
            )
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ConfigError(f"study '{self.name}' has seeds {self.seeds}; give distinct ones")

    def base(self, seed: int, *, num_steps: int | None = None) -> PretrainConfig:
        """The method at this size with one seed."""
        return PretrainConfig(
            routes=route_table("oct_first"),
            num_steps=num_steps or self.num_steps,
            batch_size=self.batch_size,
            seed=seed,
            encoder=self.encoder,
        )


PRESETS = {
    one.name: one
    for one in (
        StudyPreset(
            name="pulse",
            cost="about two minutes on 2 CPU cores; shows that every part runs, and nothing else",
            num_patients=150,
            encoder=EncoderConfig(width=32, num_heads=2, stem_width=4),
            num_steps=10,
            batch_size=16,
            control=ControlSettings(batch_size=24, learning_rate=4.8e-3),
            seeds=(1,),
            ablations=("as the method", "decoder depth 2", "structure: loss weight"),
            ablation_steps=10,
            budgets=(60,),
            finetune_steps=10,
            mask_labels=60,
            mask_steps=10,
            probe_draws=2,
            num_draws=100,
        ),
        StudyPreset(
            name="cpu",
            cost="about two hours on 2 CPU cores, 8 GiB of memory, 1.5 GB of disk",
            num_patients=6000,
            num_steps=1500,
            control=ControlSettings(batch_size=96, learning_rate=4.8e-3),
            seeds=(11, 12, 13),
            arms_on_every_seed=(*(*MAIN_ARMS, "shuffled_oct"),),
            ablation_steps=1000,
        ),
        StudyPreset(
            name="gpu",
            cost="designed for one data-centre GPU and 16 cores, a day as a guess; never run",
            num_patients=60_000,
            image_px=256,
            encoder=EncoderConfig(size_px=224, width=384, depth=6, num_heads=6, stem_width=32),
            num_steps=40_000,
            batch_size=256,
            control=ControlSettings(batch_size=512, learning_rate=2.4e-3),
            seeds=(11, 12, 13),
            ablation_steps=20_000,
        ),
    )
}


def preset(name: str) -> StudyPreset:
    """A preset by name.

    Raises:
        ConfigError: no preset has this name.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset {name!r} is unknown; choose from {', '.join(PRESETS)}")
    return PRESETS[name]
