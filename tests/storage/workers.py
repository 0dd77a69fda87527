"""What other processes do in the tests of handles; a module, so that spawn can import it."""


def look(table, ids):
    """Rows, mode, and process-independent facts of a table that came by pickle."""
    return table[ids].tolist(), table.mode, table.step, table.columns, str(table.path)
