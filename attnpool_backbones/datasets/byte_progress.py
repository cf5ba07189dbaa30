"""How far the unpacking of archives is, on the terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ['byte_progress']


@contextmanager
def byte_progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """Shows a bar on stderr from the first call on.

    Args:
        name: Comes before the bar.

    Yields:
        To be called with the bytes done and the bytes in all.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task('', total=None, visible=False)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        yield show
