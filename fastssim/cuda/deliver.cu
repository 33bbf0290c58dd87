// The gradient of MS-SSIM from those of every scale's mean, in one pass: the finest is read and written once, in place.
//
// g_s: gradient of the mean of scale s by that scale's pixels; u_s: gradient of the result by that mean, one for each plane.
// A pixel of scale s + 1 is the mean of four of scale s:
//
//     G_s[i, j] = u_s g_s[i, j] + G_(s+1)[i / 2, j / 2] / 4        and nothing from where a scale leaves a pixel out
//
// A thread delivers to 2 x 2 pixels of the finest scale, which share all others.

struct Problem {
    T* gradient;         // [N, C, H, W] contiguous: g_0, which becomes G_0
    const T* coarser;    // g_1, g_2 .. one behind the other, each [N, C, H >> s, W >> s]
    const T* upstream;   // [scales, N, C]: u_s
    long long planes;    // N C
    long long end;       // elements of `coarser`
    int scales, height, width;
    int parts;           // blocks of one plane
};

extern "C" __global__ void __launch_bounds__(THREADS) deliver(const GRID_CONSTANT Problem problem) {
    const long long plane = blockIdx.x / problem.parts;
    const long long place = static_cast<long long>(blockIdx.x % problem.parts) * THREADS + threadIdx.x;
    const int across = (problem.width + 1) / 2, i = static_cast<int>(place / across), j = static_cast<int>(place % across);
    if (2 * i >= problem.height) return;
    T shared = 0;  // G_s at the pixel that covers this thread's
    const T* start = problem.coarser + problem.end;
    for (int scale = problem.scales - 1; scale > 0; --scale) {
        const int height = problem.height >> scale, width = problem.width >> scale;
        start -= problem.planes * height * width;
        const int row = i >> (scale - 1), column = j >> (scale - 1);
        if (row >= height || column >= width) continue;
        const T g = start[(plane * height + row) * width + column];
        shared = multiply_add(problem.upstream[scale * problem.planes + plane], g, T(0.25) * shared);
    }
    for (int y = 2 * i; y < min(2 * i + 2, problem.height); ++y)
        for (int x = 2 * j; x < min(2 * j + 2, problem.width); ++x) {
            T& g = problem.gradient[(plane * problem.height + y) * problem.width + x];
            g = multiply_add(problem.upstream[plane], g, T(0.25) * shared);
        }
}
