# Sums over the segments of a batch.


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
    cdef int t, shares = shares_for(threads)
    cdef const real* all_values = &values[0, 0] if values.shape[0] and dim else NULL
    cdef const int64_t* places = &order[0] if order.shape[0] else NULL
    if dim == 0:
        return
    with nogil:
        for t in prange(shares, num_threads=threads, schedule="dynamic", chunksize=1):
            for s in range(share_start(starts, t, shares), share_start(starts, t + 1, shares)):
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
    cdef int t, shares = shares_for(threads)
    with nogil:
        bad = check_ids(ids, out.shape[0])
        if bad < 0 and dim > 0:
            for t in prange(shares, num_threads=threads, schedule="dynamic", chunksize=1):
                for s in range(share_start(starts, t, shares), share_start(starts, t + 1, shares)):
                    for k in range(starts[s], starts[s + 1]):
                        add_row(&out[ids[s], 0], &values[order[k], 0], dim)
    return bad
