"""Trees laid out like the published paired sets, with small made pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from dataset_factory import make_cfp, make_scan, write_image
from pairing_factory import write_jpeg

SLICE_SHAPE = (24, 32)


def write_text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def make_slice(seed: int) -> np.ndarray:
    return np.ascontiguousarray(make_scan(seed)[: SLICE_SHAPE[0], : SLICE_SHAPE[1]])


def make_eyes(root: Path, **eyes: str) -> Path:
    """The table of eyes; underscores in names stand for '-'."""
    lines = [f"{name.replace('_', '-').lstrip('-')},{eye}" for name, eye in eyes.items()]
    return write_text(root / "eyes.csv", "eye_id,eye", *lines)


def make_gamma(root: Path, *, num_eyes: int = 2, num_slices: int = 100) -> None:
    images = root / "multi-modality_images"
    grades = ("1,0,0", "0,1,0", "0,0,1")
    rows = []
    for number in range(1, num_eyes + 1):
        name = f"{number:04d}"
        write_jpeg(images / name / f"{name}.jpg", make_cfp(number))
        for i in range(num_slices):
            path = images / name / name / f"{i}_image.jpg"
            write_jpeg(path, make_slice(1000 * number + i))
        rows.append(f"{number},{grades[number % 3]}")
    write_text(root / "glaucoma_grading_training_GT.csv", "data,non,early,mid_advanced", *rows)


def make_mmc_amd(root: Path, *, with_splits: bool = True) -> None:
    images = root / "mmc-amd" / "ImageData"
    for seed, eye in enumerate(("h-11", "d-12", "p-13", "w-14")):
        write_jpeg(images / "cfp-clahe-448x448" / f"f-{eye}.jpg", make_cfp(seed))
        for i in range(2):
            path = images / "oct-median3x3-448x448" / f"o-{eye}_{i}.jpg"
            write_jpeg(path, make_slice(10 * seed + i))
    if not with_splits:
        return
    for split, eyes in (("train", ("h-11", "d-12")), ("val", ("p-13",)), ("test", ("w-14",))):
        lists = root / f"mmc-amd-splitAP-{split}" / "ImageSets"
        write_text(lists / "cfp.txt", *(f"f-{eye}" for eye in eyes))
        write_text(lists / "oct.txt", *(f"o-{eye}_{i}" for eye in eyes for i in range(2)))


def make_topcon_mm(root: Path) -> None:
    findings = "normal,dAMD,wAMD,DR,CSC,PED,MEM,FLD,EXU,CNV,RVO"
    fundus, oct_rows = [], []
    for seed, name in enumerate(("7-L-1", "7-R-1", "8-OD-1")):
        write_image(root / "fundus_images" / f"{name}.png", make_cfp(seed))
        fundus.append(f"{name}.png,0,1,0,1,0,0,0,0,0,0,0")
        for i in (1, 2):
            scan = f"{name[:-1]}{i}"
            write_image(root / "oct_images" / f"{scan}.png", make_slice(10 * seed + i))
            oct_rows.append(f"{scan}.png,0,1,0,1,0,0,0,1,0,0,0")
    write_text(root / "fundus_labels.csv", f"image,{findings}", *fundus)
    write_text(root / "oct_labels.csv", f"image,{findings}", *oct_rows)


def make_olives(root: Path, *, num_slices: int = 49, colour: bool = True) -> None:
    rows = []
    visits = [
        ("Prime_FULL/02-010/W0/OD", "{}.png", "fundus_OD_W0.png"),
        ("Prime_FULL/02-010/W4/OD", "{}.png", "fundus_OD_W4.png"),
        ("TREX DME/GILA/0201GOD/V1/OD", "TREXJ_{:06d}.tif", "fundus_OD_V1.tif"),
        ("TREX DME/GILA/0201GOS/V1/OS", "TREXJ_{:06d}.tif", "fundus_OS_V1.tif"),
    ]
    for number, (folder, pattern, fundus) in enumerate(visits):
        photo = make_cfp(number)
        if not colour:
            photo = np.repeat(photo[..., 1:2], 3, axis=2)
        _write(root / folder / fundus, photo)
        for i in range(num_slices):
            _write(root / folder / pattern.format(i), make_slice(1000 * number + i))
            edema = int(number == 0 and i == 3)
            rows.append(f"/{folder}/{pattern.format(i)},{i},{edema},{70 + number},{280 + number}")
    (root / "Prime_FULL/02-010/W0/OD/sequence.npy").write_bytes(b"no picture")
    table = root / "OLIVES_Dataset_Labels/ml_centric_labels/Biomarker_Clinical_Data_Images.csv"
    write_text(table, "Path (Trial/Arm/Folder/Visit/Eye/Image Name),Scan,DRT/ME,BCVA,CST", *rows)


def _write(path: Path, image: np.ndarray) -> None:
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    stored = image[..., ::-1] if image.ndim == 3 else image
    path.write_bytes(cv2.imencode(path.suffix, stored)[1].tobytes())
