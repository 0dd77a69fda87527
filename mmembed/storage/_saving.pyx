"""What saving rows to a journal does over and over: bits of rows, and checksums of records.

Must not know files, tables or records. Every function has a body in Python in
`storage/saving.py`, used where this is not built.
"""

from libc.stdint cimport int64_t, uint8_t

cdef extern from "crc_fold.h" nogil:
    int crc_folds()
    void crc_fold(const uint8_t* data, size_t count, uint8_t* out)

FOLDS = bool(crc_folds())  # whether this processor has what `fold` needs


def fold(
    const uint8_t[::1] data,  # IN   (n,), n a multiple of 16 and 64 at least
    uint8_t[::1] out,         # OUT  (16,)
):
    """Write 16 bytes whose CRC-32, without the ones to begin with, is that of `data`."""
    cdef size_t count = data.shape[0]
    if count < 64 or count % 16 or out.shape[0] != 16 or not FOLDS:
        raise ValueError("fold takes a multiple of 16 bytes, 64 at least, and 16 for the result")
    with nogil:
        crc_fold(&data[0], count, &out[0])


def unmarked(
    const uint8_t[::1] bits,  # IN   one bit a row, the lowest of a byte first
    const int64_t[::1] rows,  # IN   (n,); each has a bit
    int64_t[::1] out,         # OUT  (n,)
):
    """Write the rows whose bits are 0, in their order; returns how many."""
    cdef Py_ssize_t i, count = 0
    cdef int64_t row
    for i in range(rows.shape[0]):
        row = rows[i]
        out[count] = row
        count += 1 - ((bits[row >> 3] >> (row & 7)) & 1)
    return count


def mark(
    uint8_t[::1] bits,        # INOUT
    const int64_t[::1] rows,  # IN   (n,); each has a bit
):
    """Set the bits of rows."""
    cdef Py_ssize_t i
    cdef int64_t row
    for i in range(rows.shape[0]):
        row = rows[i]
        bits[row >> 3] |= <uint8_t>(1 << (row & 7))
