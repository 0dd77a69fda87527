# Rows in fewer bits: taken apart while they are gathered, and put back with one rounding.

cdef extern from "kernels/cython/packed.h" nogil:
    ctypedef void (*unpack_row)(const char*, const char*, float*, Py_ssize_t) noexcept nogil
    ctypedef void (*bag_of_int32)(
        const char*, Py_ssize_t, Py_ssize_t, const int32_t*, const float*, Py_ssize_t, int64_t, float*
    ) noexcept nogil
    ctypedef void (*bag_of_int64)(
        const char*, Py_ssize_t, Py_ssize_t, const int64_t*, const float*, Py_ssize_t, int64_t, float*
    ) noexcept nogil
    unpack_row unpack_of(int) noexcept
    bag_of_int32 bag_of_int32_of(int) noexcept
    bag_of_int64 bag_of_int64_of(int) noexcept
    void pack_row(
        int, const float*, char*, Py_ssize_t, bint, uint64_t, uint64_t, uint32_t
    ) noexcept

cdef enum:
    LINE = 256  # columns taken apart at a time where they are only compared


cdef inline Py_ssize_t element_bytes(int format) noexcept nogil:
    return 4 if format == 0 else 1 if format == 3 else 2


def unpack_rows(
    const uint8_t[:, :] packed,  # IN   (rows, bytes of a row); may be a read-only map
    int format,
    const id_type[::1] ids,  # IN   (n,)
    float[:, ::1] out,  # OUT  (n, dim)
    int threads,
):
    """Set out[i] = packed[ids[i]], as float32."""
    cdef Py_ssize_t bad, i, n = ids.shape[0], dim = out.shape[1], size = packed.shape[1]
    cdef Py_ssize_t ahead = rows_ahead(size), tail = dim * element_bytes(format)
    cdef unpack_row unpack = unpack_of(format)
    with nogil:
        bad = check_ids(ids, packed.shape[0])
        if bad < 0 and dim > 0:
            for i in prange(n, num_threads=threads, schedule="static"):
                if i + ahead < n:
                    ask_for_read(<const char*>&packed[ids[i + ahead], 0], size)
                unpack(
                    <const char*>&packed[ids[i], 0], <const char*>&packed[ids[i], 0] + tail,
                    &out[i, 0], dim,
                )
    return bad


cdef void unpack_bag(
    const char* table,  # IN   row 0
    Py_ssize_t stride,  # of rows, in bytes
    Py_ssize_t size,  # of a row, in bytes
    Py_ssize_t dim,
    int format,
    const id_type* ids,  # IN   (count,), of the bag
    Py_ssize_t count,
    Py_ssize_t after,  # how many ids follow those of the bag
    const float* weights,  # IN   (count,), of the bag, or NULL
    int64_t padding,
    bint mean,
    float* out,  # OUT  (dim,)
) noexcept nogil:
    """Sum, or average, the rows of a bag."""
    cdef Py_ssize_t i, counted = count
    # The rows of the bags that come next, as many as this bag has.
    for i in range(count, count + min(max(count, <Py_ssize_t>AHEAD), after)):
        ask_for_read(table + <Py_ssize_t>ids[i] * stride, size)
    if padding >= 0:
        for i in range(count):
            counted -= ids[i] == padding
    if counted == 0:
        memset(out, 0, dim * sizeof(float))
        return
    if id_type is int32_t:
        bag_of_int32_of(format)(table, stride, dim, ids, weights, count, padding, out)
    else:
        bag_of_int64_of(format)(table, stride, dim, ids, weights, count, padding, out)
    if mean:
        for i in range(dim):
            out[i] = out[i] / <float>counted


def unpack_bags(
    const uint8_t[:, :] packed,  # IN   (rows, bytes of a row)
    int format,
    const id_type[::1] ids,  # IN   (n,)
    const int64_t[::1] starts,  # IN   (bags + 1,)
    const float[::1] weights,  # IN   (n,), or (0,) for none
    int64_t padding,
    bint mean,
    float[:, ::1] out,  # OUT  (bags, dim)
    int threads,
):
    """Set out[b] to the sum or the mean of the rows of bag b."""
    cdef Py_ssize_t bad, b, first, n = ids.shape[0], dim = out.shape[1], size = packed.shape[1]
    cdef const char* table = <const char*>&packed[0, 0] if packed.shape[0] and dim else NULL
    cdef Py_ssize_t stride = packed.strides[0]
    cdef const id_type* all_ids = &ids[0] if n else NULL
    cdef const float* factors = &weights[0] if weights.shape[0] else NULL
    cdef int t, shares = shares_for(threads)
    with nogil:
        bad = check_ids(ids, packed.shape[0])
        if bad < 0 and dim > 0:
            for t in prange(shares, num_threads=threads, schedule="dynamic", chunksize=1):
                for b in range(share_start(starts, t, shares), share_start(starts, t + 1, shares)):
                    first = starts[b]
                    unpack_bag(
                        table, stride, size, dim, format, all_ids + first, starts[b + 1] - first,
                        n - starts[b + 1], factors + first if factors != NULL else NULL,
                        padding, mean, &out[b, 0],
                    )
    return bad


cdef void unpack_bag_max(
    const char* table,  # IN   row 0
    Py_ssize_t stride,  # of rows, in bytes
    Py_ssize_t dim,
    int format,
    const id_type* ids,  # IN   (n,)
    Py_ssize_t first,
    Py_ssize_t last,
    int64_t padding,
    float* out,  # OUT  (dim,)
    int64_t* where,  # OUT  (dim,)
) noexcept nogil:
    cdef float[LINE] line
    cdef const char* row
    cdef Py_ssize_t i, j, width, column = 0, element = element_bytes(format)
    cdef unpack_row unpack = unpack_of(format)
    cdef bint met
    while column < dim:
        width = min(<Py_ssize_t>LINE, dim - column)
        met = False
        for i in range(first, last):
            if ids[i] == padding:
                continue
            row = table + <Py_ssize_t>ids[i] * stride
            unpack(row + column * element, row + dim * element, line, width)
            if met:
                take_larger(out + column, where + column, line, width, i)
            else:
                met = True
                memcpy(out + column, line, width * sizeof(float))
                for j in range(column, column + width):
                    where[j] = i
        if not met:
            memset(out + column, 0, width * sizeof(float))
            for j in range(column, column + width):
                where[j] = -1
        column += LINE


def unpack_bags_max(
    const uint8_t[:, :] packed,  # IN   (rows, bytes of a row)
    int format,
    const id_type[::1] ids,  # IN   (n,)
    const int64_t[::1] starts,  # IN   (bags + 1,)
    int64_t padding,
    float[:, ::1] out,  # OUT  (bags, dim)
    int64_t[:, ::1] where,  # OUT  (bags, dim)
    int threads,
):
    """Set out[b] to the largest of each column in bag b, and where[b] to its position in ids."""
    cdef Py_ssize_t bad, b, n = ids.shape[0], dim = out.shape[1]
    cdef const char* table = <const char*>&packed[0, 0] if packed.shape[0] and dim else NULL
    cdef const id_type* all_ids = &ids[0] if n else NULL
    cdef int t, shares = shares_for(threads)
    with nogil:
        bad = check_ids(ids, packed.shape[0])
        if bad < 0 and dim > 0:
            for t in prange(shares, num_threads=threads, schedule="dynamic", chunksize=1):
                for b in range(share_start(starts, t, shares), share_start(starts, t + 1, shares)):
                    unpack_bag_max(
                        table, packed.strides[0], dim, format, all_ids, starts[b], starts[b + 1],
                        padding, &out[b, 0], &where[b, 0],
                    )
    return bad


def pack_rows(
    const float[:, ::1] rows,  # IN     (n, dim)
    int format,
    const int64_t[::1] ids,  # IN     (n,), distinct
    uint8_t[:, :] packed,  # INOUT  (rows, bytes of a row)
    bint stochastic,
    uint64_t seed,
    uint64_t step,
    int threads,
):
    """Set packed[ids[i]] = rows[i], rounded."""
    cdef Py_ssize_t bad, i, n = ids.shape[0], dim = rows.shape[1]
    with nogil:
        bad = check_ids(ids, packed.shape[0])
        if bad < 0 and packed.shape[1] > 0:
            for i in prange(n, num_threads=threads, schedule="static"):
                pack_row(
                    format, &rows[i, 0] if dim else NULL, <char*>&packed[ids[i], 0], dim,
                    stochastic, ids[i], seed, <uint32_t>step,
                )
    return bad
