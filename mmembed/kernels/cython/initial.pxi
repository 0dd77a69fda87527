# Initial values: a pure function of (seed, row, column).

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
            for i in prange(
                n, num_threads=threads, schedule="dynamic", chunksize=share_rows(n, threads)
            ):
                if kind == 0:
                    for k in range(dim):
                        out[i, k] = <real>a
                else:
                    initial_row(ids[i], kind, a, b, seed, &out[i, 0], dim)
