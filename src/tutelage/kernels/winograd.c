/* 3x3 convolutions with stride 1 and zero padding to the same size, with 36 multiplications instead
   of 144: Winograd's F(4x4, 3x3), arXiv 1509.09308.

   Arrays are images x height x width x channels, a kernel is 3 x 3 x channels x filters, both counts
   multiples of PANEL. The output is divided into 4x4 tiles. The 6x6 input pixels that a tile
   depends on are transformed to 36 points; at each point the convolution is a matrix product of
   tiles x channels and channels x filters. Each block of tiles passes all steps before the next,
   so that intermediate results stay in the CPU's caches. */

#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#define ROWS 8
#elif defined(__AVX__)
#define LANES 8
#define ROWS 6
#else
#define LANES 4
#define ROWS 4
#endif
#define PANEL (2 * LANES) /* columns of a product summed in registers, by ROWS rows */
#define POINTS 36
#define BLOCK (64 / ROWS * ROWS) /* maximum number of tiles */
#define APART 16 /* floats between rows and points, to avoid shared cache lines */

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

typedef struct {
    int64_t images, height, width, channels, filters, threads;
} Shape;

static inline Vector load(const float *from) { return *(const Vector *)from; }
static inline void store(float *to, Vector value) { *(Vector *)to = value; }

/* The transforms along one axis of a tile, with stride `s`, in place. */

static inline void input_axis(Vector *v, int s) /* 6 to 6 */
{
    const Vector a = v[4 * s] - 4 * v[2 * s], b = v[3 * s] - 4 * v[s];
    const Vector c = v[4 * s] - v[2 * s], d = 2 * (v[3 * s] - v[s]);
    v[0] = 4 * v[0] - 5 * v[2 * s] + v[4 * s];
    v[5 * s] = 4 * v[s] - 5 * v[3 * s] + v[5 * s];
    v[s] = a + b, v[2 * s] = a - b;
    v[3 * s] = c + d, v[4 * s] = c - d;
}

static inline void output_axis(Vector *v, int s) /* 6 to 4 */
{
    const Vector a = v[s] + v[2 * s], b = v[s] - v[2 * s];
    const Vector c = v[3 * s] + v[4 * s], d = v[3 * s] - v[4 * s];
    v[0] = v[0] + a + c;
    v[s] = b + 2 * d;
    v[2 * s] = a + 4 * c;
    v[3 * s] = b + 8 * d + v[5 * s];
}

static inline void slope_axis(Vector *v, int s) /* 4 to 6: the output's, transposed */
{
    const Vector a = v[0] + v[2 * s], b = v[s] + v[3 * s];
    const Vector c = v[0] + 4 * v[2 * s], d = 2 * v[s] + 8 * v[3 * s];
    v[5 * s] = v[3 * s];
    v[s] = a + b, v[2 * s] = a - b;
    v[3 * s] = c + d, v[4 * s] = c - d;
}

static inline void kernel_axis(Vector *v, int s) /* 3 to 6 */
{
    const Vector a = (v[0] + v[2 * s]) / -6, b = v[s] / -6;
    const Vector c = v[0] / 24 + v[2 * s] / 6, d = v[s] / 12;
    v[5 * s] = v[2 * s];
    v[0] = v[0] / 4;
    v[s] = a + b, v[2 * s] = a - b;
    v[3 * s] = c + d, v[4 * s] = c - d;
}

static inline void change_axis(Vector *v, int s) /* 6 to 3: the kernel's, transposed */
{
    const Vector a = v[s] + v[2 * s], b = v[s] - v[2 * s];
    const Vector c = v[3 * s] + v[4 * s], d = v[3 * s] - v[4 * s];
    v[0] = v[0] / 4 - a / 6 + c / 24;
    v[s] = d / 12 - b / 6;
    v[2 * s] = (c - a) / 6 + v[5 * s];
}

/* `rows` x PANEL of c = a b, or of c += a b. */
static inline __attribute__((always_inline)) void
product_of(const int rows, int64_t depth, const float *a, int64_t row, int64_t step, const float *b,
           int64_t below, float *c, int64_t next, int add)
{
    Vector left[ROWS] = {0}, right[ROWS] = {0};
    for (int64_t k = 0; k < depth; k++) {
        const Vector first = load(b + k * below), second = load(b + k * below + LANES);
        for (int r = 0; r < rows; r++) {
            left[r] += a[r * row + k * step] * first;
            right[r] += a[r * row + k * step] * second;
        }
    }
    for (int r = 0; r < rows; r++) {
        float *to = c + r * next;
        store(to, add ? load(to) + left[r] : left[r] + 0);
        store(to + LANES, add ? load(to + LANES) + right[r] : right[r] + 0);
    }
}

/* The same for `height` rows, an even number. */
static inline void product(int64_t height, int64_t depth, const float *a, int64_t row, int64_t step,
                           const float *b, int64_t below, float *c, int64_t next, int add)
{
    int64_t at = 0;
    for (; at + ROWS <= height; at += ROWS)
        product_of(ROWS, depth, a + at * row, row, step, b, below, c + at * next, next, add);
    for (; at + 4 <= height; at += 4)
        product_of(4, depth, a + at * row, row, step, b, below, c + at * next, next, add);
    for (; at < height; at += 2)
        product_of(2, depth, a + at * row, row, step, b, below, c + at * next, next, add);
}

typedef struct {
    int64_t line, column, image;
} Tile;

static inline Tile tile_at(const Shape *shape, int64_t number)
{
    const int64_t across = (shape->width + 3) / 4, down = (shape->height + 3) / 4;
    return (Tile){4 * (number / across % down), 4 * (number % across), number / across / down};
}

static int64_t tiles(const Shape *shape)
{
    return shape->images * ((shape->height + 3) / 4) * ((shape->width + 3) / 4);
}

/* Pointers to the `size` x `size` pixels from a row and column on; zeros outside the image. */
static inline void pixels(const Shape *shape, const float *x, int64_t channels, int64_t image,
                          int64_t line, int64_t column, int size, const float *zeros,
                          const float **at)
{
    const float *first = x + image * shape->height * shape->width * channels;
    for (int64_t i = line; i < line + size; i++)
        for (int64_t j = column; j < column + size; j++) {
            const int inside = i >= 0 && i < shape->height && j >= 0 && j < shape->width;
            *at++ = inside ? first + (i * shape->width + j) * channels : zeros;
        }
}

/* Transform a block of input tiles to the 36 points. */
static void transform_inputs(const Shape *shape, const float *x, int64_t start, int64_t count,
                             const float *zeros, float *to, int64_t row, int64_t plane)
{
    const int64_t channels = shape->channels;
    for (int64_t t = 0; t < count; t++) {
        const Tile tile = tile_at(shape, start + t);
        const float *at[POINTS];
        pixels(shape, x, channels, tile.image, tile.line - 1, tile.column - 1, 6, zeros, at);
        for (int64_t c = 0; c < channels; c += LANES) {
            Vector v[POINTS];
            for (int i = 0; i < POINTS; i++)
                v[i] = load(at[i] + c);
            for (int i = 0; i < 6; i++)
                input_axis(v + i, 6);
            for (int i = 0; i < 6; i++)
                input_axis(v + 6 * i, 1);
            for (int i = 0; i < POINTS; i++)
                store(to + i * plane + t * row + c, v[i]);
        }
    }
}

/* Transform the 36 points back to 4x4 outputs. */
static void transform_outputs(const Shape *shape, const float *from, int64_t row, int64_t plane,
                              const float *bias, int64_t start, int64_t count, float *y)
{
    const int64_t channels = shape->filters;
    for (int64_t t = 0; t < count; t++) {
        const Tile tile = tile_at(shape, start + t);
        float *first = y + tile.image * shape->height * shape->width * channels;
        for (int64_t c = 0; c < channels; c += LANES) {
            Vector v[POINTS];
            for (int i = 0; i < POINTS; i++)
                v[i] = load(from + i * plane + t * row + c);
            for (int i = 0; i < 6; i++)
                output_axis(v + i, 6);
            for (int i = 0; i < 4; i++)
                output_axis(v + 6 * i, 1);
            const Vector more = bias ? load(bias + c) : (Vector){0};
            for (int64_t i = 0; i < 4 && tile.line + i < shape->height; i++)
                for (int64_t j = 0; j < 4 && tile.column + j < shape->width; j++)
                    store(first + ((tile.line + i) * shape->width + tile.column + j) * channels + c,
                          v[6 * i + j] + more);
        }
    }
}

/* Transform a block's output gradients to the 36 points; adds their sum to the bias gradient. */
static void transform_slopes(const Shape *shape, const float *dy, int64_t start, int64_t count,
                             const float *zeros, float *to, int64_t row, int64_t plane,
                             float *shift)
{
    const int64_t channels = shape->filters;
    for (int64_t t = 0; t < count; t++) {
        const Tile tile = tile_at(shape, start + t);
        const float *at[16];
        pixels(shape, dy, channels, tile.image, tile.line, tile.column, 4, zeros, at);
        for (int64_t c = 0; c < channels; c += LANES) {
            Vector v[POINTS], sum = {0};
            for (int i = 0; i < 16; i++) {
                v[6 * (i / 4) + i % 4] = load(at[i] + c);
                sum += v[6 * (i / 4) + i % 4];
            }
            store(shift + c, load(shift + c) + sum);
            for (int i = 0; i < 4; i++)
                slope_axis(v + i, 6);
            for (int i = 0; i < 6; i++)
                slope_axis(v + 6 * i, 1);
            for (int i = 0; i < POINTS; i++)
                store(to + i * plane + t * row + c, v[i]);
        }
    }
}

/* Transform the kernel to 36 points, in panels of columns: points x out / PANEL x in x PANEL. */
static void transform_kernel(const Shape *shape, const float *kernel, float *to)
{
    const int64_t in = shape->channels, out = shape->filters;
#pragma omp parallel for schedule(static) num_threads(shape->threads)
    for (int64_t row = 0; row < in; row++)
        for (int64_t c = 0; c < out; c += LANES) {
            Vector v[POINTS];
            for (int i = 0; i < 9; i++)
                v[6 * (i / 3) + i % 3] = load(kernel + (i * in + row) * out + c);
            for (int i = 0; i < 3; i++)
                kernel_axis(v + i, 6);
            for (int i = 0; i < 6; i++)
                kernel_axis(v + 6 * i, 1);
            for (int i = 0; i < POINTS; i++)
                store(to + i * in * out + (c / PANEL * in + row) * PANEL + c % PANEL, v[i]);
        }
}

/* Sum the threads' parts of the kernel gradient at the 36 points and transform it to 3 x 3. */
static void transform_change(const Shape *shape, const float *from, int64_t apart, float *to)
{
    const int64_t in = shape->channels, out = shape->filters, threads = omp_get_num_threads();
#pragma omp for schedule(static)
    for (int64_t row = 0; row < in; row++)
        for (int64_t c = 0; c < out; c += LANES) {
            Vector v[POINTS];
            for (int i = 0; i < POINTS; i++) {
                const float *at = from + i * in * out + (c / PANEL * in + row) * PANEL + c % PANEL;
                v[i] = load(at);
                for (int64_t t = 1; t < threads; t++)
                    v[i] += load(at + apart * t);
            }
            for (int i = 0; i < 6; i++)
                change_axis(v + i, 6);
            for (int i = 0; i < 3; i++)
                change_axis(v + 6 * i, 1);
            for (int i = 0; i < 9; i++)
                store(to + (i * in + row) * out + c, v[6 * (i / 3) + i % 3]);
        }
}

static float *array(int64_t count)
{
    return aligned_alloc(64, (4 * count + 63) / 64 * 64);
}

/* Tiles per block: fewer if there would be too few blocks for all threads. */
static int64_t block_of(const Shape *shape)
{
    const int64_t share = (tiles(shape) + shape->threads - 1) / shape->threads;
    return share < BLOCK ? (share + ROWS - 1) / ROWS * ROWS : BLOCK;
}

/* y = x * kernel + bias. Returns 0, or 1 if out of memory. */
int convolve(const Shape *shape, const float *x, const float *kernel, const float *bias, float *y)
{
    const int64_t in = shape->channels, out = shape->filters;
    const int64_t total = tiles(shape), block = block_of(shape);
    const int64_t left = in + APART, wide = block * left + APART;
    const int64_t right = out + APART, narrow = block * right + APART;
    const int64_t needed = POINTS * (wide + narrow) + in;
    float *points = array(POINTS * in * out), *scratch = array(needed * shape->threads);
    if (!points || !scratch) {
        free(points);
        free(scratch);
        return 1;
    }
    transform_kernel(shape, kernel, points);
#pragma omp parallel num_threads(shape->threads)
    {
        float *before = scratch + needed * omp_get_thread_num();
        float *after = before + POINTS * wide, *zeros = after + POINTS * narrow;
        memset(before, 0, 4 * needed);
#pragma omp for schedule(dynamic)
        for (int64_t start = 0; start < total; start += block) {
            const int64_t count = start + block < total ? block : total - start;
            transform_inputs(shape, x, start, count, zeros, before, left, wide);
            for (int64_t i = 0; i < POINTS; i++)
                for (int64_t c = 0; c < out; c += PANEL)
                    product((count + 1) / 2 * 2, in, before + i * wide, left, 1,
                            points + i * in * out + c * in, PANEL,
                            after + i * narrow + c, right, 0);
            transform_outputs(shape, after, right, narrow, bias, start, count, y);
        }
    }
    free(points);
    free(scratch);
    return 0;
}

/* The gradients of kernel and bias. Returns 0, or 1 if out of memory. */
int slopes(const Shape *shape, const float *x, float *dkernel, const float *dy, float *dbias)
{
    const int64_t in = shape->channels, out = shape->filters;
    const int64_t total = tiles(shape), block = block_of(shape);
    const int64_t left = in + APART, wide = block * left + APART;
    const int64_t right = out + APART, narrow = block * right + APART;
    const int64_t sums = POINTS * in * out + out;
    const int64_t needed = sums + POINTS * (wide + narrow) + in + 2 * out;
    float *scratch = array(needed * shape->threads);
    if (!scratch)
        return 1;
#pragma omp parallel num_threads(shape->threads)
    {
        float *sum = scratch + needed * omp_get_thread_num(), *before = sum + sums;
        float *after = before + POINTS * wide, *zeros = after + POINTS * narrow;
        float *shift = zeros + (in > out ? in : out);
        memset(sum, 0, 4 * needed);
#pragma omp for schedule(static) /* fixed tiles per thread, so that results are reproducible */
        for (int64_t start = 0; start < total; start += block) {
            const int64_t count = start + block < total ? block : total - start;
            transform_inputs(shape, x, start, count, zeros, before, left, wide);
            memset(shift, 0, 4 * out);
            transform_slopes(shape, dy, start, count, zeros, after, right, narrow, shift);
            for (int64_t c = 0; c < out; c++)
                sum[POINTS * in * out + c] += shift[c];
            for (int64_t i = 0; i < POINTS; i++)
                for (int64_t c = 0; c < out; c += PANEL)
                    product(in, count, before + i * wide, 1, left, after + i * narrow + c, right,
                            sum + i * in * out + c * in, PANEL, 1);
        }
        transform_change(shape, scratch, needed, dkernel);
#pragma omp for schedule(static)
        for (int64_t c = 0; c < out; c++) {
            dbias[c] = 0;
            for (int64_t t = 0; t < omp_get_num_threads(); t++)
                dbias[c] += scratch[needed * t + POINTS * in * out + c];
        }
    }
    free(scratch);
    return 0;
}
