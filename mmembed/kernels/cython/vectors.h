// What Cython has no words for: code compiled once per vector unit, sums kept in registers, and stores
// that go past the cache.

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__)
#include <immintrin.h>
#define MMEMBED_X86 1
// By features: a processor that GCC does not know by name is none of its architectures.
#define MMEMBED_DISPATCHED __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define MMEMBED_X86 0
#define MMEMBED_DISPATCHED
#endif

// Start to bring all cache lines of a row near, from that in which it begins on: into the second level of
// the cache, where gathers and bags took up to a quarter less time, or into the first, for updates.
#define MMEMBED_ASK_FOR(NAME, LEVEL) \
    static inline void NAME(const char* row, ptrdiff_t size) { \
        const char* end = row + size; \
        for (const char* line = row - (uintptr_t)row % 64; line < end; line += 64) \
            __builtin_prefetch(line, 0, LEVEL); \
    }
MMEMBED_ASK_FOR(ask_for_read, 2)
MMEMBED_ASK_FOR(ask_for_change, 3)

// Copy n rows of `size` bytes one behind the other, asking for each `ahead` rows before its turn. WIDTH
// bytes at a time by COPY if that divides `size`.
#define MMEMBED_COPY_ROWS(NAME, TARGET, ID, WIDTH, COPY) \
    TARGET static void NAME( \
        char* to, const char* table, ptrdiff_t stride, ptrdiff_t size, \
        const ID* ids, ptrdiff_t n, ptrdiff_t ahead) \
    { \
        for (ptrdiff_t i = 0; i < n; i++, to += size) { \
            if (i + ahead < n) { \
                ask_for_read(table + (ptrdiff_t)ids[i + ahead] * stride, size); \
            } \
            const char* from = table + (ptrdiff_t)ids[i] * stride; \
            if (size % WIDTH) memcpy(to, from, size); \
            else for (ptrdiff_t k = 0; k < size; k += WIDTH) COPY(to + k, from + k); \
        } \
    }

typedef char mmembed_line __attribute__((vector_size(64), aligned(1), may_alias));
#define MMEMBED_COPY_LINE(to, from) *(mmembed_line*)(to) = *(const mmembed_line*)(from)
MMEMBED_COPY_ROWS(copy_rows_int32, MMEMBED_DISPATCHED, int32_t, 64, MMEMBED_COPY_LINE)
MMEMBED_COPY_ROWS(copy_rows_int64, MMEMBED_DISPATCHED, int64_t, 64, MMEMBED_COPY_LINE)

// The same with stores that go past the cache, where `to` and `size` are multiples of stream_width().
// Stores of 16 bytes exist everywhere, and were slower than going through the cache.
#if MMEMBED_X86
#define MMEMBED_STREAM_64(to, from) \
    _mm512_stream_si512((__m512i*)(to), _mm512_loadu_si512((const __m512i*)(from)))
#define MMEMBED_STREAM_32(to, from) \
    _mm256_stream_si256((__m256i*)(to), _mm256_loadu_si256((const __m256i*)(from)))
#define MMEMBED_AVX512 __attribute__((target("avx512f")))
#define MMEMBED_AVX2 __attribute__((target("avx2")))
MMEMBED_COPY_ROWS(stream_rows_64_int32, MMEMBED_AVX512, int32_t, 64, MMEMBED_STREAM_64)
MMEMBED_COPY_ROWS(stream_rows_64_int64, MMEMBED_AVX512, int64_t, 64, MMEMBED_STREAM_64)
MMEMBED_COPY_ROWS(stream_rows_32_int32, MMEMBED_AVX2, int32_t, 32, MMEMBED_STREAM_32)
MMEMBED_COPY_ROWS(stream_rows_32_int64, MMEMBED_AVX2, int64_t, 32, MMEMBED_STREAM_32)

static int stream_width(void) {
    return __builtin_cpu_supports("avx512f") ? 64 : __builtin_cpu_supports("avx2") ? 32 : 0;
}

#define MMEMBED_STREAM_ROWS(ID) \
    static void stream_rows_##ID( \
        char* to, const char* table, ptrdiff_t stride, ptrdiff_t size, \
        const ID##_t* ids, ptrdiff_t n, ptrdiff_t ahead) \
    { \
        if (stream_width() == 64) stream_rows_64_##ID(to, table, stride, size, ids, n, ahead); \
        else stream_rows_32_##ID(to, table, stride, size, ids, n, ahead); \
        _mm_sfence();  /* other threads see it from here on */ \
    }
MMEMBED_STREAM_ROWS(int32)
MMEMBED_STREAM_ROWS(int64)
#else
static int stream_width(void) { return 0; }
#define stream_rows_int32 copy_rows_int32
#define stream_rows_int64 copy_rows_int64
#endif

// Add up COLUMN_BYTES of columns of the rows of a bag, in four vectors: compilers keep these in
// registers, and an array on the stack. -0 + x is x, whatever x is. On the way, ask for `size` bytes of
// the rows that come `ahead` ids later, before id `last`.
#define MMEMBED_SUM_WIDE(NAME, REAL, ID) \
    typedef REAL NAME##_line \
        __attribute__((vector_size(64), aligned(sizeof(REAL)), may_alias)); \
    static MMEMBED_DISPATCHED void NAME( \
        const REAL* table, ptrdiff_t stride, const ID* ids, const REAL* weights, \
        ptrdiff_t count, int64_t padding, ptrdiff_t ahead, ptrdiff_t last, ptrdiff_t size, \
        REAL* out) \
    { \
        NAME##_line zero = {0}, a = -zero, b = a, c = a, d = a; \
        for (ptrdiff_t i = 0; i < count; i++) { \
            if (i + ahead < last) { \
                const REAL* coming = table + (ptrdiff_t)ids[i + ahead] * stride; \
                ask_for_read((const char*)coming, size); \
            } \
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
