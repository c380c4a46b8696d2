"""From a camera's JPEG to the decision: ours beside what a user would write, as ratios.

    python benchmarks/end_to_end.py                 per image, 224 and 512 px
    python benchmarks/end_to_end.py --folder        a folder on two cores
    python benchmarks/end_to_end.py --cold          a fresh process to its first result
    python benchmarks/end_to_end.py --memory        peak resident memory, stage by stage
    python benchmarks/end_to_end.py --fidelity      pixels and decisions against a full decode

Contestants and what each does inside the timed region: `end_to_end_pipelines.py`. Real pictures
come from EDGE_SCREEN_DATA; drawn ones are made where they are missing. Everything is interleaved
in one run; a ratio is the median over rounds, quartiles beside it. `--work DIR` keeps students
and drawn pictures for the next run. A trained student: --bundle, --student and --trusted-keys.
Needs the extra `export`; OpenVINO only where it is installed. A machine with other work on it is
refused unless --allow-busy, and then said. Figures of another machine say nothing about yours.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from end_to_end_bundle import Material, make_material, trained_material
from end_to_end_pictures import (
    Picture,
    originals,
    phantom_pictures,
    phantoms,
    real_pictures,
)
from end_to_end_pipelines import OURS, open_contestant, openvino_installed
from end_to_end_race import Row, Watch, race, ratio_row, table

_TARGETS = {("10 MP and more", 224): 7.0, ("10 MP and more", 512): 5.5, ("5 MP", 224): 4.5,
            ("5 MP", 512): 3.5}  # fmt: skip
_FLOOR_TARGETS = {224: 1.35, 512: 1.8}  # 10 MP and more
_PACKAGES = ("numpy", "opencv-python-headless", "simplejpeg", "onnxruntime", "openvino", "torch",
             "torchvision", "pillow")  # fmt: skip


def main() -> None:
    """Parse, prepare, measure, print."""
    args = _parser().parse_args()
    watch = Watch()
    mode = next((name for name in _MODES if getattr(args, name)), "per_image")
    if watch.busy and mode not in _NOT_TIMED and not args.allow_busy:
        raise SystemExit(f"{watch.busy}; wait, or give --allow-busy to see busy figures")
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        materials = _materials(args, work)
        none_drawn = args.real_only or mode == "fidelity"
        drawn = {} if none_drawn else phantoms(work / "pictures", num_each=args.num_phantoms)
        measure = _MODES.get(mode, _per_image)
        with watch:
            rows = [row for one in materials for row in measure(args, one, drawn, work)]
    _report(args, rows, None if mode in _NOT_TIMED else watch.busy, watch.record)


def _per_image(
    args: argparse.Namespace, material: Material, drawn: dict[str, list[Picture]], work: Path
) -> list[Row]:
    """CPU and wall time of one picture after another, one thread."""
    del work
    names = ["A", "B", *(["O"] if openvino_installed() else []), *OURS, "floor"]
    contestants = {name: open_contestant(name, material) for name in names}
    rows: list[Row] = []
    for source, by_class in (("real", real_pictures()), ("drawn", drawn)):
        for kind, found in by_class.items():
            pictures = _that_reach(contestants, found, f"{material.size_px} px, {source} {kind}")
            if not pictures:
                continue
            runs = {
                name: (lambda one=one, pictures=pictures: [one.run(p.data) for p in pictures])
                for name, one in contestants.items()
            }
            times = race(runs, rounds=args.rounds)
            title = f"{material.size_px} px, {source} {kind} ({len(pictures)})"
            rows += _image_rows(title, times, names, kind, material.size_px)
    return rows


def _image_rows(title: str, times, names: list[str], kind: str, size_px: int) -> list[Row]:
    rows = []
    for clock in ("cpu", "wall"):
        for ours in OURS:
            target = _TARGETS.get((kind, size_px)) if ours == "ours int8" else None
            rows.append(ratio_row(title, times, over="A", under=ours, clock=clock, target=target))
        for other in ("B", "O"):
            if other in names:
                rows.append(
                    ratio_row(title, times, over=other, under="ours int8", clock=clock, target=1.0)
                )
        limit = _FLOOR_TARGETS.get(size_px) if kind == "10 MP and more" else None
        pair = {"over": "ours int8", "under": "floor", "clock": clock}
        rows.append(ratio_row(title, times, **pair, target=limit, at_least=False))
    return rows


def _that_reach(contestants, pictures: list[Picture], title: str) -> list[Picture]:
    """Leave out, and say so, what our gate refuses: an early refusal would look fast."""
    kept = [
        one
        for one in pictures
        if all(contestants[name].reached(contestants[name].run(one.data)) for name in OURS)
    ]
    if len(kept) < len(pictures):
        _say(f"{title}: {len(pictures) - len(kept)} of {len(pictures)} do not reach the model "
             "and are not timed")  # fmt: skip
    return kept


def _folder(args, material: Material, drawn, work: Path) -> list[Row]:
    from end_to_end_process import folder_rows

    paths = _written(_all_pictures(drawn), work)
    return folder_rows(material, paths, rounds=max(3, args.rounds // 3), workers=args.workers)


def _cold(args, material: Material, drawn, work: Path) -> list[Row]:
    from end_to_end_process import cold_rows

    path = _written(_all_pictures(drawn)[:1], work)[0]
    return cold_rows(material, path, rounds=args.rounds, work=work)


def _memory(args, material: Material, drawn, work: Path) -> list[Row]:
    from end_to_end_process import memory_rows

    del args
    return memory_rows(material, _written(_all_pictures(drawn), work), work=work)


def _fidelity(args, material: Material, drawn, work: Path) -> list[Row]:
    from end_to_end_fidelity import decision_rows, fidelity_rows

    del drawn
    real = [Picture(name=path.name, data=path.read_bytes()) for path in originals()]
    rows = fidelity_rows(material, real)
    if real:
        rows += decision_rows(material, real, what="originals")
    else:
        _say("no originals here; name their folder in EDGE_SCREEN_DATA")
    if not material.trained:
        _say("random weights: give --bundle and --student for decisions that mean something")
    pictures = phantom_pictures(
        work / "pictures", num=args.num_decisions, width_px=args.decision_width_px
    )
    return [*rows, *decision_rows(material, pictures, what="drawn camera pictures")]


_NOT_TIMED = ("memory", "fidelity")
_MODES = {"folder": _folder, "cold": _cold, "memory": _memory, "fidelity": _fidelity}


def _all_pictures(drawn: dict[str, list[Picture]]) -> list[Picture]:
    """Real ones and drawn ones of every class, 10 MP and more first."""
    real = real_pictures()
    kinds = dict.fromkeys([*real, *drawn])
    return [one for kind in kinds for group in (real, drawn) for one in group.get(kind, [])]


def _written(pictures: list[Picture], work: Path) -> list[Path]:
    folder = work / "folder"
    folder.mkdir(exist_ok=True)
    paths = []
    for number, picture in enumerate(pictures):
        path = folder / f"{number:03d}.jpg"
        path.write_bytes(picture.data)
        paths.append(path)
    return paths


def _materials(args: argparse.Namespace, work: Path) -> list[Material]:
    if (args.bundle is None) != (args.student is None):
        raise SystemExit("give --bundle and --student together: the student of that bundle")
    if args.bundle is not None:
        return [trained_material(work / "trained", bundle=args.bundle, student=args.student,
                                 trusted_keys=args.trusted_keys)]  # fmt: skip
    sizes = [int(word) for word in args.sizes.split(",")]
    return [
        make_material(work / "students", backbone=args.backbone, size_px=size, data=work / "eyes")
        for size in sizes
    ]


def _report(
    args: argparse.Namespace, rows: list[Row], busy: str | None, machine: dict[str, Any]
) -> None:
    versions = {name: _version(name) for name in _PACKAGES}
    if busy:
        _say(f"BUSY MACHINE: {busy}; these ratios are not to be quoted")
    if args.json:
        record = {"machine": machine, "busy": busy, "versions": versions,
                  "student": args.backbone if args.bundle is None else "trained",
                  "rounds": args.rounds, "rows": [row.to_dict() for row in rows]}  # fmt: skip
        print(json.dumps(record, allow_nan=False))
        return
    print(table(rows))
    missed = sum(row.reached is False for row in rows)
    print(f"{sum(row.reached is True for row in rows)} targets reached, {missed} not")
    print(", ".join(f"{name} {found}" for name, found in versions.items()))
    print(", ".join(f"{name} {value}" for name, value in machine.items()))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    mode = parser.add_mutually_exclusive_group()
    for name in _MODES:
        mode.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--sizes", default="224,512", help="of untrained students, in px")
    parser.add_argument("--backbone", default="compact", help="of untrained students")
    parser.add_argument("--bundle", type=Path, help="a trained student's bundle")
    parser.add_argument("--student", type=Path, help="the checkpoint it was exported from")
    parser.add_argument("--trusted-keys", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--workers", type=int, default=2, help="threads of --folder")
    parser.add_argument("--num-phantoms", type=int, default=3, help="drawn pictures a class")
    parser.add_argument("--real-only", action="store_true", help="draw none")
    parser.add_argument("--num-decisions", type=int, default=500, help="of --fidelity")
    parser.add_argument("--decision-width-px", type=int, default=1600, help="of --fidelity")
    parser.add_argument("--work", type=Path, metavar="DIR", help="kept for the next run")
    parser.add_argument("--allow-busy", action="store_true")
    parser.add_argument("--json", action="store_true")
    return parser


if __name__ == "__main__":
    main()
