"""Trees laid out like the published sets, with small made pictures; `MAKERS` has one a set."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from dataset_factory import SIDE_PX, make_cfp
from layout_factory import write_text

from train.imports.sets.rfmid import FINDINGS


def make_mask(side_px: int = SIDE_PX) -> np.ndarray:
    """A disc that is inside, as 0 and 255."""
    mask = np.zeros((side_px, side_px), np.uint8)
    cv2.circle(mask, (side_px // 2, side_px // 3), side_px // 8, 255, -1)
    return mask


def make_disc_cup(side_px: int = SIDE_PX) -> np.ndarray:
    """REFUGE's values: 0 in the cup, 128 in the rim, 255 outside."""
    mask = np.full((side_px, side_px), 255, np.uint8)
    cv2.circle(mask, (side_px // 2, side_px // 2), side_px // 6, 128, -1)
    cv2.circle(mask, (side_px // 2, side_px // 2), side_px // 12, 0, -1)
    return mask


def gif_bytes(mask: np.ndarray) -> bytes:
    """A two-color GIF; codes of 8 bits, the table cleared before they would grow."""
    height, width = mask.shape
    size = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    codes = bytearray()
    for i, inside in enumerate((mask > 0).ravel().tolist()):
        if i % 100 == 0:
            codes.append(128)  # clear
        codes.append(int(inside))
    codes.append(129)  # end
    head = b"GIF89a" + size + b"\xf0\x00\x00" + b"\x00\x00\x00\xff\xff\xff"
    body = b"\x2c" + bytes(4) + size + b"\x00\x07"
    for start in range(0, len(codes), 255):
        block = codes[start : start + 255]
        body += bytes((len(block),)) + block
    return head + body + b"\x00\x3b"


def write_picture(path: Path, pixels: np.ndarray) -> Path:
    """RGB or grey pixels in the format of the path's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = np.ascontiguousarray(pixels[..., ::-1]) if pixels.ndim == 3 else pixels
    suffix = path.suffix.lower()
    if suffix == ".gif":
        path.write_bytes(gif_bytes(pixels))
    elif suffix == ".gz":
        path.write_bytes(gzip.compress(cv2.imencode(".ppm", _color(stored))[1].tobytes()))
    elif suffix == ".tif":
        plain = (cv2.IMWRITE_TIFF_COMPRESSION, 1)
        path.write_bytes(cv2.imencode(".tif", stored, plain)[1].tobytes())
    else:
        path.write_bytes(cv2.imencode(suffix, stored)[1].tobytes())
    return path


def _color(stored: np.ndarray) -> np.ndarray:
    return stored if stored.ndim == 3 else np.repeat(stored[..., None], 3, axis=2)


def photo(path: Path, seed: int) -> Path:
    return write_picture(path, make_cfp(seed))


def replace_text(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


ODIR_TABLE = "ODIR-5K_Training_Annotations(Updated)_V2.csv"


def make_odir(root: Path) -> None:
    images = root / "ODIR-5K_Training_Dataset"
    for seed, stem in enumerate(("0_left", "0_right", "1_left", "1_right", "2_left", "2_right")):
        photo(images / f"{stem}.jpg", seed)
    head = "ID,Patient Age,Patient Sex,Left-Fundus,Right-Fundus,Left-Diagnostic Keywords,"
    mark = "\uff0c"
    worst = f"moderate non proliferative retinopathy{mark}hypertensive retinopathy"
    write_text(
        root / ODIR_TABLE,
        head + "Right-Diagnostic Keywords,N,D,G,C,A,H,M,O",
        "0,69,Female,0_left.jpg,0_right.jpg,cataract,normal fundus,0,0,0,1,0,0,0,0",
        f"1,57,Male,1_left.jpg,1_right.jpg,{worst},low image quality,0,1,0,0,0,1,0,0",
        "2,1,Male,2_left.jpg,2_right.jpg,anterior segment image,"
        f"suspected glaucoma{mark}lens dust,0,0,1,0,0,0,0,0",
    )


def make_eyepacs(root: Path) -> None:
    names = [f"{number}_{side}" for number in (10, 13) for side in ("left", "right")]
    for seed, name in enumerate(names):
        photo(root / "train" / f"{name}.jpeg", seed)
    for seed, name in enumerate(("1_left", "1_right")):
        photo(root / "test" / f"{name}.jpeg", 20 + seed)
    rows = [f"{name},{level}" for name, level in zip(names, (0, 1, 2, 4), strict=True)]
    write_text(root / "trainLabels.csv", "image,level", *rows)
    write_text(
        root / "retinopathy_solution.csv",
        "image,level,Usage",
        "1_left,0,Private",
        "1_right,3,Public",
    )


def make_eyeq(path: Path) -> Path:
    """Quality of pictures of `make_eyepacs`; the last row is of a picture that is not there."""
    return write_text(
        path,
        ",image,quality,DR_grade",
        "0,10_left.jpeg,0,0",
        "1,10_right.jpeg,1,1",
        "2,13_left.jpeg,2,2",
        "3,99_left.jpeg,2,0",
    )


def make_aptos(root: Path) -> None:
    names = ("000c1434d8d7", "001639a390f0", "0024cdab0c1e", "002c21358ce6")
    for seed, name in enumerate(names):
        photo(root / "train_images" / f"{name}.png", seed)
    rows = [f"{name},{grade}" for name, grade in zip(names, (2, 4, 1, 0), strict=True)]
    write_text(root / "train.csv", "id_code,diagnosis", *rows)


def make_messidor(root: Path, *, with_pairs: bool = True) -> None:
    names = ("20051020_43808_0100_PP.png", "20051020_43832_0100_PP.png")
    names += ("IM000001.jpg", "IM000002.jpg")
    for seed, name in enumerate(names):
        photo(root / "IMAGES" / name.replace(".jpg", ".JPG"), seed)
    marks = ("0,0,1", "3,1,1", "1,0,1", ",,0")
    rows = [f"{name},{mark}" for name, mark in zip(names, marks, strict=True)]
    columns = "image_id,adjudicated_dr_grade,adjudicated_dme,adjudicated_gradable"
    write_text(root / "messidor_data.csv", columns, *rows)
    if with_pairs:
        pairs = (";".join(names[:2]), ";".join(names[2:]))
        write_text(root / "messidor-2.csv", "left;right", *pairs)


def make_idrid_grading(root: Path) -> None:
    truth = root / "2. Groundtruths"
    for part, word, count in (("a", "Training", 3), ("b", "Testing", 2)):
        folder = root / "1. Original Images" / f"{part}. {word} Set"
        for i in range(1, count + 1):
            photo(folder / f"IDRiD_{i:03d}.jpg", i + (10 if part == "b" else 0))
        tail = ",,," if part == "a" else ""  # as the published table ends
        rows = [f"IDRiD_{i:03d},{i},{i - 1}{tail}" for i in range(1, count + 1)]
        head = f"Image name,Retinopathy grade,Risk of macular edema {tail}"
        write_text(truth / f"{part}. IDRiD_Disease Grading_{word} Labels.csv", head, *rows)


def make_idrid_segmentation(root: Path) -> None:
    kinds = {"MA": "1. Microaneurysms", "HE": "2. Haemorrhages", "EX": "3. Hard Exudates"}
    kinds |= {"SE": "4. Soft Exudates", "OD": "5. Optic Disc"}
    truth = root / "2. All Segmentation Groundtruths"
    for part, word, numbers in (("a", "Training", (1, 2, 3)), ("b", "Testing", (55,))):
        name = f"{part}. {word} Set"
        for i in numbers:
            photo(root / "1. Original Images" / name / f"IDRiD_{i:02d}.jpg", i)
            for k, (short, folder) in enumerate(kinds.items()):
                (truth / name / folder).mkdir(parents=True, exist_ok=True)
                if short == "SE" and i != 1:
                    continue
                mask = np.roll(make_mask() // 255 * 76, 4 * k, axis=1)
                write_picture(truth / name / folder / f"IDRiD_{i:02d}_{short}.tif", mask)


def make_deepdrid(root: Path) -> None:
    columns = "patient_id,image_id,image_path,Overall quality,left_eye_DR_Level,"
    columns += "right_eye_DR_Level,patient_DR_Level,Clarity,Field definition,Artifact"
    for word, patient in (("training", 1), ("validation", 265)):
        folder = root / f"regular-fundus-{word}"
        rows = []
        for k, eye in enumerate(("l1", "l2", "r1", "r2")):
            name = f"{patient}_{eye}"
            photo(folder / "Images" / str(patient) / f"{name}.jpg", patient + k)
            levels = "2," if eye[0] == "l" else ",0"
            path = f"\\regular-fundus-{word}\\{patient}\\{name}.jpg"
            rows.append(f"{patient},{name},{path},{k % 2},{levels},2,8,8,4")
        write_text(folder / f"regular-fundus-{word}.csv", columns, *rows)
    folder = root / "Online-Challenge1&2-Evaluation"
    for k, eye in enumerate(("l1", "r1")):
        photo(folder / "Images" / "347" / f"347_{eye}.jpg", 347 + k)
    write_text(folder / "Challenge1_labels.csv", "image_id,DR_Levels", "347_l1,4", "347_r1,0")


def make_brset(root: Path) -> None:
    columns = "image_id,patient_id,camera,patient_age,diabetes_time_y,patient_sex,exam_eye,"
    columns += "optic_disc,vessels,macula,DR_SDRG,DR_ICDR,focus,image_field,artifacts,"
    columns += "diabetic_retinopathy,macular_edema,scar,amd,hypertensive_retinopathy,"
    columns += "myopic_fundus,increased_cup_disc,other,quality"
    rows = (
        "img00001,1,Canon CR,48,12,1,1,1,1,1,0,0,1,1,1,0,0,0,0,0,0,1,0,Adequate",
        "img00002,1,Canon CR,48,12,1,2,1,1,1,2,2,1,1,1,1,1,0,0,0,0,0,0,Adequate",
        "img00003,2,NIKON NF5050,,,2,1,1,1,1,0,0,2,1,1,0,0,0,1,1,0,0,0,Inadequate",
        "img00004,2,NIKON NF5050,,,2,1,1,1,1,0,0,1,1,1,0,0,0,1,0,1,0,0,Adequate",
    )
    for seed in range(1, 5):
        photo(root / "fundus_photos" / f"img{seed:05d}.jpg", seed)
    write_text(root / "labels_brset.csv", columns, *rows)


def make_refuge(root: Path) -> None:
    masks = {
        "Training400/Glaucoma/g0001": "Annotation-Training400/Disc_Cup_Masks/Glaucoma",
        "Training400/Non-Glaucoma/n0001": "Annotation-Training400/Disc_Cup_Masks/Non-Glaucoma",
        "REFUGE-Validation400/V0001": "REFUGE-Validation400-GT/Disc_Cup_Masks",
        "Test400/T0001": "REFUGE-Test-GT/Disc_Cup_Masks/G",
        "Test400/T0002": "REFUGE-Test-GT/Disc_Cup_Masks/N",
    }
    for seed, (image, folder) in enumerate(masks.items()):
        photo(root / f"{image}.jpg", seed)
        write_picture(root / folder / f"{Path(image).name}.bmp", make_disc_cup())
    write_text(
        root / "REFUGE-Test-GT" / "Glaucoma_label_and_Fovea_location.csv",
        "ID,ImgName,Label(Glaucoma=1),Fovea_X,Fovea_Y",
        "1,T0001.jpg,1,60.5,64.25",
        "2,T0002.jpg,0,61,65",
    )


def make_gamma_photographs(root: Path) -> None:
    for number, seed in ((1, 5), (2, 6), (3, 7)):
        name = f"{number:04d}"
        photo(root / "multi-modality_images" / name / f"{name}.jpg", seed)
        write_picture(root / "Disc_Cup_Mask" / f"{name}.png", make_disc_cup())
    grades = ("1,1,0,0", "2,0,1,0", "3,0,0,1")
    table = root / "glaucoma_grading_training_GT.csv"
    write_text(table, "data,non,early,mid_advanced", *grades)
    fovea = ("1,50.5,60", "2,51,61", "3,52,62")
    write_text(root / "fovea_localization_training_GT.csv", "data,Fovea_X,Fovea_Y", *fovea)


def make_rfmid(root: Path) -> None:
    parts = (("Training_Set", "Training", "Training", 2), ("Evaluation_Set", "Validation",
             "Validation", 1), ("Test_Set", "Test", "Testing", 1))  # fmt: skip
    for k, (folder, images, word, count) in enumerate(parts):
        rows = []
        for i in range(1, count + 1):
            photo(root / folder / images / f"{i}.png", 10 * k + i)
            found = {"DR": i - 1, "CME": i - 1, "MYA": int(k == 1)}
            marks = [str(found.get(name, 0)) for name in FINDINGS]
            rows.append(",".join((str(i), str(int("1" in marks)), *marks)))
        head = ",".join(("ID", "Disease_Risk", *FINDINGS))
        write_text(root / folder / f"RFMiD_{word}_Labels.csv", head, *rows)


def make_drive(root: Path) -> None:
    for word, numbers in (("training", (21, 22, 23)), ("test", (1, 2))):
        for i in numbers:
            name = f"{i:02d}"
            photo(root / word / "images" / f"{name}_{word}.tif", i)
            write_picture(root / word / "1st_manual" / f"{name}_manual1.gif", make_mask())
            write_picture(root / word / "mask" / f"{name}_{word}_mask.gif", 255 - make_mask())
            if word == "test":
                second = np.roll(make_mask(), 3, axis=0)
                write_picture(root / word / "2nd_manual" / f"{name}_manual2.gif", second)


def make_chase(root: Path) -> None:
    for seed, name in enumerate(("01L", "01R", "02L", "02R")):
        photo(root / f"Image_{name}.jpg", seed)
        for observer in ("1stHO", "2ndHO"):
            write_picture(root / f"Image_{name}_{observer}.png", make_mask())


def make_stare(root: Path) -> None:
    for i in (1, 2, 3):
        suffix = ".ppm.gz" if i == 1 else ".ppm"
        photo(root / "stare-images" / f"im{i:04d}{suffix}", i)
        for who in ("ah", "vk"):
            path = root / f"labels-{who}" / f"im{i:04d}.{who}{suffix}"
            write_picture(path, np.repeat(make_mask()[..., None], 3, axis=2))


def make_hrf(root: Path) -> None:
    for seed, name in enumerate(("01_dr.JPG", "01_g.jpg", "01_h.jpg")):
        photo(root / "images" / name, seed)
        stem = Path(name).stem
        write_picture(root / "manual1" / f"{stem}.tif", make_mask())
        write_picture(root / "mask" / f"{stem}_mask.tif", 255 - make_mask())


def make_fives(root: Path) -> None:
    for split, letters in (("train", "ADGN"), ("test", "AN")):
        for i, letter in enumerate(letters, start=1):
            photo(root / split / "Original" / f"{i}_{letter}.png", i + 10 * (split == "test"))
            write_picture(root / split / "Ground truth" / f"{i}_{letter}.png", make_mask())


MAKERS: dict[str, Callable[[Path], None]] = {
    "odir-5k": make_odir,
    "eyepacs": make_eyepacs,
    "aptos-2019": make_aptos,
    "messidor-2": make_messidor,
    "idrid-grading": make_idrid_grading,
    "idrid-segmentation": make_idrid_segmentation,
    "deepdrid": make_deepdrid,
    "brset": make_brset,
    "refuge": make_refuge,
    "gamma": make_gamma_photographs,
    "rfmid": make_rfmid,
    "drive": make_drive,
    "chase-db1": make_chase,
    "stare": make_stare,
    "hrf": make_hrf,
    "fives": make_fives,
}
