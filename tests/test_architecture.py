"""The floors of ARCHITECTURE.md: a module imports only from floors below its own."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mmembed

PACKAGE = Path(mmembed.__file__).parent
FLOORS = {
    "buffers": 0,
    "errors": 0,
    "narrow": 1,
    "memory": 0,
    "spill": 2,
    "ids": 2,
    "autograd": 2,
    "kernels": 3,
    "_kernels": 3,
    "devices": 4,
    "rows": 4,
    "storage": 5,
    "functional": 6,
    "parameter": 6,
    "upcoming": 7,
    "vocab": 6,
    "neighbors": 6,
    "nn": 7,
    "optim": 7,
    "training": 8,
    "cli": 9,
    "__init__": 9,
    "__main__": 10,
}
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def room(module):
    """The part of the house a module is in: `storage/table.py` is in `storage`."""
    return module.parts[0].removesuffix(".py")


def imports(module, text):
    """Yield (room, name) for everything of mmembed that a module's text imports, at any depth."""
    package = ["mmembed", *module.parts[:-1]]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "mmembed":
                    yield [*alias.name.split("."), "__init__"][1], ""
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            path = base + (node.module.split(".") if node.module else [])
            if path[:1] != ["mmembed"]:
                continue
            for alias in node.names:
                full = [*path, alias.name]
                known = len(path) > 1 or alias.name in FLOORS
                yield (full[1] if known else "__init__"), alias.name


def faults(module, text):
    """Return what a module imports that its floor does not allow."""
    own = room(module)
    found = []
    for other, name in imports(module, text):
        if other == own:
            continue
        if FLOORS[other] >= FLOORS[own]:
            found.append(f"{module} (floor {FLOORS[own]}) imports {other} (floor {FLOORS[other]})")
        if name.startswith("_"):
            found.append(f"{module} reaches for the private name {name} of {other}")
    return found


def test_every_module_has_a_floor():
    assert {room(module) for module in MODULES} | {"_kernels"} == set(FLOORS)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_module_imports_only_from_floors_below(module):
    assert faults(module, (PACKAGE / module).read_text()) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("autograd/tape.py", "from ..kernels import gather"),
        ("kernels/reference.py", "from mmembed.rows import RowPlan"),
        ("storage/table.py", "from .. import nn"),
        ("optim/sgd.py", "import mmembed.nn.module"),
        ("functional/bags.py", "from ..parameter import Parameter"),
        ("nn/module.py", "def f():\n    from ..training import train"),
        ("cli/train.py", "from .. import Table"),
        ("nn/module.py", "from ..autograd.tape import _mode"),
    ],
)
def test_an_upward_or_private_import_is_found(module, line):
    assert len(faults(Path(module), line)) == 1


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_module_says_what_it_must_not_know_if_it_is_more_than_names(module):
    text = (PACKAGE / module).read_text()
    head = ast.get_docstring(ast.parse(text)) or ""

    assert head, f"{module} has no docstring"
    small = len(text.splitlines()) < 100
    assert small or "ust not" in head or "Knows" in head or module.name == "__init__.py"


HEAVY = ("numba", "torch", "matplotlib", "rich", "cython", "scipy", "ctypes.util")


def test_importing_mmembed_loads_nothing_heavy():
    script = f"import sys, mmembed; print([m for m in {HEAVY!r} if m in sys.modules])"

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


def test_the_default_kernels_load_without_numba():
    script = (
        "import sys, mmembed; mmembed.Embedding(3, 2)([0]); "
        "print('numba' in sys.modules, mmembed.backend() == 'numba')"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout.split() in (["False", "False"], ["True", "True"])
