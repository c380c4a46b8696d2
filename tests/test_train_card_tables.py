"""The two tables: what is written is read again, and nothing malformed passes."""

from __future__ import annotations

from pathlib import Path

import pytest
from card_factory import eyes, predictions, without_label

from edge_runtime.errors import DataError
from train.card.tables import (
    PREDICTION_COLUMNS,
    read_eyes,
    read_predictions,
    write_eyes,
    write_predictions,
)


def test_eyes_come_back_with_unknown_labels_left_out(tmp_path: Path) -> None:
    rows = [*eyes(3), *without_label(eyes(2, dataset="other"), "amd")]
    write_eyes(tmp_path / "eyes.csv", rows)
    assert list(read_eyes(tmp_path / "eyes.csv")) == rows


def test_predictions_come_back_to_the_last_bit(tmp_path: Path) -> None:
    rows = predictions(eyes(10))
    write_predictions(tmp_path / "p.csv", rows)
    found = read_predictions(tmp_path / "p.csv")
    assert list(found) == rows
    assert any(row.probability is None and row.refused for row in found)
    assert any(row.probability is not None and row.refused for row in found)
    assert any(not row.refused for row in found)


def _change(path: Path, column: str, value: str, row: int = 1) -> None:
    lines = path.read_text().splitlines()
    cells = lines[row].split(",")
    cells[lines[0].split(",").index(column)] = value
    lines[row] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("probability", "1.5", "row 2: probability is 1.5; it must lie in 0..1"),
        ("probability", "nan", "row 2: probability is 'nan'"),
        ("probability", "high", "row 2: probability is 'high'"),
        ("threshold", "-0.1", "row 2: threshold is -0.1"),
        ("gradable_probability", "inf", "row 2: gradable_probability is 'inf'"),
        ("probability", "", "does not fit probability ''"),
        ("verdict", "too dark", "verdict 'too dark' does not fit"),
    ],
)
def test_a_wrong_cell_is_named(tmp_path: Path, column: str, value: str, message: str) -> None:
    path = tmp_path / "p.csv"
    write_predictions(path, predictions(eyes(3)))
    _change(path, column, value)
    with pytest.raises(DataError, match=message):
        read_predictions(path)


def test_a_repeated_row_is_refused(tmp_path: Path) -> None:
    rows = predictions(eyes(3))
    write_predictions(tmp_path / "p.csv", [*rows, rows[0]])
    with pytest.raises(DataError, match=r"row 14 repeats row 2"):
        read_predictions(tmp_path / "p.csv")
    write_eyes(tmp_path / "e.csv", [*eyes(2), eyes(2)[1]])
    with pytest.raises(DataError, match=r"row 6 repeats row 3"):
        read_eyes(tmp_path / "e.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no row below its header"),
        (",".join(PREDICTION_COLUMNS) + "\n", "no row below its header"),
        ("a,b\n1,2\n", "has the columns a, b"),
        (",".join(PREDICTION_COLUMNS) + "\na,b\n", "2 cells where the header has 12"),
        (",".join(PREDICTION_COLUMNS) + '\n"a\n', "cannot be read"),
    ],
)
def test_a_malformed_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_predictions(tmp_path / "p.csv")


def test_a_table_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_predictions(tmp_path / "none.csv")
    (tmp_path / "p.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        read_predictions(tmp_path / "p.csv")
