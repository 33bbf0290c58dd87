// The gradient of every pixel from the maps that boxes.cu wrote, by running sums (box.cuh):
//
//     dL/dx = box(p_s) + box(p_d) + 2 s box(q_s) + 2 d box(q_d)
//     dL/dy = box(p_s) - box(p_d) + 2 s box(q_s) - 2 d box(q_d)
//
// over the windows that cover the pixel. No padding repeats a pixel here: VALID or ZEROS.

struct Problem {
    const X* x;                      // [N, C, H, W]
    const Y* y;                      // [N, C, H, W]
    const double* maps;              // [4, N, C, H', W']
    T* grad_x;                       // [N, C, H, W] contiguous
    T* grad_y;                       // [N, C, H, W] contiguous, where GRADIENTS == 2
    long long image_x, image_y;      // from one image to the next, in elements
    long long channel_x, channel_y;  // from one channel to the next, in elements
    int row_x, row_y;                // from one row to the next, in bytes
    int column_x, column_y;          // from one column to the next, in bytes
    long long windows;               // N C H' W'
    int channels, height, width;     // C, H, W
    int windows_y, windows_x;        // H', W'
    int segments, strips;
    T scale;                         // of the gradient
};

extern "C" __global__ void __launch_bounds__(THREADS) boxes_back(const GRID_CONSTANT Problem problem) {
    constexpr int MAPS = 5;
    SHARED(double, prefix, MAPS * THREADS);
    SHARED(double, totals, MAPS * (THREADS / 32));
    const int t = threadIdx.x;
    const Part part = part_of(problem);
    const X* const x = plane_of(problem.x, problem.image_x, problem.channel_x, part);
    const Y* const y = plane_of(problem.y, problem.image_y, problem.channel_y, part);
    const int y0 = edge(0, problem.height, part.segment, problem.segments);  // the pixels that this block owns
    const int y1 = edge(0, problem.height, part.segment + 1, problem.segments);
    const int x0 = edge(0, problem.width, part.strip, problem.strips);
    const int x1 = edge(0, problem.width, part.strip + 1, problem.strips);
    const int j = x0 + PAD_X - HALO_X + t;  // the column of windows that this thread adds up
    const int column = x0 + t;              // the column of pixels that it writes
    const bool some = j >= 0 && j < problem.windows_x && j < x1 + PAD_X;

    double running[MAPS] = {};
    // Add `sign` times the maps of row i of windows.
    const auto take = [&](int i, double sign) {
        if (!some || i < 0 || i >= problem.windows_y) return;
        const double* const maps = problem.maps + (part.plane * problem.windows_y + i) * problem.windows_x + j;
        const double all[4] = {maps[0], maps[problem.windows], maps[2 * problem.windows], maps[3 * problem.windows]};
        if (!finite(all[0] + all[1] + all[2] + all[3])) {
            running[4] += sign;
            return;
        }
        for (int map = 0; map < 4; ++map) running[map] += sign * all[map];
    };

    for (int i = y0 + PAD_Y - HALO_Y; i < y0 + PAD_Y; ++i) take(i, 1);
    for (int row = y0; row < y1; ++row) {
        take(row + PAD_Y, 1);
        prefix_sums<MAPS>(running, prefix, totals);
        __syncthreads();
        if (column < x1) {
            const double a = pixel_from_memory<T, FRACTIONS>(*along(along(x, row, problem.row_x), column, problem.column_x));
            const double b = pixel_from_memory<T, FRACTIONS>(*along(along(y, row, problem.row_y), column, problem.column_y));
            const double spoilt = box_sum(prefix + 4 * THREADS) > 0.5 ? bad() : 0.0;
            const double by_s = multiply_add(a + b, box_sum(prefix + 2 * THREADS), box_sum(prefix)) + spoilt;
            const double by_d = multiply_add(b - a, box_sum(prefix + 3 * THREADS), box_sum(prefix + THREADS));
            const long long index = (part.plane * problem.height + row) * problem.width + column;
            problem.grad_x[index] = T(problem.scale * (by_s + by_d));
            if constexpr (GRADIENTS == 2) problem.grad_y[index] = T(problem.scale * (by_s - by_d));
        }
        take(row + PAD_Y - HALO_Y, -1);
        __syncthreads();
    }
}
