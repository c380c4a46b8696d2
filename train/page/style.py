"""Colours and style sheet of the page; system fonts only, readable in print and on a phone."""

from __future__ import annotations

__all__ = ["PALETTE", "STYLE"]

PALETTE = {  # each pair text on ground has a contrast of at least 4.5 : 1
    "ink": "#17202b",
    "muted": "#47525f",
    "ground": "#ffffff",
    "band": "#f3f5f7",
    "line": "#d5dbe1",
    "teal": "#0b5c63",
    "good": "#14532d",
    "good_ground": "#e8f5ec",
    "bad": "#8a1c1c",
    "bad_ground": "#fdeeee",
    "unsure": "#6b4400",
    "unsure_ground": "#fdf3df",
    "teacher": "#5a6472",
    "student": "#1b5fa8",
    "int8": "#ad430a",
}


def _variables() -> str:
    return "".join(f"--{name.replace('_', '-')}:{value};" for name, value in PALETTE.items())


STYLE = (
    ":root{color-scheme:light;"
    + _variables()
    + "}"
    + """
*{box-sizing:border-box}
body{margin:0;color:var(--ink);background:var(--ground);
 font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,"DejaVu Sans",
 sans-serif;
 font-variant-numeric:tabular-nums;-webkit-print-color-adjust:exact;print-color-adjust:exact}
.notice{background:var(--ink);color:#fff;text-align:center;padding:.5rem 1rem;font-weight:600}
.top,main,.bottom{max-width:1120px;margin:0 auto;padding:0 1.5rem}
.top{padding-top:2.4rem}
h1{font-size:2.1rem;line-height:1.2;margin:0 0 .6rem;letter-spacing:-.02em}
h2{font-size:1.4rem;line-height:1.25;margin:0 0 .4rem;letter-spacing:-.01em}
h3{font-size:1rem;margin:0 0 .5rem}
section{margin-top:2.6rem;padding-top:1.8rem;border-top:1px solid var(--line)}
.lead,.text{max-width:46rem;margin:0 0 1rem}
.lead{color:var(--muted)}
.note{max-width:46rem;color:var(--muted);font-size:.86rem;margin:.5rem 0 0}
.synthetic{color:var(--unsure);background:var(--unsure-ground);border:1px solid var(--unsure);
 border-radius:3px;padding:.05rem .38rem;font-size:.7rem;letter-spacing:.06em;font-weight:700;
 vertical-align:.08em;white-space:nowrap}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:.9rem;
 margin:1.6rem 0 0;padding:0;list-style:none}
.facts li{background:var(--band);border-radius:8px;padding:.85rem 1rem}
.facts b{display:block;font-size:1.5rem;line-height:1.25;letter-spacing:-.01em}
.facts span{color:var(--muted);font-size:.86rem;display:block;line-height:1.35}
.scroll{overflow-x:auto;margin:1.1rem 0 1.6rem}
table{border-collapse:collapse;width:100%;font-size:.92rem}
caption{text-align:left;font-weight:600;padding:0 0 .55rem}
th,td{padding:.42rem .9rem .42rem 0;border-bottom:1px solid var(--line);text-align:right;
 vertical-align:top}
th:first-child,td:first-child{text-align:left}
td.words,th.words{text-align:left}
td.words:not(:first-child),th.words:not(:first-child){padding-left:.7rem}
td.number{white-space:nowrap}
thead th{font-size:.8rem;color:var(--muted);font-weight:600;border-bottom:1.5px solid var(--muted);
 vertical-align:bottom}
tbody th{font-weight:600}
td small,.num small{display:block;color:var(--muted);font-size:.78rem;white-space:nowrap}
.mark{display:inline-block;white-space:nowrap;border-radius:4px;padding:.08rem .5rem;
 font-weight:600; border:1px solid currentColor}
.mark i{font-style:normal;margin-right:.4rem}
.good{color:var(--good);background:var(--good-ground)}
.bad{color:var(--bad);background:var(--bad-ground)}
.unsure{color:var(--unsure);background:var(--unsure-ground)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(310px,1fr));gap:1.2rem;
 margin:1.1rem 0 1.6rem}
.charts figure,.wide{margin:0;background:var(--ground);border:1px solid var(--line);
 border-radius:8px; padding:.9rem 1rem .7rem;break-inside:avoid}
.wide{margin:1.1rem 0 1.6rem}
figcaption{font-weight:600;font-size:.92rem;margin:0 0 .5rem}
figcaption small{display:block;font-weight:400;color:var(--muted);font-size:.82rem}
svg{display:block;width:100%;height:auto}
svg text{font-family:inherit;fill:var(--ink)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr));gap:1.2rem;
 margin:1.1rem 0}
.card{margin:0;border:1px solid var(--line);border-radius:8px;padding:.9rem 1rem 1rem;
 break-inside:avoid}
.grid3{display:grid;grid-template-columns:repeat(3,1fr);gap:.55rem}
.cards.wider{grid-template-columns:1fr}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:1.6rem}
.view{margin:0}
.view img{display:block;width:100%;aspect-ratio:1;background:#000;object-fit:contain;
 border-radius:4px}
.view.scan img{aspect-ratio:4/3;object-fit:fill}
.view.reduced img{image-rendering:pixelated}
.view figcaption{font-weight:400;font-size:.78rem;line-height:1.3;color:var(--muted);
 margin:.25rem 0 0}
.two{display:grid;grid-template-columns:1fr 1fr;gap:.4rem}
.eye h3{display:flex;flex-wrap:wrap;gap:.5rem;align-items:center}
.eye p{font-size:.84rem;margin:.4rem 0 0;line-height:1.4}
.absent{border:1px dashed var(--muted);border-radius:4px;color:var(--muted);padding:1rem;
 text-align:center;font-size:.86rem}
.bottom{color:var(--muted);font-size:.86rem;padding-top:1.4rem;padding-bottom:3rem;margin-top:1.2rem}
.bottom>:first-child{border-top:1px solid var(--line);padding-top:1.4rem;max-width:none}
@media (max-width:560px){.top,main,.bottom{padding-left:1rem;padding-right:1rem}h1{font-size:1.6rem}
 .pair{grid-template-columns:1fr}}
@media print{body{font-size:10pt}.notice{color:#000;background:#fff;border-bottom:2px solid #000}
 section{margin-top:1.2rem;padding-top:.9rem}h2,caption{break-after:avoid}tr{break-inside:avoid}
 .scroll{overflow:visible}.top,main,.bottom{max-width:none;padding-left:0;padding-right:0}}
"""
)
