// The gradient of every pixel from the maps that windows.cu wrote, one thread a pixel: every position that shows the
// pixel gathers from every window that covers it,
//
//     dL/dx = sum w (f_ms + f_md + 2 q_s (s - m_s) + 2 q_d (d - m_d))
//     dL/dy = sum w (f_ms - f_md + 2 q_s (s - m_s) - 2 q_d (d - m_d))
//
// and of l1 |x - y|, where L1: its sign.

constexpr int PAD_Y = PADDING == VALID ? 0 : TAPS_Y / 2, PAD_X = PADDING == VALID ? 0 : TAPS_X / 2;

struct Problem {
    const X* x;                      // [N, C, H, W]
    const Y* y;                      // [N, C, H, W]
    const W* mask;                   // [N, C, H, W], where MASKED
    const T* maps;                   // [6, N, C, H', W']
    T* grad_x;                       // [N, C, H, W] contiguous
    T* grad_y;                       // [N, C, H, W] contiguous, where GRADIENTS == 2
    long long image_x, image_y, image_mask;        // from one image to the next, in elements
    long long channel_x, channel_y, channel_mask;  // from one channel to the next, in elements
    int row_x, row_y, row_mask;                    // from one row to the next, in bytes
    int column_x, column_y, column_mask;           // from one column to the next, in bytes
    long long windows;               // N C H' W'
    int channels, height, width;     // C, H, W
    int windows_y, windows_x;        // H', W'
    int parts;                       // blocks of one plane
    T scale, l1;                     // of the gradient, and of the sign of x - y
    T taps_y[TAPS_Y], taps_x[TAPS_X];
};

extern "C" __global__ void __launch_bounds__(THREADS) pixels(const GRID_CONSTANT Problem problem) {
    const long long plane = blockIdx.x / problem.parts;
    const long long place = static_cast<long long>(blockIdx.x % problem.parts) * THREADS + threadIdx.x;
    if (place >= static_cast<long long>(problem.height) * problem.width) return;
    const int row = static_cast<int>(place / problem.width), column = static_cast<int>(place % problem.width);
    const long long n = plane / problem.channels, channel = plane % problem.channels;
    const X* const x = problem.x + n * problem.image_x + channel * problem.channel_x;
    const Y* const y = problem.y + n * problem.image_y + channel * problem.channel_y;
    const T a = pixel_from_memory<T, FRACTIONS>(*along(along(x, row, problem.row_x), column, problem.column_x));
    const T b = pixel_from_memory<T, FRACTIONS>(*along(along(y, row, problem.row_y), column, problem.column_y));
    const T s = a + b, d = a - b;
    T by_s = 0, by_d = 0;  // dL/ds, dL/dd
    for (int k = 0; k <= 2 * PAD_Y; ++k) {  // the positions outside the image, and the pixel's own
        const int p = k == 2 * PAD_Y ? row + PAD_Y : k < PAD_Y ? k : problem.height + k;
        if (any_pixel_at<PADDING>(p - PAD_Y, problem.height) != row) continue;
        for (int l = 0; l <= 2 * PAD_X; ++l) {
            const int q = l == 2 * PAD_X ? column + PAD_X : l < PAD_X ? l : problem.width + l;
            if (any_pixel_at<PADDING>(q - PAD_X, problem.width) != column) continue;
            for (int u = 0; u < TAPS_Y; ++u)
                for (int v = 0; v < TAPS_X; ++v) {
                    const int i = p - u, j = q - v;
                    if (i < 0 || i >= problem.windows_y || j < 0 || j >= problem.windows_x) continue;
                    const T* const maps =
                        problem.maps + (plane * problem.windows_y + i) * problem.windows_x + j;
                    const T weight = problem.taps_y[u] * problem.taps_x[v];
                    const T f_ms = maps[0], f_md = maps[problem.windows], q2_s = maps[2 * problem.windows];
                    const T r2_d = maps[3 * problem.windows], m_s = maps[4 * problem.windows];
                    const T m_d = maps[5 * problem.windows];
                    by_s = multiply_add(weight, multiply_add(q2_s, s - m_s, f_ms), by_s);
                    by_d = multiply_add(weight, multiply_add(-r2_d, d - m_d, f_md), by_d);
                }
        }
    }
    const long long index = plane * problem.height * problem.width + place;
    by_s *= problem.scale;
    by_d *= problem.scale;
    if constexpr (MASKED) {
        const W* const mask = problem.mask + n * problem.image_mask + channel * problem.channel_mask;
        const T weight = from_memory<T>(*along(along(mask, row, problem.row_mask), column, problem.column_mask));
        by_s = weight > T(0) ? weight * by_s : T(0);
        by_d = weight > T(0) ? weight * by_d : T(0);
    }
    if constexpr (L1) by_d = multiply_add(problem.l1, sign(d), by_d);
    problem.grad_x[index] = by_s + by_d;
    if constexpr (GRADIENTS == 2) problem.grad_y[index] = by_s - by_d;
}
