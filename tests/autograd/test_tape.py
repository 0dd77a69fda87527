"""The engine by itself: what travels on it here are numbers and strings, not arrays."""

from __future__ import annotations

import ast
import gc
import inspect
import threading
import weakref
from pathlib import Path

import pytest

from mmembed.autograd import tape
from mmembed.autograd.tape import AccumulateGrad, Edge, Node, Saved, Version, backward


class Leaf:
    """Collects what arrives, and whether it may be kept."""

    def __init__(self):
        self.received = []
        self.node = AccumulateGrad(lambda gradient, owned: self.received.append((gradient, owned)))


def times(factor):
    return lambda upstream: upstream * factor


def same(upstream):
    return upstream


def operation(*edges, name="Operation"):
    """Return a node from (target, rule, *saved) edges."""
    return Node(name, [Edge(target, rule, tuple(saved)) for target, rule, *saved in edges])


def test_gradients_of_a_chain_are_applied_in_order():
    leaf = Leaf()
    first = operation((leaf.node, lambda upstream: upstream + "a"))
    second = operation((first, lambda upstream: upstream + "b"))

    backward(second, "-")

    assert [gradient for gradient, _ in leaf.received] == ["-ba"]


def test_gradients_that_meet_at_a_node_are_added_before_it_runs():
    leaf = Leaf()
    runs = []
    shared = operation((leaf.node, lambda upstream: runs.append(upstream) or upstream))
    left = operation((shared, times(2)))
    right = operation((shared, times(3)))
    root = operation((left, same), (right, same), (shared, same))

    backward(root, 1)

    assert runs == [6]
    assert [gradient for gradient, _ in leaf.received] == [6]


def test_a_leaf_used_twice_by_one_operation_receives_one_sum():
    leaf = Leaf()
    root = operation((leaf.node, times(2)), (leaf.node, times(3)))

    backward(root, 1)

    assert [gradient for gradient, _ in leaf.received] == [5]


def test_sums_are_formed_in_order_of_decreasing_sequence():
    leaf = Leaf()
    parts = [operation((leaf.node, lambda upstream, i=i: upstream + str(i))) for i in range(9)]
    root = operation(*[(parts[i], same) for i in (4, 0, 8, 2, 6, 1, 7, 3, 5)])

    backward(root, "")

    assert leaf.received[0][0] == "876543210"


def test_gradients_are_combined_with_plus_and_never_in_place():
    class Value:
        def __add__(self, other):
            return "sum"

        def __iadd__(self, other):
            raise AssertionError("added in place")

    leaf = Leaf()
    root = operation((leaf.node, lambda _: Value()), (leaf.node, lambda _: Value()))

    backward(root, None)

    assert leaf.received[0][0] == "sum"


def test_rules_receive_the_saved_values_after_the_upstream():
    leaf = Leaf()
    root = operation((leaf.node, lambda *values: values, Saved("x", Version()), 5))

    backward(root, 1)

    assert leaf.received[0][0] == (1, "x", 5)


def test_nothing_runs_when_one_saved_value_of_an_operation_was_changed():
    leaf, version = Leaf(), Version()
    root = operation((leaf.node, times(2)), (leaf.node, same, Saved([1], version)))
    version.bump()

    with pytest.raises(RuntimeError, match=r"\[list\] is at version 1; expected version 0 instead"):
        backward(root, 1)

    assert leaf.received == []


def test_an_operation_that_saved_something_runs_once():
    leaf = Leaf()
    root = operation((leaf.node, lambda upstream, factor: upstream * factor, 7))
    backward(root, 1)

    with pytest.raises(RuntimeError) as caught:
        backward(root, 1)

    assert str(caught.value) == tape.FREED


def test_retain_graph_keeps_what_was_saved():
    leaf = Leaf()
    root = operation((leaf.node, lambda upstream, factor: upstream * factor, 7))

    backward(root, 1, retain_graph=True)
    backward(root, 2, retain_graph=True)

    assert [gradient for gradient, _ in leaf.received] == [7, 14]


def test_an_operation_that_saved_nothing_runs_again():
    leaf = Leaf()
    root = operation((leaf.node, times(3)))

    backward(root, 1)
    backward(root, 1)

    assert [gradient for gradient, _ in leaf.received] == [3, 3]


def test_saved_values_are_dropped_after_backward():
    class Big:
        pass

    leaf, big = Leaf(), Big()
    alive = weakref.ref(big)
    root = operation((leaf.node, lambda upstream, big: upstream, big))
    del big

    backward(root, 1)

    gc.collect()
    assert alive() is None


@pytest.mark.parametrize(
    ("owned", "rules", "expected"),
    [
        (False, [same], [False]),
        (True, [same], [True]),
        (True, [same, same], [False, False]),
        (False, [times(2)], [True]),
        (True, [same, times(2)], [False, True]),
    ],
)
def test_a_leaf_is_told_whether_it_may_keep_what_it_receives(owned, rules, expected):
    leaves = [Leaf() for _ in rules]
    root = operation(*[(leaf.node, rule) for leaf, rule in zip(leaves, rules, strict=True)])

    backward(root, 1000, owned=owned, is_new=lambda value: True)

    assert [leaf.received[0][1] for leaf in leaves] == expected


def test_without_is_new_only_sums_and_what_came_alone_may_be_kept():
    made, summed = Leaf(), Leaf()
    root = operation((made.node, times(2)), (summed.node, times(2)), (summed.node, times(2)))

    backward(root, 1000)

    assert (made.received[0][1], summed.received[0][1]) == (False, True)


LENGTH = 200_000


def test_a_chain_of_200_000_operations_runs_and_is_collected_without_recursion():
    outcome = []

    def run():
        leaf = Leaf()
        node = leaf.node
        for _ in range(LENGTH):
            node = operation((node, lambda upstream, one: upstream + one, 1))
        last = weakref.ref(node)
        backward(node, 0)
        del node
        outcome.append((leaf.received, last()))

    before = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)

    assert outcome == [([(LENGTH, False)], None)]


def test_nodes_have_torchs_names_and_show_where_gradients_go():
    leaf = Leaf()
    node = operation((leaf.node, same), name="MulBackward0")

    assert node.name() == "MulBackward0"
    assert repr(node) == f"<MulBackward0 object at {id(node):#x}>"
    assert node.next_functions == ((leaf.node, 0),)
    assert leaf.node.name() == "AccumulateGrad"
    assert leaf.node.next_functions == ()


def test_grad_mode_nests_and_is_restored_after_errors():
    with tape.no_grad():
        with tape.enable_grad():
            assert tape.is_grad_enabled()
        assert not tape.is_grad_enabled()
        with pytest.raises(KeyError), tape.enable_grad():
            raise KeyError
        assert not tape.is_grad_enabled()

    assert tape.is_grad_enabled()


def test_a_grad_mode_can_be_entered_again_and_inside_itself():
    mode = tape.no_grad()

    with mode, mode:
        assert not tape.is_grad_enabled()
    with mode:
        assert not tape.is_grad_enabled()

    assert tape.is_grad_enabled()


@pytest.mark.parametrize("decorate", [tape.no_grad, tape.no_grad()])
def test_no_grad_decorates_with_and_without_brackets(decorate):
    @decorate
    def function(a, b=2):
        """Tell."""
        return a, b, tape.is_grad_enabled()

    assert function(1, b=3) == (1, 3, False)
    assert tape.is_grad_enabled()
    assert (function.__name__, function.__doc__) == ("function", "Tell.")


def test_a_decorated_function_may_call_itself():
    @tape.no_grad()
    def countdown(n):
        return [tape.is_grad_enabled(), *(countdown(n - 1) if n else [])]

    assert countdown(3) == [False] * 4
    assert tape.is_grad_enabled()


def test_decorating_a_generator_function_is_refused():
    def numbers():
        yield 1

    with pytest.raises(
        TypeError, match=r"cannot decorate .*numbers.*Use `with no_grad\(\):` inside"
    ):
        tape.no_grad()(numbers)


def test_set_grad_enabled_acts_at_once_and_with_restores():
    tape.set_grad_enabled(False)
    assert not tape.is_grad_enabled()
    tape.set_grad_enabled(True)

    with tape.set_grad_enabled(False):
        assert not tape.is_grad_enabled()

    assert tape.is_grad_enabled()


def test_set_grad_enabled_decorates_without_switching():
    function = tape.set_grad_enabled(False)(tape.is_grad_enabled)

    assert tape.is_grad_enabled()
    assert function() is False


def test_each_thread_has_its_own_grad_mode():
    seen = []

    with tape.no_grad():
        thread = threading.Thread(target=lambda: seen.append(tape.is_grad_enabled()))
        thread.start()
        thread.join()

    assert seen == [True]


def test_the_tape_imports_only_the_standard_library():
    source = Path(inspect.getfile(tape)).read_text()
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            imported.add("." * node.level + (node.module or ""))

    assert imported == {
        "__future__", "contextlib", "functools", "heapq", "inspect", "itertools", "threading",
        "collections.abc", "typing",
    }  # fmt: skip


@pytest.mark.parametrize("word", ["numpy", "ndarray", "RowGrad", "sparse", "Tensor", "np."])
def test_the_tapes_code_names_no_kind_of_value(word):
    tree = ast.parse(Path(inspect.getfile(tape)).read_text())
    code = "\n".join(
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Attribute | ast.Import | ast.ImportFrom | ast.arg)
    )

    assert word not in code
