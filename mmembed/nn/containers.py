"""Containers: modules in a row, called one after another or merely held.

Must not know what the modules do.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, TypeVar

from .module import Module

C = TypeVar("C", bound="Container")


class Container(Module):
    """Base of the containers: what a list can do, over registered modules."""

    def _name(self, index: int) -> str:
        """Return the name of the module at a place; negative ones count from the end."""
        place = operator.index(index)
        if not -len(self) <= place < len(self):
            raise IndexError(f"index {place} is out of range")
        return list(self._modules)[place]

    def _replace_all(self, modules: Iterable[Module]) -> None:
        """Hold these modules, under their numbers."""
        numbered = {str(place): module for place, module in enumerate(modules)}
        self._modules.clear()
        self._modules.update(numbered)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def __setitem__(self, index: int, module: Module) -> None:
        name = self._name(index)
        if not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is not a Module subclass")
        self._modules[name] = module

    def __delitem__(self, index: int | slice) -> None:
        names = list(self._modules)
        gone = names[index] if isinstance(index, slice) else [self._name(index)]
        self._replace_all([module for name, module in self._modules.items() if name not in gone])

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if not name.isdigit()]

    def append(self: C, module: Module) -> C:
        """Add a module at the end, named by its number; returns the container."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self: C, modules: Iterable[Module]) -> C:
        """Add modules at the end; returns the container."""
        for module in list(modules):
            self.append(module)
        return self

    def pop(self, index: int | slice) -> Any:
        """Remove the module at a place, or those of a slice, and return it or them."""
        found = self[index]  # type: ignore[index]
        del self[index]
        return found

    def _inserted(self, index: int, module: Module) -> list[Module]:
        """Return the modules with one more at a place."""
        modules = list(self)
        modules.insert(index, module)
        return modules


class Sequential(Container):
    """Modules that are called in turn, each with what the one before it returned.

    Parameters
    ----------
    modules : named by their numbers; or one dict of names and modules, in order.

    Raises
    ------
    TypeError  something is no module (torch's text).

    An integer index gives a module, a slice a Sequential of the same modules and names. Modules
    deleted or inserted leave all of them named by their numbers.

    Source: torch.nn.Sequential.

    >>> from mmembed import nn
    >>> nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    Sequential(
      (0): Linear(in_features=4, out_features=8, bias=True)
      (1): ReLU()
      (2): Linear(in_features=8, out_features=1, bias=True)
    )
    """

    def __init__(self, *modules: Any) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], dict):
            for name, module in modules[0].items():
                self.add_module(name, module)
        else:
            self.extend(modules)

    def forward(self, input: Any) -> Any:
        """Return what the last module returns; without modules, the input."""
        for module in self:
            input = module(input)
        return input

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(dict(list(self._modules.items())[index]))
        return self._modules[self._name(index)]

    def insert(self: S, index: int, module: Module) -> S:
        """Add a module before the one at a place; returns the container.

        Raises
        ------
        AssertionError, IndexError  it is no module, or there is no such place (torch's texts).
        """
        if not isinstance(module, Module):
            raise AssertionError(f"module should be of type: {Module}")
        if not -len(self) <= index <= len(self):
            raise IndexError(f"Index out of range: {index}")
        self._replace_all(self._inserted(index, module))
        return self

    def __add__(self, other: Sequential) -> Sequential:
        return Sequential(*self, *_sequential(other))

    def __iadd__(self: S, other: Sequential) -> S:
        return self.extend(_sequential(other))

    def __mul__(self, times: int) -> Sequential:
        return Sequential(*_repeated(self, times))

    def __rmul__(self, times: int) -> Sequential:
        return self * times

    def __imul__(self: S, times: int) -> S:
        return self.extend(_repeated(self, times)[len(self) :])


S = TypeVar("S", bound=Sequential)


def _sequential(other: Any) -> Sequential:
    if not isinstance(other, Sequential):
        raise ValueError(
            f"add operator supports only objects of Sequential class, but {type(other)} is given."
        )
    return other


def _repeated(modules: Sequential, times: Any) -> list[Module]:
    if not isinstance(times, int):
        raise TypeError(f"unsupported operand type(s) for *: {type(modules)} and {type(times)}")
    if times <= 0:
        raise ValueError(f"Non-positive multiplication factor {times} for {type(modules)}")
    return list(modules) * times


class ModuleList(Container):
    """A list of modules, which are registered under their numbers. It cannot be called.

    Parameters
    ----------
    modules : any iterable of modules.

    Raises
    ------
    TypeError  something is no module, or `modules` is not iterable (torch's texts).

    Source: torch.nn.ModuleList. Differs: `insert` takes places that lists take.

    >>> from mmembed import nn
    >>> nn.ModuleList(nn.Linear(10, 10) for _ in range(3))
    ModuleList(
      (0-2): 3 x Linear(in_features=10, out_features=10, bias=True)
    )
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.extend(modules)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self)[index])
        return self._modules[self._name(index)]

    def extend(self: C, modules: Iterable[Module]) -> C:
        """Add modules at the end; returns the list."""
        if not isinstance(modules, Iterable):
            raise TypeError(
                "ModuleList.extend should be called with an iterable, but got "
                f"{type(modules).__name__}"
            )
        return super().extend(modules)

    def insert(self, index: int, module: Module) -> None:
        """Add a module before the one at a place, as a list does."""
        if not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is not a Module subclass")
        self._replace_all(self._inserted(index, module))

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *other])

    def __iadd__(self: C, other: Iterable[Module]) -> C:
        return self.extend(other)

    def __repr__(self) -> str:
        """Return torch's text: neighbors that look the same are told once, with their number."""
        lines = []
        place = 0
        for text, alike in groupby(map(repr, self)):
            count = len(list(alike))
            name, times = (
                (f"{place}", "")
                if count == 1
                else (
                    f"{place}-{place + count - 1}",
                    f"{count} x ",
                )
            )
            lines.append(f"({name}): {times}" + text.replace("\n", "\n  "))
            place += count
        inside = "\n  ".join(["", *lines]) + "\n" if lines else ""
        return f"{type(self).__name__}({inside})"
