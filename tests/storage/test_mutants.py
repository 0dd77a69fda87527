"""The tests are tested: each of these mistakes, put into the code, must fail its named test."""

from __future__ import annotations

import pytest

from mmembed.storage import (
    Table,
    access,
    column_files,
    directory,
    files,
    format,
    locks,
    records,
    store,
    table,
)
from mmembed.storage.directory import DirectoryStore
from mmembed.storage.files import Directory
from mmembed.storage.health import Health
from mmembed.storage.locks import WriterLock
from mmembed.storage.opened import Opened
from mmembed.storage.store import MemoryStore
from mmembed.storage.superfile import SuperFile

from . import (
    test_bad_files,
    test_commit,
    test_crash,
    test_create,
    test_format,
    test_handles,
    test_locks,
    test_records,
    test_resize,
    test_table,
)
from .examples import numbered_table, small_table
from .mutation import put_in

pytestmark = [
    # A test that fails leaves tables behind.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


def damaged(name):
    """The test of one entry of test_bad_files.DAMAGES."""
    damage, message = test_bad_files.DAMAGES[name]
    return lambda path, patch: test_bad_files.test_a_damaged_table_is_refused_and_nothing_changes(
        small_table(path), damage, message
    )


def forged(name):
    """The test of one entry of test_format.FIELD_DAMAGES."""
    body, message = test_format.FIELD_DAMAGES[name]
    return lambda path, patch: test_format.test_a_damaged_field_with_a_right_checksum_is_refused(
        body, message
    )


def with_path(test, *more):
    return lambda path, patch: test(path, *more)


def with_small(test, *more):
    return lambda path, patch: test(small_table(path), *more)


def with_patch(test, *more):
    return lambda path, patch: test(path, patch, *more)


def with_small_and_patch(test, *more):
    return lambda path, patch: test(small_table(path), patch, *more)


def alone(test):
    return lambda path, patch: test()


order = with_patch(
    test_commit.test_a_commit_syncs_changed_columns_before_super_and_then_begins_the_journal
)
created = with_patch(test_create.test_create_reserves_writes_syncs_and_only_then_renames)

killed = with_patch(
    lambda path, patch: test_resize.test_a_kill_at_any_call_leaves_the_old_rows_or_the_new(
        path.parent, patch
    )
)
power_lost = with_patch(
    lambda path, patch: test_resize.test_a_loss_of_power_at_any_call_leaves_the_old_rows_or_the_new(
        path.parent, patch
    )
)
failing = with_patch(
    lambda path, patch: test_resize.test_a_growth_that_fails_anywhere_is_undone_or_recorded(
        path.parent, patch, False
    )
)
interrupted = with_patch(
    lambda path, patch: test_resize.test_a_growth_that_fails_anywhere_is_undone_or_recorded(
        path.parent, patch, True
    )
)


steps = with_patch(
    test_resize.test_a_growth_is_marked_written_recorded_and_settled_in_this_order, "power"
)


def grown(on_disk):
    return lambda path, patch: test_resize.test_a_grown_table_is_as_if_made_with_that_many_rows(
        path if on_disk else None, "float32", "normal"
    )


MUTANTS = {
    # Commit
    "super before the rows": (
        DirectoryStore, "commit", "            if power:\n                self._flush()",
        "            last.record(superblock)\n            if power:\n                self._flush()",
        order,
    ),
    "rows not synced": (DirectoryStore, "_flush", "memory.flush()", "pass", order),
    "super not synced": (SuperFile, "record", "self.file.sync()", "pass", order),
    "one slot": (
        format, "slot_offset", "(epoch & 1)", "0",
        alone(test_format.test_sizes_are_those_of_the_format),
    ),
    "a failed sync is forgiven": (
        Health, "fatal", "self.failure = error", "pass",
        with_small_and_patch(
            test_crash.test_a_commit_that_fails_anywhere_ends_writing_and_is_done_or_not, False
        ),
    ),
    "an interrupt is forgiven": (
        DirectoryStore, "commit", "self._health.fatal()", "self._health.fatal(OSError)",
        with_small_and_patch(
            test_crash.test_a_commit_that_fails_anywhere_ends_writing_and_is_done_or_not, True
        ),
    ),
    "taken columns forgotten": (
        directory._Door, "__getitem__", "self._taken.add(name)", "pass", order,
    ),
    # Marks
    "dirty mark not synced": (
        SuperFile, "rewrite", "self.file.sync()", "pass",
        with_patch(
            test_commit.test_the_dirty_mark_is_synced_at_both_levels_before_the_journal_begins,
            "process",
        ),
    ),
    "both copies rewritten before a sync": (
        SuperFile, "rewrite", "self.file.write(copy, at)", "self.file.write(copy * 2, offset)",
        with_patch(test_commit.test_a_mark_is_written_one_copy_at_a_time),
    ),
    "no dirty mark": (
        DirectoryStore, "_recover", "clean=False", "clean=newest.clean",
        with_small(test_commit.test_opening_for_writing_clears_the_clean_mark_and_closing_sets_it),
    ),
    "clean mark before the rows": (
        DirectoryStore, "_mark_clean", "self._flush()", "pass",
        with_patch(test_commit.test_at_level_process_only_closing_syncs),
    ),
    "uncommitted rows stay when the table is closed": (
        DirectoryStore, "close", "if self._pending", "if False",
        with_path(test_commit.test_a_block_that_raises_is_not_committed),
    ),
    "only columns of this writer are synced before the clean mark": (
        DirectoryStore, "__init__", "set() if self.clean else set(self._files.columns)", "set()",
        with_patch(test_commit.test_a_table_found_not_clean_is_synced_whole_before_it_is_marked_clean),
    ),
    "closing forgets to commit": (
        Table, "close", "if commit and self._store.pending", "if False",
        with_path(test_commit.test_closing_commits_what_was_written),
    ),
    "leaving a block that raised commits": (
        Table, "__exit__", "kind is None", "True",
        with_path(test_commit.test_a_block_that_raises_is_not_committed),
    ),
    # Creation
    "rename before the names are synced": (Directory, "sync", "os.fsync(self.fd)", "pass", created),
    "files not synced at creation": (column_files, "write_column", "file.sync()", "pass", created),
    "space not reserved": (column_files, "write_column", "file.reserve", "bool", created),
    "draft kept on Ctrl-C": (
        files, "draft", "except BaseException", "except Exception",
        with_patch(test_create.test_a_create_that_fails_anywhere_leaves_nothing, True),
    ),
    "an existing directory is renamed onto": (
        files, "_rename_to_free_name", "if not _renameat2(old, new):", "if os.rename(old, new):",
        with_patch(test_create.test_what_appears_during_the_creation_is_not_replaced, True),
    ),
    "umask decides": (
        Directory, "create_file", "os.fchmod(file.fd, 0o600)", "pass",
        with_path(test_create.test_files_are_private_whatever_the_umask_is),
    ),
    "files for everybody": (
        Directory, "create_file", "os.fchmod(file.fd, 0o600)", "os.fchmod(file.fd, 0o644)",
        with_path(test_create.test_files_are_private_whatever_the_umask_is),
    ),
    # Opening
    "links followed": (
        Directory, "open_file", "os.O_NOFOLLOW | ", "", damaged("column a symlink"),
    ),
    "kind of file not checked": (
        Directory, "open_file", "not stat.S_ISREG(status.st_mode)", "False",
        damaged("column a FIFO"),
    ),
    "second names accepted": (
        Directory, "open_file", "status.st_nlink != 1", "False", damaged("column with two names"),
    ),
    "mode not checked": (
        Directory, "_trust", "stat.S_IWGRP | stat.S_IWOTH", "0",
        with_small(
            test_bad_files.test_a_table_that_others_may_write_to_is_refused_unless_allowed,
            "super", 0o620,
        ),
    ),
    "owner not checked": (
        Directory, "_trust", "status.st_uid not in", "() and status.st_uid not in",
        with_small_and_patch(
            lambda path, patch: (
                test_bad_files.test_a_table_of_another_user_is_refused_unless_allowed(
                    path, "super", patch
                )
            )
        ),
    ),
    "longer files accepted": (
        column_files, "_check", "least <= size <= most", "least <= size",
        damaged("column long by a byte"),
    ),
    "header not compared": (
        format, "is_header", "return found == header", "return True", damaged("columns swapped"),
    ),
    "views can be made writable": (
        column_files, "map_column", "data.toreadonly()", "data",
        with_small(test_handles.test_views_of_tables_on_disk_refuse_writes, "r+"),
    ),
    "pickles do not tell tables apart": (
        table, "_reopen", "table.uuid.hex != table_uuid", "False",
        lambda path, patch: test_handles.test_unpickling_notices_another_table_in_its_place(
            small_table(path), path
        ),
    ),
    # Format
    "checksum not compared": (
        format, "decode_copy", "zlib.crc32(body) != checksum", "False",
        alone(test_format.test_a_wrong_checksum_is_refused_with_both),
    ),
    "features not looked at": (
        format, "decode_copy", "if features & ~FEATURES", "if False", forged("features"),
    ),
    "length of the json not checked": (
        format, "decode_copy", "if json_bytes > JSON_BYTES", "if False", forged("json too long"),
    ),
    "bytes not compared with what is written": (
        format, "decode_copy", "if canonical != data", "if False", forged("zeros behind"),
    ),
    "level not checked": (
        format, "_decode_fields", "if durability >= len(DURABILITIES)", "if False",
        forged("durability"),
    ),
    "the lowest epoch counts": (
        format, "decode_super", "max(c.epoch", "min(c.epoch",
        alone(test_format.test_the_highest_epoch_counts),
    ),
    "clean wins": (
        format, "decode_super", "(not copy.clean, copy.attempt)", "(copy.clean, copy.attempt)",
        lambda path, patch: test_format.test_not_clean_wins_among_copies_of_an_epoch(1),
    ),
    "copies may contradict each other": (
        format, "decode_super", "if any(_committed", "if False and any(_committed",
        alone(test_format.test_copies_of_an_epoch_that_contradict_each_other_are_refused),
    ),
    "uuids may differ": (
        format, "decode_super", "> 1", "> 9",
        alone(test_format.test_slots_of_two_tables_are_refused),
    ),
    "slots not checked": (
        format, "read_copies", "if copy.epoch & 1 != offset // SLOT_BYTES", "if False",
        alone(test_format.test_an_epoch_in_the_wrong_slot_is_refused),
    ),
    "huge files": (
        format, "file_bytes", "if max(", "if 0 * max(",
        alone(test_format.test_a_file_of_more_than_2_to_the_63_bytes_is_refused),
    ),
    # Growth
    "growth not marked": (DirectoryStore, "resize", "last.rewrite(marked)", "pass", killed),
    "new rows not synced": (column_files, "extend_column", "file.sync()", "pass", power_lost),
    "new rows recorded before they are written": (
        DirectoryStore, "resize",
        "                for column, file in files:\n",
        "                last.record(grown)\n                for column, file in files:\n", killed,
    ),
    "new number not synced": (SuperFile, "record", "self.file.sync()", "pass", steps),
    "headers rewritten before the new number is recorded": (
        DirectoryStore, "resize", "last.record(grown)", "pass", steps,
    ),
    "headers left": (
        column_files, "settle_column", "file.write(", "bool, (",
        with_path(test_resize.test_numpy_sees_the_new_rows),
    ),
    "headers not synced": (column_files, "settle_column", "file.sync()", "pass", power_lost),
    "torn headers refused": (
        format, "is_header", "byte in two for", "list(two) in ([byte], [byte, byte]) for",
        power_lost,
    ),
    "longer files refused": (
        column_files, "_check", "superblock.other_rows)", "superblock.rows)", killed,
    ),
    "growth not settled at opening": (
        DirectoryStore, "_recover", "if last.last.growing", "if False", killed,
    ),
    "undone growth not cut": (column_files, "settle_column", "file.cut", "bool", killed),
    "failed growth not undone": (
        DirectoryStore, "resize", "if self._health.failure is None and", "if False and", failing,
    ),
    "interrupted growth not undone": (
        DirectoryStore, "resize", "except BaseException", "except Exception", interrupted,
    ),
    "growth undone after it was recorded": (
        DirectoryStore, "resize", "if self._health.failure is None and", "if", failing,
    ),
    "readers look once": (
        Opened, "_check_and_map", "if superblock == before", "if True",
        with_patch(test_resize.test_a_reader_that_opens_during_a_growth_is_not_refused),
    ),
    "a growth commits": (
        DirectoryStore, "resize", "self.superblock, last.last", "self.superblock, self.superblock",
        with_path(test_resize.test_a_growth_does_not_commit),
    ),
    "old rows begin anew": (
        column_files, "extend_column", "start=rows", "start=0", grown(on_disk=True),
    ),
    "old rows begin anew in memory": (
        MemoryStore, "resize", "array[:before] = ", "_ = ", grown(on_disk=False),
    ),
    "new rows are those from 0 on": (
        store, "initial_blocks", "column.init.fill(values, first,",
        "column.init.fill(values, first - start,", grown(on_disk=True),
    ),
    "tables shrink": (
        Table, "resize", "if rows < last.rows", "if False",
        lambda path, patch: (
            test_resize.test_a_number_of_rows_that_cannot_be_is_refused_and_nothing_changes(
                path, 4, ValueError, "do not shrink"
            )
        ),
    ),
    "growth in a writing block": (
        Table, "resize", "if self._blocks", "if False",
        with_path(test_resize.test_a_growth_in_a_writing_block_is_refused),
    ),
    # Records
    "new records are those from 0 on": (
        column_files, "_record_blocks", "field.init.fill(own, first,",
        "field.init.fill(own, first - start,",
        with_path(test_records.test_a_growth_adds_initial_records),
    ),
    "fill is given every column": (
        column_files, "_record_blocks", ' and field.name == "weight"', "",
        with_path(test_records.test_fill_is_given_contiguous_rows_of_weight),
    ),
    "records are synced column by column": (
        DirectoryStore, "_flush", "dict.fromkeys(maps)", "maps",
        with_patch(test_records.test_a_commit_syncs_the_file_of_records_once),
    ),
    "records without a feature": (
        format, "encode_copy", "None else RECORDS", "None else 0",
        with_path(test_records.test_a_table_of_records_has_the_feature),
    ),
    "fields that are not aligned": (
        records, "_places", "_up(at, column.numpy_dtype.itemsize)", "at",
        with_path(
            test_records.test_numbers_are_aligned_and_what_lies_between_them_is_zero, "bfloat16"
        ),
    ),
    "records across pages": (
        records, "stride_within_pages", "if least > page", "if True",
        with_path(test_records.test_records_can_be_kept_within_pages),
    ),
    # Locks
    "no lock": (
        locks, "_set_lock", "fcntl.fcntl(", "bool, (",
        with_small(test_locks.test_a_second_writer_in_this_process_is_refused),
    ),
    "children keep the lock": (
        WriterLock, "__init__", "_held.add(file)  #", "#",
        with_small(test_locks.test_a_forked_child_does_not_free_the_lock_of_its_parent),
    ),
    "children may write": (
        DirectoryStore, "check_writable", "self._pid != os.getpid()", "False",
        with_small(test_locks.test_a_forked_child_may_read_and_may_not_write),
    ),
    "a replaced lock file is not noticed": (
        Opened, "_take_lock", "if self.directory.identity", "if False and self.directory.identity",
        with_small_and_patch(
            test_locks.test_a_lock_file_that_was_replaced_while_it_was_locked_is_refused
        ),
    ),
    # Rows
    "the first of the values stays": (
        access, "settle", "np.unique(flat[::-1], return_index=True)",
        "(lambda u: (u[0], flat.size - 1 - u[1]))(np.unique(flat, return_index=True))",
        lambda path, patch: test_table.test_the_last_of_the_values_for_an_id_stays(
            numbered_table(None)
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("owner", "name", "old", "new", "check"), MUTANTS.values(), ids=MUTANTS.keys()
)
def test_a_mistake_is_caught(path, monkeypatch, owner, name, old, new, check):
    put_in(monkeypatch, owner, name, old, new)

    with monkeypatch.context() as patch, pytest.raises((Exception, pytest.fail.Exception)):
        check(path, patch)


@pytest.mark.parametrize("check", [mutant[-1] for mutant in MUTANTS.values()], ids=MUTANTS.keys())
def test_without_the_mistake_the_check_passes(path, monkeypatch, check):
    check(path, monkeypatch)
