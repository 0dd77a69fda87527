// What Cython has no words for: code compiled once per vector unit, sums kept in registers, and stores
// that go past the cache.

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__)
#include <immintrin.h>
// By features: a processor that GCC does not know by name is none of its architectures.
#define MMEMBED_DISPATCHED __attribute__((target_clones("avx512f", "avx2", "default")))

__attribute__((target("avx512f"))) static void stream_64(char* to, const char* from, ptrdiff_t bytes) {
    for (ptrdiff_t i = 0; i < bytes; i += 64)
        _mm512_stream_si512((__m512i*)(to + i), _mm512_loadu_si512((const __m512i*)(from + i)));
}

__attribute__((target("avx2"))) static void stream_32(char* to, const char* from, ptrdiff_t bytes) {
    for (ptrdiff_t i = 0; i < bytes; i += 32)
        _mm256_stream_si256((__m256i*)(to + i), _mm256_loadu_si256((const __m256i*)(from + i)));
}

// How many bytes a store past the cache writes here; 0 if there are none. Stores of 16 bytes exist
// everywhere, and were slower than going through the cache.
static int stream_width(void) {
    return __builtin_cpu_supports("avx512f") ? 64 : __builtin_cpu_supports("avx2") ? 32 : 0;
}

// Copy whole widths past the cache.
static void stream(char* to, const char* from, ptrdiff_t bytes, int width) {
    if (width == 64) stream_64(to, from, bytes);
    else stream_32(to, from, bytes);
}

// Make what was streamed visible to other threads.
static void end_stream(void) { _mm_sfence(); }
#else
#define MMEMBED_DISPATCHED
static int stream_width(void) { return 0; }
static void stream(char* to, const char* from, ptrdiff_t bytes, int width) {}
static void end_stream(void) {}
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
