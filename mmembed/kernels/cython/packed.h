// Rows in fewer bits, to float32 and back: float16, bfloat16, and 8 bits with a scale and a bias per row.
// One macro makes the loops over elements for every format and vector unit; only the loads differ.

#include <string.h>

enum { MMEMBED_FLOAT32, MMEMBED_FLOAT16, MMEMBED_BFLOAT16, MMEMBED_ROWWISE8 };

static inline uint32_t bits_of(float x) { uint32_t u; memcpy(&u, &x, 4); return u; }
static inline float float_of(uint32_t u) { float x; memcpy(&x, &u, 4); return x; }

// One element as float32. Every float16, bfloat16 and byte is one.

static inline float one_half(const char* at) {
    uint16_t h;
    memcpy(&h, at, 2);
    uint32_t body = (uint32_t)(h & 0x7fff) << 13, sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t normal = body + ((h & 0x7c00) == 0x7c00 ? 224u << 23 : 112u << 23);
    uint32_t subnormal = bits_of((float)(int32_t)(h & 0x3ff) * 0x1p-24f);
    return float_of(((h & 0x7c00) ? normal : subnormal) | sign);
}

static inline float one_brain(const char* at) {
    uint16_t h;
    memcpy(&h, at, 2);
    return float_of((uint32_t)h << 16);
}

static inline float one_byte(const char* at) { return (float)*(const uint8_t*)at; }

// A bag's sums are kept in four vectors, as in vectors.h; `tail` is where scale and bias of a row stand.
#define MMEMBED_UNPACK(NAME, TARGET, LINE, BYTES, LOAD, ONE, SCALED) \
    static TARGET void unpack_##NAME(const char* row, const char* tail, float* out, ptrdiff_t count) { \
        enum { WIDTH = sizeof(LINE) / sizeof(float) }; \
        float scale = 1, bias = 0; \
        ptrdiff_t j = 0; \
        if (SCALED) { memcpy(&scale, tail, 4); memcpy(&bias, tail + 4, 4); } \
        for (; j + WIDTH <= count; j += WIDTH) { \
            LINE x = LOAD(row + j * BYTES); \
            if (SCALED) x = x * scale + bias; \
            memcpy(out + j, &x, sizeof(LINE)); \
        } \
        for (; j < count; j++) { \
            float x = ONE(row + j * BYTES); \
            out[j] = SCALED ? x * scale + bias : x; \
        } \
    } \
    MMEMBED_BAG(NAME, TARGET, LINE, BYTES, LOAD, ONE, SCALED, int32_t) \
    MMEMBED_BAG(NAME, TARGET, LINE, BYTES, LOAD, ONE, SCALED, int64_t)

#define MMEMBED_COLUMNS(LINE, COUNT, BYTES, LOAD, SCALED) \
    for (; j + (ptrdiff_t)(COUNT * sizeof(LINE) / 4) <= dim; j += COUNT * sizeof(LINE) / 4) { \
        LINE sums[COUNT], zero = {0}; \
        for (int k = 0; k < COUNT; k++) sums[k] = -zero; \
        for (ptrdiff_t i = 0; i < count; i++) { \
            if (ids[i] == padding) continue; \
            const char* row = table + (ptrdiff_t)ids[i] * stride; \
            float factor = weights ? weights[i] : 1, scale = 1, bias = 0; \
            if (SCALED) { memcpy(&scale, row + dim, 4); memcpy(&bias, row + dim + 4, 4); } \
            for (int k = 0; k < COUNT; k++) { \
                LINE x = LOAD(row + (j + k * (ptrdiff_t)sizeof(LINE) / 4) * BYTES); \
                if (SCALED) x = x * scale + bias; \
                sums[k] += factor * x; \
            } \
        } \
        memcpy(out + j, sums, sizeof(sums)); \
    }

#define MMEMBED_BAG(NAME, TARGET, LINE, BYTES, LOAD, ONE, SCALED, ID) \
    static TARGET void bag_##ID##_##NAME( \
        const char* table, ptrdiff_t stride, ptrdiff_t dim, const ID* ids, const float* weights, \
        ptrdiff_t count, int64_t padding, float* out) \
    { \
        ptrdiff_t j = 0; \
        MMEMBED_COLUMNS(LINE, 4, BYTES, LOAD, SCALED) \
        MMEMBED_COLUMNS(LINE, 1, BYTES, LOAD, SCALED) \
        MMEMBED_COLUMNS(float, 1, BYTES, ONE, SCALED) \
    }

#define MMEMBED_FORMATS(UNIT, TARGET, LINE, HALF, BRAIN, BYTE) \
    MMEMBED_UNPACK(half_##UNIT, TARGET, LINE, 2, HALF, one_half, 0) \
    MMEMBED_UNPACK(brain_##UNIT, TARGET, LINE, 2, BRAIN, one_brain, 0) \
    MMEMBED_UNPACK(byte_##UNIT, TARGET, LINE, 1, BYTE, one_byte, 1)

MMEMBED_FORMATS(any, , float, one_half, one_brain, one_byte)

#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__)
#define HALVES_512(at) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)(at)))
#define BRAINS_512(at) _mm512_castsi512_ps(_mm512_slli_epi32( \
    _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(at))), 16))
#define BYTES_512(at) _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)(at))))
#define HALVES_256(at) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(at)))
#define BRAINS_256(at) _mm256_castsi256_ps(_mm256_slli_epi32( \
    _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)(at))), 16))
#define BYTES_256(at) _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(at))))
MMEMBED_FORMATS(512, __attribute__((target("avx512f"))), __m512, HALVES_512, BRAINS_512, BYTES_512)
// Every processor that has AVX2 has F16C.
MMEMBED_FORMATS(256, __attribute__((target("avx2,f16c"))), __m256, HALVES_256, BRAINS_256, BYTES_256)
#define MMEMBED_PICK(NAME) \
    (__builtin_cpu_supports("avx512f") ? NAME##_512 : __builtin_cpu_supports("avx2") ? NAME##_256 : NAME##_any)
#else
#define MMEMBED_PICK(NAME) NAME##_any
#endif

#define MMEMBED_PICK_FORMAT(NAME, FORMAT) \
    (FORMAT == MMEMBED_FLOAT16 ? MMEMBED_PICK(NAME##_half) \
     : FORMAT == MMEMBED_BFLOAT16 ? MMEMBED_PICK(NAME##_brain) : MMEMBED_PICK(NAME##_byte))

typedef void (*unpack_row)(const char*, const char*, float*, ptrdiff_t);
typedef void (*bag_of_int32)(
    const char*, ptrdiff_t, ptrdiff_t, const int32_t*, const float*, ptrdiff_t, int64_t, float*);
typedef void (*bag_of_int64)(
    const char*, ptrdiff_t, ptrdiff_t, const int64_t*, const float*, ptrdiff_t, int64_t, float*);

static void copy_row(const char* row, const char* tail, float* out, ptrdiff_t count) {
    memcpy(out, row, count * sizeof(float));
}

static unpack_row unpack_of(int format) {
    return format == MMEMBED_FLOAT32 ? copy_row : MMEMBED_PICK_FORMAT(unpack, format);
}
static bag_of_int32 bag_of_int32_of(int format) { return MMEMBED_PICK_FORMAT(bag_int32_t, format); }
static bag_of_int64 bag_of_int64_of(int format) { return MMEMBED_PICK_FORMAT(bag_int64_t, format); }

// float32 to fewer bits. A NaN becomes the one positive quiet NaN, whatever it was: which NaN an
// operation gives is left to compilers. `random` is a number of 16 bits.

static inline uint16_t nearest_half(float x) {
    uint32_t body = bits_of(x) & 0x7fffffff, sign = (bits_of(x) >> 16) & 0x8000;
    uint32_t normal = ((body + 0xfff + ((body >> 13) & 1)) >> 13) - (112u << 10);
    uint32_t subnormal = bits_of(float_of(body) + 0.5f) - 0x3f000000;  // whose last bit is 2**-24
    uint32_t finite = (body < 0x38800000 ? subnormal : normal) | sign;
    uint32_t large = body > 0x7f800000 ? 0x7e00 : 0x7c00 | sign;
    return (uint16_t)(body >= 0x477ff000 ? large : finite);
}

static inline uint16_t random_half(float x, uint32_t random) {
    uint32_t body = bits_of(x) & 0x7fffffff, sign = (bits_of(x) >> 16) & 0x8000;
    uint32_t normal = ((body + (random >> 3)) >> 13) - (112u << 10);
    float scaled = float_of(body < 0x38800000 ? body : 0) * 0x1p24f;  // exact
    int32_t below = (int32_t)scaled;
    uint32_t subnormal = (uint32_t)below + ((float)(int32_t)random * 0x1p-16f < scaled - (float)below);
    uint32_t finite = (body < 0x38800000 ? subnormal : normal) | sign;
    uint32_t large = body > 0x7f800000 ? 0x7e00 : 0x7c00 | sign;
    return (uint16_t)(body >= 0x47800000 ? large : finite);
}

static inline uint16_t brain(float x, uint32_t added) {
    uint32_t body = bits_of(x);
    return (uint16_t)((body & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : (body + added) >> 16);
}

static MMEMBED_DISPATCHED void pack_half(const float* row, uint16_t* out, ptrdiff_t dim) {
    for (ptrdiff_t j = 0; j < dim; j++) out[j] = nearest_half(row[j]);
}

static MMEMBED_DISPATCHED void pack_brain(const float* row, uint16_t* out, ptrdiff_t dim) {
    for (ptrdiff_t j = 0; j < dim; j++) out[j] = brain(row[j], 0x7fff + ((bits_of(row[j]) >> 16) & 1));
}

// Random bits for 64 columns: lane l has the words of Philox for the counter (first + l, step, row).
enum { MMEMBED_LANES = 8 };
static inline void philox_lanes(
    uint32_t first, uint32_t step, uint64_t row, uint64_t seed, uint32_t words[4][MMEMBED_LANES])
{
    uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);
    for (int l = 0; l < MMEMBED_LANES; l++) {
        words[0][l] = first + l;
        words[1][l] = step;
        words[2][l] = (uint32_t)row;
        words[3][l] = (uint32_t)(row >> 32);
    }
    for (int r = 0; r < 10; r++) {
        for (int l = 0; l < MMEMBED_LANES; l++) {
            uint64_t product0 = (uint64_t)0xD2511F53 * words[0][l];
            uint64_t product1 = (uint64_t)0xCD9E8D57 * words[2][l];
            words[0][l] = (uint32_t)(product1 >> 32) ^ words[1][l] ^ key0;
            words[2][l] = (uint32_t)(product0 >> 32) ^ words[3][l] ^ key1;
            words[1][l] = (uint32_t)product1;
            words[3][l] = (uint32_t)product0;
        }
        key0 += 0x9E3779B9;
        key1 += 0xBB67AE85;
    }
}

// Column 64 b + 8 p + l takes piece p (of 16 bits, low half of a word first) of lane l of group b.
#define MMEMBED_PACK_RANDOM(NAME, ROUND) \
    static MMEMBED_DISPATCHED void NAME( \
        const float* row, uint16_t* out, ptrdiff_t dim, uint64_t id, uint64_t seed, uint32_t step) \
    { \
        uint32_t words[4][MMEMBED_LANES]; \
        for (ptrdiff_t j = 0; j < dim; j += 8 * MMEMBED_LANES) { \
            philox_lanes((uint32_t)(j / 8), step, id, seed, words); \
            for (int p = 0; p < 8 && j + p * MMEMBED_LANES < dim; p++) { \
                ptrdiff_t at = j + p * MMEMBED_LANES; \
                int here = dim - at < MMEMBED_LANES ? (int)(dim - at) : MMEMBED_LANES; \
                for (int l = 0; l < here; l++) { \
                    uint32_t random = words[p / 2][l] >> 16 * (p % 2) & 0xffff; \
                    out[at + l] = ROUND(row[at + l], random); \
                } \
            } \
        } \
    }
MMEMBED_PACK_RANDOM(pack_half_random, random_half)
MMEMBED_PACK_RANDOM(pack_brain_random, brain)

// Bytes: q = (x - bias) / scale to the nearest, bias the smallest of the row, as FBGEMM does.
static MMEMBED_DISPATCHED void pack_byte(const float* row, uint8_t* out, ptrdiff_t dim) {
    float least = dim ? row[0] : 0, most = least;
    for (ptrdiff_t j = 0; j < dim; j++) {
        least = row[j] < least ? row[j] : least;
        most = row[j] > most ? row[j] : most;
    }
    least += 0.0f;  // of zeros, the positive one
    float range = most - least, scale = range / 255.0f, inverse = 255.0f / (range + 1e-8f);
    for (ptrdiff_t j = 0; j < dim; j++)  // adding 2**23 rounds to whole numbers
        out[j] = (uint8_t)bits_of((row[j] - least) * inverse + 0x1p23f);
    memcpy(out + dim, &scale, 4);
    memcpy(out + dim + 4, &least, 4);
}

static void pack_row(
    int format, const float* row, char* out, ptrdiff_t dim, int stochastic, uint64_t id, uint64_t seed,
    uint32_t step)
{
    uint16_t* halves = (uint16_t*)out;
    if (format == MMEMBED_FLOAT32) memcpy(out, row, dim * sizeof(float));
    else if (format == MMEMBED_ROWWISE8) pack_byte(row, (uint8_t*)out, dim);
    else if (format == MMEMBED_FLOAT16 && stochastic) pack_half_random(row, halves, dim, id, seed, step);
    else if (format == MMEMBED_FLOAT16) pack_half(row, halves, dim);
    else if (stochastic) pack_brain_random(row, halves, dim, id, seed, step);
    else pack_brain(row, halves, dim);
}
