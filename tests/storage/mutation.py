"""Putting a mistake into the code."""

from __future__ import annotations

import inspect
import sys
import textwrap


def put_in(monkeypatch, owner, name, old, new):
    """Put `new` for `old` in a function of a class, or of a module and wherever it is imported."""
    function = owner.__dict__[name]
    code = inspect.unwrap(getattr(function, "__func__", function))
    source = inspect.getsource(code)
    assert old in source
    made: dict[str, object] = {}
    text = textwrap.dedent(source.replace(old, new))
    exec(compile(text, f"<mutant of {name}>", "exec"), code.__globals__, made)
    if inspect.isclass(owner):
        monkeypatch.setattr(owner, name, made[name])
        return
    for module_name, module in list(sys.modules.items()):
        ours = module_name.startswith(("mmembed.", "tests."))
        if ours and module.__dict__.get(name) is function:
            monkeypatch.setattr(module, name, made[name])
