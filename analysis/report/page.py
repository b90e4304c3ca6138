"""Pieces of a self-contained HTML page: everything escaped, images embedded, no script and no network."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

import pandas as pd

from analysis.report.tables import is_numeric

WHAT_HAPPENED = "What happened"
WRAPPED = (WHAT_HAPPENED, "What it allows to say")  # columns of sentences, which may break


def page(
    title: str, about: str, warnings: Sequence[str], verdict: str, beside: str, sections: dict[str, str]
) -> str:
    """Fill `page.html`: text, the contents, and the sections, HTML by heading; empty ones are left out."""
    shown = {name: html for name, html in sections.items() if html}
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(title),
        about=escape(about),
        warnings=join(*(text(line, "warning") for line in warnings)),
        verdict=escape(verdict),
        beside=text(beside, "beside") if beside else "",
        contents="\n".join(f'<li><a href="#{_anchor(name)}">{escape(name)}</a></li>' for name in shown),
        body="\n".join(
            f'<section id="{_anchor(name)}"><h2>{escape(name)}</h2>\n{html}</section>'
            for name, html in shown.items()
        ),
    )


def _anchor(heading: str) -> str:
    """Name a heading in an address.

    >>> _anchor("λ by layer, over time")
    'λ-by-layer-over-time'
    """
    return re.sub(r"\W+", "-", heading.lower()).strip("-")


def join(*parts: str) -> str:
    """HTML parts one below the other; empty where none has anything."""
    return "\n".join(part for part in parts if part)


def heading(words: str) -> str:
    """A heading below a section's."""
    return f"<h3>{escape(words)}</h3>"


def text(words: str, kind: str = "note") -> str:
    """A paragraph."""
    return f'<p class="{kind}">{escape(words)}</p>'


def code(words: str) -> str:
    """A block of commands or JSON."""
    return f"<pre>{escape(words)}</pre>"


def details(summary: str, html: str) -> str:
    """A block that opens when asked."""
    return f"<details><summary>{escape(summary)}</summary>{html}</details>"


def side_by_side(*figures: str) -> str:
    """Figures beside each other where there is room; empty ones are left out."""
    shown = [html for html in figures if html]
    return f'<div class="figures">{"".join(shown)}</div>' if len(shown) > 1 else join(*shown)


def definitions(pairs: dict[str, str]) -> str:
    """Names and values; a pair without a value is left out."""
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs.items() if value)
    return f"<dl>{items}</dl>"


def table(frame: pd.DataFrame, kind: str = "") -> str:
    r"""A printed table, numbers aligned right; it scrolls sideways by itself on a narrow screen.

    >>> table(pd.DataFrame({"J": ["1.5"]}))
    '<div class="scroll"><table><tr><th class="n">J</th></tr>\n<tr><td class="n">1.5</td></tr></table></div>'

    An empty frame gives nothing. Cells of the columns `WRAPPED` break anywhere; a `kind` is a class for the style
    sheet.
    """
    if frame.empty:
        return ""
    kinds = ["n" if is_numeric(frame[name]) else "error" if name in WRAPPED else "" for name in frame]
    classes = [f' class="{kind}"' if kind else "" for kind in kinds]
    rows = [_row("th", list(frame.columns), classes)]
    rows += [_row("td", cells, classes) for cells in frame.to_numpy(dtype=object).tolist()]
    opening = f'<table class="{kind}">' if kind else "<table>"
    return f'<div class="scroll">{opening}' + "\n".join(rows) + "</table></div>"


def _row(tag: str, cells: list[str], classes: list[str]) -> str:
    pairs = zip(cells, classes, strict=True)
    return "<tr>" + "".join(f"<{tag}{kind}>{escape(str(cell))}</{tag}>" for cell, kind in pairs) + "</tr>"


def figure(svg: Path | None, caption: str) -> str:
    """An embedded SVG with its caption, which is its alternative text too; nothing without a file."""
    if svg is None:
        return ""
    data = b64encode(svg.read_bytes()).decode("ascii")
    image = f'<img alt="{escape(caption)}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"
