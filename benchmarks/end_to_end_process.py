"""Whole processes of `end_to_end.py`: a folder on all cores, a cold start, peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from end_to_end_bundle import Material
from end_to_end_pipelines import open_contestant
from end_to_end_race import Row, Times, race, ratio_row

__all__ = ["cold_rows", "folder_rows", "memory_rows"]

ROOT = Path(__file__).resolve().parent.parent
_CHILD = ROOT / "benchmarks" / "end_to_end_child.py"
_FOLDER_TARGET, _COLD_TARGET, _MEMORY_TARGET_MIB = 9.0, 12.0, 110.0
_MEMORY_TARGET_PX = 224


def folder_rows(material: Material, paths: list[Path], *, rounds: int, workers: int) -> list[Row]:
    """A folder: ours with a thread a core and one shared engine, beside the obvious loop.

    The loop gets PyTorch once with one thread and once with one a core; the target holds for the
    faster of the two. Reading the files is inside.
    """
    import torch

    screener = open_contestant("ours int8", material)
    loop = open_contestant("A", material)
    pool = ThreadPoolExecutor(workers)

    def ours() -> None:
        list(pool.map(lambda path: screener.run(path.read_bytes()), paths))

    def obvious(threads: int) -> None:
        torch.set_num_threads(threads)
        for path in paths:
            loop.run(path.read_bytes())

    def alone() -> None:
        for path in paths:
            screener.run(path.read_bytes())

    names = {1: "loop, 1 torch thread", workers: f"loop, {workers} torch threads"}
    times = race(
        {
            "ours": ours,
            "ours, 1 worker": alone,
            **{name: (lambda n=n: obvious(n)) for n, name in names.items()},
        },
        rounds=rounds,
    )
    pool.shutdown()
    title = f"{material.size_px} px, folder of {len(paths)}, {workers} workers"
    rows = [
        ratio_row(title, times, over=name, under="ours", clock="wall", target=_FOLDER_TARGET)
        for name in names.values()
    ]
    return [*rows, ratio_row(title, times, over="ours, 1 worker", under="ours", clock="wall")]


def cold_rows(material: Material, path: Path, *, rounds: int, work: Path) -> list[Row]:
    """A fresh process from its start to the first result, files in the page cache."""
    names = ("A", "ours int8")
    times: Times = {name: {"wall": [], "cpu": []} for name in names}
    for number in range(-1, rounds):
        for name in names if number % 2 == 0 else names[::-1]:
            wall, cpu, _ = _run_child(name, material, [path], work)
            if number >= 0:
                times[name]["wall"].append(wall)
                times[name]["cpu"].append(cpu)
    title = f"{material.size_px} px, cold start"
    return [
        ratio_row(title, times, over="A", under="ours int8", clock="wall", target=_COLD_TARGET),
        ratio_row(title, times, over="A", under="ours int8", clock="cpu"),
    ]


def memory_rows(material: Material, paths: list[Path], *, work: Path) -> list[Row]:
    """Peak resident memory of a process that screens all pictures, stage by stage."""
    rows = []
    for name in ("ours int8", "A"):
        _, _, stages = _run_child(name, material, paths, work)
        for stage in stages:
            last = stage["stage"] == "last result"
            wanted = last and name != "A" and material.size_px == _MEMORY_TARGET_PX
            rows.append(
                Row(
                    name=f"{material.size_px} px, peak memory of {name} after: {stage['stage']}",
                    value=stage["peak_mib"],
                    target=_MEMORY_TARGET_MIB if wanted else None,
                    at_least=False,
                    unit="MiB",
                )
            )
    return rows


def _run_child(
    name: str, material: Material, paths: list[Path], work: Path
) -> tuple[float, float, list[dict]]:
    """Wall seconds to the first result, CPU seconds of the whole process, and its lines."""
    told = work / "material-of-child.json"
    told.write_text(material.to_json(), encoding="utf-8")
    command = [sys.executable, str(_CHILD), name, str(told), *map(str, paths)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    environment = {**os.environ, **threads, "PYTHONPATH": str(ROOT)}
    # Bytecode as an installed package has it: compiled once, before the first timed round.
    environment["PYTHONPYCACHEPREFIX"] = str(work.resolve() / "bytecode")
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before = os.times()
    began, first_s, stages = time.perf_counter(), 0.0, []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        for line in child.stdout:
            stages.append(json.loads(line))
            if stages[-1]["stage"] == "first result":
                first_s = time.perf_counter() - began
    if child.returncode != 0 or not first_s:
        raise SystemExit(f"the fresh process of {name} ended with {child.returncode}")
    if not next(one for one in stages if one["stage"] == "first result")["reached"]:
        raise SystemExit(f"the picture does not reach the model of {name}; take another")
    after = os.times()
    cpu = after.children_user + after.children_system
    return first_s, cpu - before.children_user - before.children_system, stages
