"""The command end to end on synthetic eyes: tables, resuming, page, model card, refusals."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
import training_factory
from bundle_factory import LABELS, BuiltBundle, build_bundle, fundus_png
from card_factory import QUICK, eyes, facts, predictions
from click.testing import CliRunner, Result
from dataset_factory import COLUMNS, write_index

from edge_runtime.errors import CheckpointError, ConfigError, DataError
from edge_runtime.result import NOTICE
from train.card.card import make_card
from train.card.datasets import load_data, require_roles
from train.card.folders import screen_folder
from train.card.html import render_page
from train.card.model_card import model_card
from train.card.predict import predict
from train.card.readers import Answer, BundleReader, ModelFacts, TeacherReader
from train.card.tables import read_predictions, write_predictions
from train.encoder import CfpEncoder
from train.evaluate_cli import evaluate
from train.teacher import Teacher, save_teacher


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> BuiltBundle:
    return build_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "teacher"
    save_teacher(folder, Teacher(CfpEncoder(training_factory.TINY_ENCODER), LABELS), {})
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Thirty patients, ten of them test; one picture of a test eye is damaged."""
    root = tmp_path / "eyes"
    rows = []
    for number in range(60):
        patient, eye = f"P{number // 2:03d}", ("OD", "OS")[number % 2]
        row = dict.fromkeys(COLUMNS, "")
        row |= {"patient_id": patient, "eye": eye, "acquired": "2026-01-02", "site": "clinic-a"}
        row |= {"split": ("train", "val", "test")[number // 2 % 3], "glaucoma": str(number % 2)}
        row |= {"dr_grade": "" if number == 4 else str(number % 5), "cfp": f"{patient}_{eye}.png"}
        picture = fundus_png(seed=number)
        rows.append(row)
        root.mkdir(exist_ok=True)
        (root / row["cfp"]).write_bytes(picture[:500] if number == 5 else picture)
    write_index(root, rows)
    (root / "dataset.json").write_text('{"synthetic": true}')
    (root / "import.json").write_text('{"terms": "made for | a test"}')
    return root


def _run(out: Path, data: Path, bundle: BuiltBundle, *more: str) -> Result:
    words = ["card", "--out", str(out), "--data", f"made={data}", "--num-draws", "100"]
    words += ["--bundle", f"tiny={bundle.folder}", "--trusted-keys", str(bundle.trusted_keys)]
    return CliRunner().invoke(evaluate, [*words, *more])


def test_a_card_of_a_bundle_and_a_teacher(
    tmp_path: Path, data: Path, bundle: BuiltBundle, teacher: Path
) -> None:
    out = tmp_path / "card"
    found = _run(out, data, bundle, "--arm", f"teacher={teacher}", "--in-domain", "made")
    assert found.exit_code == 0, found.output
    assert NOTICE in found.output
    assert "not scored on 'made'" in found.output
    card = json.loads((out / "card.json").read_text())
    assert [one["name"] for one in card["models"]] == ["tiny FP32", "tiny INT8", "teacher"]
    assert card["data"][0]["role"] == "in-domain"
    assert card["data"][0]["derived"][0] == "diabetic_retinopathy is dr_grade >= 1"
    assert {one["output"] for one in card["cells"]} == {"glaucoma"}
    assert {one["reference"] for one in card["comparisons"]} == {"tiny FP32"}
    rows = read_predictions(out / "predictions.csv")
    damaged = [row for row in rows if (row.patient_id, row.eye) == ("P002", "OS")]
    assert len(damaged) == 3 * len(LABELS)
    assert {row.verdict for row in damaged} == {"ImageUnreadableError"}
    refused = {row.key for row in rows if row.refused and row.model == "teacher"}
    assert card["cells"][2]["num_refused"] == len(refused) < 5
    for name in ("card.html", "MODEL_CARD.md"):
        text = (out / name).read_text()
        assert NOTICE in text.lower()
        assert "made for" in text


def test_the_same_tables_give_the_same_card(
    tmp_path: Path, data: Path, bundle: BuiltBundle
) -> None:
    out = tmp_path / "card"
    assert _run(out, data, bundle).exit_code == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    again = _run(out, data, bundle)
    assert again.exit_code == 0
    assert "step" not in again.output  # nothing was predicted again
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_only_the_test_split_unless_told_aloud(
    tmp_path: Path, data: Path, bundle: BuiltBundle
) -> None:
    refused = _run(tmp_path / "card", data, bundle, "--split", "val")
    assert refused.exit_code == 2
    assert "--allow-seen" in refused.output
    assert not (tmp_path / "card").exists()
    told = _run(tmp_path / "card", data, bundle, "--split", "val", "--allow-seen")
    assert told.exit_code == 0
    for name in ("card.html", "MODEL_CARD.md"):
        assert "which choices were made on" in (tmp_path / "card" / name).read_text()


def test_predictions_of_another_model_come_as_a_file(
    tmp_path: Path, data: Path, bundle: BuiltBundle
) -> None:
    assert _run(tmp_path / "first", data, bundle).exit_code == 0
    path = tmp_path / "other.csv"
    rows = read_predictions(tmp_path / "first" / "predictions.csv")
    own = [row for row in rows if row.model == "tiny FP32"]
    write_predictions(path, own)
    text = path.read_text().replace("tiny FP32", "someone else's")
    path.write_text(text)
    found = _run(tmp_path / "second", data, bundle, "--predictions", str(path))
    assert found.exit_code == 0, found.output
    card = json.loads((tmp_path / "second" / "card.json").read_text())
    assert card["models"][-1]["kind"] == "predictions given as a file"
    last = [one["interval"]["value"] for one in card["comparisons"] if "else" in one["model"]]
    assert last == [0.0, 0.0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--data", "made=elsewhere"], "a name is given twice"),
        (["--data", "nothing"], "not of the form NAME=VALUE"),
        (["--also", "glaucoma="], "not of the form NAME=VALUE"),
    ],
)
def test_malformed_options_are_usage_errors(
    tmp_path: Path, data: Path, bundle: BuiltBundle, more: list[str], message: str
) -> None:
    found = _run(tmp_path / "card", data, bundle, *more)
    assert found.exit_code == 2
    assert message in found.output


def test_folders_need_a_bundle(tmp_path: Path, data: Path) -> None:
    words = ["card", "--out", str(tmp_path / "c"), "--data", f"made={data}"]
    found = CliRunner().invoke(evaluate, [*words, "--originals", str(data)])
    assert found.exit_code == 2
    assert "screened by a --bundle" in found.output


def test_a_card_needs_a_model(tmp_path: Path, data: Path) -> None:
    with pytest.raises(ConfigError, match="no model is given"):
        predict(tmp_path / "p.csv", [load_data("made", data, QUICK)], [])


def test_a_student_is_told_to_come_as_a_bundle(tmp_path: Path, teacher: Path) -> None:
    folder = tmp_path / "student"
    shutil.copytree(teacher, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "kind": "student"}))
    with pytest.raises(CheckpointError, match=r"is a 'student'.*given by --bundle"):
        TeacherReader("s", folder)


def test_a_bundle_as_export_writes_it_has_fp32_without_thresholds(tmp_path: Path) -> None:
    built = build_bundle(tmp_path / "b" / "raw", calibrated=False, signed=False)
    reader = BundleReader("raw", built.folder, trusted_keys=None, allow_unsigned=True)
    assert [one.name for one in reader.models] == ["raw FP32"]
    assert reader.models[0].thresholds == (None, None)
    (answer,) = reader.read(fundus_png())
    assert answer.verdict == "passed"
    assert len(answer.probabilities or ()) == len(LABELS)
    reader.close()


class _Counting:
    """A reader that counts what it is asked."""

    def __init__(self, sha256: str = "a") -> None:
        self.num_read = 0
        self.models = (
            ModelFacts(
                name="counted",
                sha256=sha256,
                kind="made",
                labels=("glaucoma",),
                thresholds=(0.5,),
                gradable_threshold=None,
            ),
        )

    def read(self, picture: bytes) -> tuple[Answer, ...]:
        self.num_read += 1
        value = len(picture) % 100 / 100
        return (Answer(verdict="passed", probabilities=(value,), gradable_probability=1.0),)

    def close(self) -> None:
        """Nothing to release."""


def test_predictions_are_resumed_by_the_content_of_model_and_pictures(
    tmp_path: Path, data: Path
) -> None:
    path = tmp_path / "predictions.csv"

    def asked(reader: _Counting) -> int:
        predict(path, [load_data("made", data, QUICK)], [reader])
        return reader.num_read

    assert asked(_Counting()) == 20
    assert asked(_Counting()) == 0
    assert asked(_Counting("b")) == 20  # another model of that name
    assert asked(_Counting("b")) == 0
    picture = data / "P002_OS.png"
    picture.write_bytes(fundus_png(seed=3))
    assert asked(_Counting("b")) == 20
    assert len(read_predictions(path)) == 20


def test_two_models_of_one_name_are_refused(tmp_path: Path, data: Path) -> None:
    with pytest.raises(ConfigError, match="two models are called 'counted'"):
        predict(tmp_path / "p.csv", [load_data("made", data, QUICK)], [_Counting(), _Counting()])


def test_what_a_data_set_is_comes_from_its_files(data: Path) -> None:
    found = load_data("made", data, QUICK)
    assert found.facts.synthetic
    assert found.facts.role == "external"
    assert found.facts.terms == "made for | a test"
    assert (found.facts.num_eyes, found.facts.num_patients) == (20, 10)
    for eye in found.eyes:
        grade = eye.values.get("dr_grade")
        assert eye.values.get("referable_dr") == (None if grade is None else float(grade >= 2))
    (data / "import.json").write_text("{}")
    with pytest.raises(DataError, match="no text 'terms'"):
        load_data("made", data, QUICK)
    (data / "import.json").write_text("{")
    with pytest.raises(DataError, match=r"import\.json cannot be read"):
        load_data("made", data, QUICK)


def test_one_picture_of_one_eye_in_two_rows_is_refused(data: Path) -> None:
    lines = (data / "index.csv").read_text().splitlines()
    again = next(line for line in lines if "P002_OD.png" in line)
    shutil.copy(data / "P002_OD.png", data / "copy.png")
    again = again.replace("2026-01-02", "2026-02-02").replace("P002_OD.png", "copy.png")
    (data / "index.csv").write_text("\n".join([*lines, again]) + "\n")
    with pytest.raises(DataError, match=r"row 62 has the eye and the picture of row 6 again"):
        load_data("made", data, QUICK)


def test_names_of_data_sets_are_checked() -> None:
    with pytest.raises(ConfigError, match="given twice"):
        require_roles(QUICK, ["clinic", "clinic"])
    with pytest.raises(ConfigError, match="'clinic' is not among other"):
        require_roles(QUICK, ["other"])


def test_a_folder_is_screened_end_to_end(tmp_path: Path, bundle: BuiltBundle) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.png").write_bytes(fundus_png())
    (folder / "b.png").write_bytes(b"no picture")
    found = screen_folder(folder, bundle.folder, must_refuse=True, trusted_keys=bundle.trusted_keys)
    assert (found.num_refused, found.num_pictures) == (1, 2)
    assert found.reasons == {"image unreadable": 1}
    assert found.share.low < 0.5 < found.share.high
    assert 0 < found.median_ms <= found.max_ms


def test_pictures_of_another_modality_are_all_refused(
    real_data_dir: Path, bundle: BuiltBundle
) -> None:
    found = screen_folder(
        real_data_dir / "wrong_modality",
        bundle.folder,
        must_refuse=True,
        trusted_keys=bundle.trusted_keys,
    )
    assert found.num_refused == found.num_pictures == 10


class _Links(HTMLParser):
    """Collects what a page would fetch, and what its tags are."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [v or "" for k, v in attrs if k in ("src", "href", "action", "data")]


def test_the_page_is_well_formed_and_fetches_nothing() -> None:
    rows = eyes()
    real = eyes(30, dataset="<b>&clinic")
    found = [*predictions(rows), *predictions(rows, "N", strength=0.1, threshold=None)]
    found += [*predictions(real), *predictions(real, "N", strength=0.1, threshold=None)]
    sets = [facts(), facts("<b>&clinic", synthetic=False)]
    page = render_page(make_card(QUICK, sets, [], [*rows, *real], found))
    body = re.sub(r"<!DOCTYPE html>|<meta [^>]*>", "", page)
    ET.fromstring(body)  # every tag is closed
    links = _Links()
    links.feed(page)
    assert links.fetched == []
    assert not {"script", "link", "img", "iframe", "b>"} & set(links.tags)
    assert "://" not in page
    assert "url(" not in page
    assert links.tags.count("svg") == 2 * 2 * 2  # two charts a label and data set
    assert "<b>&clinic" not in page


def test_synthetic_eyes_are_called_so_in_every_table() -> None:
    rows = eyes()
    found = make_card(QUICK, [facts(role="external")], [], rows, predictions(rows))
    page = render_page(found)
    captions = re.findall(r"<caption>(.*?)</caption>", page)
    assert len(captions) > 6
    assert [c for c in captions if "SYNTHETIC" not in c and "Models" not in c] == []
    text = model_card(found)
    assert "### clinic (synthetic, external)" in text
    assert "clinic (synthetic) | glaucoma" in text
    other = render_page(make_card(QUICK, [facts(synthetic=False)], [], rows, predictions(rows)))
    assert "SYNTHETIC" not in other


def test_every_table_of_the_model_card_has_one_number_of_columns() -> None:
    rows = eyes()
    text = model_card(make_card(QUICK, [facts(role="external")], [], rows, predictions(rows)))
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == 4
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    for heading in ("Intended use", "Data", "Figures", "Subgroups", "Limits"):
        assert f"## {heading}" in text
