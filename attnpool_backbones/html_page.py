"""Pages that commands write beside their pictures."""

import html
from collections.abc import Sequence

__all__ = ['html_page', 'pictures_with_words']

STYLE = (
    'body{font:15px sans-serif;margin:2em;max-width:80em}figure{margin:0 0 2em}'
    'img{max-width:100%}img:not(:only-of-type){max-width:48%;vertical-align:top;margin-right:1%}'
    'table{border-collapse:collapse}td,th{padding:.2em .7em;text-align:right;'
    'border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}'
)


def html_page(title: str, parts: Sequence[str]) -> bytes:
    """Returns a page; what is no text in UTF-8 is replaced.

    Args:
        title: As text; its heading, too.
        parts: Of the body, as HTML.
    """
    shown = html.escape(title)
    body = '\n'.join([f'<h1>{shown}</h1>', *parts])
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<title>{shown}</title>\n<style>{STYLE}</style>\n{body}\n</html>\n'
    ).encode('utf-8', 'replace')


def pictures_with_words(names: Sequence[str], words: str) -> str:
    """Returns a picture, or two beside each other, with a text below, as HTML.

    Args:
        names: Of the files, relative to the page.
        words: As text.
    """
    drawn = ''.join(f'<img src="{name}" loading="lazy" alt="">' for name in names)
    return f'<figure>{drawn}<figcaption>{html.escape(words)}</figcaption></figure>'
