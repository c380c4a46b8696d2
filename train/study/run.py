"""Run a study: make the synthetic eyes, finish every cell in worker processes, write the report.

Everything is resumable: eyes, cells and the steps inside a cell are kept, and a second call
does only what is missing. Each worker is one process with one thread; cells do not share
anything, so the number of workers changes nothing but the time.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import torch

from edge_runtime.errors import DataError
from train.data.index import read_index
from train.device import CPU
from train.phantom.writer import generate_dataset
from train.study.cells import Cell, CellRecord, finish_cell, read_cell
from train.study.plan import PARTS, study_cells
from train.study.presets import StudyPreset
from train.tasks.data import TaskData, load_task_data
from train.tasks.retrieval import OctCodes, oct_codes

__all__ = ["finished_cells", "run_study"]

Say = Callable[[str], None]
_MARKER = "data.json"


def run_study(
    preset: StudyPreset,
    out: Path,
    *,
    parts: Sequence[str] = PARTS,
    workers: int = 2,
    device: torch.device = CPU,
    say: Say,
) -> tuple[CellRecord, ...]:
    """Finish every cell of a preset.

    Args:
        preset: the study.
        out: its folder, new or of an interrupted run of the same preset.
        parts: 'arms', 'ablations' or both.
        workers: processes.
        device: where the networks run.
        say: told what is done, line by line.

    Returns:
        The finished cells, in the order of the plan.

    Raises:
        DataError: `out` holds another study.
    """
    data_folder = _eyes(preset, out, workers, say)
    cells = study_cells(preset, tuple(parts))
    size_px = preset.encoder.size_px
    started = time.monotonic()
    pool = ProcessPoolExecutor(
        max_workers=workers, mp_context=get_context("spawn"), initializer=_one_thread
    )
    with pool:
        futures = {
            pool.submit(_work, cell, out / "cells", data_folder, size_px, device): number
            for number, cell in enumerate(cells)
        }
        done: dict[int, CellRecord] = {}
        try:
            for future in as_completed(futures):
                number = futures[future]
                done[number] = future.result()
                say(_line(cells[number], done[number], len(done), len(cells), started))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return tuple(done[number] for number in range(len(cells)))


def finished_cells(
    preset: StudyPreset, out: Path, *, parts: Sequence[str] = PARTS
) -> tuple[tuple[CellRecord, ...], tuple[str, ...]]:
    """What a study has finished so far, and the names of the cells that it has not.

    Raises:
        DataError: `out` has no eyes yet, or other ones.
    """
    _require_same_eyes(preset, out)
    fingerprint = read_index(out / "data").fingerprint()
    done, missing = [], []
    for cell in study_cells(preset, tuple(parts)):
        record = read_cell(cell.tasks_folder(out / "cells", fingerprint))
        if record is None:
            missing.append(f"{cell.arm}, seed {cell.seed}")
        else:
            done.append(record)
    return tuple(done), tuple(missing)


def _line(cell: Cell, record: CellRecord, done: int, total: int, started: float) -> str:
    minutes = (time.monotonic() - started) / 60
    seconds = sum(value for name, value in record.seconds.items() if name != "waiting")
    return f"{done}/{total} {cell.arm} seed {cell.seed}: {seconds:.0f} s ({minutes:.0f} min in all)"


def _eyes(preset: StudyPreset, out: Path, workers: int, say: Say) -> Path:
    """The data set of the study, made once."""
    folder, marker = out / "data", out / _MARKER
    if marker.is_file():
        _require_same_eyes(preset, out)
        return folder
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted call left
    say(f"drawing {preset.num_patients} synthetic patients")
    generate_dataset(
        folder,
        num_patients=preset.num_patients,
        seed=preset.data_seed,
        image_px=preset.image_px,
        num_workers=workers,
    )
    marker.write_text(json.dumps(_eyes_of(preset)) + "\n", encoding="utf-8")
    return folder


def _eyes_of(preset: StudyPreset) -> dict[str, int]:
    return {
        "patients": preset.num_patients,
        "seed": preset.data_seed,
        "image_px": preset.image_px,
    }


def _require_same_eyes(preset: StudyPreset, out: Path) -> None:
    marker, wanted = out / _MARKER, _eyes_of(preset)
    if not marker.is_file():
        raise DataError(f"{out} has no {_MARKER}: no study was begun there; run it first")
    found = json.loads(marker.read_text(encoding="utf-8"))
    if found != wanted:
        raise DataError(
            f"{out} holds a study on other eyes ({found}, not {wanted}); give another folder"
        )


def _one_thread() -> None:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


@lru_cache(maxsize=1)
def _load(folder: Path, size_px: int) -> TaskData:
    """Once a worker."""
    return load_task_data(folder, size_px)


@lru_cache(maxsize=1)
def _codes(folder: Path, size_px: int, num_components: int) -> OctCodes:
    """What retrieval compares the photograph with; the same for every encoder."""
    return oct_codes(_load(folder, size_px), num_components)


def _work(
    cell: Cell, root: Path, data_folder: Path, size_px: int, device: torch.device
) -> CellRecord:
    codes = _codes(data_folder, size_px, cell.settings.num_oct_components)
    return finish_cell(cell, root, _load(data_folder, size_px), codes=codes, device=device)
