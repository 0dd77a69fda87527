"""`mmembed stats` and `mmembed doctor`: what they say of a table and of the disk below it."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

import mmembed.cli.doctor as doctor
from mmembed import memory
from mmembed.cli import main
from mmembed.optim import Adagrad
from mmembed.storage import Table, device, page_calls, process

from .commands import refusal


@pytest.fixture
def table(tmp_path):
    with Table.create(tmp_path / "t", 5000, 16) as table:
        table.add_column("weight.sum", scalar=True)
    return tmp_path / "t"


def said_by(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return said.out


# -- stats -----------------------------------------------------------------------------------------


def test_stats_says_of_each_column_what_is_on_the_disk_and_in_memory(table, capsys):
    facts = json.loads(said_by(capsys, "stats", table, "--json"))

    assert facts["columns"]["weight"]["bytes"] == 5000 * 64
    assert facts["columns"]["weight"]["on disk"] >= 5000 * 64
    if page_calls.BUILT:
        assert 0 <= facts["columns"]["weight"]["resident"] <= 1
    assert facts["writer"] is None
    lines = said_by(capsys, "stats", table).splitlines()
    assert lines[0].startswith("weight: 320 kB, ")
    assert lines[-1] == "no process on this machine has it open for writing"


def test_stats_names_the_writer_and_what_it_has_read(table, capsys):
    with Table.open(table, "r+"):
        facts = json.loads(said_by(capsys, "stats", table, "--json"))
        said = said_by(capsys, "stats", table)

    assert facts["writer"]["process"] == os.getpid()
    assert facts["writer"]["major faults"] >= 0
    assert f"writer: process {os.getpid()}, " in said


def test_stats_watches(table, capsys):
    with Table.open(table, "r+"):
        lines = said_by(capsys, "stats", table, "--watch", "0.01", "--count", "3").splitlines()

    assert len(lines) == 4
    assert lines[0].split() == ["faults/s", "read/s", "written/s", "dirty", "in", "memory"]
    assert all("weight" in line for line in lines[1:])
    last = json.loads(
        said_by(capsys, "stats", table, "--watch", "0.01", "--count", "1", "--json").splitlines()[
            -1
        ]
    )
    assert last["per second"] == {}


def test_stats_refuses_a_pause_of_nothing_and_what_is_no_table(table, tmp_path, capsys):
    assert "above 0" in refusal(capsys, main(["stats", str(table), "--watch", "0"]))
    assert "no table at" in refusal(capsys, main(["stats", str(tmp_path / "none")]))


def test_the_stats_of_a_table_count_its_lookups(tmp_path):
    with Table.create(tmp_path / "t", 5000, 16) as table:
        table.gather(np.arange(100))
        said = table.stats()

    assert said["columns"]["weight"]["ids"] == 100
    assert said["columns"]["weight"]["bytes"] == 5000 * 64
    assert set(said["process"]) == {"major faults", "bytes read", "bytes written"}
    json.dumps(said)


def test_the_stats_of_a_table_in_memory_are_its_sizes():
    said = Table.create(None, 5, 2).stats()

    assert said["columns"] == {"weight": {"bytes": 40}}
    assert said["read amplification"] is None


# -- doctor ----------------------------------------------------------------------------------------


def test_doctor_measures_the_disk_and_advises(table, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(doctor.probe, "FILE_BYTES", 1 << 20)

    facts = json.loads(said_by(capsys, "doctor", tmp_path, "--json", "--seconds", "0.05"))
    said = said_by(capsys, "doctor", table, "--seconds", "0.05")

    assert facts["page bytes"] == doctor.PAGE
    assert facts["memory bytes"] == memory.limit()
    if "not measured" not in facts:
        assert facts["reads per second, 64 at a time"] > 0
    # A busy machine may not come to a single read in the time.
    if facts.get("reads per second, one at a time"):
        assert any("8192 rows" in text for text in facts["advice"])
    assert "pages touched per row" in said
    assert list(tmp_path.iterdir()) == [table]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"file system": "nfs4"}, "network file system"),
        ({"file system": "tmpfs"}, "is memory"),
        ({"file system": "btrfs"}, "space cannot be reserved"),
        ({"bytes read by a page fault": 8 << 20}, "reads up to 8.39 MB"),
        ({"kernel": "4.19.0"}, "older than any"),
        ({"table bytes": 10**12}, "times the memory"),
        ({"pages touched per row": 1.2}, "lie across two"),
    ],
)
def test_advice_follows_from_the_facts(change, words):
    facts = {
        "file system": "ext4", "bytes read by a page fault": 1 << 17, "kernel": "6.1.0-13-amd64",
        "memory bytes": 10**9, "page bytes": 4096,
    }  # fmt: skip

    assert list(doctor._advice(facts)) == []
    (text,) = doctor._advice({**facts, **change})
    assert words in text


@pytest.mark.parametrize(("stride", "pages"), [(None, 1 + (72 - 8) / 4096), ("page", 1.0)])
def test_a_record_is_one_row_to_the_doctor(tmp_path, capsys, monkeypatch, stride, pages):
    monkeypatch.setattr(doctor.probe, "FILE_BYTES", 1 << 20)
    columns = Adagrad.columns_for()
    Table.create(tmp_path / "t", 20, 9, layout="records", stride=stride, columns=columns).close()

    facts = json.loads(said_by(capsys, "doctor", tmp_path / "t", "--json", "--seconds", "0.05"))
    info = json.loads(said_by(capsys, "info", tmp_path / "t", "--json"))

    assert facts["pages touched per row"] == pytest.approx(pages)
    record = 128 if stride else 72
    assert info["layout"] == f"records of {record} bytes: weight, weight.adagrad.sum"


@pytest.mark.parametrize(
    ("row_bytes", "pages"), [(0, 0), (4, 1), (256, 1), (4096, 1), (8192, 2), (12, 1 + 8 / 4096)]
)
def test_rows_touch_as_many_pages_as_they_do_counted_one_by_one(row_bytes, pages, monkeypatch):
    monkeypatch.setattr(doctor, "PAGE", 4096)

    counted = [
        (first + row_bytes - 1) // 4096 - first // 4096 + 1
        for first in range(0, 4096 * max(row_bytes, 1), max(row_bytes, 1))
    ]
    assert doctor._pages_per_row(row_bytes) == pytest.approx(pages)
    if row_bytes:
        assert np.mean(counted) == pytest.approx(pages)


# -- what they read from the system ----------------------------------------------------------------


def tree(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, 1000 << 10),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n"}, 1000 << 10),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/memory.max": "5000\n",
                "sys/fs/cgroup/a/b/memory.max": "9000\n",
            },
            5000,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,memory:/x\n0::/\n",
                "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "7000\n",
            },
            7000,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/docker/abc\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "6000\n",
            },
            6000,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "9999999999999\n"}, 1000 << 10),
    ],
)
def test_the_memory_is_the_least_of_the_machine_and_its_groups(tmp_path, files, limit):
    root = tree(tmp_path, {"proc/meminfo": "MemFree: 7 kB\nMemTotal:   1000 kB\n", **files})

    assert memory.limit(root) == limit


def test_the_counters_of_a_process_are_the_systems(tmp_path):
    root = tree(
        tmp_path,
        {
            "7/stat": "7 (a (b) c) S 1 7 7 0 -1 4 100 0 42 0 1 2",
            "7/io": "rchar: 5\nread_bytes: 4096\nwrite_bytes: 8192\n",
        },
    )

    assert process.counters(7, str(root)) == {
        "major faults": 42, "bytes read": 4096, "bytes written": 8192,
    }  # fmt: skip
    assert set(process.counters(8, str(root)).values()) == {None}


def test_dirty_bytes_are_summed_over_the_maps_inside_the_range(tmp_path):
    maps = tmp_path / "smaps"
    maps.write_text(
        "1000-3000 rw-s 0 00:01 5 /a\nShared_Dirty:  4 kB\nPrivate_Dirty: 8 kB\n"
        "9000-a000 rw-s 0 00:01 5 /a\nShared_Dirty: 4 kB\n"
    )

    assert process.dirty_bytes(0x1000, 0x2000, str(maps)) == 12 << 10
    assert process.dirty_bytes(0x20000, 0x2000, str(maps)) is None


def test_a_device_without_a_description_is_unknown(tmp_path):
    place = device.below(tmp_path, tmp_path)

    assert place[:5] == (None, None, "", None, None)
    assert place.free > 0


def test_dirty_bytes_below_a_folder_are_those_of_the_maps_of_its_files(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "smaps").write_text(
        "1000-2000 rw-s 00000000 fe:00 12   /data/a b/weight.npy\n"
        "Shared_Dirty:      8 kB\nPrivate_Dirty:     4 kB\nShared_Clean:   16 kB\n"
        "2000-3000 rw-s 00000000 fe:00 13   /data/a bc/weight.npy\nShared_Dirty:     32 kB\n"
        "3000-4000 rw-p 00000000 00:00 0 \nPrivate_Dirty:    64 kB\n"
    )

    assert process.dirty_bytes_below("/data/a b", 7, str(tmp_path)) == 12 << 10
    assert process.dirty_bytes_below("/data/a b", 8, str(tmp_path)) is None


def test_stats_compares_with_what_the_disk_can_do_and_says_what_is_dirty(table, capsys):
    with Table.open(table, "r+") as writer:
        writer.write([1], np.ones((1, writer.dim)))
        facts = json.loads(said_by(capsys, "stats", table, "--json", "--probe", "0.05"))
        lines = said_by(
            capsys, "stats", table, "--probe", "0.05", "--watch", "0.01", "--count", "2"
        ).splitlines()

    assert facts["writer"]["bytes not yet written"] >= 4096
    assert facts["bytes read at random per second"] > 0
    assert "of the disk" in lines[0]
    assert len(lines) == 3
