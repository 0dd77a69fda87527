"""`Module`: a tree of named parameters, with a mode and a state.

Must not know embeddings, tables or optimizers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from ..autograd import Tensor, no_grad
from ..parameter import Parameter

Self = TypeVar("Self", bound="Module")


class Module:
    """Base of everything that has parameters; a subclass defines `forward`.

    Parameters and modules that are set as attributes are registered under the attribute's name.

    Attributes
    ----------
    training : set by `train` and `eval`.

    Source: torch.nn.Module. Differs: no hooks and no buffers.
    """

    training: bool

    def __init__(self) -> None:
        object.__setattr__(self, "_parameters", {})
        object.__setattr__(self, "_modules", {})
        object.__setattr__(self, "training", True)

    _parameters: dict[str, Parameter | None]
    _modules: dict[str, Module]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the module's result; a subclass must define it."""
        raise NotImplementedError(  # abstract
            f'Module [{type(self).__name__}] is missing the required "forward" function'
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what `forward` returns."""
        return self.forward(*args, **kwargs)

    # -- attributes --------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter | Module) and "_parameters" not in self.__dict__:
            raise AttributeError("call Module.__init__() before setting parameters or modules")
        if isinstance(value, Parameter):
            self._take_out(name)
            self._parameters[name] = value
        elif isinstance(value, Module):
            self._take_out(name)
            self._modules[name] = value
        elif name in self.__dict__.get("_parameters", ()):
            if value is not None:
                raise TypeError(
                    f"cannot assign '{type(value).__name__}' as parameter '{name}' "
                    "(mmembed.nn.Parameter or None expected)"
                )
            self._parameters[name] = None
        else:
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        for registered in ("_parameters", "_modules"):
            members = self.__dict__.get(registered, {})
            if name in members:
                return members[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __delattr__(self, name: str) -> None:
        if not self._take_out(name):
            object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._parameters, *self._modules})

    def _take_out(self, name: str) -> bool:
        """Forget an attribute of any kind; returns whether a registered one was there."""
        self.__dict__.pop(name, None)
        found = name in self._parameters or name in self._modules
        self._parameters.pop(name, None)
        self._modules.pop(name, None)
        return found

    # -- the tree ----------------------------------------------------------------------------------

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield (dotted name, module) for this module and all below it, each module once."""
        seen: set[int] = set()
        pending = [(prefix, self)]
        while pending:
            name, module = pending.pop()
            if id(module) not in seen:
                seen.add(id(module))
                yield name, module
                below = [(_join(name, key), child) for key, child in module._modules.items()]
                pending.extend(reversed(below))

    def modules(self) -> Iterator[Module]:
        """Yield this module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield (name, module) for the modules directly below."""
        return iter(self._modules.items())

    def children(self) -> Iterator[Module]:
        """Yield the modules directly below."""
        return iter(self._modules.values())

    def named_parameters(
        self, prefix: str = "", recurse: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Yield (dotted name, parameter), each parameter once."""
        seen: set[int] = set()
        for name, parameter in self._all_parameters(prefix, recurse):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Yield the parameters, each once."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def _all_parameters(
        self, prefix: str = "", recurse: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Yield (dotted name, parameter) under every name it has."""
        owners = self.named_modules(prefix) if recurse else [(prefix, self)]
        for owner_name, owner in owners:
            for key, parameter in owner._parameters.items():
                if parameter is not None:
                    yield _join(owner_name, key), parameter

    # -- mode and gradients ------------------------------------------------------------------------

    def train(self: Self, mode: bool = True) -> Self:
        """Set `training` here and below; returns the module."""
        for module in self.modules():
            object.__setattr__(module, "training", bool(mode))
        return self

    def eval(self: Self) -> Self:
        """Set `training` to False here and below; returns the module."""
        return self.train(False)

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Set whether the parameters collect gradients; returns the module."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the parameters' gradients, or make them zero."""
        for parameter in self.parameters():
            if set_to_none or parameter.grad is None:
                parameter.grad = None
            else:
                parameter.grad = parameter.grad * 0

    # -- state -------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """Return {dotted name: parameter, detached and sharing its memory}."""
        return {name: parameter.detach() for name, parameter in self._all_parameters()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Copy the values of `state_dict` into the parameters, casting to their dtype.

        Raises
        ------
        RuntimeError  names are missing or unexpected (if `strict`), or a shape differs; nothing has
                      been copied then.

        Source: torch.nn.Module.load_state_dict. Differs: all names and shapes are checked first.
        """
        own = dict(self._all_parameters())
        problems = []
        if strict:
            missing = [f'"{name}"' for name in own if name not in state_dict]
            unexpected = [f'"{name}"' for name in state_dict if name not in own]
            if unexpected:
                problems.append(f"Unexpected key(s) in state_dict: {', '.join(unexpected)}. ")
            if missing:
                problems.append(f"Missing key(s) in state_dict: {', '.join(missing)}. ")
        for name, parameter in own.items():
            if name in state_dict and tuple(state_dict[name].shape) != parameter.shape:
                problems.append(
                    f"size mismatch for {name}: copying a param with shape torch.Size("
                    f"{list(state_dict[name].shape)}) from checkpoint, the shape in current model "
                    f"is torch.Size({list(parameter.shape)})."
                )
        if problems:
            heading = f"Error(s) in loading state_dict for {type(self).__name__}:"
            raise RuntimeError("\n\t".join([heading, *problems]))
        with no_grad():
            for name, parameter in own.items():
                if name in state_dict:
                    parameter.copy_(state_dict[name])

    # -- what it looks like ------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """Return what stands between the parentheses of `repr`; for subclasses."""
        return ""

    def __repr__(self) -> str:
        lines = [self.extra_repr()] if self.extra_repr() else []
        for name, child in self._modules.items():
            lines.append(f"({name}): " + repr(child).replace("\n", "\n  "))
        inside = "\n  ".join(["", *lines]) + "\n" if self._modules else "".join(lines)
        return f"{type(self).__name__}({inside})"


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
