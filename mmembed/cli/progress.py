"""Progress on a terminal; nothing on a pipe.

Must not know what makes progress. rich is an extra: without it, a line says how to get it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

Update = Callable[[float, float, str], None]
"""Called as update(done, total, text)."""


@contextlib.contextmanager
def progress(title: str) -> Iterator[Update]:
    """Show a bar with the share done and the time left, on standard error if it is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total, text: None
        return
    try:
        from rich import progress as bars
        from rich.console import Console
    except ImportError:
        print("for progress: pip install 'mmembed[cli]'", file=sys.stderr)
        yield lambda done, total, text: None
        return
    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(bar_width=30),
        bars.TaskProgressColumn(),
        bars.TextColumn("{task.fields[text]}"),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(title, total=None, text="")
        yield lambda done, total, text: shown.update(task, completed=done, total=total, text=text)
