"""The record: keyed by content, one writer, a torn last line redone, damage elsewhere refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from screen_factory import field_result, screened, screening_result

from edge_runtime.errors import ConfigError, DataError
from edge_runtime.result import ScreeningResult
from edge_runtime.screening import record as screen_record
from edge_runtime.screening.entries import Screened
from edge_runtime.screening.reading import EyeContents
from edge_runtime.screening.record import RECORD_NAME, ScreenRecord, record_key

ROOT = Path(__file__).resolve().parent.parent
CONTENTS: tuple[EyeContents, ...] = (("OD", (("a" * 64, None),)), ("OS", ((None, None),)))
ENGINE = ("onnxruntime", "int8", {"onnxruntime": "1.32.0", "chosen": "auto", "threads": "1"})


def key(**changes: object) -> str:
    """A key with some of its parts changed."""
    contents = changes.pop("contents", CONTENTS)
    parts = {
        "bundle_sha256": "b" * 64,
        "engine": ENGINE,
        "is_isolated": False,
        "software_version": "0.1.0",
        **changes,
    }
    return record_key(contents, **parts)  # type: ignore[arg-type]


def answer(probability: float = 0.1, examination_id: str | None = None) -> Screened:
    """An answer for one eye."""
    eyes = {"unspecified": [field_result(probability)]}
    return screened(screening_result(eyes, examination_id=examination_id))


def test_the_key_covers_everything_that_the_answer_depends_on() -> None:
    other_eye = (("OS", (("a" * 64, None),)), ("OD", ((None, None),)))
    other_hash = (("OD", (("c" * 64, None),)), ("OS", ((None, None),)))
    expecting = (("OD", (("a" * 64, "a" * 64),)), ("OS", ((None, None),)))
    keys = [
        key(),
        key(contents=other_eye),
        key(contents=other_hash),
        key(contents=expecting),
        key(bundle_sha256="c" * 64),
        key(software_version="0.1.1"),
        key(is_isolated=True),
        key(engine=("tensorrt", *ENGINE[1:])),
        key(engine=("onnxruntime", "fp32", ENGINE[2])),
        key(engine=(*ENGINE[:2], {**ENGINE[2], "onnxruntime": "1.33.0"})),
    ]
    assert len(set(keys)) == len(keys)
    assert key(engine=(*ENGINE[:2], {**ENGINE[2], "chosen": "asked for", "threads": "4"})) == key()


@pytest.mark.parametrize("name", ["SCHEMA_VERSION", "_LIBRARIES"])
def test_an_answer_of_another_schema_or_decoder_is_never_found(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = key()
    monkeypatch.setattr(screen_record, name, ("99",))
    assert key() != before


def test_an_answer_comes_back_as_it_was_given(tmp_path: Path) -> None:
    given = answer(0.123456789)
    with ScreenRecord(tmp_path / "new" / "folder") as record:
        place = record.add("k1", given)
        assert record.read(place) == given
        assert record.find("k2", None) is None
        assert record.find(None, None) is None
    with ScreenRecord(tmp_path / "new" / "folder") as record:
        assert record.find("k1", None) == place
        assert record.read(place) == given


def test_the_lines_read_as_results_and_hold_no_name(tmp_path: Path) -> None:
    with ScreenRecord(tmp_path) as record:
        record.add("k1", answer())
        record.add("k2", answer(0.9))
    lines = (tmp_path / RECORD_NAME).read_text().splitlines()
    values = [json.loads(line) for line in lines]
    heads = [value.pop("record") for value in values]
    assert [head["key"] for head in heads] == ["k1", "k2"]
    assert [ScreeningResult.from_dict(value).disposition.value for value in values] == [
        "no_refer",
        "refer",
    ]
    assert (tmp_path / RECORD_NAME).stat().st_mode & 0o077 == 0


def test_an_answer_is_on_the_disk_before_anyone_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    with ScreenRecord(tmp_path) as record:
        monkeypatch.setattr(os, "fsync", lambda one: synced.append(os.fstat(one).st_size))
        record.add("k1", answer())
        assert synced == [(tmp_path / RECORD_NAME).stat().st_size]
        record.add("k2", answer())
        assert synced[1:] == [(tmp_path / RECORD_NAME).stat().st_size]


def test_an_answer_without_a_key_is_kept_and_never_found(tmp_path: Path) -> None:
    with ScreenRecord(tmp_path) as record:
        place = record.add(None, answer())
        assert record.read(place) == answer()
    with ScreenRecord(tmp_path) as record:
        assert record.find(None, None) is None


def test_an_examination_finds_its_own_line_else_one_of_the_same_content(tmp_path: Path) -> None:
    with ScreenRecord(tmp_path) as record:
        first = record.add("k", answer(examination_id="v1"))
        assert record.find("k", "v2") == first
        assert len((tmp_path / RECORD_NAME).read_bytes().splitlines()) == 1
        second = record.add("k", answer(examination_id="v2"))
        assert record.read(first).result.examination_id == "v1"
        assert record.read(second).result.examination_id == "v2"
        assert record.find("k", "v2") == second
    with ScreenRecord(tmp_path) as record:
        assert [record.find("k", one) for one in ("v1", "v2")] == [first, second]
    assert len((tmp_path / RECORD_NAME).read_bytes().splitlines()) == 2


@pytest.mark.parametrize("where", range(1, 400, 37))
def test_a_torn_last_line_is_cut_off_and_can_be_written_again(tmp_path: Path, where: int) -> None:
    path = tmp_path / RECORD_NAME
    with ScreenRecord(tmp_path) as record:
        record.add("k1", answer())
        whole = path.stat().st_size
        record.add("k2", answer(0.9))
    lost = path.stat().st_size - whole - where
    os.truncate(path, whole + where)
    with ScreenRecord(tmp_path) as record:
        assert record.torn_bytes == where
        assert path.stat().st_size == whole
        assert record.find("k1", None) == 0
        assert record.find("k2", None) is None
        record.add("k2", answer(0.9))
    assert path.stat().st_size == whole + where + lost
    with ScreenRecord(tmp_path) as record:
        assert record.torn_bytes == 0
        assert record.find("k2", None) == whole


@pytest.mark.parametrize(
    "tail", [b"\0" * 200, b"{}\n", b'{"record":1,"examination_id":2}\n', b"\n"]
)
def test_a_last_line_of_another_form_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    with ScreenRecord(tmp_path) as record:
        record.add("k1", answer())
    with (tmp_path / RECORD_NAME).open("ab") as stream:
        stream.write(tail)
    with ScreenRecord(tmp_path) as record:
        assert record.torn_bytes == len(tail)
        assert record.find("k1", None) == 0


@pytest.mark.parametrize("data", [b'{"input_index":0}\n', b'{"mine":1', b"[" * 100_000 + b"\n"])
def test_a_file_of_another_kind_is_refused_and_left_alone(tmp_path: Path, data: bytes) -> None:
    (tmp_path / RECORD_NAME).write_bytes(data)
    with pytest.raises(DataError, match="at byte 0"):
        ScreenRecord(tmp_path)
    assert (tmp_path / RECORD_NAME).read_bytes() == data


@pytest.mark.parametrize("data", [b'{"rec', b'{"record":{"schema_version":1,', b"\0" * 300])
def test_a_first_line_that_was_cut_off_is_begun_again(tmp_path: Path, data: bytes) -> None:
    (tmp_path / RECORD_NAME).write_bytes(data)
    with ScreenRecord(tmp_path) as record:
        assert record.torn_bytes == len(data)
        assert record.add("k1", answer()) == 0


def test_damage_before_the_last_line_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / RECORD_NAME
    with ScreenRecord(tmp_path) as record:
        record.add("k1", answer())
        record.add("k2", answer())
    data = path.read_bytes()
    path.write_bytes(b"{" + data)
    with pytest.raises(DataError, match="damaged at byte 0"):
        ScreenRecord(tmp_path)
    assert path.read_bytes() == b"{" + data


def test_a_line_edited_into_a_clearance_is_refused(tmp_path: Path) -> None:
    path = tmp_path / RECORD_NAME
    with ScreenRecord(tmp_path) as record:
        record.add("k1", answer(0.9))
    path.write_bytes(
        path.read_bytes().replace(b'"disposition":"refer"', b'"disposition":"no_refer"')
    )
    with ScreenRecord(tmp_path) as record:
        place = record.find("k1", None)
        assert place is not None
        with pytest.raises(
            DataError, match=r"damaged at byte 0: .*; move the folder away"
        ) as caught:
            record.read(place)
        assert str(path) in str(caught.value)


def test_two_runs_cannot_write_one_folder(tmp_path: Path) -> None:
    with ScreenRecord(tmp_path), pytest.raises(ConfigError, match="another run writes"):
        ScreenRecord(tmp_path)
    ScreenRecord(tmp_path).close()


def test_the_lock_of_a_killed_process_is_gone(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from edge_runtime.screening.record import ScreenRecord\n"
        "record = ScreenRecord(Path(sys.argv[1])); print('locked', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"locked\n"
    with pytest.raises(ConfigError, match="another run writes"):
        ScreenRecord(tmp_path)
    process.kill()
    process.wait()
    process.stdout.close()
    ScreenRecord(tmp_path).close()


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be opened"):
        ScreenRecord(tmp_path / "file")
    (tmp_path / RECORD_NAME).symlink_to(tmp_path / "file")
    with pytest.raises(ConfigError, match="cannot be opened"):
        ScreenRecord(tmp_path)


def test_a_full_disk_is_an_error_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write

    def half_then_full(descriptor: int, data: memoryview) -> int:
        if len(data) < 300:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[: len(data) // 2])

    with ScreenRecord(tmp_path) as record:
        record.add("k1", answer())
        monkeypatch.setattr(os, "write", half_then_full)
        with pytest.raises(ConfigError, match="No space left"):
            record.add("k2", answer())
    monkeypatch.undo()
    with ScreenRecord(tmp_path) as record:
        assert record.torn_bytes > 0
        assert record.find("k1", None) == 0
        assert record.find("k2", None) is None


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:50]))
    with ScreenRecord(tmp_path) as record:
        assert record.read(record.add("k", answer())) == answer()
