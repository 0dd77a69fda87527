# Rows one by one: gather, norms, renorm.

cdef enum:
    AHEAD = 8  # rows asked for before their turn, at least, so that several are on their way
    AHEAD_BYTES = 4096  # of them, if rows are small
    CACHE_LINE = 64  # bytes
    LANES = 8  # partial sums of a sum of squares


cdef inline void ask_for(const real* row, Py_ssize_t dim) noexcept nogil:
    """Start to bring a row into the cache."""
    cdef Py_ssize_t i = 0
    while i < dim:
        prefetch(row + i)
        i += <Py_ssize_t>(CACHE_LINE // sizeof(real))


cdef inline Py_ssize_t rows_ahead(Py_ssize_t row_bytes) noexcept nogil:
    """Return how many rows to ask for before their turn."""
    return max(<Py_ssize_t>AHEAD, AHEAD_BYTES // max(row_bytes, 1))


def gather(
    const real[:, :] table,  # IN   (rows, dim), rows contiguous; may be a read-only map
    const id_type[::1] ids,  # IN   (n,)
    real[:, ::1] out,  # OUT  (n, dim)
    int threads,
):
    """Set out[i] = table[ids[i]]."""
    cdef Py_ssize_t bad, i, n = ids.shape[0], dim = table.shape[1]
    cdef Py_ssize_t ahead = rows_ahead(dim * sizeof(real))
    with nogil:
        bad = check_ids(ids, table.shape[0])
        if bad < 0 and dim > 0:
            for i in prange(n, num_threads=threads, schedule="static"):
                if i + ahead < n:
                    ask_for(&table[ids[i + ahead], 0], dim)
                memcpy(&out[i, 0], &table[ids[i], 0], dim * sizeof(real))
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
            for i in prange(n, num_threads=threads, schedule="static"):
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
            for i in prange(n, num_threads=threads, schedule="static"):
                if i + ahead < n:
                    ask_for(&table[ids[i + ahead], 0], dim)
                norm = row_norm(&table[ids[i], 0], dim, norm_type)
                if norm > max_norm:
                    scale_row(&table[ids[i], 0], dim, <real>(max_norm / (norm + 1e-7)))
    return bad
