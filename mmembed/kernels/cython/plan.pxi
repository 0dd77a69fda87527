# Ids: their check, and the plan of a batch.

cdef enum:
    ID_BLOCK = 4096  # ids checked before looking for the exact place of a bad one
    RADIX_BITS = 11
    BUCKETS = 2048
    MAX_PASSES = 6  # 6 * 11 bits hold every int64
    SORTERS = 8  # threads of one sort, at most: each has its own counts on the stack


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


# Ids and positions of less than 2**32 are sorted as one number, (id << 32) + position, by digits from
# the least significant on. Each of several threads counts and moves a share of the batch; digit by
# digit, the first share comes first, so that the sort is stable and the same for every number of threads.

ctypedef uint32_t[BUCKETS] Counts


cdef void count_digits(
    const id_type* ids,  # IN   (n,), or NULL
    const uint64_t* pairs,  # IN   (n,), if there are no ids
    Py_ssize_t start,
    Py_ssize_t stop,
    int shift,
    uint64_t mask,
    uint32_t* counts,  # OUT  (BUCKETS,)
) noexcept nogil:
    cdef Py_ssize_t i
    memset(counts, 0, sizeof(Counts))
    if ids != NULL:
        for i in range(start, stop):
            counts[<uint64_t>ids[i] & mask] += 1
    else:
        for i in range(start, stop):
            counts[pairs[i] >> shift & mask] += 1


cdef void move_by_digit(
    const id_type* ids,  # IN     (n,), or NULL
    const uint64_t* pairs,  # IN     (n,), if there are no ids
    Py_ssize_t start,
    Py_ssize_t stop,
    int shift,
    uint64_t mask,
    uint32_t* places,  # INOUT  (BUCKETS,), where the next pair with a digit goes
    uint64_t* out,  # OUT    (n,)
) noexcept nogil:
    cdef Py_ssize_t i
    cdef uint64_t pair, digit
    for i in range(start, stop):
        pair = <uint64_t>ids[i] << 32 | <uint64_t>i if ids != NULL else pairs[i]
        digit = pair >> shift & mask
        out[places[digit]] = pair
        places[digit] += 1


cdef void places_of(Counts* counts, int shares) noexcept nogil:
    """Turn how often each share has each digit into where it puts the first of them."""
    cdef uint32_t size, total = 0
    cdef int digit, t
    for digit in range(BUCKETS):
        for t in range(shares):
            size = counts[t][digit]
            counts[t][digit] = total
            total += size


cdef void count_runs(
    const uint64_t* pairs, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t* runs
) noexcept nogil:
    """Count the ids that begin in a share."""
    cdef Py_ssize_t i, count = start == 0 and stop > 0
    for i in range(max(start, <Py_ssize_t>1), stop):
        count += pairs[i] >> 32 != pairs[i - 1] >> 32
    runs[0] = count


cdef void write_plan(
    const uint64_t* pairs,  # IN   (n,), sorted
    Py_ssize_t start,
    Py_ssize_t stop,
    Py_ssize_t run,  # number of the first id that begins in the share
    int64_t* order,  # OUT  (n,)
    int64_t* unique,  # OUT  (n,)
    int64_t* starts,  # OUT  (n+1,)
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(start, stop):
        order[i] = <int64_t>(pairs[i] & 0xFFFFFFFFu)
        if i == 0 or pairs[i] >> 32 != pairs[i - 1] >> 32:
            unique[run] = <int64_t>(pairs[i] >> 32)
            starts[run] = i
            run += 1


cdef Py_ssize_t sort_ids(
    const id_type* ids,  # IN     (n,), 1 <= n < 2**32, all within 0..rows-1
    Py_ssize_t n,
    Py_ssize_t rows,  # <= 2**32
    int64_t* order,  # OUT    (n,)
    int64_t* unique,  # OUT    (n,)
    int64_t* starts,  # OUT    (n+1,)
    int64_t* work,  # INOUT  (2 * n,)
    int threads,
) noexcept nogil:
    """Sort pairs of id and position, then find the runs of equal ids; returns their number."""
    cdef Counts[SORTERS] counts
    cdef Py_ssize_t[SORTERS] runs
    cdef Py_ssize_t size, total = 0
    cdef uint64_t* pairs = NULL
    cdef uint64_t* out = <uint64_t*>work
    cdef const id_type* source = ids
    cdef int t, p, shift, bits = 1, passes, shares = min(threads, SORTERS)
    cdef uint64_t mask
    while (rows - 1) >> bits:
        bits += 1
    passes = (bits + RADIX_BITS - 1) // RADIX_BITS
    bits = (bits + passes - 1) // passes
    mask = (<uint64_t>1 << bits) - 1
    for p in range(passes):
        shift = 32 + p * bits
        for t in prange(shares, num_threads=shares, schedule="static"):
            count_digits(source, pairs, n * t // shares, n * (t + 1) // shares, shift, mask, counts[t])
        places_of(counts, shares)
        for t in prange(shares, num_threads=shares, schedule="static"):
            move_by_digit(
                source, pairs, n * t // shares, n * (t + 1) // shares, shift, mask, counts[t], out
            )
        source = NULL
        pairs = out
        out = <uint64_t*>work + (n if out == <uint64_t*>work else 0)
    for t in prange(shares, num_threads=shares, schedule="static"):
        count_runs(pairs, n * t // shares, n * (t + 1) // shares, &runs[t])
    for t in range(shares):
        size = runs[t]
        runs[t] = total
        total += size
    for t in prange(shares, num_threads=shares, schedule="static"):
        write_plan(
            pairs, n * t // shares, n * (t + 1) // shares, runs[t], order, unique, starts
        )
    starts[total] = n
    return total


cdef Py_ssize_t sort_wide(
    const id_type* ids,  # IN     (n,), n >= 1, all within 0..rows-1
    Py_ssize_t n,
    Py_ssize_t rows,
    int64_t* order,  # OUT    (n,)
    int64_t* unique,  # OUT    (n,)
    int64_t* starts,  # OUT    (n+1,)
    int64_t* work,  # INOUT  (2 * n,)
) noexcept nogil:
    """`sort_ids` for ids or batches that do not fit 32 bits."""
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
            elif n <= 0xFFFFFFFFu and rows - 1 <= 0xFFFFFFFFu:
                count[0] = sort_ids(
                    &ids[0], n, rows, &order[0], &unique[0], &starts[0], &work[0], threads
                )
            else:
                count[0] = sort_wide(&ids[0], n, rows, &order[0], &unique[0], &starts[0], &work[0])
    return bad
