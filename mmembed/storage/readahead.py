"""One thread per process that asks the system for pages before they are needed.

Where `_pages` is built its thread does it, which never waits for the GIL; here is one in Python.
Must not know tables, columns or pages: it runs what it is given, in order, and never raises. The
thread starts with the first task, and a forked child starts one of its own.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable

from . import page_calls

Task = Callable[[], object]

_lock = threading.Lock()
_tasks: queue.SimpleQueue[Task] | None = None


def submit(task: Task) -> None:
    """Run `task` on the thread, after those submitted before; an error in it is passed over."""
    global _tasks
    if _tasks is None:
        with _lock:
            if _tasks is None:
                tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
                thread = threading.Thread(
                    target=_run, args=(tasks,), name="mmembed-readahead", daemon=True
                )
                thread.start()
                _tasks = tasks
    _tasks.put(task)


def settle() -> None:
    """Return when the threads have done what was submitted so far."""
    if page_calls.settle is not None:
        page_calls.settle()
    if _tasks is not None:
        done = threading.Event()
        submit(done.set)
        done.wait()


def _run(tasks: queue.SimpleQueue[Task]) -> None:
    while True:
        task = tasks.get()
        try:
            task()
        except Exception:
            # Reading ahead only saves time: whoever needs the rows reads them, and sees the error.
            continue
        finally:
            del task  # it keeps a map alive


def _after_fork_in_child() -> None:
    global _lock, _tasks
    _lock = threading.Lock()  # another thread may have held it
    _tasks = None


os.register_at_fork(after_in_child=_after_fork_in_child)
