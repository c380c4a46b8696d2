"""Write what the demo found: report.json for machines, report.html for people.

out/
├── report.json      every number, strict JSON
└── report.html      one self-contained page: no network, no scripts
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.demo.html import page
from export.demo.model import DemoReport
from export.demo.pictures import ReportPictures
from export.demo.sections import data_section, footer, header, target_section
from export.demo.sections_model import model_section, pretraining_section
from export.demo.sections_use import operating_point_section, screening_section

__all__ = ["read_report", "render_page", "write_report"]


def write_report(
    out_dir: Path, report: DemoReport | Mapping[str, Any], pictures: ReportPictures
) -> None:
    """Write report.json and report.html.

    Args:
        out_dir: Folder; made if absent. Reports of the same names are replaced.
        report: The typed report, or the JSON object of `DemoReport.to_dict`.
        pictures: What the page shows besides the numbers.

    Raises:
        ConfigError: A value is missing, unknown, not finite or impossible; nothing is written.
    """
    plain = report.to_dict() if isinstance(report, DemoReport) else report
    checked = DemoReport.from_dict(plain)
    text = json.dumps(checked.to_dict(), indent=2, allow_nan=False) + "\n"
    document = render_page(checked, pictures)
    out_dir.mkdir(parents=True, exist_ok=True)
    _replace(out_dir / "report.json", text)
    _replace(out_dir / "report.html", document)


def read_report(path: Path) -> DemoReport:
    """Return the report of a report.json that `write_report` wrote."""
    return DemoReport.from_dict(json.loads(path.read_text(encoding="utf-8")))


def render_page(report: DemoReport, pictures: ReportPictures) -> str:
    """Return the page."""
    sections = (
        target_section(report),
        pretraining_section(report, pictures),
        model_section(report, pictures),
        operating_point_section(report),
        screening_section(report, pictures),
        data_section(report),
    )
    title = f"edge-screen demo, {report.scale}, synthetic"
    return page(title, header(report), sections, footer(report))


def _replace(path: Path, text: str) -> None:
    """Write beside and rename, so that a reader never meets half a report."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
