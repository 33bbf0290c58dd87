// SSIM of every window, one thread a window, by the definition: means first, then central moments about them.
//
// Slow and readable, for any window: the twin that the march is tested against, and what runs where the march does not
// fit (windows of one pixel or of very many, images smaller than what is padded). For a gradient it writes six maps of
// every window, [6][N, C, H', W'] in `maps`, which pixels.cu gathers:  f_ms, f_md, 2 q_s, -2 q_d, m_s, m_d (formula.cuh).

constexpr int PAD_Y = PADDING == VALID ? 0 : TAPS_Y / 2, PAD_X = PADDING == VALID ? 0 : TAPS_X / 2;

struct Problem {
    const X* x;         // [N, C, H, W]
    const Y* y;         // [N, C, H, W]
    const X* upstream;  // [N, C, H', W'], where UPSTREAM
    X* ssim_map;        // [N, C, H', W'] contiguous, where MAP
    T* maps;            // [6, N, C, H', W'], where GRADIENTS
    double* sums;       // [N C, parts]
    long long image_x, image_y, image_upstream;        // from one image to the next, in elements
    long long channel_x, channel_y, channel_upstream;  // from one channel to the next, in elements
    int row_x, row_y, row_upstream;                    // from one row to the next, in bytes
    int column_x, column_y, column_upstream;           // from one column to the next, in bytes
    long long windows;                                 // N C H' W'
    int channels, height, width;                       // C, H, W
    int windows_y, windows_x;                          // H', W'
    int parts;                                         // blocks of one plane
    Constants<T> constants;
    T taps_y[TAPS_Y], taps_x[TAPS_X];                  // each summing to 1
};

// s and d of the pixel that position (row, column) shows, zeros where it shows none.
__device__ __forceinline__ Vector<T, 2> pixel(const Problem& problem, const X* x, const Y* y, int row, int column) {
    const int r = any_pixel_at<PADDING>(row - PAD_Y, problem.height);
    const int c = any_pixel_at<PADDING>(column - PAD_X, problem.width);
    if (r < 0 || c < 0) return {};
    const T a = from_memory<T>(*along(along(x, r, problem.row_x), c, problem.column_x));
    const T b = from_memory<T>(*along(along(y, r, problem.row_y), c, problem.column_y));
    return {a + b, a - b};
}

extern "C" __global__ void __launch_bounds__(THREADS) windows(const GRID_CONSTANT Problem problem) {
    SHARED(double, scratch, 32);
    const long long plane = blockIdx.x / problem.parts;
    const long long place = static_cast<long long>(blockIdx.x % problem.parts) * THREADS + threadIdx.x;
    const long long n = plane / problem.channels, channel = plane % problem.channels;
    const X* const x = problem.x + n * problem.image_x + channel * problem.channel_x;
    const Y* const y = problem.y + n * problem.image_y + channel * problem.channel_y;
    double total = 0;
    if (place < static_cast<long long>(problem.windows_y) * problem.windows_x) {
        const int i = static_cast<int>(place / problem.windows_x), j = static_cast<int>(place % problem.windows_x);
        const auto middle = pixel(problem, x, y, i + TAPS_Y / 2, j + TAPS_X / 2);  // so that flat windows are exact
        T m_s = 0, m_d = 0, v_s = 0, v_d = 0;
        for (int u = 0; u < TAPS_Y; ++u)
            for (int v = 0; v < TAPS_X; ++v) {
                const auto value = pixel(problem, x, y, i + u, j + v);
                const T weight = problem.taps_y[u] * problem.taps_x[v];
                m_s = multiply_add(weight, value.v[0] - middle.v[0], m_s);
                m_d = multiply_add(weight, value.v[1] - middle.v[1], m_d);
            }
        m_s += middle.v[0];
        m_d += middle.v[1];
        for (int u = 0; u < TAPS_Y; ++u)
            for (int v = 0; v < TAPS_X; ++v) {
                const auto value = pixel(problem, x, y, i + u, j + v);
                const T weight = problem.taps_y[u] * problem.taps_x[v];
                const T s = value.v[0] - m_s, d = value.v[1] - m_d;
                v_s = multiply_add(weight * s, s, v_s);
                v_d = multiply_add(weight * d, d, v_d);
            }
        const Window<T, UNBIASED> window(v_s, v_d, m_s, m_d, problem.constants);
        const T ssim = window.ssim();
        total = ssim;
        const long long index = plane * problem.windows_y * problem.windows_x + place;
        if constexpr (MAP) problem.ssim_map[index] = ToMemory<X>::from(ssim);
        if constexpr (GRADIENTS > 0) {
            const Derivatives<T> f(window, problem.constants);
            T weight = 1;
            if constexpr (UPSTREAM) {
                const X* const upstream =
                    problem.upstream + n * problem.image_upstream + channel * problem.channel_upstream;
                weight = from_memory<T>(
                    *along(along(upstream, i, problem.row_upstream), j, problem.column_upstream));
            }
            const T maps[6] = {weight * f.f_ms, weight * f.f_md, weight * f.q2_s, weight * f.r2_d, m_s, m_d};
            for (int map = 0; map < 6; ++map) problem.maps[map * problem.windows + index] = maps[map];
        }
    }
    total = block_sum<THREADS>(total, scratch);
    if (threadIdx.x == 0) problem.sums[blockIdx.x] = total;
}
