"""Pieces of a self-contained HTML page: everything escaped, images embedded, no script and no network."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import pandas as pd

from analysis.tables import is_numeric


def page(title: str, about: str, verdict: str, sections: list[str]) -> str:
    """Fill `page.html`; title, about and verdict are text, the sections are HTML from this module."""
    template = Template(files("analysis").joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(title), about=escape(about), verdict=escape(verdict), body="\n".join(sections)
    )


def section(heading: str, *parts: str) -> str:
    """A heading and HTML parts; nothing at all when every part is empty."""
    return f"<h2>{escape(heading)}</h2>\n" + "\n".join(parts) if any(parts) else ""


def text(words: str, kind: str = "note") -> str:
    """A paragraph."""
    return f'<p class="{kind}">{escape(words)}</p>'


def code(words: str) -> str:
    """A block of commands or JSON."""
    return f"<pre>{escape(words)}</pre>"


def details(summary: str, html: str) -> str:
    """A block that opens when asked."""
    return f"<details><summary>{escape(summary)}</summary>{html}</details>"


def definitions(pairs: dict[str, str]) -> str:
    """Names and values; a pair without a value is left out."""
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs.items() if value)
    return f"<dl>{items}</dl>"


def table(frame: pd.DataFrame) -> str:
    r"""A printed table, numbers aligned right; it scrolls sideways by itself on a narrow screen.

    >>> table(pd.DataFrame({"J": ["1.5"]}))
    '<div class="scroll"><table><tr><th class="n">J</th></tr>\n<tr><td class="n">1.5</td></tr></table></div>'
    """
    kinds = ["n" if is_numeric(frame[name]) else "error" if name == "Error" else "" for name in frame]
    classes = [f' class="{kind}"' if kind else "" for kind in kinds]
    rows = [_row("th", list(frame.columns), classes)]
    rows += [_row("td", cells, classes) for cells in frame.to_numpy(dtype=object).tolist()]
    return '<div class="scroll"><table>' + "\n".join(rows) + "</table></div>"


def _row(tag: str, cells: list[str], classes: list[str]) -> str:
    pairs = zip(cells, classes, strict=True)
    return "<tr>" + "".join(f"<{tag}{kind}>{escape(str(cell))}</{tag}>" for cell, kind in pairs) + "</tr>"


def figure(svg: Path, caption: str) -> str:
    """An embedded SVG with its caption, which is its alternative text too."""
    data = b64encode(svg.read_bytes()).decode("ascii")
    image = f'<img alt="{escape(caption)}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"
