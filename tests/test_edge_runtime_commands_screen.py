"""`screen` over folders: resumable, idempotent by content, one failure a file, a clean Ctrl-C."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundle_factory import BuiltBundle, build_bundle
from click.testing import CliRunner, Result
from fundus_factory import centred_fundus, jpeg_bytes

from edge_runtime.cli import main
from edge_runtime.errors import DecoderStoppedError, EngineError
from edge_runtime.examination import Examination
from edge_runtime.eye_pipeline import EyePipeline
from edge_runtime.loading import InProcessLoader
from edge_runtime.reports.markup import escape
from edge_runtime.result import NOTICE, ScreeningResult
from edge_runtime.screener import Screener
from edge_runtime.screening import progress as screen_progress
from edge_runtime.screening import run as screen_run
from edge_runtime.screening.record import RECORD_NAME
from edge_runtime.screening.shared_pictures import SAME_PICTURE
from edge_runtime.standing_warnings import FP32_WARNING

ROOT = Path(__file__).resolve().parent.parent


def run(*args: object) -> Result:
    """Run the command with separate stdout and stderr; a traceback fails the test."""
    result = CliRunner().invoke(main, ["screen", *[str(arg) for arg in args]])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def answers(result: Result) -> list[dict[str, object]]:
    """The JSON lines without the times, which differ from run to run."""
    return [
        json.loads(re.sub(r'"timings_ms":\{[^}]*\}', '"timings_ms":{}', line))
        for line in result.stdout.splitlines()
    ]


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table, without the time of screening."""
    with path.open(newline="") as stream:
        return [{**row, "screened_at": ""} for row in csv.DictReader(stream, strict=True)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltBundle:
    """A bundle that finds every picture gradable and healthy."""
    folder = tmp_path_factory.mktemp("healthy") / "bundle"
    return build_bundle(folder, threshold=1.0, gradability_threshold=0.0)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six photographs, one of them cut, and a text."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        (folder / f"eye{number}.jpg").write_bytes(jpeg_bytes(centred_fundus(128, seed=number)))
    (folder / "cut.jpg").write_bytes(jpeg_bytes(centred_fundus(128))[:900])
    (folder / "notes.txt").write_text("patient: nobody")
    return folder


@pytest.fixture
def screened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hashes of every picture that really went through the pipeline."""
    seen: list[str] = []
    real = EyePipeline.screen

    def screen(self: EyePipeline, eye: object, **options: object) -> object:
        answer = real(self, eye, **options)  # type: ignore[arg-type]
        seen.append(str(answer[0].image_sha256))
        return answer

    monkeypatch.setattr(EyePipeline, "screen", screen)
    return seen


def test_a_folder_is_screened_in_order_and_says_what_it_passed_over(
    built: BuiltBundle, photos: Path
) -> None:
    result = run(built.folder, photos, "--json")
    assert result.exit_code == 3
    values = answers(result)
    assert [value["input_index"] for value in values] == list(range(6))
    assert [value["disposition"] for value in values] == ["ungradable", *["no_refer"] * 5]
    assert result.stderr == "skipped 1: not an image by name and first bytes\n"
    assert "notes" not in result.stderr
    assert run(built.folder, photos / "eye?.jpg").exit_code == 0


def test_threads_change_nothing(built: BuiltBundle, photos: Path) -> None:
    one = answers(run(built.folder, photos, "--json", "--threads", 1))
    assert answers(run(built.folder, photos, "--json", "--threads", 4)) == one


def test_an_empty_match_and_wrong_mixtures_are_usage_errors(
    built: BuiltBundle, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    listed = tmp_path / "list.csv"
    listed.write_text("examination_id,eye,path\nv,OD,a.jpg\n")
    for args in (
        [tmp_path / "empty"],
        [photos / "*.gif"],
        [photos, "--examinations", listed],
        ["--examinations", listed, "--od", photos / "eye0.jpg"],
        ["--examinations", listed, "--examination-id", "x"],
        ["--examinations", listed, "--recursive"],
        [photos, "--examination-id", "x"],
        [photos, "--with-names"],
        [photos, "--csv", tmp_path / "t.csv", "--with-pictures"],
        [photos, "--out", tmp_path / "out", "--evidence-dir", tmp_path / "e"],
        [photos, "--html", tmp_path / "absent" / "r.html"],
    ):
        result = run(built.folder, *args)
        assert result.exit_code == 2, args
        assert result.stdout == ""


def test_a_clinics_list_is_screened_with_both_eyes_and_hashes(
    built: BuiltBundle, photos: Path
) -> None:
    digest = hashlib.sha256((photos / "eye0.jpg").read_bytes()).hexdigest()
    listed = photos / "list.csv"
    listed.write_text(
        "examination_id,eye,path,sha256\n"
        f"v1,OD,eye0.jpg,{digest.upper()}\nv1,OS,eye1.jpg,\n"
        f"v2,OD,eye2.jpg,{digest}\nv2,OS,eye3.jpg,\nv3,OD,eye4.jpg,\nv4,unspecified,gone.jpg,\n"
    )
    result = run(built.folder, "--examinations", listed, "--json")
    assert result.exit_code == 3
    values = answers(result)
    assert [v["examination_id"] for v in values] == ["v1", "v2", "v3", "v4"]
    assert [v["disposition"] for v in values] == ["no_refer", *["ungradable"] * 3]
    reasons = [[eye["reasons"] for eye in value["eyes"]] for value in values]  # type: ignore[attr-defined]
    assert reasons[1:] == [
        [["image differs from its expected SHA-256"], []],
        [[], ["missing image"]],
        [["missing image"]],
    ]
    assert "eye0" not in result.stdout
    assert (
        "[0] EXAMINATION     NO REFER      v1\n"
        in run(built.folder, "--examinations", listed).stdout
    )


def test_two_fields_an_eye_of_a_list(built: BuiltBundle, photos: Path) -> None:
    listed = photos / "list.csv"
    listed.write_text(
        "examination_id,eye,path,field\n"
        "v,OD,eye1.jpg,2\nv,OD,eye0.jpg,1\nv,OS,eye2.jpg,1\nv,OS,eye3.jpg,2\n"
    )
    (value,) = answers(run(built.folder, "--examinations", listed, "--json"))
    hashes = [one["image_sha256"] for eye in value["eyes"] for one in eye["fields"]]  # type: ignore[attr-defined]
    wanted = [hashlib.sha256((photos / f"eye{n}.jpg").read_bytes()).hexdigest() for n in range(4)]
    assert hashes == wanted
    text = run(built.folder, "--examinations", listed).stdout
    assert f"{photos / 'eye0.jpg'}, {photos / 'eye1.jpg'}" in text


def test_a_bad_list_screens_nothing_and_shows_no_patient(
    built: BuiltBundle, tmp_path: Path
) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text("examination_id,eye,path\nJane Doe,right,doe.jpg\n")
    result = run(built.folder, "--examinations", listed)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "line 2: eye is not one of" in result.stderr
    assert "oe" not in result.stderr.replace(str(tmp_path), "")


def test_a_second_run_takes_everything_from_the_record(
    built: BuiltBundle, photos: Path, tmp_path: Path, screened: list[str]
) -> None:
    args = (built.folder, photos, "--json", "--out", tmp_path / "out")
    first = run(*args)
    assert len(screened) == 6
    before = (tmp_path / "out" / RECORD_NAME).read_bytes()
    second = run(*args)
    assert len(screened) == 6
    assert second.stdout == first.stdout
    assert second.exit_code == first.exit_code == 3
    assert second.stderr.splitlines()[-1] == "taken from the record: 6 of 6"
    assert (tmp_path / "out" / RECORD_NAME).read_bytes() == before
    assert str(photos).encode() not in before
    assert b"eye0" not in before


def test_the_record_goes_by_content_bundle_and_precision(
    built: BuiltBundle, photos: Path, tmp_path: Path, screened: list[str]
) -> None:
    def again(*more: object, bundle: Path = built.folder) -> int:
        screened.clear()
        run(bundle, photos, "--out", tmp_path / "out", *more)
        return len(screened)

    assert again() == 6
    (photos / "eye0.jpg").rename(photos / "renamed.jpg")
    assert again() == 0
    (photos / "eye1.jpg").write_bytes(jpeg_bytes(centred_fundus(128, seed=77)))
    assert again() == 1
    (photos / "new.jpg").write_bytes(jpeg_bytes(centred_fundus(128, seed=78)))
    assert again() == 1
    assert again("--precision", "fp32") == 7
    assert again("--precision", "fp32", "--engine", "onnxruntime", "--threads", 2) == 0
    other = build_bundle(tmp_path / "other" / "bundle", threshold=0.9, gradability_threshold=0.0)
    assert again(bundle=other.folder) == 7
    assert again() == 0


def test_another_version_of_the_software_screens_again(
    built: BuiltBundle,
    photos: Path,
    tmp_path: Path,
    screened: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    args = (built.folder, photos, "--out", tmp_path / "out")
    run(*args)
    monkeypatch.setattr(screen_run, "__version__", "9.9.9")
    run(*args)
    assert len(screened) == 12


@pytest.mark.parametrize("threads", [1, 4])
def test_the_same_content_twice_in_one_run_is_screened_once(
    built: BuiltBundle, photos: Path, tmp_path: Path, screened: list[str], threads: int
) -> None:
    for number in range(5):
        (photos / f"copy{number}.jpg").write_bytes((photos / "eye0.jpg").read_bytes())
    args = (built.folder, photos, "--json", "--threads", threads)
    result = run(*args, "--out", tmp_path / "out")
    assert len(screened) == 6
    assert answers(result) == answers(run(*args))


@pytest.fixture
def shared_list(photos: Path) -> Path:
    """Four examinations; the second and the fourth have pictures of the first."""
    (photos / "copy.jpg").write_bytes((photos / "eye0.jpg").read_bytes())
    listed = photos / "list.csv"
    listed.write_text(
        "examination_id,eye,path\n"
        "v1,OD,eye0.jpg\nv1,OS,eye1.jpg\n"
        "v2,OD,eye2.jpg\nv2,OS,copy.jpg\n"
        "v3,OD,eye3.jpg\nv3,OS,eye4.jpg\n"
        f"v4,OD,../{photos.name}/eye0.jpg\nv4,OS,../{photos.name}/eye1.jpg\n"
    )
    return listed


SHARED = "input_index 0 and input_index {}: " + SAME_PICTURE


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("is_recorded", [False, True])
def test_one_patients_picture_never_clears_another(
    built: BuiltBundle, shared_list: Path, tmp_path: Path, is_recorded: bool, threads: int
) -> None:
    out = ("--out", tmp_path / "out") if is_recorded else ()
    args = (built.folder, "--examinations", shared_list, "--json", "--threads", threads, *out)
    reports = ("--csv", tmp_path / "t.csv", "--html", tmp_path / "p.html")
    first = run(*args, *reports)
    assert first.exit_code == 3
    values = answers(first)
    assert [value["disposition"] for value in values] == [
        "no_refer", "ungradable", "no_refer", "ungradable",
    ]  # fmt: skip
    reasons = [[eye["reasons"] for eye in value["eyes"]] for value in values]  # type: ignore[attr-defined]
    assert reasons[1] == [[], [SAME_PICTURE]]
    assert reasons[3] == [[SAME_PICTURE], [SAME_PICTURE]]
    assert [SAME_PICTURE in value["warnings"] for value in values] == [False, True, False, True]  # type: ignore[operator]
    said = [line.split(";")[0] for line in first.stderr.splitlines()]
    assert [line for line in said if line.startswith("input_index")] == [
        SHARED.format(1), SHARED.format(3),
    ]  # fmt: skip
    table = [row["examination_disposition"] for row in rows(tmp_path / "t.csv")[::2]]
    assert table == [value["disposition"] for value in values]
    warned = [row["warnings"] for row in rows(tmp_path / "t.csv")[::2]]
    of = "the same picture was given for examination {}; find out whose it is"
    assert of.format("1 (v2)") in warned[0]
    assert of.format("3 (v4)") in warned[0]
    assert of.format("0 (v1)") in warned[1]
    assert "same picture" not in warned[2]
    page = (tmp_path / "p.html").read_text()
    assert 'NO REFER <strong class="flag unsure">! SAME PICTURE AS No. 1, 3</strong>' in page
    again = run(*args, *reports)
    assert [row["warnings"] for row in rows(tmp_path / "t.csv")[::2]] == warned
    assert answers(again) == values
    assert SHARED.format(1) in again.stderr
    assert SHARED.format(3) in again.stderr


def test_what_holds_for_every_answer_is_on_the_page_once(
    built: BuiltBundle, photos: Path, tmp_path: Path
) -> None:
    path = tmp_path / "p.html"
    run(built.folder, photos / "eye[01].jpg", "--precision", "fp32", "--html", path)
    assert path.read_text().count(escape(FP32_WARNING)) == 1


def test_no_line_of_the_record_clears_by_another_patients_picture(
    built: BuiltBundle, shared_list: Path, tmp_path: Path
) -> None:
    args = (built.folder, "--examinations", shared_list, "--json", "--out", tmp_path / "out")
    run(*args)
    run(*args)
    lines = (tmp_path / "out" / RECORD_NAME).read_text().splitlines()
    found = [(value["examination_id"], value["disposition"]) for value in map(json.loads, lines)]
    assert {one for one in found if one[1] == "no_refer"} == {
        ("v1", "no_refer"),
        ("v3", "no_refer"),
    }
    kept = [value["examination_id"] for value in map(json.loads, lines) if value["record"]["key"]]
    assert kept == ["v1", "v3"]


def test_a_list_that_was_put_right_is_answered_anew(
    built: BuiltBundle, shared_list: Path, tmp_path: Path
) -> None:
    args = (built.folder, "--examinations", shared_list, "--json", "--out", tmp_path / "out")
    assert run(*args).exit_code == 3
    rows_of_list = shared_list.read_text().splitlines()
    shared_list.write_text("\n".join([rows_of_list[0], *rows_of_list[3:7]]))  # v2 and v3
    mended = run(*args)
    assert (mended.exit_code, SAME_PICTURE in mended.stdout + mended.stderr) == (0, False)
    assert [value["disposition"] for value in answers(mended)] == ["no_refer"] * 2


def test_a_copy_in_a_folder_is_only_a_copy(built: BuiltBundle, photos: Path) -> None:
    (photos / "eye9.jpg").write_bytes((photos / "eye0.jpg").read_bytes())
    result = run(built.folder, photos / "eye?.jpg")
    assert (result.exit_code, result.stderr) == (0, "")
    assert SAME_PICTURE not in result.stdout


def test_the_answer_of_other_pictures_is_never_told(
    built: BuiltBundle, photos: Path, tmp_path: Path
) -> None:
    args = (built.folder, photos / "eye[01].jpg", "--json", "--out", tmp_path / "out")
    run(*args)
    path = tmp_path / "out" / RECORD_NAME
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    first["record"], second["record"] = second["record"], first["record"]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in (first, second)))
    result = run(*args)
    assert (result.exit_code, result.stdout) == (6, "")
    assert "other pictures" in result.stderr


def test_no_picture_waits_in_memory_behind_one_in_work(
    built: BuiltBundle, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of which the record knows all but the first is not read into memory whole."""
    for number in range(20):
        picture = jpeg_bytes(centred_fundus(128, seed=number + 10))
        (photos / f"more{number:02}.jpg").write_bytes(picture)
    args = (built.folder, photos, "--json", "--threads", 1, "--out", tmp_path / "out")
    run(*args)
    (photos / "cut.jpg").write_bytes((photos / "cut.jpg").read_bytes()[:800])
    seen: list[weakref.ref[object]] = []
    most = 0
    real = screen_run.read_examination

    def read(*given: object, **more: object) -> object:
        nonlocal most
        found = real(*given, **more)  # type: ignore[arg-type]
        seen.append(weakref.ref(found))
        most = max(most, sum(one() is not None for one in seen))
        return found

    monkeypatch.setattr(screen_run, "read_examination", read)
    assert "taken from the record: 25 of 26" in run(*args).stderr
    assert len(seen) == 26
    assert most <= 4


def test_a_missing_picture_is_taken_when_it_comes(
    built: BuiltBundle, photos: Path, tmp_path: Path, screened: list[str]
) -> None:
    args = (built.folder, "--od", photos / "eye0.jpg", "--os", photos / "late.jpg")
    assert run(*args, "--out", tmp_path / "out").exit_code == 3
    assert run(*args, "--out", tmp_path / "out").exit_code == 3
    assert len(screened) == 2
    (photos / "late.jpg").write_bytes((photos / "eye1.jpg").read_bytes())
    assert run(*args, "--out", tmp_path / "out").exit_code == 0


def test_a_failure_of_the_machine_is_tried_again(
    built: BuiltBundle, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_runtime.engines.ort import OrtEngine

    def fail(*_: object, **__: object) -> object:
        raise EngineError("no more memory")

    (photos / "twin.jpg").write_bytes((photos / "eye0.jpg").read_bytes())
    args = (built.folder, photos, "--json", "--out", tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr(OrtEngine, "run", fail)
        broken = run(*args)
    assert broken.exit_code == 3
    assert broken.stdout.count("engine error") >= 6
    mended = run(*args)
    assert [value["disposition"] for value in answers(mended)][1:] == ["no_refer"] * 6
    assert mended.stderr.splitlines()[-1] == "taken from the record: 2 of 7"  # the cut one, a twin


def test_a_picture_whose_decoder_was_stopped_is_tried_again(
    built: BuiltBundle, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> object:
        raise DecoderStoppedError("the picture was not decoded within 10 s")

    args = (built.folder, photos / "eye0.jpg", "--json", "--out", tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr(InProcessLoader, "load", stop)
        assert '"reasons":["decoder stopped"]' in run(*args).stdout
    assert [value["disposition"] for value in answers(run(*args))] == ["no_refer"]


def test_the_reports_are_the_same_after_a_resumed_run(
    built: BuiltBundle, photos: Path, tmp_path: Path
) -> None:
    whole = ("--csv", tmp_path / "whole.csv", "--html", tmp_path / "whole.html")
    run(built.folder, photos, *whole)
    run(built.folder, photos / "eye[01].jpg", "--out", tmp_path / "out")
    parts = ("--csv", tmp_path / "parts.csv", "--html", tmp_path / "parts.html")
    run(built.folder, photos, *parts, "--out", tmp_path / "out")
    assert rows(tmp_path / "parts.csv") == rows(tmp_path / "whole.csv")
    time_of_day = re.compile(r"[Ss]creened [0-9T:+-]+( to [0-9T:+-]+)?")
    one, other = (
        time_of_day.sub("", (tmp_path / f"{name}.html").read_text()) for name in ("whole", "parts")
    )
    assert one == other


def test_reports_may_lie_in_the_new_folder_of_the_record(
    built: BuiltBundle, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new"
    run(built.folder, photos, "--out", out, "--csv", out / "t.csv", "--html", out / "r.html")
    assert sorted(path.name for path in out.iterdir()) == ["r.html", RECORD_NAME, "t.csv"]


def test_names_and_pictures_come_into_the_reports_only_when_asked_for(
    built: BuiltBundle, photos: Path, tmp_path: Path
) -> None:
    html, table = tmp_path / "r.html", tmp_path / "t.csv"
    reports = ("--csv", table, "--html", html)
    run(built.folder, photos, *reports)
    assert "eye0" not in html.read_text() + table.read_text()
    assert "<img" not in html.read_text()
    run(built.folder, photos, *reports, "--with-names", "--with-pictures")
    assert html.read_text().count("data:image/jpeg;base64,") == 5
    assert "eye0.jpg" in html.read_text()
    assert [row["file"] for row in rows(table)][1] == str(photos / "eye0.jpg")
    assert html.stat().st_mode & 0o077 == table.stat().st_mode & 0o077 == 0


def test_no_picture_of_another_content_is_shown(
    built: BuiltBundle, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Screener.screen

    def screen_then_exchange(self: Screener, exam: Examination, **more: object) -> ScreeningResult:
        result = real(self, exam, **more)  # type: ignore[arg-type]
        (photos / "eye0.jpg").write_bytes((photos / "eye1.jpg").read_bytes())
        return result

    monkeypatch.setattr(Screener, "screen", screen_then_exchange)
    html = tmp_path / "r.html"
    run(built.folder, photos / "eye0.jpg", "--html", html, "--with-pictures")
    assert "has changed: no picture to show" in html.read_text()
    assert "<img" not in html.read_text()


def test_evidence_of_an_earlier_run_cannot_pass_for_this_patients(
    built: BuiltBundle, photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "evidence"
    run(built.folder, photos / "eye0.jpg", "--evidence-dir", folder)
    assert [path.stat().st_mode & 0o077 for path in folder.iterdir()] == [0]
    again = run(built.folder, photos / "cut.jpg", "--evidence-dir", folder)
    assert again.exit_code == 2
    assert "earlier run" in again.stderr


def test_a_picture_that_cannot_be_made_again_costs_no_report(
    built: BuiltBundle, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> object:
        raise EngineError("no decoding child")

    monkeypatch.setattr(Screener, "model_input", fail)
    html = tmp_path / "r.html"
    assert run(built.folder, photos / "eye0.jpg", "--html", html, "--with-pictures").exit_code == 0
    assert "no picture to show" in html.read_text()


def test_one_file_that_nobody_foresaw_does_not_end_the_run(
    built: BuiltBundle, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = EyePipeline._fill, iter(range(100))

    def fail_once(self: EyePipeline, *args: object, **more: object) -> None:
        if next(calls) == 2:
            raise RuntimeError(str(photos))
        real(self, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(EyePipeline, "_fill", fail_once)
    result = run(built.folder, photos, "--json", "--threads", 1)
    assert [value["disposition"] for value in answers(result)].count("ungradable") == 2
    assert str(photos) not in result.stdout + result.stderr


def test_ctrl_c_ends_with_what_is_done(
    built: BuiltBundle, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Screener.screen, iter(range(100))

    def screen(self: Screener, exam: Examination, **more: object) -> ScreeningResult:
        if next(calls) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, exam, **more)  # type: ignore[arg-type]

    table, html = tmp_path / "t.csv", tmp_path / "r.html"
    args = (built.folder, photos, "--out", tmp_path / "out", "--csv", table, "--html", html)
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patched:
        patched.setattr(Screener, "screen", screen)
        result = run(*args, "--threads", 1, "--json")
    assert result.exit_code == screen_progress.INTERRUPTED_EXIT_CODE == 130
    assert signal.getsignal(signal.SIGINT) is before
    done = len(result.stdout.splitlines())
    assert 0 < done < 6
    assert f"interrupted: {done} of 6 examinations done" in result.stderr
    assert [row["disposition"] for row in rows(table)].count("not_screened") == 6 - done
    assert f"INTERRUPTED: {6 - done} of 6 not screened yet" in html.read_text()
    whole = run(*args, "--json")
    assert whole.exit_code == 3
    assert f"taken from the record: {done} of 6" in whole.stderr
    assert "not_screened" not in table.read_text()
    assert "INTERRUPTED" not in html.read_text()


def test_a_second_ctrl_c_breaks_off(
    built: BuiltBundle, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> Iterator[ScreeningResult]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Screener, "screen_batch", interrupt)
    result = run(built.folder, photos)
    assert result.exit_code == 130
    assert "interrupted" in result.stderr


def test_a_locked_folder_is_refused(built: BuiltBundle, photos: Path, tmp_path: Path) -> None:
    from edge_runtime.screening.record import ScreenRecord

    with ScreenRecord(tmp_path / "out"):
        result = run(built.folder, photos, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "another run writes into" in result.stderr


def test_a_run_cut_off_anywhere_in_its_record_goes_on(
    built: BuiltBundle, photos: Path, tmp_path: Path, screened: list[str]
) -> None:
    args = (built.folder, photos, "--json", "--out", tmp_path / "out")
    whole = answers(run(*args))
    record = tmp_path / "out" / RECORD_NAME
    data = record.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == 10]
    for cut in [0, 1, ends[0] - 1, ends[0], ends[2] + 40, ends[4] - 1, len(data) - 1]:
        record.write_bytes(data[:cut])
        screened.clear()
        result = run(*args)
        kept = sum(end <= cut for end in ends)
        assert answers(result) == whole
        assert len(screened) == 6 - kept
        assert ("not written to its end" in result.stderr) is (cut not in (0, *ends))


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_and_doubles_nothing(built: BuiltBundle, tmp_path: Path) -> None:
    """Twenty kills of a real process; then one run to the end equals an uninterrupted one."""
    folder, out = tmp_path / "many", tmp_path / "out"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:03d}.jpg").write_bytes(jpeg_bytes(centred_fundus(200, seed=number)))
    whole = answers(run(built.folder, folder, "--json"))
    record = out / RECORD_NAME
    command = [sys.executable, "-m", "edge_runtime", "screen", str(built.folder), str(folder)]
    command += ["--json", "--out", str(out), "--threads", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    kept: set[bytes] = set()
    for kill in range(20):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        )
        size = record.stat().st_size if record.exists() else 0
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if record.exists() and record.stat().st_size >= size + 1 + 700 * (kill % 5):
                break
        process.kill()
        process.wait()
        lines = set(record.read_bytes().split(b"\n")[:-1])
        assert kept <= lines, "an answer that was on the disk is gone"
        kept = lines
        if len(kept) == 40:
            break
    result = run(built.folder, folder, "--json", "--out", out)
    assert answers(result) == whole
    lines = record.read_bytes().splitlines()
    keys = [json.loads(line)["record"]["key"] for line in lines]
    assert len(keys) == len(set(keys)) == 40


class Terminal:
    """A stream that says it is a terminal."""

    def __init__(self, *, is_terminal: bool = True) -> None:
        self.text = ""
        self.is_terminal = is_terminal

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        """Nothing waits."""

    def isatty(self) -> bool:
        return self.is_terminal


def test_progress_shows_count_rate_and_remaining_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, *(float(n) for n in range(1, 100))])
    monkeypatch.setattr(screen_progress.time, "monotonic", lambda: next(now))
    terminal = Terminal()
    progress = screen_progress.ScreenProgress(terminal, 7204)  # type: ignore[arg-type]
    progress.step(is_known=True)
    assert terminal.text.endswith("1/7204 examinations")
    progress.step(is_known=False)
    assert terminal.text.endswith("2/7204 examinations, 0.5 a second, about 4:00:04 left")
    progress.clear()
    assert terminal.text.endswith("\r\x1b[K")


def test_progress_is_for_terminals_and_for_more_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen_progress, "_REDRAW_S", 0.0)
    for terminal, total in ((Terminal(is_terminal=False), 10), (Terminal(), 1)):
        progress = screen_progress.ScreenProgress(terminal, total)  # type: ignore[arg-type]
        progress.step(is_known=False)
        progress.clear()
        assert terminal.text == ""


def test_json_to_a_pipe_is_silent_on_stderr(built: BuiltBundle, photos: Path) -> None:
    result = run(built.folder, photos / "eye*.jpg", "--json")
    assert result.stderr == ""
    assert all(value["notice"] == NOTICE for value in answers(result))


def test_a_bundle_among_the_pictures_says_which_comes_first(
    built: BuiltBundle, photos: Path
) -> None:
    for given in (photos, photos / "eye0.jpg"):
        result = run(given, built.folder)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "BUNDLE comes first" in result.stderr
