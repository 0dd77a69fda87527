"""What the package may import, and who may write to arrays."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mmembed.autograd

PACKAGE = Path(mmembed.autograd.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
LEVELS = {
    "dtypes": 0,
    "tape": 0,
    "memory": 1,
    "random": 1,
    "variable": 2,
    "recording": 3,
    "conversion": 3,
    "ops": 4,
    "inplace": 5,
    "tensor": 6,
    "creation": 7,
    "": 8,
}
"""Floors inside the package: a module imports only from below its own (in ops/, also beside)."""


def module_of(path):
    """Return the first name of a file's module inside the package."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imports(path):
    """Yield (level, module, names) of every import outside `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text())
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.ImportFrom):
            yield node.level, node.module or "", [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield 0, alias.name, []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_lower_floors(path):
    own = module_of(path)
    depth = len(path.relative_to(PACKAGE).parts)

    for level, module, names in imports(path):
        if level == 0:
            root = module.split(".")[0]
            assert root == "numpy" or root in sys.stdlib_module_names
        elif level == depth + 1:
            assert module in ("errors", "narrow")
        elif level == depth:
            targets = [module.split(".")[0]] if module else names
            for target in targets:
                assert LEVELS[target] < LEVELS[own] or target == own == "ops"
        else:
            assert own == "ops"


def test_a_planted_import_is_found(tmp_path):
    planted = tmp_path / "tape.py"
    planted.write_text("from .tensor import Tensor\nimport torch\n")

    found = list(imports(planted))

    assert found == [(1, "tensor", ["Tensor"]), (0, "torch", [])]


WRITERS = {"variable.py"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_writes_to_a_tensors_array_but_the_door(path):
    if path.name in WRITERS:
        return
    tree = ast.parse(path.read_text())

    for node in ast.walk(tree):
        targets = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AugAssign):
            targets = [node.target]
        for target in targets:
            text = ast.unparse(target)
            assert ".array" not in text, text
            assert "._array" not in text, text


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, mmembed.autograd; "
        "print([name for name in ('torch', 'numba', 'scipy', 'matplotlib', 'rich') "
        "if name in sys.modules])"
    )

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert result.stdout.strip() == "[]"


def test_every_public_name_exists_once():
    names = mmembed.autograd.__all__

    assert len(set(names)) == len(names)
    assert all(hasattr(mmembed.autograd, name) for name in names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_what_it_must_not_know_and_stays_short(path):
    text = path.read_text()

    assert len(text.splitlines()) <= 400
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring.splitlines()[0].endswith((".", ".,"))
    assert "not know" in docstring or "no tensors" in docstring or "Must not" in docstring
