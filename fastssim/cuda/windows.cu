// SSIM of every window, one thread a window, by the definition: means first, then central moments about them.
//
// Slow and readable, for any window: the twin that the march is tested against, and what runs where the march does not
// fit (windows of one pixel or of very many, images smaller than what is padded). For a gradient it writes six maps of
// every window, [6][N, C, H', W'] in `maps`, which pixels.cu gathers:  f_ms, f_md, 2 q_s, -2 q_d, m_s, m_d (formula.cuh).

constexpr int PAD_Y = PADDING == VALID ? 0 : TAPS_Y / 2, PAD_X = PADDING == VALID ? 0 : TAPS_X / 2;

struct Problem {
    const X* x;         // [N, C, H, W]
    const Y* y;         // [N, C, H, W]
    const W* mask;      // [N, C, H, W], where MASKED
    const T* upstream;  // [N, C, H', W'], where UPSTREAM
    T* ssim_map;        // [N, C, H', W'] contiguous, where MAP
    T* maps;            // [6, N, C, H', W'], where GRADIENTS
    double* sums;       // [N C, parts]
    double* counted;    // [N C, parts]: windows with something to compare, where MASKED
    double* distances;  // [N C, parts]: of |x - y|, where L1
    long long image_x, image_y, image_mask, image_upstream;          // from one image to the next, in elements
    long long channel_x, channel_y, channel_mask, channel_upstream;  // from one channel to the next, in elements
    int row_x, row_y, row_mask, row_upstream;                        // from one row to the next, in bytes
    int column_x, column_y, column_mask, column_upstream;            // from one column to the next, in bytes
    long long windows;                                 // N C H' W'
    int channels, height, width;                       // C, H, W
    int windows_y, windows_x;                          // H', W'
    int parts;                                         // blocks of one plane
    Constants<T> constants;
    T taps_y[TAPS_Y], taps_x[TAPS_X];                  // each summing to 1
};

struct Pixel {
    T s, d, weight;
};

// The pixel that position (row, column) shows, zeros of weight 1 where it shows none.
__device__ __forceinline__ Pixel pixel(
    const Problem& problem, const X* x, const Y* y, const W* mask, int row, int column) {
    const int r = any_pixel_at<PADDING>(row - PAD_Y, problem.height);
    const int c = any_pixel_at<PADDING>(column - PAD_X, problem.width);
    if (r < 0 || c < 0) return {0, 0, 1};
    T weight = 1;
    if constexpr (MASKED) {
        weight = from_memory<T>(*along(along(mask, r, problem.row_mask), c, problem.column_mask));
        if (!(weight > T(0))) return {};
    }
    const T a = pixel_from_memory<T, FRACTIONS>(*along(along(x, r, problem.row_x), c, problem.column_x));
    const T b = pixel_from_memory<T, FRACTIONS>(*along(along(y, r, problem.row_y), c, problem.column_y));
    return {a + b, a - b, weight};
}

extern "C" __global__ void __launch_bounds__(THREADS) windows(const GRID_CONSTANT Problem problem) {
    SHARED(double, scratch, 32);
    const long long plane = blockIdx.x / problem.parts;
    const long long place = static_cast<long long>(blockIdx.x % problem.parts) * THREADS + threadIdx.x;
    const long long n = plane / problem.channels, channel = plane % problem.channels;
    const X* const x = problem.x + n * problem.image_x + channel * problem.channel_x;
    const Y* const y = problem.y + n * problem.image_y + channel * problem.channel_y;
    const W* const mask = MASKED ? problem.mask + n * problem.image_mask + channel * problem.channel_mask : nullptr;
    double total = 0, windows = 0, distance = 0;
    if constexpr (L1) {
        const long long pixels = static_cast<long long>(problem.height) * problem.width;
        for (long long k = place; k < pixels; k += static_cast<long long>(problem.parts) * THREADS) {
            const int row = static_cast<int>(k / problem.width), column = static_cast<int>(k % problem.width);
            distance += absolute(pixel(problem, x, y, mask, row + PAD_Y, column + PAD_X).d);
        }
    }
    if (place < static_cast<long long>(problem.windows_y) * problem.windows_x) {
        const int i = static_cast<int>(place / problem.windows_x), j = static_cast<int>(place % problem.windows_x);
        const auto middle = pixel(problem, x, y, mask, i + TAPS_Y / 2, j + TAPS_X / 2);  // so that flat windows are exact
        T m_s = 0, m_d = 0, v_s = 0, v_d = 0, weights = 0;
        for (int u = 0; u < TAPS_Y; ++u)
            for (int v = 0; v < TAPS_X; ++v) {
                const auto value = pixel(problem, x, y, mask, i + u, j + v);
                const T weight = problem.taps_y[u] * problem.taps_x[v] * value.weight;
                weights += weight;
                m_s = multiply_add(weight, value.s - middle.s, m_s);
                m_d = multiply_add(weight, value.d - middle.d, m_d);
            }
        const bool something = !MASKED || weights > T(LEAST_WEIGHT);
        const T inverse = MASKED && something ? T(1) / weights : T(1);
        m_s = multiply_add(m_s, inverse, middle.s);
        m_d = multiply_add(m_d, inverse, middle.d);
        for (int u = 0; u < TAPS_Y; ++u)
            for (int v = 0; v < TAPS_X; ++v) {
                const auto value = pixel(problem, x, y, mask, i + u, j + v);
                const T weight = problem.taps_y[u] * problem.taps_x[v] * value.weight * inverse;
                const T s = value.s - m_s, d = value.d - m_d;
                v_s = multiply_add(weight * s, s, v_s);
                v_d = multiply_add(weight * d, d, v_d);
            }
        const Window<T, UNBIASED> window(v_s, v_d, m_s, m_d, problem.constants);
        const T ssim = something ? window.ssim() : T(1);
        if (something) total = ssim, windows = 1;
        const long long index = plane * problem.windows_y * problem.windows_x + place;
        if constexpr (MAP) problem.ssim_map[index] = ssim;
        if constexpr (GRADIENTS > 0) {
            const Derivatives<T> f(window, problem.constants);
            T weight = something ? inverse : T(0);
            if constexpr (UPSTREAM) {
                const T* const upstream =
                    problem.upstream + n * problem.image_upstream + channel * problem.channel_upstream;
                weight *= *along(along(upstream, i, problem.row_upstream), j, problem.column_upstream);
            }
            const T maps[6] = {weight * f.f_ms, weight * f.f_md, weight * f.q2_s, weight * f.r2_d, m_s, m_d};
            for (int map = 0; map < 6; ++map)
                problem.maps[map * problem.windows + index] = something || map > 3 ? maps[map] : T(0);
        }
    }
    total = block_sum<THREADS>(total, scratch);
    if (threadIdx.x == 0) problem.sums[blockIdx.x] = total;
    if constexpr (MASKED) {
        windows = block_sum<THREADS>(windows, scratch);
        if (threadIdx.x == 0) problem.counted[blockIdx.x] = windows;
    }
    if constexpr (L1) {
        distance = block_sum<THREADS>(distance, scratch);
        if (threadIdx.x == 0) problem.distances[blockIdx.x] = distance;
    }
}
