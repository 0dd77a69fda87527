# Sums, means and maxima of bags of rows.

cdef enum:
    COLUMN_BYTES = 256  # summed at a time in a bag


cdef void sum_columns(
    const real* table,  # IN   row 0 at the first column wanted
    Py_ssize_t stride,  # of rows, in elements
    const id_type* ids,  # IN   (count,), of the bag
    const real* weights,  # IN   (count,), of the bag, or NULL
    Py_ssize_t count,
    int64_t padding,
    Py_ssize_t ahead,
    Py_ssize_t last,  # id, from the first of the bag, that may not be asked for
    Py_ssize_t size,  # bytes of a row to ask for
    Py_ssize_t width,  # columns
    real* out,  # OUT  (width,)
) noexcept nogil:
    """Add up the rows of a bag in `width` columns; those of no row are -0.

    On the way, ask for the rows that come `ahead` ids later.
    """
    cdef const real* row
    cdef real factor
    cdef Py_ssize_t i, j
    for j in range(width):
        out[j] = -0.0
    for i in range(count):
        if i + ahead < last:
            ask_for_read(<const char*>(table + <Py_ssize_t>ids[i + ahead] * stride), size)
        if ids[i] != padding:
            row = table + <Py_ssize_t>ids[i] * stride
            factor = weights[i] if weights != NULL else 1
            for j in range(width):
                out[j] = out[j] + factor * row[j]


cdef inline void sum_wide(
    const real* table,
    Py_ssize_t stride,
    const id_type* ids,
    const real* weights,
    Py_ssize_t count,
    int64_t padding,
    Py_ssize_t ahead,
    Py_ssize_t last,
    Py_ssize_t size,
    real* out,  # OUT  (COLUMN_BYTES / sizeof(real),)
) noexcept nogil:
    """`sum_columns` of COLUMN_BYTES."""
    if real is float and id_type is int32_t:
        sum_float_int32(
            table, stride, ids, weights, count, padding, ahead, last, size, out
        )
    elif real is float:
        sum_float_int64(
            table, stride, ids, weights, count, padding, ahead, last, size, out
        )
    elif id_type is int32_t:
        sum_double_int32(
            table, stride, ids, weights, count, padding, ahead, last, size, out
        )
    else:
        sum_double_int64(
            table, stride, ids, weights, count, padding, ahead, last, size, out
        )


cdef void sum_bag(
    const real* table,  # IN   row 0
    Py_ssize_t stride,  # of rows, in elements
    Py_ssize_t dim,
    const id_type* ids,  # IN   (count,), of the bag
    Py_ssize_t count,
    Py_ssize_t after,  # how many ids follow those of the bag
    const real* weights,  # IN   (count,), of the bag, or NULL
    int64_t padding,
    bint mean,
    real* out,  # OUT  (dim,)
) noexcept nogil:
    """Sum, or average, the rows of a bag."""
    cdef Py_ssize_t i, column = 0, counted = count
    cdef Py_ssize_t wide = <Py_ssize_t>(COLUMN_BYTES // sizeof(real)), last = count + after
    cdef Py_ssize_t size = dim * sizeof(real), ahead = rows_ahead(size)
    if padding >= 0:
        for i in range(count):
            counted -= ids[i] == padding
    if counted == 0:
        memset(out, 0, dim * sizeof(real))
        return
    while column + wide <= dim:
        sum_wide(
            table + column, stride, ids, weights, count, padding, ahead, last, size, out + column
        )
        size = 0  # whole rows were asked for at their first columns
        column += wide
    if column < dim:
        sum_columns(
            table + column, stride, ids, weights, count, padding, ahead, last, size,
            dim - column, out + column,
        )
    if mean:
        for i in range(dim):
            out[i] = out[i] / <real>counted


def gather_bags(
    const real[:, :] table,  # IN   (rows, dim)
    const id_type[::1] ids,  # IN   (n,)
    const int64_t[::1] starts,  # IN   (bags + 1,)
    const real[::1] weights,  # IN   (n,), or (0,) for none
    int64_t padding,
    bint mean,
    real[:, ::1] out,  # OUT  (bags, dim)
    int threads,
):
    """Set out[b] to the sum or the mean of the rows of bag b."""
    cdef Py_ssize_t bad, b, first, n = ids.shape[0], dim = table.shape[1]
    cdef Py_ssize_t stride = <Py_ssize_t>(table.strides[0] // <Py_ssize_t>sizeof(real))
    cdef const real* rows = &table[0, 0] if table.shape[0] and dim else NULL
    cdef const id_type* all_ids = &ids[0] if n else NULL
    cdef const real* factors = &weights[0] if weights.shape[0] else NULL
    cdef int t, shares = shares_for(threads)
    with nogil:
        bad = check_ids(ids, table.shape[0])
        if bad < 0 and dim > 0:
            for t in prange(shares, num_threads=threads, schedule="dynamic", chunksize=1):
                for b in range(share_start(starts, t, shares), share_start(starts, t + 1, shares)):
                    first = starts[b]
                    sum_bag(
                        rows, stride, dim, all_ids + first, starts[b + 1] - first,
                        n - starts[b + 1], factors + first if factors != NULL else NULL,
                        padding, mean, &out[b, 0],
                    )
    return bad


cdef dispatched take_larger(
    real* into,  # INOUT  (dim,)
    int64_t* where,  # INOUT  (dim,)
    const real* row,  # IN     (dim,)
    Py_ssize_t dim,
    int64_t position,
) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(dim):
        where[j] = position if row[j] > into[j] else where[j]
    for j in range(dim):
        into[j] = row[j] if row[j] > into[j] else into[j]


cdef void largest_of_bag(
    const real* table,  # IN   row 0
    Py_ssize_t stride,  # of rows, in elements
    Py_ssize_t dim,
    const id_type* ids,  # IN   (n,)
    Py_ssize_t first,
    Py_ssize_t last,
    Py_ssize_t n,
    int64_t padding,
    real* out,  # OUT  (dim,)
    int64_t* where,  # OUT  (dim,)
) noexcept nogil:
    cdef const real* row
    cdef Py_ssize_t i, j
    cdef bint met = False
    for i in range(first, last):
        if i + AHEAD < n:
            ask_for_read(
                <const char*>(table + <Py_ssize_t>ids[i + AHEAD] * stride), dim * sizeof(real)
            )
        if ids[i] == padding:
            continue
        row = table + <Py_ssize_t>ids[i] * stride
        if met:
            take_larger(out, where, row, dim, i)
        else:
            met = True
            memcpy(out, row, dim * sizeof(real))
            for j in range(dim):
                where[j] = i
    if not met:
        memset(out, 0, dim * sizeof(real))
        for j in range(dim):
            where[j] = -1


def gather_bags_max(
    const real[:, :] table,  # IN   (rows, dim)
    const id_type[::1] ids,  # IN   (n,)
    const int64_t[::1] starts,  # IN   (bags + 1,)
    int64_t padding,
    real[:, ::1] out,  # OUT  (bags, dim)
    int64_t[:, ::1] where,  # OUT  (bags, dim)
    int threads,
):
    """Set out[b] to the largest of each column in bag b, and where[b] to its position in ids."""
    cdef Py_ssize_t bad, b, n = ids.shape[0], dim = table.shape[1]
    cdef Py_ssize_t stride = <Py_ssize_t>(table.strides[0] // <Py_ssize_t>sizeof(real))
    cdef const real* rows = &table[0, 0] if table.shape[0] and dim else NULL
    cdef const id_type* all_ids = &ids[0] if n else NULL
    cdef int t, shares = shares_for(threads)
    with nogil:
        bad = check_ids(ids, table.shape[0])
        if bad < 0 and dim > 0:
            for t in prange(shares, num_threads=threads, schedule="dynamic", chunksize=1):
                for b in range(share_start(starts, t, shares), share_start(starts, t + 1, shares)):
                    largest_of_bag(
                        rows, stride, dim, all_ids, starts[b], starts[b + 1], n, padding,
                        &out[b, 0], &where[b, 0],
                    )
    return bad
