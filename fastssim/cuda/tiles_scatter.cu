// The tiles of an image, cut out or, where WEIGHTED, times their weights: one thread is one pixel of one tile.
//
//     tile[i, j, u, v] = a_i[u] b_j[v] image[r_i + u, c_j + v]      with a window W that is not separable, W[u, v] in place of a b
//
// The adjoint of tiles_gather.cu. Where nothing is multiplied, X is an integer as large as a pixel of any kind.

struct Problem {
    const X* image;           // [N, C, H, W]: the canvas, where tiles reach beyond the image with what stands there
    X* tiles;                 // [N, tiles, C, h, w] contiguous, from the tile `first` on
    const double* weights_y;  // [K, h], where WEIGHTED
    const double* weights_x;  // [K, w]
    const int* kinds_y;       // [I]: which row of weights_y is a row of tiles' own
    const int* kinds_x;       // [J]
    const double* window;     // [h, w], where FULL
    long long step_n, step_c, step_y, step_x;  // of the image, in elements
    int channels, tile_height, tile_width;     // C, h, w
    int stride_y, stride_x, last_y, last_x;    // of the tiles; where the last ones begin
    int tiles_x, first, count, strips;         // J; the tiles that are wanted; blocks across
};

template <typename M>
__device__ __forceinline__ M times(double weight, M pixel) {
    return static_cast<M>(weight * pixel);
}

extern "C" __global__ void __launch_bounds__(THREADS) tiles_scatter(const GRID_CONSTANT Problem problem) {
    const int v = static_cast<int>(blockIdx.x % problem.strips) * THREADS + threadIdx.x;
    if (v >= problem.tile_width) return;
    int rest = blockIdx.x / problem.strips;
    const long long place = static_cast<long long>(rest) * problem.tile_width + v;
    const int u = rest % problem.tile_height;
    rest /= problem.tile_height;
    const int channel = rest % problem.channels;
    rest /= problem.channels;
    const int tile = problem.first + rest % problem.count;
    const long long n = rest / problem.count;
    const int i = tile / problem.tiles_x, j = tile % problem.tiles_x;
    const long long y = min(i * problem.stride_y, problem.last_y) + u, x = min(j * problem.stride_x, problem.last_x) + v;
    const X pixel = problem.image[n * problem.step_n + channel * problem.step_c + y * problem.step_y + x * problem.step_x];
    if constexpr (WEIGHTED) {
        const double weight = FULL ? problem.window[u * problem.tile_width + v]
                                   : problem.weights_y[problem.kinds_y[i] * problem.tile_height + u] *
                                         problem.weights_x[problem.kinds_x[j] * problem.tile_width + v];
        problem.tiles[place] = times(weight, pixel);
    } else {
        problem.tiles[place] = pixel;
    }
}
