/* Batch normalization fused with adjacent layers, in as few passes over memory as possible.

   Arrays are images x height x width x channels; a row is the channels of one pixel. With
   bfloat16, only stored values are rounded; partial sums are float32, totals double. NaNs pass
   through every comparison, so that divergence is detected. */

#ifndef STORED

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 64 /* rows summed in float32 before they are added to the total */

typedef struct {
    int64_t images, height, width, channels;
    int64_t relu;         /* ReLU of the input, in place */
    int64_t pool;         /* 2x2 max pooling of the output */
    int64_t threads;
    float low, high;      /* bounds of the output */
    double epsilon;
} Shape;

static inline float from_bfloat16(uint16_t stored)
{
    union { uint32_t bits; float value; } both = {.bits = (uint32_t)stored << 16};
    return both.value;
}

static inline uint16_t to_bfloat16(float value)
{
    union { float value; uint32_t bits; } both = {.value = value};
    uint32_t rounded = (both.bits + 0x7fff + ((both.bits >> 16) & 1)) >> 16;
    return value != value ? 0x7fc0 : rounded;
}

static inline float within(float value, float low, float high)
{
    value = value < low ? low : value;
    return value > high ? high : value;
}

/* One of a pass's sums, added up over the threads' parts. */
static inline double whole(const Shape *shape, const double *partial, int64_t at)
{
    double total = 0;
    for (int64_t t = 0; t < shape->threads; t++)
        total += partial[2 * shape->channels * t + at];
    return total;
}

/* Add a block's two sums to the thread's part. */
static inline void join(double *restrict total, const float *restrict first,
                        const float *restrict second, int64_t channels)
{
#pragma omp simd
    for (int64_t c = 0; c < channels; c++) {
        total[c] += first[c];
        total[channels + c] += second[c];
    }
}

#define STORED float
#define NAME(name) name##_float32
#define GET(stored) (stored)
#define PUT(value) (value)
#include "fused_batch_norm.c"
#undef STORED
#undef NAME
#undef GET
#undef PUT

#define STORED uint16_t
#define NAME(name) name##_bfloat16
#define GET(stored) from_bfloat16(stored)
#define PUT(value) to_bfloat16(value)
#include "fused_batch_norm.c"

#else

/* Sums over rows of the input (after its ReLU) and of its square, both relative to a pivot. */
static void NAME(moments)(const Shape *shape, STORED *x, const float *restrict pivot, double *partial)
{
    const int64_t channels = shape->channels;
    const int64_t rows = shape->images * shape->height * shape->width;
    const int relu = shape->relu;
#pragma omp parallel num_threads(shape->threads)
    {
        double *total = partial + 2 * channels * omp_get_thread_num();
        float first[channels], second[channels];
#pragma omp for schedule(static)
        for (int64_t block = 0; block < rows; block += BLOCK) {
            const int64_t end = block + BLOCK < rows ? block + BLOCK : rows;
            memset(first, 0, sizeof first);
            memset(second, 0, sizeof second);
            for (int64_t row = block; row < end; row++) {
                STORED *restrict at = x + row * channels;
                if (relu)
#pragma omp simd
                    for (int64_t c = 0; c < channels; c++) {
                        const float value = GET(at[c]);
                        at[c] = PUT(value < 0 ? 0 : value);
                    }
#pragma omp simd
                for (int64_t c = 0; c < channels; c++) {
                    const float apart = GET(at[c]) - pivot[c];
                    first[c] += apart;
                    second[c] += apart * apart;
                }
            }
            join(total, first, second, channels);
        }
    }
}

/* z = x * scale + offset, after the input's ReLU, followed by bounds and pooling. */
int NAME(normalize)(const Shape *shape, const STORED *x, STORED *z, const float *scale,
                    const float *offset)
{
    const int64_t channels = shape->channels, width = shape->width;
    const float low = shape->low, high = shape->high;
    const float floor = shape->relu ? 0 : -INFINITY;
    if (!shape->pool) {
        const int64_t rows = shape->images * shape->height * width;
#pragma omp parallel for schedule(static) num_threads(shape->threads)
        for (int64_t row = 0; row < rows; row++) {
            const STORED *restrict from = x + row * channels;
            STORED *restrict to = z + row * channels;
#pragma omp simd
            for (int64_t c = 0; c < channels; c++) {
                const float value = within(GET(from[c]), floor, INFINITY);
                to[c] = PUT(within(value * scale[c] + offset[c], low, high));
            }
        }
        return 0;
    }
    const int64_t lines = shape->images * shape->height / 2;
#pragma omp parallel for schedule(static) num_threads(shape->threads)
    for (int64_t line = 0; line < lines; line++)
        for (int64_t column = 0; column < width / 2; column++) {
            const STORED *restrict a = x + (2 * line * width + 2 * column) * channels;
            const STORED *restrict b = a + channels;
            const STORED *restrict c = a + width * channels;
            const STORED *restrict d = c + channels;
            STORED *restrict to = z + (line * (width / 2) + column) * channels;
#pragma omp simd
            for (int64_t i = 0; i < channels; i++) {
                const float by = scale[i], plus = offset[i];
                float most = within(GET(a[i]), floor, INFINITY) * by + plus;
                const float q = within(GET(b[i]), floor, INFINITY) * by + plus;
                most = q > most || q != q ? q : most;
                const float r = within(GET(c[i]), floor, INFINITY) * by + plus;
                most = r > most || r != r ? r : most;
                const float s = within(GET(d[i]), floor, INFINITY) * by + plus;
                most = s > most || s != s ? s : most;
                to[i] = PUT(within(most, low, high));
            }
        }
    return 0;
}

/* Sums over rows of the gradient at the normalization's output, and of that times the
   centered input. */
static void NAME(products)(const Shape *shape, const STORED *x, const STORED *dz,
                           const float *restrict mean, const float *restrict scale, const float *restrict offset,
                           double *partial)
{
    const int64_t channels = shape->channels, width = shape->width;
    const int pool = shape->pool;
    const int64_t across = pool ? width / 2 : width;
    const int64_t rows = shape->images * shape->height * width / (pool ? 4 : 1);
    const float low = shape->low, high = shape->high;
#pragma omp parallel num_threads(shape->threads)
    {
        double *total = partial + 2 * channels * omp_get_thread_num();
        float first[channels], second[channels];
#pragma omp for schedule(static)
        for (int64_t block = 0; block < rows; block += BLOCK) {
            const int64_t end = block + BLOCK < rows ? block + BLOCK : rows;
            memset(first, 0, sizeof first);
            memset(second, 0, sizeof second);
            for (int64_t row = block; row < end; row++) {
                const STORED *restrict given = dz + row * channels;
                if (!pool) {
                    const STORED *restrict at = x + row * channels;
#pragma omp simd
                    for (int64_t i = 0; i < channels; i++) {
                        const float value = GET(at[i]), out = value * scale[i] + offset[i];
                        const float gradient = out > low && out < high ? GET(given[i]) : 0;
                        first[i] += gradient;
                        second[i] += gradient * (value - mean[i]);
                    }
                    continue;
                }
                const int64_t line = row / across, column = row % across;
                const STORED *restrict a = x + (2 * line * width + 2 * column) * channels;
                const STORED *restrict b = a + channels;
                const STORED *restrict c = a + width * channels;
                const STORED *restrict d = c + channels;
#pragma omp simd
                for (int64_t i = 0; i < channels; i++) {
                    const float by = scale[i], plus = offset[i];
                    const float q = GET(b[i]), r = GET(c[i]), s = GET(d[i]);
                    float value = GET(a[i]), most = value * by + plus;
                    float out = q * by + plus;
                    value = out > most ? q : value, most = out > most ? out : most;
                    out = r * by + plus;
                    value = out > most ? r : value, most = out > most ? out : most;
                    out = s * by + plus;
                    value = out > most ? s : value, most = out > most ? out : most;
                    const float gradient = most > low && most < high ? GET(given[i]) : 0;
                    first[i] += gradient;
                    second[i] += gradient * (value - mean[i]);
                }
            }
            join(total, first, second, channels);
        }
    }
}

/* dx = scale * gradient + slope * x + level where the input's ReLU is active, else 0. */
static void NAME(gradient)(const Shape *shape, const STORED *x, const STORED *dz, STORED *dx,
                           const float *restrict scale, const float *restrict offset, const float *restrict slope,
                           const float *restrict level)
{
    const int64_t channels = shape->channels, width = shape->width;
    const float low = shape->low, high = shape->high;
    const float floor = shape->relu ? 0 : -INFINITY;
    if (!shape->pool) {
        const int64_t rows = shape->images * shape->height * width;
#pragma omp parallel for schedule(static) num_threads(shape->threads)
        for (int64_t row = 0; row < rows; row++) {
            const STORED *restrict at = x + row * channels;
            const STORED *restrict given = dz + row * channels;
            STORED *restrict to = dx + row * channels;
#pragma omp simd
            for (int64_t i = 0; i < channels; i++) {
                const float value = GET(at[i]), out = value * scale[i] + offset[i];
                const float gradient = out > low && out < high ? GET(given[i]) : 0;
                const float result = scale[i] * gradient + slope[i] * value + level[i];
                to[i] = PUT(value <= floor ? 0 : result);
            }
        }
        return;
    }
    const int64_t lines = shape->images * shape->height / 2;
#pragma omp parallel for schedule(static) num_threads(shape->threads)
    for (int64_t line = 0; line < lines; line++)
        for (int64_t column = 0; column < width / 2; column++) {
            const int64_t start = (2 * line * width + 2 * column) * channels;
            const int64_t below = width * channels;
            const STORED *restrict from = x + start;
            const STORED *restrict given = dz + (line * (width / 2) + column) * channels;
            STORED *restrict to_p = dx + start, *restrict to_q = to_p + channels;
            STORED *restrict to_r = to_p + below, *restrict to_s = to_r + channels;
#pragma omp simd
            for (int64_t i = 0; i < channels; i++) {
                const float by = scale[i], plus = offset[i], bent = slope[i], more = level[i];
                const float p = GET(from[i]), q = GET(from[channels + i]);
                const float r = GET(from[below + i]), s = GET(from[below + channels + i]);
                float most = p * by + plus, out = q * by + plus;
                int32_t best = 0;
                best = out > most ? 1 : best, most = out > most ? out : most;
                out = r * by + plus;
                best = out > most ? 2 : best, most = out > most ? out : most;
                out = s * by + plus;
                best = out > most ? 3 : best, most = out > most ? out : most;
                const float gradient = most > low && most < high ? by * GET(given[i]) : 0;
                const float at_p = (best == 0 ? gradient : 0) + bent * p + more;
                const float at_q = (best == 1 ? gradient : 0) + bent * q + more;
                const float at_r = (best == 2 ? gradient : 0) + bent * r + more;
                const float at_s = (best == 3 ? gradient : 0) + bent * s + more;
                to_p[i] = PUT(p <= floor ? 0 : at_p);
                to_q[i] = PUT(q <= floor ? 0 : at_q);
                to_r[i] = PUT(r <= floor ? 0 : at_r);
                to_s[i] = PUT(s <= floor ? 0 : at_s);
            }
        }
}

/* `about` receives mean, variance, scale and offset of each channel. Returns 0, or 1 if out
   of memory. */
int NAME(forward)(const Shape *shape, STORED *x, STORED *z, const float *gamma, const float *beta,
                  float *about)
{
    const int64_t channels = shape->channels;
    const double count = (double)shape->images * shape->height * shape->width;
    float *mean = about, *variance = mean + channels;
    float *scale = variance + channels, *offset = scale + channels;
    double *partial = calloc(2 * channels * shape->threads, sizeof *partial);
    if (!partial)
        return 1;
    for (int64_t c = 0; c < channels; c++) { /* close to the mean, to keep precision */
        const float value = GET(x[c]);
        mean[c] = shape->relu && value < 0 ? 0 : value;
    }
    NAME(moments)(shape, x, mean, partial);
    for (int64_t c = 0; c < channels; c++) {
        const double first = whole(shape, partial, c);
        const double second = whole(shape, partial, channels + c);
        const double apart = first / count, spread = second / count - apart * apart;
        variance[c] = spread < 0 ? 0 : spread;
        mean[c] += apart;
        scale[c] = (gamma ? gamma[c] : 1) / sqrt(variance[c] + shape->epsilon);
        offset[c] = (beta ? beta[c] : 0) - mean[c] * scale[c];
    }
    free(partial);
    NAME(normalize)(shape, x, z, scale, offset);
    return 0;
}

/* `about` is from `forward`; writes `dgamma` and `dbeta`. */
int NAME(backward)(const Shape *shape, const STORED *x, const STORED *dz, STORED *dx,
                   const float *about, float *dgamma, float *dbeta)
{
    const int64_t channels = shape->channels;
    const double count = (double)shape->images * shape->height * shape->width;
    const float *mean = about, *variance = mean + channels;
    const float *scale = variance + channels, *offset = scale + channels;
    double *partial = calloc(2 * channels * shape->threads, sizeof *partial);
    float *slope = malloc(2 * channels * sizeof *slope), *level = slope + channels;
    if (!partial || !slope) {
        free(partial);
        free(slope);
        return 1;
    }
    NAME(products)(shape, x, dz, mean, scale, offset, partial);
    for (int64_t c = 0; c < channels; c++) {
        const double first = whole(shape, partial, c);
        const double second = whole(shape, partial, channels + c);
        const double inverse = 1 / (variance[c] + shape->epsilon);
        dgamma[c] = second * sqrt(inverse);
        dbeta[c] = first;
        slope[c] = -scale[c] * inverse * second / count;
        level[c] = -scale[c] * first / count - slope[c] * mean[c];
    }
    NAME(gradient)(shape, x, dz, dx, scale, offset, slope, level);
    free(partial);
    free(slope);
    return 0;
}

#endif
