"""How far something is, on the terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ['progress_bar']


@contextmanager
def progress_bar(
    name: str, in_bytes: bool = False
) -> Iterator[Callable[[int, int | None], object]]:
    """Shows a bar on stderr from the first call on; where that is no terminal, only its last state.

    Args:
        name: Comes before the bar.
        in_bytes: Whether bytes are counted. Default: things.

    Yields:
        To be called with how many are done and how many there are in all, None if nobody knows.
    """
    from rich import progress as bars
    from rich.console import Console

    counted = bars.DownloadColumn() if in_bytes else bars.MofNCompleteColumn()
    columns = (bars.TextColumn(name), bars.BarColumn(), counted, bars.TimeRemainingColumn())
    bar = bars.Progress(*columns, console=Console(stderr=True))
    task = bar.add_task('', total=None)

    def show(done: int, total: int | None) -> None:
        bar.update(task, completed=done, total=total)
        bar.start()  # once: one that was never shown ends with an empty line

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()
