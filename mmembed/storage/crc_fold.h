/* CRC-32 of long data by carry-less multiplication, as Gopal et al., "Fast CRC Computation for
   Generic Polynomials Using PCLMULQDQ", Intel 2009, give it; constants for the reflected
   polynomial 0xEDB88320. */

#ifndef MMEMBED_CRC_FOLD_H
#define MMEMBED_CRC_FOLD_H

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

static int crc_folds(void) {
    return __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
}

/* x * K folded onto what lies behind it. */
__attribute__((target("pclmul,sse4.1"))) static inline __m128i crc_onto(
    __m128i x, __m128i k, __m128i behind) {
    __m128i low = _mm_clmulepi64_si128(x, k, 0x00);
    __m128i high = _mm_clmulepi64_si128(x, k, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), behind);
}

static inline __m128i crc_load(const uint8_t* data) {
    return _mm_loadu_si128((const __m128i*)data);
}

/* Write 16 bytes whose CRC, from a register of 0, is that of `count` bytes from a register of
   ones. `count` is a multiple of 16, and 64 at least. */
__attribute__((target("pclmul,sse4.1"))) static void crc_fold(
    const uint8_t* data, size_t count, uint8_t* out) {
    const __m128i by_64 = _mm_set_epi64x(0x01c6e41596, 0x0154442bd4);
    const __m128i by_16 = _mm_set_epi64x(0x00ccaa009e, 0x01751997d0);
    __m128i a = _mm_xor_si128(crc_load(data), _mm_cvtsi32_si128(-1));
    __m128i b = crc_load(data + 16), c = crc_load(data + 32), d = crc_load(data + 48);
    for (data += 64, count -= 64; count >= 64; data += 64, count -= 64) {
        a = crc_onto(a, by_64, crc_load(data));
        b = crc_onto(b, by_64, crc_load(data + 16));
        c = crc_onto(c, by_64, crc_load(data + 32));
        d = crc_onto(d, by_64, crc_load(data + 48));
    }
    a = crc_onto(a, by_16, b);
    a = crc_onto(a, by_16, c);
    a = crc_onto(a, by_16, d);
    for (; count >= 16; data += 16, count -= 16) {
        a = crc_onto(a, by_16, crc_load(data));
    }
    _mm_storeu_si128((__m128i*)out, a);
}

#else

static int crc_folds(void) { return 0; }
static void crc_fold(const uint8_t* data, size_t count, uint8_t* out) {
    (void)data, (void)count, (void)out;
}

#endif
#endif
