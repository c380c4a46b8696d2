"""Colours and style sheet of the screening report: system fonts, print, never colour alone."""

from __future__ import annotations

__all__ = ["PAIRS", "PALETTE", "STYLE"]

PALETTE = {
    "ink": "#17202b",
    "muted": "#47525f",
    "ground": "#ffffff",
    "band": "#f1f4f7",
    "line": "#c9d1d9",
    "refer": "#8a1c1c",
    "refer-ground": "#fdecec",
    "clear": "#14532d",
    "clear-ground": "#e7f5ec",
    "unsure": "#6b4400",
    "unsure-ground": "#fdf1da",
    "absent": "#3b4654",
    "absent-ground": "#e9edf1",
    "bar": "#6f7b88",
}

# Text on ground as the sheet below puts them; a test holds each to a contrast of 4.5 : 1.
PAIRS = (
    ("ink", "ground"),
    ("ink", "band"),
    ("muted", "ground"),
    ("muted", "band"),
    ("ground", "ink"),
    ("refer", "refer-ground"),
    ("clear", "clear-ground"),
    ("unsure", "unsure-ground"),
    ("absent", "absent-ground"),
    ("refer", "ground"),
    ("unsure", "ground"),
)


def _variables() -> str:
    return "".join(f"--{name}:{value};" for name, value in PALETTE.items())


STYLE = (
    ":root{color-scheme:light;"
    + _variables()
    + "}"
    + """
*{box-sizing:border-box}
body{margin:0;color:var(--ink);background:var(--ground);
 font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,"DejaVu Sans",
 sans-serif;font-variant-numeric:tabular-nums;
 -webkit-print-color-adjust:exact;print-color-adjust:exact}
.notice{background:var(--ink);color:var(--ground);text-align:center;padding:.45rem 1rem;
 font-weight:600;margin:0}
main{max-width:1080px;margin:0 auto;padding:0 1.25rem 3rem}
h1{font-size:1.9rem;line-height:1.2;margin:1.6rem 0 .2rem;letter-spacing:-.02em}
h2{font-size:1.15rem;line-height:1.3;margin:0}
h3{font-size:1.05rem;margin:0 0 .6rem}
p{margin:0 0 .5rem}
a{color:inherit}
a:focus-visible{outline:3px solid var(--ink);outline-offset:2px}
.small{color:var(--muted);font-size:.84rem;line-height:1.45;overflow-wrap:anywhere}
.stopped{border:3px solid var(--unsure);color:var(--unsure);padding:.6rem .9rem;font-weight:700;
 margin:1rem 0}
.counts{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:.8rem;
 list-style:none;margin:1.1rem 0;padding:0}
.counts li{display:flex;align-items:center;gap:.7rem;border:2px solid;border-radius:8px;
 padding:.6rem .8rem}
.counts b{font-size:1.7rem;line-height:1}
.scroll{overflow-x:auto;margin:0 0 1.8rem}
table{border-collapse:collapse;width:100%;font-size:.93rem}
th,td{text-align:left;vertical-align:top;padding:.42rem .6rem .42rem 0;
 border-bottom:1px solid var(--line)}
thead th{color:var(--muted);font-weight:600;white-space:nowrap}
td.name{overflow-wrap:anywhere;min-width:9rem}
td.eyes-said{white-space:nowrap}
.number{text-align:right;white-space:nowrap}
.mark{display:inline-flex;align-items:center;gap:.4rem;font-weight:700;white-space:nowrap;
 border-radius:5px;padding:.1rem .5rem .1rem .35rem}
.mark svg{width:1.1em;height:1.1em;flex:none}
.refer{color:var(--refer);background:var(--refer-ground)}
.clear{color:var(--clear);background:var(--clear-ground)}
.unsure{color:var(--unsure);background:var(--unsure-ground)}
.absent{color:var(--absent);background:var(--absent-ground)}
.counts svg{width:2rem;height:2rem;flex:none}
.exam{border:1px solid var(--line);border-radius:10px;margin:0 0 1.4rem;padding:1rem 1.1rem;
 break-inside:avoid}
.exam>header{display:flex;flex-wrap:wrap;justify-content:space-between;gap:.3rem 1rem;
 margin-bottom:.8rem}
.verdict{display:flex;align-items:center;gap:1rem;border:3px solid;border-radius:10px;
 padding:.7rem 1rem;margin:0 0 1rem}
.verdict svg{width:3.4rem;height:3.4rem;flex:none}
.verdict b{display:block;font-size:2.3rem;line-height:1.1;letter-spacing:.01em}
.verdict span{font-size:1.02rem}
.eyes{display:grid;gap:1rem;grid-template-columns:1fr 1fr}
.eyes.alone{grid-template-columns:1fr}
.eye{background:var(--band);border-radius:8px;padding:.8rem .9rem;min-width:0}
.eye .mark{font-size:1.3rem;border:2px solid;margin-bottom:.6rem}
.eye h4{font-size:1rem;margin:.8rem 0 .4rem}
.reasons{margin:0 0 .7rem;padding:0;list-style:none}
.reasons li{margin:0 0 .35rem}
.reasons b::after{content:". "}
.picture{display:block;width:100%;max-width:16rem;height:auto;margin:0 0 .7rem;background:#000;
 border-radius:6px}
.labels{font-size:.9rem;margin-bottom:.7rem}
.labels th,.labels td{padding-right:.45rem}
.labels th[scope=row]{font-weight:600}
.labels svg{display:block;width:100%;min-width:4rem;max-width:9rem;height:.75rem;margin-top:.3rem}
.labels .track{fill:var(--ground);stroke:var(--bar)}
.labels .fill{fill:var(--bar)}
.labels .limit{stroke:var(--ink);stroke-width:2}
.flag{display:inline-block;border:2px solid;border-radius:5px;padding:0 .4rem;white-space:nowrap}
.verdict .flag{font-size:1.1rem;vertical-align:middle;white-space:normal}
td.warned{min-width:11rem}
.warnings{border-left:5px solid var(--unsure);margin:0 0 1rem;padding:.1rem 0 .1rem .8rem;
 list-style:none}
.facts{margin:1rem 0 0}
footer.end{border-top:2px solid var(--ink);margin-top:2rem;padding-top:.7rem}
@media (max-width:34rem){.eyes{grid-template-columns:1fr}.verdict b{font-size:1.8rem}
 main{padding:0 .6rem 2rem}.exam{padding:.8rem .6rem}.labels{font-size:.82rem}
 .labels th,.labels td{padding-right:.25rem;letter-spacing:-.01em}}
@media print{html{font-size:11px}body{font-size:1rem}main{max-width:none;padding:0}
 .exam{border-color:var(--muted)}
 .verdict b{font-size:2rem}.scroll{overflow:visible}tr{break-inside:avoid}
 .picture{max-width:11rem}@page{margin:12mm}}
"""
)
