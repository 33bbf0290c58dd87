// Overlapping tiles blended by gathering: one thread is one pixel of the image, one loop the tiles that cover it, in
// row-major order; sums are float64 and stay in registers. No atomics, no zero-fill, no map of counts, no order that
// threads could change: the same to the last bit as fastssim/cpu/tile_blend.py, whose head has the formulae and says what
// `band` and `carry` hand on where tiles come piece by piece.

constexpr bool DEVIATION = HOW == MEAN_STD;
constexpr int STATES = DEVIATION ? 3 : 1;

struct Problem {
    const X* tiles;           // [N, (i1 - i0) (j1 - j0), C, h, w]
    X* out;                   // [N, C, out_rows, W], from canvas row y0 on
    OUT* deviation;           // the same, where DEVIATION
    const double* weights_y;  // [K, h]
    const double* weights_x;  // [K, w]
    const int* kinds_y;       // [I]: which row of weights_y is a row of tiles' own
    const int* kinds_x;       // [J]
    const double* window;     // [h, w], where FULL
    const double* band_in;    // [STATES, C, rows, band_pitch], from canvas row band_in_row on
    double* band_out;
    const double* carry_in;   // [STATES, C, h, carry_in_pitch], from canvas row carry_row, column carry_in_column on
    double* carry_out;
    long long band_in_plane, band_out_plane, carry_in_plane, carry_out_plane;  // numbers of one channel
    int channels, height, width;                 // C; rows to go over; W
    int tile_height, tile_width;                 // h, w
    int stride_y, stride_x, last_y, last_x;      // of the tiles; where the last ones begin
    int tiles_y, tiles_x;                        // I, J
    int i0, i1, j0, j1;                          // the tiles at hand
    int y0, x0, out_rows, strips;                // first canvas row and column; blocks across
    int band_in_row, band_out_row, band_pitch;
    int carry_row, carry_in_column, carry_out_column, carry_in_pitch, carry_out_pitch;
};

// The tiles along one axis that cover a pixel: first .. end - 1, and of these begin .. stop - 1 are at hand.
struct Cover {
    int first, end, begin, stop;
};

__device__ __forceinline__ Cover cover(int pixel, int tile, int stride, int last, int count, int begin, int stop) {
    const int first = pixel < tile ? 0 : min((pixel - tile) / stride + 1, count - 1);
    const int end = min(pixel / stride + 1, count - 1) + (pixel >= last);
    return {first, end, max(first, begin), min(end, stop)};
}

// a b, rounded, whatever it is added to.
__device__ __forceinline__ double product(double a, double b) {
#ifdef __CUDA_ARCH__
    return __dmul_rn(a, b);
#else
    return a * b;
#endif
}

__device__ __forceinline__ double infinity() {
    const unsigned long long bits = 0x7ff0000000000000ull;
    double result;
    memcpy(&result, &bits, 8);
    return result;
}

// b where it is larger (for MIN smaller) than a or NaN, else a.
__device__ __forceinline__ double pick(double a, double b) {
    return (HOW == MIN ? b < a : b > a) || !(b == b) ? b : a;
}

template <typename M>
__device__ __forceinline__ M rounded(double value) {
    if constexpr (sizeof(M) == 1) return static_cast<M>(rint(value));  // ties to even
    else return ToMemory<M>::from(value);
}

// A weighted sum, a largest or smallest value; or p, s1, s2.
struct Sums {
    double v[STATES];

    __device__ __forceinline__ void begin(double pivot) {
        v[0] = HOW == MAX ? -infinity() : HOW == MIN ? infinity() : DEVIATION ? pivot : 0.0;
        for (int state = 1; state < STATES; ++state) v[state] = 0.0;
    }

    __device__ __forceinline__ void add(double pixel, double weight) {
        if (HOW == MEAN) {
            v[0] = fma(weight, pixel, v[0]);
        } else if constexpr (DEVIATION) {
            const double off = pixel - v[0], weighted = product(weight, off);
            v[1] += weighted;
            v[2] = fma(weighted, off, v[2]);
        } else {
            v[0] = pick(v[0], pixel);
        }
    }

    __device__ __forceinline__ void add_row(const Sums& row, double weight) {
        if (HOW == MAX || HOW == MIN) {
            v[0] = pick(v[0], row.v[0]);
            return;
        }
        for (int state = DEVIATION ? 1 : 0; state < STATES; ++state)
            v[state] = FULL ? v[state] + row.v[state] : fma(weight, row.v[state], v[state]);
    }

    __device__ __forceinline__ void load(const double* place, long long step) {
        for (int state = 0; state < STATES; ++state) v[state] = place[state * step];
    }

    __device__ __forceinline__ void store(double* place, long long step) const {
        for (int state = 0; state < STATES; ++state) place[state * step] = v[state];
    }
};

extern "C" __global__ void __launch_bounds__(THREADS) tiles_gather(const GRID_CONSTANT Problem problem) {
    const int x = problem.x0 + static_cast<int>(blockIdx.x % problem.strips) * THREADS + threadIdx.x;
    if (x >= problem.x0 + problem.width) return;
    const int block_row = blockIdx.x / problem.strips;
    const int y = problem.y0 + block_row % problem.height;
    const long long plane = block_row / problem.height;
    const long long n = plane / problem.channels, channel = plane % problem.channels;
    const Cover down = cover(y, problem.tile_height, problem.stride_y, problem.last_y, problem.tiles_y, problem.i0, problem.i1);
    const Cover across = cover(x, problem.tile_width, problem.stride_x, problem.last_x, problem.tiles_x, problem.j0, problem.j1);
    if (down.begin >= down.stop || across.begin >= across.stop) return;

    const long long area = static_cast<long long>(problem.tile_height) * problem.tile_width;
    const int tiles_across = problem.j1 - problem.j0;
    const X* const tiles =
        problem.tiles + (n * (problem.i1 - problem.i0) * tiles_across * problem.channels + channel) * area;
    const auto pixel = [&](int i, int j) {
        const int row = y - min(i * problem.stride_y, problem.last_y), column = x - min(j * problem.stride_x, problem.last_x);
        const long long tile = static_cast<long long>(i - problem.i0) * tiles_across + (j - problem.j0);
        return from_memory<double>(
            tiles[tile * problem.channels * area + static_cast<long long>(row) * problem.tile_width + column]);
    };
    const auto weight_across = [&](int i, int j) {
        const int column = x - min(j * problem.stride_x, problem.last_x);
        if constexpr (FULL)
            return problem.window[(y - min(i * problem.stride_y, problem.last_y)) * problem.tile_width + column];
        else return problem.weights_x[problem.kinds_x[j] * problem.tile_width + column];
    };
    const auto weight_down = [&](int i) {
        return FULL ? 1.0
                    : problem.weights_y[problem.kinds_y[i] * problem.tile_height + y -
                                        min(i * problem.stride_y, problem.last_y)];
    };
    const auto band = [&](long long size, int row) {
        return channel * size + static_cast<long long>(y - row) * problem.band_pitch + x;
    };
    const auto carry = [&](long long size, int pitch, int column) {
        return channel * size + static_cast<long long>(y - problem.carry_row) * pitch + x - column;
    };

    const bool first_rows = down.begin == down.first, first_tiles = across.begin == across.first;
    const bool tiles_to_come = across.stop < across.end, rows_to_come = down.stop < down.end;
    Sums sums, row;
    if (first_rows) sums.begin(DEVIATION ? pixel(down.begin, across.begin) : 0.0);
    else sums.load(problem.band_in + band(problem.band_in_plane, problem.band_in_row), problem.channels * problem.band_in_plane);
    for (int i = down.begin; i < down.stop; ++i) {
        if (first_tiles) {
            row.begin(sums.v[0]);
        } else {
            row.load(
                problem.carry_in + carry(problem.carry_in_plane, problem.carry_in_pitch, problem.carry_in_column),
                problem.channels * problem.carry_in_plane);
            if (DEVIATION && first_rows) sums.v[0] = row.v[0];
        }
#pragma unroll (DEVIATION ? 2 : 4)
        for (int j = across.begin; j < across.stop; ++j) row.add(pixel(i, j), weight_across(i, j));
        if (tiles_to_come)
            row.store(
                problem.carry_out + carry(problem.carry_out_plane, problem.carry_out_pitch, problem.carry_out_column),
                problem.channels * problem.carry_out_plane);
        else sums.add_row(row, weight_down(i));
    }
    if (tiles_to_come) return;
    if (rows_to_come) {
        sums.store(
            problem.band_out + band(problem.band_out_plane, problem.band_out_row),
            problem.channels * problem.band_out_plane);
        return;
    }
    if constexpr (FULL && (HOW == MEAN || DEVIATION)) {
        double norm = 0.0;
        for (int i = down.first; i < down.end; ++i)
            for (int j = across.first; j < across.end; ++j) norm += weight_across(i, j);
        for (int state = DEVIATION ? 1 : 0; state < STATES; ++state) sums.v[state] /= norm;
    }
    const long long place = (plane * problem.out_rows + y - problem.y0) * problem.width + x - problem.x0;
    if constexpr (DEVIATION) {
        const double s1 = sums.v[1], variance = fma(-s1, s1, sums.v[2]);
        problem.out[place] = rounded<X>(sums.v[0] + s1);
        problem.deviation[place] = rounded<OUT>(sqrt(variance > 0.0 || !(variance == variance) ? variance : 0.0));
    } else {
        problem.out[place] = rounded<X>(sums.v[0]);
    }
}
