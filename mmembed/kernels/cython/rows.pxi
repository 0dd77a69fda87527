# Rows one by one: gather, norms, renorm.

cdef enum:
    AHEAD = 8  # rows asked for before their turn, at least, so that several are on their way
    AHEAD_BYTES = 4096  # of them, if rows are small
    STREAM_BYTES = 1 << 25  # of output from which stores past the cache were faster
    SHARES = 8  # for each thread
    LANES = 8  # partial sums of a sum of squares


cdef inline void ask_for(const real* row, Py_ssize_t dim) noexcept nogil:
    """Start to bring a row into the cache."""
    ask_for_change(<const char*>row, dim * sizeof(real))


cdef inline Py_ssize_t rows_ahead(Py_ssize_t row_bytes) noexcept nogil:
    """Return how many rows to ask for before their turn."""
    return max(<Py_ssize_t>AHEAD, AHEAD_BYTES // max(row_bytes, 1))


# Work is cut into more shares than threads, and each thread takes the next: one that wakes late, or
# that the system has set aside, does not keep the others waiting.


cdef inline int shares_for(int threads) noexcept nogil:
    return threads if threads == 1 else threads * SHARES


cdef inline Py_ssize_t share_rows(Py_ssize_t n, int threads) noexcept nogil:
    """Return how many rows a share has, if all rows take about the same time."""
    return max(n // shares_for(threads), <Py_ssize_t>1)


cdef void gather_share(
    const char* table,  # IN   row 0
    Py_ssize_t stride,  # of rows, in bytes
    Py_ssize_t size,  # of a row, in bytes
    const id_type* ids,  # IN   (n,)
    Py_ssize_t n,
    char* out,  # OUT  (n, size)
    bint past,  # the cache
) noexcept nogil:
    cdef Py_ssize_t ahead = rows_ahead(size)
    if id_type is int32_t:
        if past:
            stream_rows_int32(out, table, stride, size, ids, n, ahead)
        else:
            copy_rows_int32(out, table, stride, size, ids, n, ahead)
    elif past:
        stream_rows_int64(out, table, stride, size, ids, n, ahead)
    else:
        copy_rows_int64(out, table, stride, size, ids, n, ahead)


cdef Py_ssize_t gather_rows(
    const char* table,  # IN   row 0
    Py_ssize_t rows,
    Py_ssize_t stride,  # of rows, in bytes
    Py_ssize_t size,  # of a row, in bytes
    const id_type* ids,  # IN   (n,)
    Py_ssize_t n,
    char* out,  # OUT  (n, size)
    int threads,
) noexcept nogil:
    cdef Py_ssize_t first, last, bad = bad_position(ids, n, rows)
    cdef int t, width = stream_width(), shares = shares_for(threads)
    cdef bint past = (
        n * size >= STREAM_BYTES and width and size % width == 0 and <size_t>out % width == 0
    )
    if bad >= 0:
        return bad
    if threads == 1:
        gather_share(table, stride, size, ids, n, out, past)
    else:
        for t in prange(shares, num_threads=threads, schedule="dynamic", chunksize=1):
            first = n * t // shares
            last = n * (t + 1) // shares
            gather_share(
                table, stride, size, ids + first, last - first, out + first * size, past
            )
    return -1


def gather(
    ndarray table not None,  # IN   (rows, dim), rows contiguous; may be a read-only map
    ndarray ids not None,  # IN   (n,), contiguous int32 or int64
    ndarray out not None,  # OUT  (n, dim), contiguous, of the table's dtype
    int threads,
):
    """Set out[i] = table[ids[i]].

    Rows are bytes here, whatever they mean. Arrays are looked at as NumPy's, not as memoryviews: for
    a few ids, picking one of several compiled bodies by those would cost more than the copy.
    """
    cdef Py_ssize_t bad
    cdef bint fit = table.ndim == 2 and ids.ndim == 1 and out.ndim == 2
    if fit:
        fit = (
            out.shape[0] == ids.shape[0]
            and out.shape[1] == table.shape[1]
            and PyArray_TYPE(out) == PyArray_TYPE(table)
            and PyArray_ISNOTSWAPPED(table)
            and (table.strides[1] == PyArray_ITEMSIZE(table) or table.shape[1] < 2 or table.size == 0)
            and PyArray_ISCARRAY(out)
            and PyArray_ISCARRAY_RO(ids)
            and PyArray_ISSIGNED(ids)
            and PyArray_ITEMSIZE(ids) in (4, 8)
        )
    if not fit:
        raise ValueError("gather: the arrays are not as the contract says")
    cdef Py_ssize_t rows = table.shape[0], stride = table.strides[0], n = ids.shape[0]
    cdef Py_ssize_t size = table.shape[1] * PyArray_ITEMSIZE(table)
    cdef const char* first = PyArray_BYTES(table)
    cdef const char* all_ids = PyArray_BYTES(ids)
    cdef char* into = PyArray_BYTES(out)
    cdef bint narrow = PyArray_ITEMSIZE(ids) == 4
    with nogil:
        if narrow:
            bad = gather_rows(first, rows, stride, size, <const int32_t*>all_ids, n, into, threads)
        else:
            bad = gather_rows(first, rows, stride, size, <const int64_t*>all_ids, n, into, threads)
    return bad


cdef dispatched sum_of_squares(const real* row, Py_ssize_t dim, double* out) noexcept nogil:
    cdef double lanes[LANES]
    cdef double x, total = 0
    cdef Py_ssize_t i, whole = dim - dim % LANES
    cdef int k
    for k in range(LANES):
        lanes[k] = 0
    i = 0
    while i < whole:
        for k in range(LANES):
            x = row[i + k]
            lanes[k] += x * x
        i += LANES
    for i in range(whole, dim):
        x = row[i]
        lanes[i - whole] += x * x
    for k in range(LANES):
        total += lanes[k]
    out[0] = total


cdef double row_norm(const real* row, Py_ssize_t dim, double p) noexcept nogil:
    """Return the p-norm of a row, rounded to its own dtype unless that would overflow."""
    cdef double norm = 0, x
    cdef Py_ssize_t i
    if p == 2:
        sum_of_squares(row, dim, &norm)
        norm = sqrt(norm)
    elif isinf(p):
        if dim > 0:
            norm = fabs(row[0])
        for i in range(1, dim):
            x = fabs(row[i])
            if x != x or (x > norm if p > 0 else x < norm):  # a NaN stays: nothing compares to it
                norm = x
    elif p == 0:
        for i in range(dim):
            norm += row[i] != 0
    elif p == 1:
        for i in range(dim):
            norm += fabs(row[i])
    else:
        for i in range(dim):
            norm += pow(fabs(row[i]), p)
        norm = pow(norm, 1.0 / p)
    return norm if isinf(<real>norm) else <real>norm


def row_norms(
    const real[:, :] table,  # IN   (rows, dim)
    const int64_t[::1] ids,  # IN   (n,)
    double norm_type,
    double[::1] out,  # OUT  (n,)
    int threads,
):
    """Set out[i] to the norm of table[ids[i]]."""
    cdef Py_ssize_t bad, i, n = ids.shape[0], dim = table.shape[1]
    cdef Py_ssize_t ahead = rows_ahead(dim * sizeof(real))
    with nogil:
        bad = check_ids(ids, table.shape[0])
        if bad < 0:
            for i in prange(
                n, num_threads=threads, schedule="dynamic", chunksize=share_rows(n, threads)
            ):
                if i + ahead < n:
                    ask_for(&table[ids[i + ahead], 0], dim)
                # A row without elements has no address.
                out[i] = row_norm(&table[ids[i], 0], dim, norm_type) if dim > 0 else 0
    return bad


cdef dispatched scale_row(real* row, Py_ssize_t dim, real factor) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(dim):
        row[i] = row[i] * factor


def renorm(
    real[:, :] table,  # INOUT  (rows, dim)
    const int64_t[::1] ids,  # IN     (n,), distinct
    double max_norm,
    double norm_type,
    int threads,
):
    """Scale rows whose norm is above max_norm down to it."""
    cdef Py_ssize_t bad, i, n = ids.shape[0], dim = table.shape[1]
    cdef Py_ssize_t ahead = rows_ahead(dim * sizeof(real))
    cdef double norm
    with nogil:
        bad = check_ids(ids, table.shape[0])
        if bad < 0 and dim > 0:
            for i in prange(
                n, num_threads=threads, schedule="dynamic", chunksize=share_rows(n, threads)
            ):
                if i + ahead < n:
                    ask_for(&table[ids[i + ahead], 0], dim)
                norm = row_norm(&table[ids[i], 0], dim, norm_type)
                if norm > max_norm:
                    scale_row(&table[ids[i], 0], dim, <real>(max_norm / (norm + 1e-7)))
    return bad
