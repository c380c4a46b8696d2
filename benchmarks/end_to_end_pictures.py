"""Camera-size JPEGs for `end_to_end.py`: real ones where they are, and drawn ones."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path

__all__ = ["CLASSES", "Picture", "originals", "phantom_pictures", "phantoms", "real_pictures"]

#: Class -> (fewest, most) megapixels.
CLASSES = {"10 MP and more": (10.0, 40.0), "5 MP": (4.5, 6.0)}
_WIDTHS = {"10 MP and more": 3888, "5 MP": 2592}
_QUALITY = 92
_SEED = 20261123


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An encoded picture; `name` is for the terminal and never leaves it."""

    name: str
    data: bytes


def originals() -> list[Path]:
    """The camera originals of EDGE_SCREEN_DATA, or of shared/data beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("EDGE_SCREEN_DATA", beside)) / "fullres" / "images"
    return sorted(folder.glob("*")) if folder.is_dir() else []


def real_pictures() -> dict[str, list[Picture]]:
    """Real JPEGs by class; empty without EDGE_SCREEN_DATA. Sizes between the classes are left."""
    from edge_runtime.image import decode_image

    found: dict[str, list[Picture]] = {name: [] for name in CLASSES}
    for path in originals():
        data = path.read_bytes()
        if data[:2] != b"\xff\xd8":
            continue
        height, width = decode_image(data, target_px=64).full_size_px
        for name, (least, most) in CLASSES.items():
            if least <= height * width / 1e6 < most:
                found[name].append(Picture(name=path.name, data=data))
    return found


def phantoms(folder: Path, *, num_each: int) -> dict[str, list[Picture]]:
    """Drawn JPEGs by class, quality 92, 4:2:0; kept in `folder`, the same on every machine."""
    return {
        name: phantom_pictures(folder, num=num_each, width_px=width, gradable=True)
        for name, width in _WIDTHS.items()
    }


def phantom_pictures(
    folder: Path, *, num: int, width_px: int, gradable: bool = False
) -> list[Picture]:
    """Draw `num` eyes at one width, with every processor; those that lie there are used again.

    `gradable` leaves out the eyes that were drawn as failures of photography.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kind = "gradable" if gradable else "all"
    paths = [folder / f"{kind}-{width_px}-{number:04d}.jpg" for number in range(num)]
    eyes = _eyes(num, gradable=gradable)
    missing = [(eye, path) for eye, path in zip(eyes, paths, strict=True) if not path.is_file()]
    if len(missing) > 4:
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(_draw, *zip(*missing, strict=True), [width_px] * len(missing)))
    else:
        for eye, path in missing:
            _draw(eye, path, width_px)
    return [Picture(name=path.name, data=path.read_bytes()) for path in paths]


def _eyes(num: int, *, gradable: bool):
    """The first `num` eyes of a fixed population."""
    from train.phantom.sample import sample_patient

    found = []
    for patient in count():
        for eye in sample_patient(_SEED, patient):
            if len(found) == num:
                return found
            if not (gradable and eye.capture.ungradable_kind):
                found.append(eye)
    raise AssertionError("unreachable")


def _draw(eye, path: Path, width_px: int) -> None:
    from train.phantom.camera import render_camera_jpeg

    part = path.with_suffix(".part")
    part.write_bytes(render_camera_jpeg(eye, width_px=width_px, quality=_QUALITY))
    part.rename(path)
