"""Which cells a preset consists of, in the order they are done."""

from __future__ import annotations

from dataclasses import replace

from train.study.arms import MAIN_ARMS, ablation_config, arm_config
from train.study.cells import Cell
from train.study.presets import StudyPreset
from train.tasks.multi_head import MultiHeadConfig
from train.tasks.segmentation import SegmentationSettings
from train.tasks.settings import TaskSettings

__all__ = ["ABLATION_TASKS", "PARTS", "study_cells", "task_settings"]

PARTS = ("arms", "ablations")
# What an ablation is measured on: by probe, with the middle budget.
ABLATION_TASKS = (
    *("macular_edema", "myopic_schisis", "glaucoma", "any_dr", "amd", "gradable", "laterality"),
    *("cfp_to_oct", "oct_to_cfp"),
)


def task_settings(preset: StudyPreset) -> TaskSettings:
    """The protocol of all sixteen tasks, the same for every arm."""
    finetune = MultiHeadConfig()
    masks = SegmentationSettings(num_labeled=preset.mask_labels)
    if preset.finetune_steps:
        finetune = replace(finetune, num_steps=preset.finetune_steps)
    if preset.mask_steps:
        masks = replace(masks, num_steps=preset.mask_steps)
    return TaskSettings(
        budgets=preset.budgets,
        probe_draws=preset.probe_draws,
        num_draws=preset.num_draws,
        finetune=finetune,
        segmentation=masks,
    )


def study_cells(preset: StudyPreset, parts: tuple[str, ...] = PARTS) -> tuple[Cell, ...]:
    """All cells, what the claim needs first.

    Every arm on the first seed; the main arms on the other seeds; the ablations on the first
    seed; then the arms that are on every seed beside the main ones.
    """
    first, *others = preset.seeds
    beside = [name for name in preset.arms_on_every_seed if name not in MAIN_ARMS]
    cells: list[Cell] = []
    if "arms" in parts:
        cells += [_arm(preset, name, first) for name in preset.arms]
        cells += [_arm(preset, name, seed) for seed in others for name in MAIN_ARMS]
    if "ablations" in parts:
        cells += [_ablation(preset, name) for name in preset.ablations]
    if "arms" in parts:
        cells += [_arm(preset, name, seed) for seed in others for name in beside]
    return tuple(cells)


def _arm(preset: StudyPreset, name: str, seed: int) -> Cell:
    return Cell(
        group="arms",
        arm=name,
        seed=seed,
        pretrain=arm_config(name, preset.base(seed), control=preset.control),
        encoder=preset.encoder,
        settings=task_settings(preset),
    )


def _ablation(preset: StudyPreset, name: str) -> Cell:
    seed = preset.seeds[0]
    budgets = preset.budgets[len(preset.budgets) // 2 :][:1]
    base = preset.base(seed, num_steps=preset.ablation_steps)
    return Cell(
        group="ablations",
        arm=name,
        seed=seed,
        pretrain=ablation_config(name, base),
        encoder=preset.encoder,
        settings=replace(task_settings(preset), budgets=budgets, readouts=("probe",)),
        tasks=ABLATION_TASKS,
    )
