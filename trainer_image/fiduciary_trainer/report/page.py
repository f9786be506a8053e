"""``report.html``: the model card with its plots as one file that needs nothing else."""

from __future__ import annotations

import base64
import html
import re
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

from fiduciary_trainer.report.style import PLOT_DPI

if TYPE_CHECKING:
    from collections.abc import Mapping

STYLE = """
:root { color-scheme: light; --ink: #222; --soft: #6b6b6b; --line: #e3e3e3; --blue: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0; background: #f6f6f4; color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.2rem 2.4rem 4rem; background: #fff; min-height: 100vh; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .6rem; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .7rem; padding-bottom: .3rem; border-bottom: 2px solid var(--ink); }
h3 { font-size: 1rem; margin: 1.8rem 0 .5rem; }
p, li { max-width: 50rem; }
p:has(> img) { max-width: none; }
nav { font-size: .9rem; margin: 0 0 1.2rem; }
nav a { margin-right: 1rem; white-space: nowrap; }
a { color: var(--blue); text-decoration: none; }
a:hover { text-decoration: underline; }
table { border-collapse: collapse; font-size: .875rem; display: block; overflow-x: auto; margin: .8rem 0; }
th, td { padding: .32rem .7rem; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; border-bottom-color: var(--ink); }
td { font-variant-numeric: tabular-nums; }
code { font: .85em ui-monospace, "DejaVu Sans Mono", monospace; background: #f3f3f1; padding: .08em .3em;
  overflow-wrap: anywhere; }
img { display: block; max-width: 100%; height: auto; margin: 1.2rem 0 1.8rem; }
@media print {
  body, main { background: #fff; padding: 0; max-width: none; }
  nav { display: none; }
  h2 { break-after: avoid; }
  img, tr { break-inside: avoid; }
}
"""


_SCREEN_DPI = 96
"""Pixels of a CSS inch."""


def page(card: str, plots: Mapping[str, bytes], title: str) -> bytes:
    """The card as HTML.

    Args:
        card: Markdown. HTML in it is shown as text, not interpreted: names and units are other people's words.
        plots: PNG by the name that the card refers to.
        title: of the page.
    """
    body = str(MarkdownIt("commonmark", {"html": False}).enable("table").render(card))
    for name, content in plots.items():
        encoded = base64.b64encode(content).decode()
        # As wide as it was drawn: letters have one size in all plots.
        width = round(int.from_bytes(content[16:20], "big") * _SCREEN_DPI / PLOT_DPI)
        body = body.replace(f'src="{name}"', f'src="data:image/png;base64,{encoded}" width="{width}"')
    sections: list[str] = []

    def anchored(found: re.Match[str]) -> str:
        anchor = re.sub(r"[^a-z0-9]+", "-", html.unescape(found[1]).lower()).strip("-")
        sections.append(f'<a href="#{anchor}">{found[1]}</a>')
        return f'<h2 id="{anchor}">{found[1]}</h2>'

    body = body.replace("<thead>\n<tr>\n<th></th>\n<th></th>\n</tr>\n</thead>\n", "")  # of two columns without names
    body = re.sub(r"<h2>(.*?)</h2>", anchored, body)
    body = body.replace("</h1>", f"</h1>\n<nav>{''.join(sections)}</nav>", 1)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Nothing may be loaded: what is shown was measured, and is in this file.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body><main>\n{body}</main></body>\n</html>\n"
    ).encode()
