"""What other processes do in the tests of handles; a module, so that spawn can import it."""


def look(table, ids):
    """Rows, mode, and process-independent facts of a table that came by pickle."""
    return table[ids].tolist(), table.mode, table.step, table.columns, str(table.path)


def watch(table, gathers):
    """What a reader that came by pickle sees: its view, and whether rows ever differed."""
    mixed = False
    for _ in range(gathers):
        rows = table[[1, 2, 3]]
        mixed |= bool((rows != rows[0, 0]).any())
    return table.view, mixed
