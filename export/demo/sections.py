"""The frame of the page: what was done, what had to be reached, what it was made of."""

from __future__ import annotations

from edge_runtime.result import NOTICE
from export.demo.html import (
    SYNTHETIC,
    Markup,
    data_table,
    duration,
    element,
    label_words,
    mark_verdict,
    paragraph,
    percent,
    section,
)
from export.demo.model import DemoReport, Target

__all__ = ["data_section", "footer", "header", "target_section"]


def header(report: DemoReport) -> Markup:
    """Return what was done, with what, and how far it came."""
    met = sum(target.met for target in report.targets)
    tag = element("b", SYNTHETIC, class_="synthetic")
    words = (
        "Synthetic eyes were drawn, a photograph encoder was pretrained with their OCT, fine-tuned "
        "into a teacher, distilled into a compact student, exported, made INT8 and signed; the "
        "result screened photographs of patients that no step had used for a choice. "
    )
    warning = element("strong", "No number here says anything about real patients.")
    facts = (
        (f"{met} of {len(report.targets)}", "targets met"),
        (f"{report.data.num_patients:,}", "synthetic patients, two eyes each"),
        (duration(sum(report.duration_s.values())), f"for the whole chain, scale {report.scale}"),
        (f"{report.student_to_teacher_ratio:.3f}", "student's mean AUROC / teacher's"),
        (f"{report.int8_mean_auroc_drop:+.4f}", "mean AUROC lost to INT8"),
    )
    items = (element("li", element("b", value), element("span", text)) for value, text in facts)
    return Markup(
        element("div", NOTICE, class_="notice", role="note")
        + element(
            "header",
            element("h1", "From paired retinal images to a screening model"),
            paragraph(tag, " ", words, warning, class_="text"),
            element("ul", *items, class_="facts"),
            class_="top",
        )
    )


def target_section(report: DemoReport) -> Markup:
    """Return what had to be reached and what was."""
    missed = [target for target in report.targets if not target.met]
    verdict = f"{len(missed)} of {len(report.targets)} not met" if missed else "All met"
    lead = f"{verdict}. Limits were set before the run; accuracy counts on test patients only."
    rows = [
        (mark_verdict(t.met), t.name, _target_value(t), f"{_sign(t.relation)} {t.limit:g}", t.note)
        for t in report.targets
    ]
    head = ("verdict", "target", "reached", "asked for", "remark")
    table = data_table(f"Targets of scale {report.scale}", head, rows, words=(1, 4))
    return section("targets", "Targets", lead, table)


def _sign(relation: str) -> str:
    return {">=": "≥", "<=": "≤", "==": "="}.get(relation, relation)


def _target_value(target: Target) -> str:
    if target.value is None:
        return "not measured"
    number = f"{target.value:,.4g}"
    return f"{number} {target.unit}".strip()


def data_section(report: DemoReport) -> Markup:
    """Return what the run was made of, so that another person can repeat it."""
    lead = "The same seed, scale and code give the same eyes; times depend on the machine."
    data = report.data
    eyes = [(f"eyes in split {name}", f"{num:,}") for name, num in data.num_eyes.items()]
    shares = [(f"eyes with {label_words(n)}", percent(v)) for n, v in data.prevalence.items()]
    excluded = [("excluded (no field of view)", f"{data.excluded:,}")]
    times = [(name.replace("_", " "), duration(s)) for name, s in report.duration_s.items()]
    run = [
        ("scale", report.scale),
        ("seed", str(report.seed)),
        ("code version", report.code_version),
        *((name.replace("_", " "), value) for name, value in report.machine.items()),
    ]
    tables = [
        data_table("Eyes", ("what", "value"), [*eyes, *excluded, *shares]),
        data_table("Time of every stage", ("stage", "time"), times),
        data_table("The run", ("what", "value"), run, words=(1,)),
    ]
    return section("run", "Data, time, machine", lead, element("div", *tables, class_="charts"))


def footer(report: DemoReport) -> Markup:
    """Return the notice again, and what the page cannot say."""
    words = (
        "Synthetic eyes can show whether the chain works and whether OCT teaches; they cannot show "
        "how well a model screens people. Thresholds, cameras and populations of real use need "
        "their own data."
    )
    line = f"edge-screen {report.code_version}, report schema {report.schema_version}."
    content = (paragraph(element("strong", NOTICE)), paragraph(words), paragraph(line))
    return element("footer", *content, class_="bottom")
