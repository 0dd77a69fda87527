"""Calls of the operating system that are logged, and that fail or are interrupted at the N-th."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import signal
import types

from mmembed.storage import files

CALLS = (
    *("open", "mkdir", "chmod", "fchmod", "fstat", "posix_fallocate", "pread", "pwrite"),
    *("ftruncate", "fdatasync", "fsync", "unlink", "rename"),
)


class InjectedError(OSError):
    """What a failing call raises."""


class InjectedInterrupt(KeyboardInterrupt):
    """What stands for Ctrl-C."""


class Faults:
    """Stands in for the system in `mmembed.storage.files`.

    Call number `at`, from 0, raises OSError with this `code` instead of being made; with
    `interrupt` it is made, and KeyboardInterrupt comes right after it. With `deadly` the process
    ends instead, as by kill -9. With `maps`, mapping a file is such a call too. `log` has "call
    file" for every call. `watch` is called with that text when the call has been made.
    """

    def __init__(
        self,
        at: int = -1,
        interrupt: bool = False,
        *,
        code: int = errno.EIO,
        deadly: bool = False,
        maps: bool = False,
    ) -> None:
        self.at = at
        self.interrupt = interrupt
        self.code = code
        self.deadly = deadly
        self.maps = maps
        self.log: list[str] = []
        self.active = False
        self.watch = lambda call: None

    def __getattr__(self, name):
        real = getattr(os, name)
        return self.counted(name, real) if name in CALLS else real

    def counted(self, name, call):
        def counted_call(first, *arguments, **options):
            if not self.active:
                return call(first, *arguments, **options)
            number = len(self.log)
            self.log.append(f"{name} {self.name_of(first)}")
            if number == self.at and not self.interrupt:
                self.die()
                raise InjectedError(self.code, f"injected at call {number}, {name}")
            try:
                result = call(first, *arguments, **options)
                self.watch(self.log[number])
                return result
            finally:
                if number == self.at:
                    self.die()
                    raise InjectedInterrupt(f"injected after call {number}, {name}")

        return counted_call

    def die(self):
        if self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    def name_of(self, first):
        path = os.readlink(f"/proc/self/fd/{first}") if isinstance(first, int) else str(first)
        return os.path.basename(path)

    @contextlib.contextmanager
    def installed(self, monkeypatch):
        faults = self

        class Map(mmap.mmap):
            def __new__(cls, fd, size, access):
                def make(fd):
                    return super(Map, cls).__new__(cls, fd, size, access=access)

                made = faults.counted("mmap", make)(fd) if faults.maps else make(fd)
                made.file = faults.name_of(fd)
                return made

            def flush(self):
                faults.counted("msync", lambda _: super(Map, self).flush())(self.file)

        module = types.SimpleNamespace(
            mmap=Map, ACCESS_READ=mmap.ACCESS_READ, ACCESS_WRITE=mmap.ACCESS_WRITE
        )
        rename = self.counted("renameat2", files._renameat2)
        with monkeypatch.context() as patch:
            patch.setattr(files, "os", self)
            patch.setattr(files, "mmap", module)
            patch.setattr(files, "_renameat2", rename)
            self.active = True
            try:
                yield self
            finally:
                self.active = False  # maps live on


def every_fault(run, monkeypatch, interrupt=False, prepare=lambda: None):
    """Call `run(prepare())` with a fault in `run` at call 0, 1, 2, … until none is left.

    Yields the call that failed ("" if none did), what was prepared, and what `run` returned (None
    if it raised).
    """
    for at in range(1000):
        faults = Faults(at, interrupt)
        result = None
        with faults.installed(monkeypatch):
            faults.active = False
            prepared = prepare()
            faults.active = True
            with contextlib.suppress(InjectedError, InjectedInterrupt):
                result = run(prepared)
        yield faults.log[at] if at < len(faults.log) else "", prepared, result
        if at >= len(faults.log):
            return
    raise AssertionError("the calls never end")
