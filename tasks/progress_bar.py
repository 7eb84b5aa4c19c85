"""A bar on the terminal that shows how far a measurement has come."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tasks.bench import Tell


@contextmanager
def progress_bar(console: Console) -> Iterator[Callable[[str], Tell]]:
    """Shows a bar meanwhile; gives what makes, from words to put before each stage, the function that moves it."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("loading", total=1.0)

        def named(prefix: str) -> Tell:
            def tell(stage: str, fraction: float, _narrowing: object = None, /) -> None:
                progress.update(bar, description=f"{prefix}{stage}", completed=fraction)

            return tell

        yield named
