"""What saving rows to a journal does over and over: bits of rows, and checksums of records.

Must not know files, tables or records. Every function has a body in Python in
`storage/saving.py`, used where this is not built.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t

cdef extern from "crc_fold.h" nogil:
    int crc_folds()
    void crc_fold(const uint8_t* data, size_t count, uint8_t* out)

FOLDS = bool(crc_folds())  # whether this processor has what `fold` needs

cdef bint folds = FOLDS
cdef uint32_t[8][256] LATER  # LATER[k][b]: what byte b does to the register k bytes later


cdef void fill_later() noexcept:
    cdef uint32_t value
    cdef int byte, k
    for byte in range(256):
        value = byte
        for k in range(8):
            value = (value >> 1) ^ (0xEDB88320 if value & 1 else 0)
        LATER[0][byte] = value
    for k in range(1, 8):
        for byte in range(256):
            value = LATER[k - 1][byte]
            LATER[k][byte] = (value >> 8) ^ LATER[0][value & 0xFF]


fill_later()


cdef uint32_t crc_of(uint32_t register, const uint8_t* data, size_t count) noexcept nogil:
    """Return the register after some bytes."""
    while count >= 8:
        register ^= (
            data[0] | <uint32_t>data[1] << 8 | <uint32_t>data[2] << 16 | <uint32_t>data[3] << 24
        )
        register = (
            LATER[7][register & 0xFF]
            ^ LATER[6][(register >> 8) & 0xFF]
            ^ LATER[5][(register >> 16) & 0xFF]
            ^ LATER[4][register >> 24]
            ^ LATER[3][data[4]]
            ^ LATER[2][data[5]]
            ^ LATER[1][data[6]]
            ^ LATER[0][data[7]]
        )
        data += 8
        count -= 8
    while count:
        register = (register >> 8) ^ LATER[0][(register ^ data[0]) & 0xFF]
        data += 1
        count -= 1
    return register


def row_sums(
    const uint8_t[:, :] array,  # IN   (n, size), rows contiguous
    const int64_t[::1] rows,    # IN   (m,)
    uint32_t[:] out,            # OUT  (n,)
):
    """Set out[row] to the CRC-32 of each row, 1 in the place of 0; the position of a bad row, or -1."""
    cdef Py_ssize_t i, count = array.shape[0], size = array.shape[1]
    cdef size_t whole = size // 16 * 16 if folds and size >= 64 else 0
    cdef const uint8_t* data
    cdef uint8_t[16] folded
    cdef uint32_t register
    if out.shape[0] != count or (size > 1 and array.strides[1] != 1) or size == 0:
        raise ValueError("row_sums takes contiguous rows of bytes, and a number for each")
    for i in range(rows.shape[0]):
        if rows[i] < 0 or rows[i] >= count:
            return i
    with nogil:
        for i in range(rows.shape[0]):
            data = &array[rows[i], 0]
            if whole:
                crc_fold(data, whole, folded)
                register = crc_of(0, folded, 16)
            else:
                register = 0xFFFFFFFF
            register = ~crc_of(register, data + whole, size - whole)
            out[rows[i]] = register if register else 1
    return -1


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
