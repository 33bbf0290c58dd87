// SSIM of every window of equal weights, by running sums (box.cuh); for a gradient, what boxes_back.cu takes from there.
//
// A block owns a strip of columns and a segment of rows of windows and goes down the rows; thread t keeps the running sums
// of pixel column left + t: of s, s^2, d, d^2 and of pixels that are not finite. Formula and symbols: formula.cuh.
//
// For a gradient it writes four maps of every window, [4][N, C, H', W'] in `maps`, with weight f of the window:
//
//     f p_s, f p_d, f 2 q_s, -f 2 q_d          p_s = f_ms - 2 m_s q_s, p_d = f_md - 2 m_d q_d

struct Problem {
    const X* x;         // [N, C, H, W]
    const Y* y;         // [N, C, H, W]
    const T* upstream;  // [N, C, H', W'], where UPSTREAM
    T* ssim_map;        // [N, C, H', W'] contiguous, where MAP
    double* maps;       // [4, N, C, H', W'], where GRADIENTS
    double* sums;       // [N C, segments, strips]
    long long image_x, image_y, image_upstream;        // from one image to the next, in elements
    long long channel_x, channel_y, channel_upstream;  // from one channel to the next, in elements
    int row_x, row_y, row_upstream;                    // from one row to the next, in bytes
    int column_x, column_y, column_upstream;           // from one column to the next, in bytes
    long long windows;                                 // N C H' W'
    int channels, height, width;                       // C, H, W
    int windows_y, windows_x;                          // H', W'
    int segments, strips;
    Constants<double> constants;
};

extern "C" __global__ void __launch_bounds__(THREADS) boxes(const GRID_CONSTANT Problem problem) {
    constexpr int MAPS = 5;
    SHARED(double, prefix, MAPS * THREADS);
    SHARED(double, totals, MAPS * (THREADS / 32));
    SHARED(double, scratch, 32);
    const int t = threadIdx.x;
    const Part part = part_of(problem);
    const X* const x = plane_of(problem.x, problem.image_x, problem.channel_x, part);
    const Y* const y = plane_of(problem.y, problem.image_y, problem.channel_y, part);
    const int y0 = edge(0, problem.windows_y, part.segment, problem.segments);
    const int y1 = edge(0, problem.windows_y, part.segment + 1, problem.segments);
    const int x0 = edge(0, problem.windows_x, part.strip, problem.strips);
    const int x1 = edge(0, problem.windows_x, part.strip + 1, problem.strips);
    const int j = x0 + t;
    const int column = j < x1 + HALO_X ? any_pixel_at<PADDING>(j - PAD_X, problem.width) : -1;
    const double share = 1.0 / (static_cast<double>(TAPS_Y) * TAPS_X);

    double running[MAPS] = {};
    // Add `sign` times the pixels of padded row i.
    const auto take = [&](int i, double sign) {
        const int row = any_pixel_at<PADDING>(i - PAD_Y, problem.height);
        if (row < 0 || column < 0) return;
        const double a = pixel_from_memory<T, FRACTIONS>(*along(along(x, row, problem.row_x), column, problem.column_x));
        const double b = pixel_from_memory<T, FRACTIONS>(*along(along(y, row, problem.row_y), column, problem.column_y));
        const double s = a + b, d = a - b;
        if (!finite(s * s + d * d)) {
            running[4] += sign;
            return;
        }
        running[0] += sign * s;
        running[1] = multiply_add(sign * s, s, running[1]);
        running[2] += sign * d;
        running[3] = multiply_add(sign * d, d, running[3]);
    };

    double total = 0;
    for (int i = y0; i < y0 + HALO_Y; ++i) take(i, 1);
    for (int i = y0; i < y1; ++i) {
        take(i + HALO_Y, 1);
        prefix_sums<MAPS>(running, prefix, totals);
        __syncthreads();
        if (j < x1) {
            const double m_s = share * box_sum(prefix), m_d = share * box_sum(prefix + 2 * THREADS);
            const double v_s = multiply_add(-m_s, m_s, share * box_sum(prefix + THREADS));
            const double v_d = multiply_add(-m_d, m_d, share * box_sum(prefix + 3 * THREADS));
            const double spoilt = box_sum(prefix + 4 * THREADS) > 0.5 ? bad() : 0.0;
            const Window<double, UNBIASED> window(v_s + spoilt, v_d, m_s, m_d, problem.constants);
            const double ssim = window.ssim();
            total += ssim;
            const long long index = (part.plane * problem.windows_y + i) * problem.windows_x + j;
            if constexpr (MAP) problem.ssim_map[index] = T(ssim);
            if constexpr (GRADIENTS > 0) {
                const Derivatives<double> f(window, problem.constants);
                double weight = share;
                if constexpr (UPSTREAM) {
                    const T* const upstream =
                        plane_of(problem.upstream, problem.image_upstream, problem.channel_upstream, part);
                    weight *= *along(along(upstream, i, problem.row_upstream), j, problem.column_upstream);
                }
                const double maps[4] = {multiply_add(-m_s, f.q2_s, f.f_ms), multiply_add(m_d, f.r2_d, f.f_md), f.q2_s, f.r2_d};
                for (int map = 0; map < 4; ++map) problem.maps[map * problem.windows + index] = weight * maps[map];
            }
        }
        take(i, -1);
        __syncthreads();
    }
    total = block_sum<THREADS>(total, scratch);
    if (t == 0) problem.sums[blockIdx.x] = total;
}
