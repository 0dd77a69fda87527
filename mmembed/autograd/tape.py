"""The tape: which operation made which value, and the walk back that hands out gradients.

Must not know what a value or a gradient is: no arrays, shapes or dtypes. Two gradients that meet
are combined with `+`, and that is all the tape ever asks of them.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import inspect
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

Rule = Callable[..., Any]
Function = TypeVar("Function", bound=Callable[..., Any])

FREED = (
    "Trying to backward through the graph a second time (or directly access saved tensors after "
    "they have already been freed). Saved intermediate values of the graph are freed when you call "
    ".backward() or autograd.grad(). Specify retain_graph=True if you need to backward through the "
    "graph a second time or if you need to access saved tensors after calling backward."
)
CHANGED = (
    "one of the variables needed for gradient computation has been modified by an inplace "
    "operation: {value} is at version {version}; expected version {expected} instead. Hint: enable "
    "anomaly detection to find the operation that failed to compute its gradient, with "
    "torch.autograd.set_detect_anomaly(True, check_nan=False)."
)


class _Mode(threading.local):
    enabled = True


_mode = _Mode()


def is_grad_enabled() -> bool:
    """Return whether operations of this thread are recorded."""
    return _mode.enabled


class GradMode:
    """Sets grad mode inside a `with` block or a decorated function, and restores it afterwards."""

    def __init__(self, enabled: bool) -> None:
        """Remember the mode to set; nothing changes yet."""
        self._enabled = enabled
        self._before: list[bool] = []

    def __enter__(self) -> None:
        """Set the mode."""
        self._before.append(_mode.enabled)
        _mode.enabled = self._enabled

    def __exit__(self, *_: object) -> None:
        """Restore the mode found on entry."""
        _mode.enabled = self._before.pop()

    def __call__(self, function: Function) -> Function:
        """Return `function` wrapped so that its body runs in this mode."""
        if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
            raise TypeError(
                f"grad mode cannot decorate {function.__qualname__}: the mode would be restored "
                "before its body runs. Use `with no_grad():` inside the body"
            )

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with GradMode(self._enabled):
                return function(*args, **kwargs)

        return run  # type: ignore[return-value]


class _Switched(GradMode):
    """A mode that is set at once."""

    def __init__(self, enabled: bool) -> None:
        super().__init__(enabled)
        super().__enter__()

    def __enter__(self) -> None:
        _mode.enabled = self._enabled

    def __call__(self, function: Function) -> Function:
        self.__exit__()
        return GradMode(self._enabled)(function)


def no_grad(function: Function | None = None) -> Any:
    """Stop recording: `with no_grad(): ...`, or `@no_grad()` or `@no_grad` above a function.

    Source: torch.no_grad. Differs: a decorated generator function is refused.
    """
    return GradMode(False) if function is None else GradMode(False)(function)


def enable_grad(function: Function | None = None) -> Any:
    """Record again inside a `no_grad` block; used like `no_grad`."""
    return GradMode(True) if function is None else GradMode(True)(function)


def set_grad_enabled(mode: bool) -> GradMode:
    """Switch recording on or off at once; in a `with` statement, switch back at its end."""
    return _Switched(mode)


class Version:
    """Counts the in-place changes of one storage. All views of the storage hold the same object."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        """Start at 0."""
        self.number = 0

    def bump(self) -> None:
        """Count one change."""
        self.number += 1

    @contextlib.contextmanager
    def restored_on(self, *errors: type[Exception]) -> Iterator[None]:
        """Forget what the block counted if it raises one of `errors`."""
        before = self.number
        try:
            yield
        except errors:
            self.number = before
            raise


class Saved:
    """A value that a rule needs, and the version at which it was saved."""

    __slots__ = ("expected", "value", "version")

    def __init__(self, value: Any, version: Version) -> None:
        """Save `value` as it is now."""
        self.value = value
        self.version = version
        self.expected = version.number

    def describe(self) -> str:
        """Return what an error message calls the value."""
        return f"[{type(self.value).__name__}]"

    def unpack(self) -> Any:
        """Return the value; RuntimeError (torch's text) if it was changed in place since."""
        if self.version.number != self.expected:
            raise RuntimeError(
                CHANGED.format(
                    value=self.describe(), version=self.version.number, expected=self.expected
                )
            )
        return self.value


class Edge(NamedTuple):
    """How the gradient of one input follows from the gradient of the output.

    `rule(upstream, *saved)` is the gradient to hand to `target`. Entries of `saved` that are
    `Saved` are checked and unpacked first. A rule that does not take any upstream gets it prepared:
    see `backward`.
    """

    target: Node
    rule: Rule
    saved: tuple[Any, ...]
    takes_any: bool = False


_sequence = itertools.count()


class _Dropped(threading.local):
    """Edges of nodes that are gone, until they are let go of; one list per thread."""

    def __init__(self) -> None:
        self.edges: list[tuple[Edge, ...]] = []
        self.emptying = False


_dropped = _Dropped()


class Node:
    """One recorded operation. Its edges lead to nodes of smaller `sequence`."""

    __slots__ = ("__weakref__", "_freed", "_name", "edges", "sequence")

    def __init__(self, name: str, edges: Sequence[Edge]) -> None:
        """Record an operation under torch's name for it, such as "MulBackward0"."""
        self._name = name
        self._freed = False
        self.edges = tuple(edges)
        self.sequence = next(_sequence)

    def name(self) -> str:
        """Return the name, as torch's `grad_fn.name()` does."""
        return self._name

    @property
    def next_functions(self) -> tuple[tuple[Node, int], ...]:
        """The nodes that gradients go to, each with torch's output number (here always 0)."""
        return tuple((edge.target, 0) for edge in self.edges)

    def __repr__(self) -> str:
        """Return `<MulBackward0 object at 0x...>`."""
        return f"<{self._name} object at {id(self):#x}>"

    def __del__(self) -> None:
        """Let go of the edges one node after the other.

        Left to the interpreter, the nodes of a long chain would be freed inside one another, and a
        small stack would overflow.
        """
        _dropped.edges.append(self.edges)
        self.edges = ()
        if _dropped.emptying:
            return
        _dropped.emptying = True
        try:
            while _dropped.edges:
                _dropped.edges.pop()
        finally:
            _dropped.emptying = False

    def pull(
        self,
        upstream: Any,
        owned: bool,
        retain_graph: bool,
        prepare: Callable[[Any], Any] = lambda value: value,
    ) -> list[tuple[Node, Any]]:
        """Return (target, gradient) for each edge.

        Everything saved is checked before any rule runs, and dropped unless `retain_graph`.
        """
        if self._freed:
            raise RuntimeError(FREED)
        unpacked = [
            [entry.unpack() if isinstance(entry, Saved) else entry for entry in edge.saved]
            for edge in self.edges
        ]
        prepared = upstream
        if not all(edge.takes_any for edge in self.edges):
            prepared = prepare(upstream)
        pulled = [
            (edge.target, edge.rule(upstream if edge.takes_any else prepared, *values))
            for edge, values in zip(self.edges, unpacked, strict=True)
        ]
        if not retain_graph and any(edge.saved for edge in self.edges):
            self._freed = True
            self.edges = tuple(edge._replace(saved=()) for edge in self.edges)
        return pulled


class AccumulateGrad(Node):
    """Where a path ends: hands what arrives to `accept(gradient, owned)`.

    An owned gradient shares no memory with any other value, so that it may be kept without a copy.
    """

    __slots__ = ("_accept",)

    def __init__(self, accept: Callable[[Any, bool], None]) -> None:
        """End paths in `accept`."""
        super().__init__("AccumulateGrad", ())
        self._accept = accept

    def pull(
        self,
        upstream: Any,
        owned: bool,
        retain_graph: bool,
        prepare: Callable[[Any], Any] = lambda value: value,
    ) -> list[tuple[Node, Any]]:
        """Deliver the gradient."""
        self._accept(upstream, owned)
        return []


def backward(
    root: Node,
    gradient: Any,
    *,
    owned: bool = False,
    retain_graph: bool = False,
    is_new: Callable[[Any], bool] = lambda value: False,
    prepare: Callable[[Any], Any] = lambda value: value,
) -> None:
    """Hand `gradient` to `root` and walk down to the ends of all paths.

    Nodes run in decreasing `sequence`, so each runs once, after everything that uses its output,
    and sums are formed in the same order in every run. There is no recursion.

    Parameters
    ----------
    owned : nothing else refers to `gradient` or its memory.
    is_new : whether a value that a rule returned surely shares no memory with another value. With
        it, ends of paths are told which gradients are theirs to keep without a copy.
    prepare : what a rule that does not take any upstream gets in its place.

    Raises
    ------
    RuntimeError  a saved value was changed in place or has been freed (torch's texts). Ends of
                  paths that ran before the error keep what they received, as in torch.
    """
    pending = {root: (gradient, owned)}
    queue = [(-root.sequence, root)]
    while queue:
        _, node = heapq.heappop(queue)
        upstream, upstream_owned = pending.pop(node)
        parts = node.pull(upstream, upstream_owned, retain_graph, prepare)
        passed_on = upstream_owned and len(parts) == 1
        for target, part in parts:
            if target in pending:
                pending[target] = (pending[target][0] + part, True)
            else:
                pending[target] = (part, passed_on or (part is not upstream and is_new(part)))
                heapq.heappush(queue, (-target.sequence, target))
