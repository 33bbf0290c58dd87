// The means of 2 x 2 pixels of both images, one thread for each; an odd last row or column is left out.
//
// Slow and readable: the twin of what the march does where HALVED, and what runs where the march does not fit.

struct Problem {
    const X* x;                      // [N, C, H, W]
    const Y* y;                      // [N, C, H, W]
    T* half_x;                       // [N, C, H / 2, W / 2] contiguous
    T* half_y;                       // [N, C, H / 2, W / 2] contiguous
    long long image_x, image_y;      // from one image to the next, in elements
    long long channel_x, channel_y;  // from one channel to the next, in elements
    int row_x, row_y;                // from one row to the next, in bytes
    int column_x, column_y;          // from one column to the next, in bytes
    int channels, height, width;     // C, H, W
    int parts;                       // blocks of one plane
};

template <typename M>
__device__ __forceinline__ T mean_of_four(const M* plane, int i, int j, int row, int column) {
    T sum = 0;
    for (int y = 2 * i; y < 2 * i + 2; ++y)
        for (int x = 2 * j; x < 2 * j + 2; ++x)
            sum += pixel_from_memory<T, FRACTIONS>(*along(along(plane, y, row), x, column));
    return T(0.25) * sum;
}

extern "C" __global__ void __launch_bounds__(THREADS) halve(const GRID_CONSTANT Problem problem) {
    const long long plane = blockIdx.x / problem.parts;
    const long long place = static_cast<long long>(blockIdx.x % problem.parts) * THREADS + threadIdx.x;
    const int height = problem.height / 2, width = problem.width / 2;
    if (place >= static_cast<long long>(height) * width) return;
    const long long n = plane / problem.channels, channel = plane % problem.channels;
    const X* const x = problem.x + n * problem.image_x + channel * problem.channel_x;
    const Y* const y = problem.y + n * problem.image_y + channel * problem.channel_y;
    const int i = static_cast<int>(place / width), j = static_cast<int>(place % width);
    const long long to = plane * height * width + place;
    problem.half_x[to] = mean_of_four(x, i, j, problem.row_x, problem.column_x);
    problem.half_y[to] = mean_of_four(y, i, j, problem.row_y, problem.column_y);
}
