"""Putting a mistake into the code."""

from __future__ import annotations

import inspect
import sys
import textwrap


def put_in(monkeypatch, owner, name, *texts):
    """Put new for old in a function of a class, or of a module and wherever it is imported.

    `texts` are old and new by turns.
    """
    function = owner.__dict__[name]
    code = inspect.unwrap(getattr(function, "__func__", function))
    source = inspect.getsource(code)
    for old, new in zip(texts[::2], texts[1::2], strict=True):
        assert old in source
        source = source.replace(old, new)
    made: dict[str, object] = {}
    exec(compile(textwrap.dedent(source), f"<mutant of {name}>", "exec"), code.__globals__, made)
    if inspect.isclass(owner):
        monkeypatch.setattr(owner, name, made[name])
        return
    for module_name, module in list(sys.modules.items()):
        ours = module_name.startswith(("mmembed.", "tests."))
        if ours and module.__dict__.get(name) is function:
            monkeypatch.setattr(module, name, made[name])
