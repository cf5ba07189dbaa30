"""Parts of a Markdown file that a command writes: from ``<!-- name -->`` to ``<!-- /name -->``."""

from pathlib import Path

from attnpool_backbones.engine.atomic_files import write_atomically


def replace_section(path: Path, name: str, content: str) -> None:
    """Replaces what stands between the two comments of a section.

    Args:
        path: Of the Markdown file.
        name: Of the section.
        content: Ends with a newline.

    Raises:
        ValueError: The file has no such section.
    """
    text = path.read_text()
    start, end = f'<!-- {name} -->\n', f'<!-- /{name} -->'
    if start not in text or end not in text:
        raise ValueError(f'{path} lacks the lines {start!r} and {end!r}')
    before, rest = text.split(start, 1)
    after = rest[rest.index(end) :]
    write_atomically(f'{before}{start}{content}{after}'.encode(), path)
