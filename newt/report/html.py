"""A report as one HTML file, which opens without a server and asks nobody for anything."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

# What is in the file alone; no script runs, whatever the words of others are.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1d1d1f; background: #fff; max-width: 70rem; margin: 2rem auto; }
body { padding: 0 1rem; } h1, h2, h3 { line-height: 1.25; } img { max-width: 100%; height: auto; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #ddd; padding: 0.25rem 0.75rem 0.25rem 0; text-align: left; vertical-align: top; }
pre, code { background: #f3f3f5; } blockquote { border-left: 3px solid #ccc; margin-left: 0; padding-left: 1rem; }
"""
_KINDS = {"svg": "image/svg+xml", "csv": "text/csv", "png": "image/png"}


def page(title: str, text: str, files: Mapping[str, bytes]) -> str:
    """Makes a page of Markdown; HTML in it is shown as the words that it is.

    Args:
        title: Of the page.
        text: Markdown with tables. Pictures and links that name a file get its content; of other pictures, words are
            left.
        files: Content by name. Of a picture NAME.png, NAME.svg is taken where it is there.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("image", _image)
    parser.add_render_rule("link_open", _link)
    body = parser.render(text, {"files": files})
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(_POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def _image(
    renderer: RendererHTML, tokens: Sequence[Token], place: int, options: Any, env: MutableMapping[str, Any]
) -> str:
    name, words = str(tokens[place].attrs["src"]), html.escape(tokens[place].content)
    vector = f"{name.removesuffix('.png')}.svg"
    inside = vector if vector in env["files"] else name
    return f'<img src="{_inside(inside, env["files"])}" alt="{words}">' if inside in env["files"] else words


def _link(
    renderer: RendererHTML, tokens: Sequence[Token], place: int, options: Any, env: MutableMapping[str, Any]
) -> str:
    name = str(tokens[place].attrs["href"])
    if name in env["files"]:
        return f'<a href="{_inside(name, env["files"])}" download="{html.escape(name)}">'
    return f'<a href="{html.escape(name)}" rel="noopener noreferrer">'


def _inside(name: str, files: Mapping[str, bytes]) -> str:
    kind = _KINDS.get(name.rpartition(".")[2], "application/octet-stream")
    return f"data:{kind};base64,{base64.b64encode(files[name]).decode()}"
