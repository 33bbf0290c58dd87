// The gradient of every pixel from the maps that windows.cu wrote, one thread a pixel: every position that shows the
// pixel gathers from every window that covers it,
//
//     dL/dx = sum w (f_ms + f_md + 2 q_s (s - m_s) + 2 q_d (d - m_d))
//     dL/dy = sum w (f_ms - f_md + 2 q_s (s - m_s) - 2 q_d (d - m_d))
//
// and of l1 |x - y|, where L1: its sign.

constexpr bool PADDED = PADDING != VALID;
constexpr int PAD_Z = PADDED ? TAPS_Z / 2 : 0, PAD_Y = PADDED ? TAPS_Y / 2 : 0, PAD_X = PADDED ? TAPS_X / 2 : 0;

struct Problem {
    const X* x;                      // [N, C, D, H, W]
    const Y* y;                      // [N, C, D, H, W]
    const W* mask;                   // [N, C, D, H, W], where MASKED
    const T* maps;                   // [6, N, C, D', H', W']
    T* grad_x;                       // [N, C, D, H, W] contiguous
    T* grad_y;                       // [N, C, D, H, W] contiguous, where GRADIENTS == 2
    long long image_x, image_y, image_mask;        // from one image to the next, in elements
    long long channel_x, channel_y, channel_mask;  // from one channel to the next, in elements
    long long plane_x, plane_y, plane_mask;        // from one plane to the next, in elements
    int row_x, row_y, row_mask;                    // from one row to the next, in bytes
    int column_x, column_y, column_mask;           // from one column to the next, in bytes
    long long windows;                    // N C D' H' W'
    int channels, depth, height, width;   // C, D, H, W
    int windows_z, windows_y, windows_x;  // D', H', W'
    int parts;                            // blocks of one channel
    T scale, l1;                          // of the gradient, and of the sign of x - y
    T taps_z[TAPS_Z], taps_y[TAPS_Y], taps_x[TAPS_X];
};

// 1 block a multiprocessor at the least: see windows.cu.
extern "C" __global__ void __launch_bounds__(THREADS, 1) pixels(const GRID_CONSTANT Problem problem) {
    const long long volume = blockIdx.x / problem.parts;
    const long long place = static_cast<long long>(blockIdx.x % problem.parts) * THREADS + threadIdx.x;
    const long long pixels_of_one = static_cast<long long>(problem.depth) * problem.height * problem.width;
    if (place >= pixels_of_one) return;
    const Place own(place, problem.height, problem.width);
    const int row = own.row, column = own.column;
    const long long n = volume / problem.channels, channel = volume % problem.channels;
    const X* const x = problem.x + n * problem.image_x + channel * problem.channel_x + own.z * problem.plane_x;
    const Y* const y = problem.y + n * problem.image_y + channel * problem.channel_y + own.z * problem.plane_y;
    const T a = pixel_from_memory<T, FRACTIONS>(*along(along(x, row, problem.row_x), column, problem.column_x));
    const T b = pixel_from_memory<T, FRACTIONS>(*along(along(y, row, problem.row_y), column, problem.column_y));
    const T s = a + b, d = a - b;
    Vector<T, 2> by = {};  // dL/ds, dL/dd
    for (int at_z = 0; at_z <= 2 * PAD_Z; ++at_z) {  // the positions outside, and the pixel's own
        const int p = position<PADDING, PAD_Z>(at_z, own.z, problem.depth);
        for (int at_y = 0; p >= 0 && at_y <= 2 * PAD_Y; ++at_y) {
            const int q = position<PADDING, PAD_Y>(at_y, row, problem.height);
            for (int at_x = 0; q >= 0 && at_x <= 2 * PAD_X; ++at_x) {
                const int r = position<PADDING, PAD_X>(at_x, column, problem.width);
#pragma unroll 1
                for (int w = 0; r >= 0 && w < TAPS_Z; ++w) {
                    const int k = p - w;
                    if (k < 0 || k >= problem.windows_z) continue;
                    Vector<T, 2> plane = {};
#pragma unroll 1
                    for (int u = 0; u < TAPS_Y; ++u) {
                        const int i = q - u;
                        if (i < 0 || i >= problem.windows_y) continue;
                        const T* const windows =
                            problem.maps + ((volume * problem.windows_z + k) * problem.windows_y + i) * problem.windows_x;
                        Vector<T, 2> line = {};
#pragma unroll 1
                        for (int v = 0; v < TAPS_X; ++v) {
                            const int j = r - v;
                            if (j < 0 || j >= problem.windows_x) continue;
                            const T* const maps = windows + j;
                            const T f_ms = maps[0], f_md = maps[problem.windows], q2_s = maps[2 * problem.windows];
                            const T r2_d = maps[3 * problem.windows], m_s = maps[4 * problem.windows];
                            const T m_d = maps[5 * problem.windows];
                            add(line, problem.taps_x[v],
                                {multiply_add(q2_s, s - m_s, f_ms), multiply_add(-r2_d, d - m_d, f_md)});
                        }
                        add(plane, problem.taps_y[u], line);
                    }
                    add(by, problem.taps_z[w], plane);
                }
            }
        }
    }
    const long long index = volume * pixels_of_one + place;
    T by_s = problem.scale * by.v[0], by_d = problem.scale * by.v[1];
    if constexpr (MASKED) {
        const W* const mask =
            problem.mask + n * problem.image_mask + channel * problem.channel_mask + own.z * problem.plane_mask;
        const T weight = from_memory<T>(*along(along(mask, row, problem.row_mask), column, problem.column_mask));
        by_s = weight > T(0) ? weight * by_s : T(0);
        by_d = weight > T(0) ? weight * by_d : T(0);
    }
    if constexpr (L1) by_d = multiply_add(problem.l1, sign(d), by_d);
    problem.grad_x[index] = by_s + by_d;
    if constexpr (GRADIENTS == 2) problem.grad_y[index] = by_s - by_d;
}
