# Updates: the sum of each segment, and what an optimizer does with it, in one pass.

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
    cdef int t, shares = shares_for(threads)
    bad = check_ids(ids, weight.shape[0])
    if bad < 0 and dim > 0:
        for t in prange(shares, num_threads=threads, schedule="dynamic", chunksize=1):
            update_share(
                rule, hyper, weight, first, second, ids, values, order, starts,
                share_start(starts, t, shares), share_start(starts, t + 1, shares),
                <real>weight_decay, maximize, &work[threadid(), 0],
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


cdef dispatched follow_row(
    real* weight, real* mean, const real* g, Py_ssize_t dim, real towards, real step
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(dim):
        mean[i] = mean[i] + (g[i] - mean[i]) * towards
        weight[i] = weight[i] - step * mean[i]


cdef void rowwise_adam_rule(
    real* weight, real* mean, real* square, const real* g, Py_ssize_t dim, const double* hyper
) noexcept nogil:
    cdef double squares
    cdef real scale
    sum_of_squares(g, dim, &squares)
    square[0] = square[0] + (<real>(squares / dim) - square[0]) * <real>(1 - hyper[2])
    scale = <real>sqrt(square[0]) * <real>hyper[3] + <real>hyper[4]
    follow_row(weight, mean, g, dim, <real>(1 - hyper[1]), <real>hyper[0] / scale)


def update_rowwise_adam(
    real[:, :] weight,  # INOUT  (rows, dim)
    real[:, :] mean,  # INOUT  (rows, dim)
    real[:, :] square,  # INOUT  (rows, 1)
    const int64_t[::1] ids,  # IN     (segments,), distinct
    const real[:, ::1] values,  # IN     (n, dim)
    const int64_t[::1] order,  # IN     (n,)
    const int64_t[::1] starts,  # IN     (segments + 1,)
    double step_size,
    double beta1,
    double beta2,
    double correction,
    double eps,
    double weight_decay,
    bint maximize,
    real[:, ::1] work,  # INOUT  (threads, dim or more), scratch
    int threads,
):
    """As `update_adam`; weight -= step_size / (sqrt(square) * correction + eps) * mean."""
    cdef Py_ssize_t bad
    cdef double[5] hyper = [step_size, beta1, beta2, correction, eps]
    with nogil:
        bad = update_rows(
            rowwise_adam_rule[real], hyper, weight, mean, square,
            ids, values, order, starts, weight_decay, maximize, work, threads,
        )
    return bad
