// SSIM of every window, one thread a window, by the definition: means first, then central moments about them.
//
// Slow and readable, for any window: the twin that the marches are tested against, and what runs where they do not fit
// (windows of one pixel or of very many, images smaller than what is padded). An image is a volume of one plane. For a
// gradient it writes six maps of every window, which pixels.cu gathers:  f_ms, f_md, 2 q_s, -2 q_d, m_s, m_d (formula.cuh).

constexpr bool PADDED = PADDING != VALID;
constexpr int PAD_Z = PADDED ? TAPS_Z / 2 : 0, PAD_Y = PADDED ? TAPS_Y / 2 : 0, PAD_X = PADDED ? TAPS_X / 2 : 0;

struct Problem {
    const X* x;         // [N, C, D, H, W]
    const Y* y;         // [N, C, D, H, W]
    const W* mask;      // [N, C, D, H, W], where MASKED
    const T* upstream;  // [N, C, D', H', W'], where UPSTREAM
    T* ssim_map;        // [N, C, D', H', W'] contiguous, where MAP
    T* maps;            // [6, N, C, D', H', W'], where GRADIENTS
    double* sums;       // [N C, parts]
    double* counted;    // [N C, parts]: windows with something to compare, where MASKED
    double* distances;  // [N C, parts]: of |x - y|, where L1
    long long image_x, image_y, image_mask, image_upstream;          // from one image to the next, in elements
    long long channel_x, channel_y, channel_mask, channel_upstream;  // from one channel to the next, in elements
    long long plane_x, plane_y, plane_mask, plane_upstream;          // from one plane to the next, in elements
    int row_x, row_y, row_mask, row_upstream;                        // from one row to the next, in bytes
    int column_x, column_y, column_mask, column_upstream;            // from one column to the next, in bytes
    long long windows;                                 // N C D' H' W'
    int channels, depth, height, width;                // C, D, H, W
    int windows_z, windows_y, windows_x;               // D', H', W'
    int parts;                                         // blocks of one channel
    Constants<T> constants;
    T taps_z[TAPS_Z], taps_y[TAPS_Y], taps_x[TAPS_X];  // each summing to 1
};

struct Pixel {
    T s, d, weight;
};

// The pixel that position (z, row, column) shows, zeros of weight 1 where it shows none.
__device__ __forceinline__ Pixel pixel(
    const Problem& problem, const X* x, const Y* y, const W* mask, int z, int row, int column) {
    const int k = TAPS_Z > 1 ? any_pixel_at<PADDING>(z - PAD_Z, problem.depth) : z;
    const int r = any_pixel_at<PADDING>(row - PAD_Y, problem.height);
    const int c = any_pixel_at<PADDING>(column - PAD_X, problem.width);
    if (k < 0 || r < 0 || c < 0) return {0, 0, 1};
    T weight = 1;
    if constexpr (MASKED) {
        mask += k * problem.plane_mask;
        weight = from_memory<T>(*along(along(mask, r, problem.row_mask), c, problem.column_mask));
        if (!(weight > T(0))) return {};
    }
    x += k * problem.plane_x;
    y += k * problem.plane_y;
    const T a = pixel_from_memory<T, FRACTIONS>(*along(along(x, r, problem.row_x), c, problem.column_x));
    const T b = pixel_from_memory<T, FRACTIONS>(*along(along(y, r, problem.row_y), c, problem.column_y));
    return {a + b, a - b, weight};
}

// factor * sum of weight * terms(pixel) over a window; sums of sums: thousands of terms one by one would round the last
// ones away.
template <int N, typename Terms>
__device__ __forceinline__ Vector<T, N> over_window(
    const Problem& problem, const X* x, const Y* y, const W* mask, const Place& first, T factor, Terms terms) {
    Vector<T, N> sum = {};
#pragma unroll 1
    for (int w = 0; w < TAPS_Z; ++w) {
        Vector<T, N> plane = {};
#pragma unroll 1
        for (int u = 0; u < TAPS_Y; ++u) {
            Vector<T, N> row = {};
#pragma unroll 1
            for (int v = 0; v < TAPS_X; ++v) {
                const Pixel value = pixel(problem, x, y, mask, first.z + w, first.row + u, first.column + v);
                add(row, problem.taps_x[v] * value.weight, terms(value));
            }
            add(plane, problem.taps_y[u], row);
        }
        add(sum, problem.taps_z[w] * factor, plane);
    }
    return sum;
}

// 1 block a multiprocessor at the least: lets the compiler use all registers, and not spill.
extern "C" __global__ void __launch_bounds__(THREADS, 1) windows(const GRID_CONSTANT Problem problem) {
    SHARED(double, scratch, 32);
    const long long volume = blockIdx.x / problem.parts;
    const long long place = static_cast<long long>(blockIdx.x % problem.parts) * THREADS + threadIdx.x;
    const long long n = volume / problem.channels, channel = volume % problem.channels;
    const X* const x = problem.x + n * problem.image_x + channel * problem.channel_x;
    const Y* const y = problem.y + n * problem.image_y + channel * problem.channel_y;
    const W* const mask = MASKED ? problem.mask + n * problem.image_mask + channel * problem.channel_mask : nullptr;
    double total = 0, windows = 0, distance = 0;
    if constexpr (L1) {
        const long long pixels = static_cast<long long>(problem.depth) * problem.height * problem.width;
        for (long long at = place; at < pixels; at += static_cast<long long>(problem.parts) * THREADS) {
            const Place one(at, problem.height, problem.width);
            distance += absolute(pixel(problem, x, y, mask, one.z + PAD_Z, one.row + PAD_Y, one.column + PAD_X).d);
        }
    }
    const long long windows_of_one = static_cast<long long>(problem.windows_z) * problem.windows_y * problem.windows_x;
    if (place < windows_of_one) {
        const Place first(place, problem.windows_y, problem.windows_x);
        const int k = first.z, i = first.row, j = first.column;
        // so that flat windows are exact
        const auto middle = pixel(problem, x, y, mask, k + TAPS_Z / 2, i + TAPS_Y / 2, j + TAPS_X / 2);
        const auto means = over_window<4>(problem, x, y, mask, first, T(1), [&](const Pixel& value) {
            return Vector<T, 4>{value.s - middle.s, value.d - middle.d, T(1)};  // of s, d; sum of the weights
        });
        const T weights = means.v[2];
        const bool something = !MASKED || weights > T(LEAST_WEIGHT);
        const T inverse = MASKED && something ? T(1) / weights : T(1);
        const T m_s = multiply_add(means.v[0], inverse, middle.s), m_d = multiply_add(means.v[1], inverse, middle.d);
        const auto variances = over_window<2>(problem, x, y, mask, first, inverse, [&](const Pixel& value) {
            const T s = value.s - m_s, d = value.d - m_d;
            return Vector<T, 2>{s * s, d * d};
        });
        const Window<T, UNBIASED> window(variances.v[0], variances.v[1], m_s, m_d, problem.constants);
        const T ssim = something ? window.ssim() : T(1);
        if (something) total = ssim, windows = 1;
        const long long index = volume * windows_of_one + place;
        if constexpr (MAP) problem.ssim_map[index] = ssim;
        if constexpr (GRADIENTS > 0) {
            const Derivatives<T> f(window, problem.constants);
            T weight = something ? inverse : T(0);
            if constexpr (UPSTREAM) {
                const T* const upstream = problem.upstream + n * problem.image_upstream +
                                          channel * problem.channel_upstream + k * problem.plane_upstream;
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
