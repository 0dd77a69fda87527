"""The kernels in Cython, parallel through OpenMP: the default body on CPUs.

The contract stands in `mmembed.kernels`; arguments are marked IN, OUT and INOUT as there. The parts are
in kernels/cython/, compiled as one module. Loops over the elements of one row are compiled several
times, for the vector units of several processor families, and the right one is picked when the module
is loaded (`dispatched`).

Must not know files, the tape, Python errors or allocation. Compiler directives stand in setup.py.
"""

from cython.parallel cimport prange, threadid
from libc.math cimport INFINITY, fabs, frexp, isinf, pow, sqrt, sqrtf
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from numpy cimport (
    PyArray_BYTES, PyArray_ISCARRAY, PyArray_ISCARRAY_RO, PyArray_ISNOTSWAPPED, PyArray_ISSIGNED,
    PyArray_ITEMSIZE, PyArray_TYPE, import_array, ndarray,
)

import_array()

cdef extern from "kernels/cython/vectors.h" nogil:
    void sum_float_int32(
        const float*, Py_ssize_t, const int32_t*, const float*, Py_ssize_t, int64_t,
        Py_ssize_t, Py_ssize_t, Py_ssize_t, float*
    ) noexcept
    void sum_float_int64(
        const float*, Py_ssize_t, const int64_t*, const float*, Py_ssize_t, int64_t,
        Py_ssize_t, Py_ssize_t, Py_ssize_t, float*
    ) noexcept
    void sum_double_int32(
        const double*, Py_ssize_t, const int32_t*, const double*, Py_ssize_t, int64_t,
        Py_ssize_t, Py_ssize_t, Py_ssize_t, double*
    ) noexcept
    void sum_double_int64(
        const double*, Py_ssize_t, const int64_t*, const double*, Py_ssize_t, int64_t,
        Py_ssize_t, Py_ssize_t, Py_ssize_t, double*
    ) noexcept
    int stream_width() noexcept
    void copy_rows_int32(
        char*, const char*, Py_ssize_t, Py_ssize_t, const int32_t*, Py_ssize_t, Py_ssize_t
    ) noexcept
    void copy_rows_int64(
        char*, const char*, Py_ssize_t, Py_ssize_t, const int64_t*, Py_ssize_t, Py_ssize_t
    ) noexcept
    void stream_rows_int32(
        char*, const char*, Py_ssize_t, Py_ssize_t, const int32_t*, Py_ssize_t, Py_ssize_t
    ) noexcept
    void stream_rows_int64(
        char*, const char*, Py_ssize_t, Py_ssize_t, const int64_t*, Py_ssize_t, Py_ssize_t
    ) noexcept
    void ask_for_read(const char*, Py_ssize_t) noexcept
    void ask_for_change(const char*, Py_ssize_t) noexcept
    # The return type of a function that returns nothing and is compiled once per processor family.
    ctypedef void dispatched "MMEMBED_DISPATCHED void"

ctypedef fused real:
    float
    double

ctypedef fused id_type:
    int32_t
    int64_t

include "kernels/cython/plan.pxi"
include "kernels/cython/rows.pxi"
include "kernels/cython/segments.pxi"
include "kernels/cython/bags.pxi"
include "kernels/cython/packed.pxi"
include "kernels/cython/updates.pxi"
include "kernels/cython/initial.pxi"
