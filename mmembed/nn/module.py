"""`Module`: a tree of named parameters, with a mode and a state.

Must not know embeddings, tables or optimizers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..autograd import Tensor, no_grad
from ..devices import check_device
from ..narrow import as_dtype, is_floating
from ..parameter import Parameter, zero_grad

Self = TypeVar("Self", bound="Module")


class IncompatibleKeys(NamedTuple):
    """Names that a loaded state lacks, and names that it has and the module has not."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        """Return torch's text."""
        if not (self.missing_keys or self.unexpected_keys):
            return "<All keys matched successfully>"
        missing, unexpected = self
        return f"IncompatibleKeys(missing_keys={missing}, unexpected_keys={unexpected})"


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
    _modules: dict[str, Any]  # a Module, or None

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
        for kind, what, registered in (
            (Parameter, "parameter", "_parameters"),
            (Module, "child module", "_modules"),
        ):
            members = self.__dict__.get(registered, {})
            if isinstance(value, kind):
                if name not in members:  # one that is replaced keeps its place
                    self._take_out(name)
                members[name] = value
                return
            if name in members and not isinstance(value, Parameter | Module):
                if value is not None:
                    raise TypeError(
                        f"cannot assign '{type(value).__name__}' as {what} '{name}' "
                        f"(mmembed.nn.{kind.__name__} or None expected)"
                    )
                members[name] = None
                return
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        for registered in ("_parameters", "_modules"):
            members = self.__dict__.get(registered, {})
            if name in members:
                return members[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __delattr__(self, name: str) -> None:
        if not self._take_out(name):
            object.__delattr__(self, name)  # raises

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._parameters, *self._modules})

    def _take_out(self, name: str) -> bool:
        """Forget an attribute of any kind; returns whether there was one."""
        places: list[dict[str, Any]] = [self.__dict__, self._parameters, self._modules]
        found = any(name in place for place in places)
        for place in places:
            place.pop(name, None)
        return found

    # -- the tree ----------------------------------------------------------------------------------

    def named_modules(
        self, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """Yield (dotted name, module) for this module and all below it.

        Each module once, or under every name that it has.
        """
        seen: set[int] = set()
        pending = [(prefix, self)]
        while pending:
            name, module = pending.pop()
            if id(module) not in seen:
                if remove_duplicate:
                    seen.add(id(module))
                yield name, module
                below = [(_join(name, key), child) for key, child in module.named_children()]
                pending.extend(reversed(below))

    def modules(self) -> Iterator[Module]:
        """Yield this module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield (name, module) for the modules directly below."""
        return ((name, child) for name, child in self._modules.items() if child is not None)

    def children(self) -> Iterator[Module]:
        """Yield the modules directly below."""
        return (child for _, child in self.named_children())

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
        below = self.named_modules(prefix, remove_duplicate=False)
        owners = below if recurse else [(prefix, self)]
        for owner_name, owner in owners:
            for key, parameter in owner._parameters.items():
                if parameter is not None:
                    yield _join(owner_name, key), parameter

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Register a parameter, or that there is none, under a name.

        Raises
        ------
        TypeError, KeyError  the name is no name of an attribute, or `param` no Parameter (torch's).
        """
        self._check_name(name, "parameter", self._parameters)
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"cannot assign '{type(param).__name__}' object to parameter '{name}' "
                "(mmembed.nn.Parameter or None required)"
            )
        self._parameters[name] = param

    def add_module(self, name: str, module: Module | None) -> None:
        """Register a module, or None, under a name; raises what `register_parameter` raises."""
        self._check_name(name, "module", self._modules)
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is not a Module subclass")
        self._modules[name] = module

    def _check_name(self, name: str, what: str, known: Mapping[str, Any]) -> None:
        if not isinstance(name, str):
            raise TypeError(f"{what} name should be a string. Got {type(name).__name__}")
        if name == "" or "." in name:
            raise KeyError(f'{what} name can\'t be "" or contain "."; got {name!r}')
        if hasattr(self, name) and name not in known:
            raise KeyError(f"attribute '{name}' already exists")

    def apply(self: Self, function: Callable[[Module], None]) -> Self:
        """Call `function` with every module below, and last with this one; returns the module."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    # -- dtype -------------------------------------------------------------------------------------

    def to(self: Self, *args: Any, device: str | None = None, dtype: Any = None) -> Self:
        """Cast the parameters to a dtype, in place; returns the module.

        `to(dtype)` and `to("cpu")` are understood as in torch. A parameter stays the object that it
        is, so optimizers go on with it; its gradient is cast too.

        Raises
        ------
        CudaUnavailableError  the device is a GPU.
        ValueError  another device, or a table on disk, whose dtype is that of its file.
        TypeError   the dtype is not floating, or tables do not have it.
        """
        for argument in args:
            if isinstance(argument, str) and argument.split(":")[0] in ("cpu", "cuda", "mps"):
                device = argument
            else:
                dtype = argument
        check_device(device)
        if dtype is not None:
            wanted = as_dtype(dtype)
            if not is_floating(wanted):
                raise TypeError(f"modules have floating parameters, got dtype {wanted}")
            floating = [p for p in self.parameters() if is_floating(p.dtype)]
            for parameter in floating:
                parameter.check_cast(wanted)
            for parameter in floating:
                parameter.cast(wanted)
        return self

    def float(self: Self) -> Self:
        """Cast the parameters to float32; see `to`."""
        return self.to(np.float32)

    def double(self: Self) -> Self:
        """Cast the parameters to float64; see `to`."""
        return self.to(np.float64)

    def half(self: Self) -> Self:
        """Cast the parameters to float16; see `to`."""
        return self.to(np.float16)

    def bfloat16(self: Self) -> Self:
        """Cast the parameters to bfloat16, which needs ml_dtypes; see `to`."""
        return self.to("bfloat16")

    # -- mode and gradients ------------------------------------------------------------------------

    def train(self: Self, mode: bool = True) -> Self:
        """Set `training` here and below; returns the module."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        for module in self.modules():
            object.__setattr__(module, "training", mode)
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
        """Forget the parameters' gradients, or make them zero in place."""
        for parameter in self.parameters():
            zero_grad(parameter, set_to_none)

    # -- state -------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """Return {dotted name: parameter, detached and sharing its memory}."""
        return {name: parameter.detach() for name, parameter in self._all_parameters()}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy the values of `state_dict`, tensors or arrays, into the parameters of those names.

        Parameters
        ----------
        strict : every name must be a parameter's, and every parameter's name be there.
        assign : put the values themselves in the place of the parameters; their memory is shared,
            and their dtype stays. Otherwise they are cast to the dtype of the parameters.

        Returns
        -------
        IncompatibleKeys  what is missing and what is unexpected.

        Raises
        ------
        RuntimeError  names are missing or unexpected (if `strict`), a value is no array, or a shape
                      differs; nothing has been changed then.

        Source: torch.nn.Module.load_state_dict. Differs: everything is checked first, and NumPy
        arrays are taken.
        """
        own = dict(self._all_parameters())
        keys = IncompatibleKeys(
            [name for name in own if name not in state_dict],
            [name for name in state_dict if name not in own],
        )
        problems = [*_told(keys)] if strict else []
        found = {name: state_dict[name] for name in own if name in state_dict}
        for name, value in found.items():
            problems += _misfit(name, value, own[name].shape)
        if problems:
            heading = f"Error(s) in loading state_dict for {type(self).__name__}:"
            raise RuntimeError("\n\t".join([heading, *problems]))
        if assign:
            # All are made before the first takes its place.
            made = {name: own[name].over_memory_of(value) for name, value in found.items()}
            for module_name, module in self.named_modules(remove_duplicate=False):
                for key in module._parameters:
                    if (name := _join(module_name, key)) in made:
                        module._parameters[key] = made[name]
            return keys
        with no_grad():
            for name, value in found.items():
                own[name].copy_(value)
        return keys

    # -- what it looks like ------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """Return what stands between the parentheses of `repr`; for subclasses."""
        return ""

    def __repr__(self) -> str:
        lines = [self.extra_repr()] if self.extra_repr() else []
        for name, child in self.named_children():
            lines.append(f"({name}): " + repr(child).replace("\n", "\n  "))
        inside = "\n  ".join(["", *lines]) + "\n" if self._modules else "".join(lines)
        return f"{type(self).__name__}({inside})"


def _told(keys: IncompatibleKeys) -> Iterator[str]:
    for kind, names in (("Missing", keys.missing_keys), ("Unexpected", keys.unexpected_keys)):
        if names:
            quoted = ", ".join(f'"{name}"' for name in names)
            yield f"{kind} key(s) in state_dict: {quoted}. "


def _misfit(name: str, value: Any, shape: tuple[int, ...]) -> Iterator[str]:
    if not isinstance(value, Tensor | np.ndarray):
        yield (
            f'While copying the parameter named "{name}", expected torch.Tensor or Tensor-like '
            f"object from checkpoint but received {type(value)}"
        )
    elif value.dtype.kind not in "biuf" and not is_floating(value.dtype):
        yield f'While copying the parameter named "{name}", got an array of {value.dtype}.'
    elif tuple(value.shape) != shape:
        yield (
            f"size mismatch for {name}: copying a param with shape torch.Size({list(value.shape)}) "
            f"from checkpoint, the shape in current model is torch.Size({list(shape)})."
        )


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
