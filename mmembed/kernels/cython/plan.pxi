# Ids: their check, and the plan of a batch.

cdef enum:
    ID_BLOCK = 4096  # ids checked before looking for the exact place of a bad one
    RADIX_BITS = 11
    BUCKETS = 2048
    MAX_PASSES = 6  # 6 * 11 bits hold every int64


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
