"""The kernels in Cython, parallel through OpenMP: the default body on CPUs.

The contract stands in `mmembed.kernels`; arguments are marked IN, OUT and INOUT as there. Loops over
the elements of one row are compiled several times, for the vector units of several processor
families, and the right one is picked when the module is loaded (`dispatched`).

Must not know files, the tape, Python errors or allocation. Compiler directives stand in setup.py.
"""

from cython.parallel cimport prange
from libc.math cimport INFINITY, fabs, frexp, isinf, pow, sqrt, sqrtf
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef extern from *:
    """
    #if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__)
    // By features: a processor that GCC does not know by name is none of its architectures.
    #define MMEMBED_DISPATCHED \
        __attribute__((target_clones("avx512f", "avx2", "default")))
    #else
    #define MMEMBED_DISPATCHED
    #endif

    // Add up COLUMN_BYTES of columns of the rows of a bag, in four vectors: compilers keep these in
    // registers, and an array on the stack. -0 + x is x, whatever x is.
    #define MMEMBED_SUM_WIDE(NAME, REAL, ID) \
        typedef REAL NAME##_line \
            __attribute__((vector_size(64), aligned(sizeof(REAL)), may_alias)); \
        static MMEMBED_DISPATCHED void NAME( \
            const REAL* table, ptrdiff_t stride, const ID* ids, const REAL* weights, \
            ptrdiff_t count, int64_t padding, REAL* out) \
        { \
            NAME##_line zero = {0}, a = -zero, b = a, c = a, d = a; \
            for (ptrdiff_t i = 0; i < count; i++) { \
                if (ids[i] == padding) continue; \
                const NAME##_line* row = (const NAME##_line*)(table + (ptrdiff_t)ids[i] * stride); \
                REAL factor = weights ? weights[i] : 1; \
                a += factor * row[0]; \
                b += factor * row[1]; \
                c += factor * row[2]; \
                d += factor * row[3]; \
            } \
            NAME##_line* sums = (NAME##_line*)out; \
            sums[0] = a; sums[1] = b; sums[2] = c; sums[3] = d; \
        }
    MMEMBED_SUM_WIDE(sum_float_int32, float, int32_t)
    MMEMBED_SUM_WIDE(sum_float_int64, float, int64_t)
    MMEMBED_SUM_WIDE(sum_double_int32, double, int32_t)
    MMEMBED_SUM_WIDE(sum_double_int64, double, int64_t)
    """
    void sum_float_int32(
        const float*, Py_ssize_t, const int32_t*, const float*, Py_ssize_t, int64_t, float*
    ) noexcept nogil
    void sum_float_int64(
        const float*, Py_ssize_t, const int64_t*, const float*, Py_ssize_t, int64_t, float*
    ) noexcept nogil
    void sum_double_int32(
        const double*, Py_ssize_t, const int32_t*, const double*, Py_ssize_t, int64_t, double*
    ) noexcept nogil
    void sum_double_int64(
        const double*, Py_ssize_t, const int64_t*, const double*, Py_ssize_t, int64_t, double*
    ) noexcept nogil
    void prefetch "__builtin_prefetch"(const void*) noexcept nogil
    # The return type of a function that returns nothing and is compiled once per processor family.
    ctypedef void dispatched "MMEMBED_DISPATCHED void"

ctypedef fused real:
    float
    double

ctypedef fused id_type:
    int32_t
    int64_t

cdef enum:
    AHEAD = 8  # rows asked for before their turn, at least, so that several are on their way
    AHEAD_BYTES = 4096  # of them, if rows are small
    COLUMN_BYTES = 256  # summed at a time in a bag
    CACHE_LINE = 64  # bytes
    LANES = 8  # partial sums of a sum of squares
    ID_BLOCK = 4096  # ids checked before looking for the exact place of a bad one
    RADIX_BITS = 11
    BUCKETS = 2048
    MAX_PASSES = 6  # 6 * 11 bits hold every int64


# ---------------------------------------------------------------------------------- ids and plan


cdef dispatched find_outside(
    const id_type* ids, Py_ssize_t n, int64_t rows, bint* found
) noexcept nogil:
    cdef Py_ssize_t i
    cdef uint32_t outside = 0
    for i in range(n):
        # As unsigned numbers, negative ids are above every row count.
        outside |= <uint64_t>(<int64_t>ids[i]) >= <uint64_t>rows
    found[0] = outside != 0


cdef Py_ssize_t bad_position(const id_type* ids, Py_ssize_t n, int64_t rows) noexcept nogil:
    """Return the position of the first id outside 0..rows-1, or -1."""
    cdef Py_ssize_t i, block = 0
    cdef bint found
    while block < n:
        find_outside(&ids[block], min(<Py_ssize_t>ID_BLOCK, n - block), rows, &found)
        if found:
            for i in range(block, n):
                if ids[i] < 0 or ids[i] >= rows:
                    return i
        block += ID_BLOCK
    return -1


cdef Py_ssize_t check_ids(const id_type[::1] ids, Py_ssize_t rows) noexcept nogil:
    return bad_position(&ids[0], ids.shape[0], rows) if ids.shape[0] else -1


def first_bad_id(
    const id_type[::1] ids,  # IN  (n,)
    Py_ssize_t rows,
    int threads,
):
    """Return the position of the first id outside 0..rows-1, or -1."""
    cdef Py_ssize_t bad
    with nogil:
        bad = check_ids(ids, rows)
    return bad


cdef Py_ssize_t sort_ids(
    const id_type* ids,  # IN     (n,), n >= 1, all within 0..rows-1
    Py_ssize_t n,
    Py_ssize_t rows,
    int64_t* order,  # OUT    (n,)
    int64_t* unique,  # OUT    (n,)
    int64_t* starts,  # OUT    (n+1,)
    int64_t* work,  # INOUT  (2 * n,)
) noexcept nogil:
    """Least-significant-digit radix sort of (id, position), then runs; returns their number."""
    cdef Py_ssize_t counts[MAX_PASSES][BUCKETS]
    cdef int64_t* keys = work
    cdef int64_t* places = work + n
    cdef int64_t* keys_out = unique
    cdef int64_t* places_out = order
    cdef Py_ssize_t i, at, total, size, runs = 0
    cdef int64_t key, previous = -1
    cdef int p, digit, passes = 1
    while passes < MAX_PASSES and (rows - 1) >> (RADIX_BITS * passes):
        passes += 1

    memset(counts, 0, passes * sizeof(counts[0]))
    for i in range(n):
        key = ids[i]
        for p in range(passes):
            counts[p][key & (BUCKETS - 1)] += 1
            key >>= RADIX_BITS
    for p in range(passes):
        total = 0
        for digit in range(BUCKETS):
            size = counts[p][digit]
            counts[p][digit] = total
            total += size

    # The last pass must end in (unique, order): with an even number of passes the first does not.
    if passes % 2 == 0:
        keys, keys_out = keys_out, keys
        places, places_out = places_out, places
    for p in range(passes):
        for i in range(n):
            key = ids[i] if p == 0 else keys[i]
            digit = (key >> (RADIX_BITS * p)) & (BUCKETS - 1)
            at = counts[p][digit]
            counts[p][digit] = at + 1
            keys_out[at] = key
            places_out[at] = i if p == 0 else places[i]
        keys, keys_out = keys_out, keys
        places, places_out = places_out, places

    for i in range(n):
        key = unique[i]
        if key != previous:
            unique[runs] = key
            starts[runs] = i
            runs += 1
            previous = key
    starts[runs] = n
    return runs


def plan(
    const id_type[::1] ids,  # IN     (n,)
    Py_ssize_t rows,
    int64_t[::1] order,  # OUT    (n,)
    int64_t[::1] unique,  # OUT    (n,)
    int64_t[::1] starts,  # OUT    (n+1,)
    int64_t[::1] count,  # OUT    (1,)
    int64_t[::1] work,  # INOUT  (2 * n,)
    int threads,
):
    """Group the positions of a batch by id."""
    cdef Py_ssize_t bad, n = ids.shape[0]
    with nogil:
        bad = check_ids(ids, rows)
        if bad < 0:
            if n == 0:
                starts[0] = 0
                count[0] = 0
            else:
                count[0] = sort_ids(&ids[0], n, rows, &order[0], &unique[0], &starts[0], &work[0])
    return bad


# ------------------------------------------------------------------------------- gather and norms


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


# ------------------------------------------------------------------------------- sums of segments


cdef dispatched add_row(real* into, const real* row, Py_ssize_t dim) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(dim):
        into[i] = into[i] + row[i]


cdef void sum_segment(
    const real* values,  # IN   (n, dim)
    const int64_t* order,  # IN   positions in values, from first to last
    Py_ssize_t first,
    Py_ssize_t last,
    Py_ssize_t dim,
    real* out,  # OUT  (dim,)
) noexcept nogil:
    cdef Py_ssize_t k
    if first == last:
        memset(out, 0, dim * sizeof(real))
        return
    memcpy(out, values + order[first] * dim, dim * sizeof(real))
    for k in range(first + 1, last):
        add_row(out, values + order[k] * dim, dim)


cdef Py_ssize_t share_start(
    const int64_t[::1] starts,  # IN  (segments + 1,)
    int share,
    int shares,
) noexcept nogil:
    """Return the first segment of a share; shares are about equal in entries plus segments.

    With skewed ids a few segments are far longer than the rest, and they are neighbours.
    """
    cdef Py_ssize_t middle, low = 0, high = starts.shape[0] - 1
    cdef double goal = <double>(starts[high] + high) * share / shares
    while low < high:
        middle = (low + high) // 2
        if starts[middle] + middle < goal:
            low = middle + 1
        else:
            high = middle
    return low


def segment_sum(
    const real[:, ::1] values,  # IN   (n, dim)
    const int64_t[::1] order,  # IN   (n,)
    const int64_t[::1] starts,  # IN   (segments + 1,)
    real[:, ::1] out,  # OUT  (segments, dim)
    int threads,
):
    """Set out[s] to the sum of segment s."""
    cdef Py_ssize_t s, dim = out.shape[1]
    cdef int t
    cdef const real* all_values = &values[0, 0] if values.shape[0] and dim else NULL
    cdef const int64_t* places = &order[0] if order.shape[0] else NULL
    if dim == 0:
        return
    with nogil:
        for t in prange(threads, num_threads=threads, schedule="static"):
            for s in range(share_start(starts, t, threads), share_start(starts, t + 1, threads)):
                sum_segment(all_values, places, starts[s], starts[s + 1], dim, &out[s, 0])


def scatter_add(
    const real[:, ::1] values,  # IN     (n, dim)
    const int64_t[::1] order,  # IN     (n,)
    const int64_t[::1] starts,  # IN     (segments + 1,)
    const int64_t[::1] ids,  # IN     (segments,), distinct
    real[:, :] out,  # INOUT  (rows, dim)
    int threads,
):
    """Add the entries of segment s to out[ids[s]], one by one."""
    cdef Py_ssize_t bad, s, k, dim = out.shape[1]
    cdef int t
    with nogil:
        bad = check_ids(ids, out.shape[0])
        if bad < 0 and dim > 0:
            for t in prange(threads, num_threads=threads, schedule="static"):
                for s in range(share_start(starts, t, threads), share_start(starts, t + 1, threads)):
                    for k in range(starts[s], starts[s + 1]):
                        add_row(&out[ids[s], 0], &values[order[k], 0], dim)
    return bad


# ------------------------------------------------------------------------------------------- bags


cdef void sum_columns(
    const real* table,  # IN   row 0 at the first column wanted
    Py_ssize_t stride,  # of rows, in elements
    const id_type* ids,  # IN   (count,), of the bag
    const real* weights,  # IN   (count,), of the bag, or NULL
    Py_ssize_t count,
    int64_t padding,
    Py_ssize_t width,  # columns
    real* out,  # OUT  (width,)
) noexcept nogil:
    """Add up the rows of a bag in `width` columns; those of no row are -0."""
    cdef const real* row
    cdef real factor
    cdef Py_ssize_t i, j
    for j in range(width):
        out[j] = -0.0
    for i in range(count):
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
    real* out,  # OUT  (COLUMN_BYTES / sizeof(real),)
) noexcept nogil:
    """`sum_columns` of COLUMN_BYTES."""
    if real is float and id_type is int32_t:
        sum_float_int32(table, stride, ids, weights, count, padding, out)
    elif real is float:
        sum_float_int64(table, stride, ids, weights, count, padding, out)
    elif id_type is int32_t:
        sum_double_int32(table, stride, ids, weights, count, padding, out)
    else:
        sum_double_int64(table, stride, ids, weights, count, padding, out)


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
    cdef Py_ssize_t wide = <Py_ssize_t>(COLUMN_BYTES // sizeof(real))
    # The rows of the bags that come next, as many as this bag has.
    for i in range(count, count + min(max(count, <Py_ssize_t>AHEAD), after)):
        ask_for(table + <Py_ssize_t>ids[i] * stride, dim)
    if padding >= 0:
        for i in range(count):
            counted -= ids[i] == padding
    if counted == 0:
        memset(out, 0, dim * sizeof(real))
        return
    while column + wide <= dim:
        sum_wide(table + column, stride, ids, weights, count, padding, out + column)
        column += wide
    if column < dim:
        sum_columns(
            table + column, stride, ids, weights, count, padding, dim - column, out + column
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
    cdef int t
    with nogil:
        bad = check_ids(ids, table.shape[0])
        if bad < 0 and dim > 0:
            for t in prange(threads, num_threads=threads, schedule="static"):
                for b in range(share_start(starts, t, threads), share_start(starts, t + 1, threads)):
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
    cdef bint larger
    for j in range(dim):
        larger = where[j] < 0 or row[j] > into[j]
        into[j] = row[j] if larger else into[j]
        where[j] = position if larger else where[j]


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
    cdef Py_ssize_t bad, b, i, j, n = ids.shape[0], dim = table.shape[1]
    cdef int t
    with nogil:
        bad = check_ids(ids, table.shape[0])
        if bad < 0 and dim > 0:
            for t in prange(threads, num_threads=threads, schedule="static"):
                for b in range(share_start(starts, t, threads), share_start(starts, t + 1, threads)):
                    memset(&out[b, 0], 0, dim * sizeof(real))
                    for j in range(dim):
                        where[b, j] = -1
                    for i in range(starts[b], starts[b + 1]):
                        if i + AHEAD < n:
                            ask_for(&table[ids[i + AHEAD], 0], dim)
                        if ids[i] != padding:
                            take_larger(&out[b, 0], &where[b, 0], &table[ids[i], 0], dim, i)
    return bad


# --------------------------------------------------------------------------------------- updates

# What an optimizer does to one row: (weight, first state, second state, g, dim, hyper-parameters).
ctypedef void (*row_rule)(real*, real*, real*, const real*, Py_ssize_t, const double*) noexcept nogil


cdef dispatched adjust_gradient(
    real* g,  # INOUT  (dim,)
    const real* weight,  # IN     (dim,)
    Py_ssize_t dim,
    real weight_decay,
    bint maximize,
) noexcept nogil:
    cdef Py_ssize_t i
    if maximize:
        for i in range(dim):
            g[i] = -g[i]
    if weight_decay != 0:
        for i in range(dim):
            g[i] = g[i] + weight_decay * weight[i]


cdef void update_share(
    row_rule rule,
    const double* hyper,  # IN
    real[:, :] weight,  # INOUT  (rows, dim)
    real[:, :] first,  # INOUT  (rows, dim or 1)
    real[:, :] second,  # INOUT  (rows, dim or 1)
    const int64_t[::1] ids,  # IN     (segments,)
    const real[:, ::1] values,  # IN     (n, dim)
    const int64_t[::1] order,  # IN     (n,)
    const int64_t[::1] starts,  # IN     (segments + 1,)
    Py_ssize_t start,
    Py_ssize_t stop,
    real weight_decay,
    bint maximize,
    real* work,  # INOUT  (dim,)
) noexcept nogil:
    """Update the rows of segments start..stop-1."""
    cdef Py_ssize_t s, coming, row, dim = weight.shape[1]
    cdef Py_ssize_t ahead = rows_ahead(dim * sizeof(real))
    cdef bint has_first = &first[0, 0] != &weight[0, 0], has_second = &second[0, 0] != &weight[0, 0]
    cdef const real* all_values = &values[0, 0] if order.shape[0] else NULL
    cdef const int64_t* places = &order[0] if order.shape[0] else NULL
    cdef const real* g
    for s in range(start, stop):
        coming = s + ahead
        if coming < stop:
            ask_for(&weight[ids[coming], 0], dim)
            if has_first:
                ask_for(&first[ids[coming], 0], first.shape[1])
            if has_second:
                ask_for(&second[ids[coming], 0], second.shape[1])
            if starts[coming] < starts[coming + 1]:
                ask_for(all_values + places[starts[coming]] * dim, dim)
        row = ids[s]
        if starts[s + 1] - starts[s] == 1 and not maximize and weight_decay == 0:
            g = all_values + places[starts[s]] * dim
        else:
            sum_segment(all_values, places, starts[s], starts[s + 1], dim, work)
            adjust_gradient(work, &weight[row, 0], dim, weight_decay, maximize)
            g = work
        rule(&weight[row, 0], &first[row, 0], &second[row, 0], g, dim, hyper)


cdef Py_ssize_t update_rows(
    row_rule rule,
    const double* hyper,  # IN     what the rule reads
    real[:, :] weight,  # INOUT  (rows, dim)
    real[:, :] first,  # INOUT  (rows, dim or 1), state; weight itself where a rule has none
    real[:, :] second,  # INOUT  (rows, dim or 1), state; weight itself where a rule has none
    const int64_t[::1] ids,  # IN     (segments,), distinct
    const real[:, ::1] values,  # IN     (n, dim)
    const int64_t[::1] order,  # IN     (n,)
    const int64_t[::1] starts,  # IN     (segments + 1,)
    double weight_decay,
    bint maximize,
    real[:, ::1] work,  # INOUT  (threads, dim or more), scratch
    int threads,
) noexcept nogil:
    """Give each segment's sum to `rule`, with the row it belongs to and that row's state."""
    cdef Py_ssize_t bad, dim = weight.shape[1]
    cdef int t
    bad = check_ids(ids, weight.shape[0])
    if bad < 0 and dim > 0:
        for t in prange(threads, num_threads=threads, schedule="static"):
            update_share(
                rule, hyper, weight, first, second, ids, values, order, starts,
                share_start(starts, t, threads), share_start(starts, t + 1, threads),
                <real>weight_decay, maximize, &work[t, 0],
            )
    return bad


cdef dispatched step_row(real* weight, const real* g, Py_ssize_t dim, real lr) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(dim):
        weight[i] = weight[i] - lr * g[i]


cdef void sgd_rule(
    real* weight, real* _first, real* _second, const real* g, Py_ssize_t dim, const double* hyper
) noexcept nogil:
    step_row(weight, g, dim, <real>hyper[0])


def update_sgd(
    real[:, :] weight,  # INOUT  (rows, dim)
    const int64_t[::1] ids,  # IN     (segments,), distinct
    const real[:, ::1] values,  # IN     (n, dim)
    const int64_t[::1] order,  # IN     (n,)
    const int64_t[::1] starts,  # IN     (segments + 1,)
    double lr,
    double weight_decay,
    bint maximize,
    real[:, ::1] work,  # INOUT  (threads, dim or more), scratch
    int threads,
):
    """weight[ids] -= lr * g."""
    cdef Py_ssize_t bad
    cdef double[1] hyper = [lr]
    with nogil:
        bad = update_rows(
            sgd_rule[real], hyper, weight, weight, weight,
            ids, values, order, starts, weight_decay, maximize, work, threads,
        )
    return bad


cdef dispatched momentum_rule(
    real* weight, real* buffer, real* _second, const real* g, Py_ssize_t dim, const double* hyper
) noexcept nogil:
    cdef Py_ssize_t i
    cdef real lr = <real>hyper[0], momentum = <real>hyper[1], undampened = <real>hyper[2]
    for i in range(dim):
        buffer[i] = momentum * buffer[i] + undampened * g[i]
    if hyper[3]:
        for i in range(dim):
            weight[i] = weight[i] - lr * (g[i] + momentum * buffer[i])
    else:
        for i in range(dim):
            weight[i] = weight[i] - lr * buffer[i]


def update_momentum(
    real[:, :] weight,  # INOUT  (rows, dim)
    real[:, :] buffer,  # INOUT  (rows, dim)
    const int64_t[::1] ids,  # IN     (segments,), distinct
    const real[:, ::1] values,  # IN     (n, dim)
    const int64_t[::1] order,  # IN     (n,)
    const int64_t[::1] starts,  # IN     (segments + 1,)
    double lr,
    double momentum,
    double dampening,
    bint nesterov,
    double weight_decay,
    bint maximize,
    real[:, ::1] work,  # INOUT  (threads, dim or more), scratch
    int threads,
):
    """buffer = momentum * buffer + (1 - dampening) * g; weight -= lr * buffer (or its Nesterov)."""
    cdef Py_ssize_t bad
    cdef double[4] hyper = [lr, momentum, 1 - dampening, nesterov]
    with nogil:
        bad = update_rows(
            momentum_rule[real], hyper, weight, buffer, weight,
            ids, values, order, starts, weight_decay, maximize, work, threads,
        )
    return bad


cdef dispatched adagrad_rule(
    real* weight, real* total, real* _second, const real* g, Py_ssize_t dim, const double* hyper
) noexcept nogil:
    cdef Py_ssize_t i
    cdef real lr = <real>hyper[0], eps = <real>hyper[1]
    for i in range(dim):
        total[i] = total[i] + g[i] * g[i]
        if real is float:
            weight[i] = weight[i] - lr * (g[i] / (sqrtf(total[i]) + eps))
        else:
            weight[i] = weight[i] - lr * (g[i] / (sqrt(total[i]) + eps))


def update_adagrad(
    real[:, :] weight,  # INOUT  (rows, dim)
    real[:, :] total,  # INOUT  (rows, dim)
    const int64_t[::1] ids,  # IN     (segments,), distinct
    const real[:, ::1] values,  # IN     (n, dim)
    const int64_t[::1] order,  # IN     (n,)
    const int64_t[::1] starts,  # IN     (segments + 1,)
    double lr,
    double eps,
    double weight_decay,
    bint maximize,
    real[:, ::1] work,  # INOUT  (threads, dim or more), scratch
    int threads,
):
    """total += g * g; weight -= lr * (g / (sqrt(total) + eps))."""
    cdef Py_ssize_t bad
    cdef double[2] hyper = [lr, eps]
    with nogil:
        bad = update_rows(
            adagrad_rule[real], hyper, weight, total, weight,
            ids, values, order, starts, weight_decay, maximize, work, threads,
        )
    return bad


cdef void rowwise_adagrad_rule(
    real* weight, real* total, real* _second, const real* g, Py_ssize_t dim, const double* hyper
) noexcept nogil:
    cdef double squares
    sum_of_squares(g, dim, &squares)
    total[0] = total[0] + <real>(squares / dim)
    step_row(weight, g, dim, <real>hyper[0] / (<real>sqrt(total[0]) + <real>hyper[1]))


def update_rowwise_adagrad(
    real[:, :] weight,  # INOUT  (rows, dim)
    real[:, :] total,  # INOUT  (rows, 1)
    const int64_t[::1] ids,  # IN     (segments,), distinct
    const real[:, ::1] values,  # IN     (n, dim)
    const int64_t[::1] order,  # IN     (n,)
    const int64_t[::1] starts,  # IN     (segments + 1,)
    double lr,
    double eps,
    double weight_decay,
    bint maximize,
    real[:, ::1] work,  # INOUT  (threads, dim or more), scratch
    int threads,
):
    """total += mean(g * g); weight -= lr / (sqrt(total) + eps) * g."""
    cdef Py_ssize_t bad
    cdef double[2] hyper = [lr, eps]
    with nogil:
        bad = update_rows(
            rowwise_adagrad_rule[real], hyper, weight, total, weight,
            ids, values, order, starts, weight_decay, maximize, work, threads,
        )
    return bad


cdef dispatched adam_rule(
    real* weight, real* mean, real* square, const real* g, Py_ssize_t dim, const double* hyper
) noexcept nogil:
    cdef Py_ssize_t i
    cdef real step_size = <real>hyper[0], eps = <real>hyper[3]
    cdef real towards_mean = <real>(1 - hyper[1]), towards_square = <real>(1 - hyper[2])
    for i in range(dim):
        mean[i] = mean[i] + (g[i] - mean[i]) * towards_mean
        square[i] = square[i] + (g[i] * g[i] - square[i]) * towards_square
        if real is float:
            weight[i] = weight[i] - step_size * (mean[i] / (sqrtf(square[i]) + eps))
        else:
            weight[i] = weight[i] - step_size * (mean[i] / (sqrt(square[i]) + eps))


def update_adam(
    real[:, :] weight,  # INOUT  (rows, dim)
    real[:, :] mean,  # INOUT  (rows, dim)
    real[:, :] square,  # INOUT  (rows, dim)
    const int64_t[::1] ids,  # IN     (segments,), distinct
    const real[:, ::1] values,  # IN     (n, dim)
    const int64_t[::1] order,  # IN     (n,)
    const int64_t[::1] starts,  # IN     (segments + 1,)
    double step_size,
    double beta1,
    double beta2,
    double eps,
    double weight_decay,
    bint maximize,
    real[:, ::1] work,  # INOUT  (threads, dim or more), scratch
    int threads,
):
    """mean, square move towards g, g * g; weight -= step_size * (mean / (sqrt(square) + eps))."""
    cdef Py_ssize_t bad
    cdef double[4] hyper = [step_size, beta1, beta2, eps]
    with nogil:
        bad = update_rows(
            adam_rule[real], hyper, weight, mean, square,
            ids, values, order, starts, weight_decay, maximize, work, threads,
        )
    return bad


# -------------------------------------------------------------------------------- initial values

# The same numbers as in kernels/reference.py, which says where each series comes from.
cdef double[10] LOG_SERIES = [
    1.0, 1.0 / 3, 1.0 / 5, 1.0 / 7, 1.0 / 9, 1.0 / 11, 1.0 / 13, 1.0 / 15, 1.0 / 17, 1.0 / 19,
]
cdef double[9] SIN_SERIES = [
    1.0, -1.0 / 6, 1.0 / 120, -1.0 / 5040, 1.0 / 362880, -1.0 / 39916800, 1.0 / 6227020800,
    -1.0 / 1307674368000, 1.0 / 355687428096000,
]
cdef double[10] COS_SERIES = [
    1.0, -1.0 / 2, 1.0 / 24, -1.0 / 720, 1.0 / 40320, -1.0 / 3628800, 1.0 / 479001600,
    -1.0 / 87178291200, 1.0 / 20922789888000, -1.0 / 6402373705728000,
]
cdef double LN2 = 0.6931471805599453
cdef double SQRT_HALF = 0.7071067811865476
cdef double TWO_PI = 6.283185307179586


cdef void philox(uint64_t row, uint32_t block, uint64_t seed, uint32_t* words) noexcept nogil:
    """Philox4x32-10. Source: Salmon et al., "Parallel random numbers", SC 2011."""
    cdef uint32_t x0 = block, x1 = 0, x2 = <uint32_t>row, x3 = <uint32_t>(row >> 32)
    cdef uint32_t key0 = <uint32_t>seed, key1 = <uint32_t>(seed >> 32)
    cdef uint64_t product0, product1
    cdef int r
    for r in range(10):
        product0 = <uint64_t>0xD2511F53 * x0
        product1 = <uint64_t>0xCD9E8D57 * x2
        x0 = <uint32_t>(product1 >> 32) ^ x1 ^ key0
        x1 = <uint32_t>product1
        x2 = <uint32_t>(product0 >> 32) ^ x3 ^ key1
        x3 = <uint32_t>product0
        key0 += <uint32_t>0x9E3779B9
        key1 += <uint32_t>0xBB67AE85
    words[0] = x0
    words[1] = x1
    words[2] = x2
    words[3] = x3


cdef double polynomial(const double* series, int terms, double x) noexcept nogil:
    cdef double value = series[terms - 1]
    cdef int k
    for k in range(terms - 2, -1, -1):
        value = value * x + series[k]
    return value


cdef double logarithm(double u) noexcept nogil:
    cdef int exponent
    cdef double s, mantissa = frexp(u, &exponent)
    if mantissa < SQRT_HALF:
        mantissa = mantissa * 2.0
        exponent -= 1
    s = (mantissa - 1.0) / (mantissa + 1.0)
    return exponent * LN2 + 2.0 * s * polynomial(LOG_SERIES, 10, s * s)


cdef void normal_pair(double u, double turn, double* out) noexcept nogil:
    """Box-Muller: two independent N(0, 1) from two uniforms in (0, 1)."""
    cdef double radius = sqrt(-2.0 * logarithm(u))
    cdef int quarter = <int>(4.0 * turn + 0.5)
    cdef double x = TWO_PI * (turn - 0.25 * quarter)
    cdef double sine = x * polynomial(SIN_SERIES, 9, x * x)
    cdef double cosine = polynomial(COS_SERIES, 10, x * x)
    if quarter % 2 == 1:
        sine, cosine = cosine, sine
    out[0] = radius * (-cosine if quarter == 1 or quarter == 2 else cosine)
    out[1] = radius * (-sine if quarter == 2 or quarter == 3 else sine)


cdef void initial_row(
    uint64_t row, int kind, double a, double b, uint64_t seed,
    real* out,  # OUT  (dim,)
    Py_ssize_t dim,
) noexcept nogil:
    cdef uint32_t[4] words
    cdef double[4] drawn
    cdef Py_ssize_t start
    cdef int k
    for start in range(0, dim, 4):
        philox(row, <uint32_t>(start >> 2), seed, words)
        for k in range(4):
            drawn[k] = (words[k] + 0.5) * (1.0 / 4294967296.0)
        if kind == 2:
            normal_pair(drawn[0], drawn[1], drawn)
            normal_pair(drawn[2], drawn[3], drawn + 2)
            for k in range(4):
                drawn[k] = a + b * drawn[k]
        else:
            for k in range(4):
                drawn[k] = a + (b - a) * drawn[k]
        for k in range(min(<Py_ssize_t>4, dim - start)):
            out[start + k] = <real>drawn[k]


def initial_rows(
    const int64_t[::1] ids,  # IN   (n,)
    int kind,
    double a,
    double b,
    uint64_t seed,
    real[:, :] out,  # OUT  (n, dim)
    int threads,
):
    """Set out[i] to the initial value of row ids[i]."""
    cdef Py_ssize_t i, k, n = ids.shape[0], dim = out.shape[1]
    with nogil:
        if dim > 0:
            for i in prange(n, num_threads=threads, schedule="static"):
                if kind == 0:
                    for k in range(dim):
                        out[i, k] = <real>a
                else:
                    initial_row(ids[i], kind, a, b, seed, &out[i, 0], dim)
