// SSIM of every window of a volume, its sum, its map, and the gradient: two marches into the depth, plane by plane.
//
// A block owns TILE_Y x TILE_X columns of windows, or of positions, and a segment of the depth. The WINDOWS march:
//
//     plane of pixels -> s, d into shared memory, about the volume's pivots px, py and the block's local ones
//     across, down:      means and variances of the plane's windows, see below
//     into the depth:    from the means and variances of TAPS_Z planes, which shift through registers
//     formula:           SSIM, and for a gradient six maps: f_ms, f_md, 2 q_s, -2 q_d, m_s, m_d (formula.cuh)
//
// The POSITIONS march reads those maps, makes p_s +- p_d of them, filters them back, into the depth by a transposed FIR
// as in march.cu, and combines them with s and d. Where padding repeats pixels it covers the padded volume, and PIXELS
// adds up what a pixel's positions got.
//
// The volume's pivots are its middle pixel, the same for every block, so that means of one block serve another; the
// block's local ones are the middle pixel of its first windows. Neither is near the mean of every window: each step of
// the filter has a pivot of its own and ends in a mean and a variance, so that e - m^2 nowhere cancels,
//
//     across        about the window's middle pixel         m = p + w*(s - p)     v = w*(s - p)^2 - (w*(s - p))^2
//     down          about the middle row's mean             m = p + w*(m - p)     v = w*(v + (m - p)^2) - (w*(m - p))^2
//     into depth    about the middle plane's mean             the same of planes
//
// Positions: plane, row and column of the padded volume; pixel = position - PAD; window (k, i, j) covers the positions
// k .. k + HALO_Z, i .. i + HALO_Y, j .. j + HALO_X.

constexpr int WINDOWS = 0, POSITIONS = 1, PIXELS = 2;  // values of PHASE
constexpr int HALO_Z = TAPS_Z - 1, HALO_Y = TAPS_Y - 1, HALO_X = TAPS_X - 1;
constexpr bool PADDED = PADDING != VALID;
constexpr int PAD_Z = PADDED ? TAPS_Z / 2 : 0, PAD_Y = PADDED ? TAPS_Y / 2 : 0, PAD_X = PADDED ? TAPS_X / 2 : 0;
constexpr bool FOLDED = PADDED && PADDING != ZEROS;
constexpr int TILE_X = 32, TILE_Y = THREADS / TILE_X;
constexpr int WIDTH = TILE_X + HALO_X, ROWS = TILE_Y + HALO_Y;  // of a tile with what windows reach into
constexpr int IMAGES = GRADIENTS == 2 ? 2 : 1;
constexpr int MAPS = 2 + IMAGES;                   // on the way back: 2 q_s, -2 q_d, p_s + p_d, p_s - p_d
constexpr int PARTIAL = HALO_Z > 0 ? HALO_Z : 1;   // sums that wait for further planes

struct Problem {
    const X* x;            // [N, C, D, H, W]
    const Y* y;            // [N, C, D, H, W]
    const T* upstream;     // [N, C, D', H', W'], where UPSTREAM
    T* ssim_map;           // [N, C, D', H', W'] contiguous, where MAP
    T* maps;               // [6, N, C, D', H', W'], where GRADIENTS
    T* grad_x;             // [N, C, D, H, W] contiguous
    T* grad_y;             // [N, C, D, H, W] contiguous, where GRADIENTS == 2
    T* folded;             // [IMAGES, N, C, positions], where FOLDED
    double* sums;          // [blocks]
    long long image_x, image_y, image_upstream;        // from one image to the next, in elements
    long long channel_x, channel_y, channel_upstream;  // from one channel to the next, in elements
    long long plane_x, plane_y, plane_upstream;        // from one plane to the next, in elements
    int row_x, row_y, row_upstream;                    // from one row to the next, in bytes
    int column_x, column_y, column_upstream;           // from one column to the next, in bytes
    long long windows;                                 // N C D' H' W'
    long long positions;                               // N C times those of a padded volume
    int channels, depth, height, width;                // C, D, H, W
    int windows_z, windows_y, windows_x;               // D', H', W'
    int first_z, first_y, first_x;                     // the positions that POSITIONS covers
    int covered_z, covered_y, covered_x;               // how many; windows under WINDOWS
    int segments, tiles_y, tiles_x, parts;             // blocks of one volume; `parts` under PIXELS
    Constants<T> constants;
    T scale;                                           // of the gradient
    T taps_z[TAPS_Z], taps_y[TAPS_Y], taps_x[TAPS_X];  // each summing to 1
};

using Pair = Vector<T, 2>;  // s, d

struct alignas(sizeof(Vector<T, 4>)) Moments {
    T v[4];  // m_s, e_s, m_d, e_d about some pivots; or m_s, v_s, m_d, v_d

    __device__ __forceinline__ void add(int image, T weight, T mean, T square) {
        v[2 * image] = multiply_add(weight, mean, v[2 * image]);
        v[2 * image + 1] = multiply_add(weight, square, v[2 * image + 1]);
    }

    // Means and variances, of moments about pivots.
    __device__ __forceinline__ Moments spread_about(T s, T d) const {
        return {{v[0] + s, multiply_add(-v[0], v[0], v[1]), v[2] + d, multiply_add(-v[2], v[2], v[3])}};
    }
};

struct Backs {
    T v[MAPS];
};

// Which part of which volume a block owns.
struct Block {
    long long volume;
    int z0, z1, y0, x0;  // counted from the first covered window or position

    __device__ __forceinline__ Block(const Problem& problem) {
        long long rest = blockIdx.x;
        x0 = static_cast<int>(rest % problem.tiles_x) * TILE_X;
        rest /= problem.tiles_x;
        y0 = static_cast<int>(rest % problem.tiles_y) * TILE_Y;
        rest /= problem.tiles_y;
        const int segment = static_cast<int>(rest % problem.segments);
        volume = rest / problem.segments;
        z0 = edge(0, problem.covered_z, segment, problem.segments);
        z1 = edge(0, problem.covered_z, segment + 1, problem.segments);
    }
};

// One volume's pixels, about its pivots.
struct Pixels {
    const Problem& problem;
    const X* x;
    const Y* y;
    T px, py;

    __device__ __forceinline__ Pixels(const Problem& problem, long long volume) : problem(problem), px(0), py(0) {
        const long long n = volume / problem.channels, channel = volume % problem.channels;
        x = problem.x + n * problem.image_x + channel * problem.channel_x;
        y = problem.y + n * problem.image_y + channel * problem.channel_y;
        const int middle[3] = {problem.depth / 2, problem.height / 2, problem.width / 2};
        const T a = x_at(middle[0], middle[1], middle[2]), b = y_at(middle[0], middle[1], middle[2]);
        if (finite(a) && finite(b)) px = a, py = b;
    }

    __device__ __forceinline__ T x_at(int z, int row, int column) const {
        const X* const plane = x + z * problem.plane_x;
        return pixel_from_memory<T, FRACTIONS>(*along(along(plane, row, problem.row_x), column, problem.column_x));
    }
    __device__ __forceinline__ T y_at(int z, int row, int column) const {
        const Y* const plane = y + z * problem.plane_y;
        return pixel_from_memory<T, FRACTIONS>(*along(along(plane, row, problem.row_y), column, problem.column_y));
    }

    // s, d of the pixel that a position shows; of zeros where it shows none.
    __device__ __forceinline__ Pair at(int z, int row, int column) const {
        const int k = any_pixel_at<PADDING>(z - PAD_Z, problem.depth);
        const int r = any_pixel_at<PADDING>(row - PAD_Y, problem.height);
        const int c = any_pixel_at<PADDING>(column - PAD_X, problem.width);
        const bool shown = k >= 0 && r >= 0 && c >= 0;
        return pair_of(shown ? x_at(k, r, c) : T(0), shown ? y_at(k, r, c) : T(0), px, py);
    }
};

__device__ __forceinline__ void march_windows(const Problem& problem) {
    SHARED(Pair, pixels, ROWS * WIDTH);
    SHARED(Moments, across, ROWS * TILE_X);
    SHARED(double, scratch, 32);
    const int t = threadIdx.x, tx = t % TILE_X, ty = t / TILE_X;
    const Block block(problem);
    const Pixels volume(problem, block.volume);
    const int i = block.y0 + ty, j = block.x0 + tx;
    const bool inside = i < problem.windows_y && j < problem.windows_x;
    const int last_row = problem.windows_y + HALO_Y - 1, last_column = problem.windows_x + HALO_X - 1;
    Pair local = volume.at(
        block.z0 + TAPS_Z / 2, min(block.y0 + ROWS / 2, last_row), min(block.x0 + WIDTH / 2, last_column));
    if (!finite(local.v[0]) || !finite(local.v[1])) local = {};
    const T pivot_m = volume.px + volume.py, pivot_q = volume.px - volume.py;
    Moments planes[TAPS_Z] = {};  // of the window's planes: means and variances
    double total = 0;
    for (int step = 0; step < block.z1 - block.z0 + HALO_Z; ++step) {
        for (int place = t; place < ROWS * WIDTH; place += THREADS) {
            const int row = min(block.y0 + place / WIDTH, last_row), column = min(block.x0 + place % WIDTH, last_column);
            const Pair value = volume.at(block.z0 + step, row, column);
            pixels[place] = {value.v[0] - local.v[0], value.v[1] - local.v[1]};
        }
        __syncthreads();
        for (int place = t; place < ROWS * TILE_X; place += THREADS) {
            const Pair* const row = pixels + place / TILE_X * WIDTH + place % TILE_X;
            const Pair middle = row[HALO_X / 2];
            Moments about = {};
#pragma unroll
            for (int v = 0; v < TAPS_X; ++v)
#pragma unroll
                for (int image = 0; image < 2; ++image) {
                    const T value = row[v].v[image] - middle.v[image];
                    about.add(image, problem.taps_x[v], value, value * value);
                }
            across[place] = about.spread_about(middle.v[0], middle.v[1]);
        }
        __syncthreads();
        const Moments middle = across[(ty + HALO_Y / 2) * TILE_X + tx];
        Moments about = {};
#pragma unroll
        for (int u = 0; u < TAPS_Y; ++u) {
            const Moments row = across[(ty + u) * TILE_X + tx];
#pragma unroll
            for (int image = 0; image < 2; ++image) {
                const T mean = row.v[2 * image] - middle.v[2 * image];
                about.add(image, problem.taps_y[u], mean, multiply_add(mean, mean, row.v[2 * image + 1]));
            }
        }
#pragma unroll
        for (int w = 0; w < HALO_Z; ++w) planes[w] = planes[w + 1];
        planes[HALO_Z] = about.spread_about(middle.v[0], middle.v[2]);
        if (step < HALO_Z || !inside) continue;
        const Moments amid = planes[HALO_Z / 2];
        Moments done = {};
#pragma unroll
        for (int w = 0; w < TAPS_Z; ++w)
#pragma unroll
            for (int image = 0; image < 2; ++image) {
                const T mean = planes[w].v[2 * image] - amid.v[2 * image];
                done.add(image, problem.taps_z[w], mean, multiply_add(mean, mean, planes[w].v[2 * image + 1]));
            }
        const int k = block.z0 + step - HALO_Z;
        const Moments window_moments = done.spread_about(amid.v[0], amid.v[2]);
        const T m_s = window_moments.v[0] + local.v[0], m_d = window_moments.v[2] + local.v[1];
        const Window<T, UNBIASED> window(
            window_moments.v[1], window_moments.v[3], m_s + pivot_m, m_d + pivot_q, problem.constants);
        const T ssim = window.ssim();
        total += ssim;
        const long long index =
            ((block.volume * problem.windows_z + k) * problem.windows_y + i) * problem.windows_x + j;
        if constexpr (MAP) problem.ssim_map[index] = ssim;
        if constexpr (GRADIENTS > 0) {
            const Derivatives<T> f(window, problem.constants);
            T weight = 1;
            if constexpr (UPSTREAM) {
                const long long n = block.volume / problem.channels, channel = block.volume % problem.channels;
                const T* const plane = problem.upstream + n * problem.image_upstream +
                                       channel * problem.channel_upstream + k * problem.plane_upstream;
                weight = *along(along(plane, i, problem.row_upstream), j, problem.column_upstream);
            }
            const T maps[6] = {weight * f.f_ms, weight * f.f_md, weight * f.q2_s, weight * f.r2_d, m_s, m_d};
#pragma unroll
            for (int map = 0; map < 6; ++map) problem.maps[map * problem.windows + index] = maps[map];
        }
    }
    total = block_sum<THREADS>(total, scratch);
    if (t == 0) problem.sums[blockIdx.x] = total;
}

// What window (k, i, j) gives back; nothing where there is no such window.
__device__ __forceinline__ Backs derivatives(const Problem& problem, long long volume, int k, int i, int j) {
    Backs back = {};
    if (k < 0 || k >= problem.windows_z || i < 0 || i >= problem.windows_y || j < 0 || j >= problem.windows_x)
        return back;
    const T* const maps =
        problem.maps + ((volume * problem.windows_z + k) * problem.windows_y + i) * problem.windows_x + j;
    const T q2_s = maps[2 * problem.windows], r2_d = maps[3 * problem.windows];
    const T p_s = multiply_add(-maps[4 * problem.windows], q2_s, maps[0]);
    const T p_d = multiply_add(maps[5 * problem.windows], r2_d, maps[problem.windows]);
    const T all[4] = {q2_s, r2_d, p_s + p_d, p_s - p_d};
#pragma unroll
    for (int map = 0; map < MAPS; ++map) back.v[map] = all[map];
    return back;
}

__device__ __forceinline__ void march_positions(const Problem& problem) {
    SHARED(Backs, plane, ROWS * WIDTH);
    SHARED(Backs, across, ROWS * TILE_X);
    const int t = threadIdx.x, tx = t % TILE_X, ty = t / TILE_X;
    const Block block(problem);
    const Pixels volume(problem, block.volume);
    const int z0 = problem.first_z + block.z0, z1 = problem.first_z + block.z1;
    const int y0 = problem.first_y + block.y0, x0 = problem.first_x + block.x0;
    const bool inside = block.y0 + ty < problem.covered_y && block.x0 + tx < problem.covered_x;
    T partial[MAPS][PARTIAL] = {};
    for (int k = z0 - HALO_Z; k < z1; ++k) {
        for (int place = t; place < ROWS * WIDTH; place += THREADS)
            plane[place] = derivatives(
                problem, block.volume, k, y0 - HALO_Y + place / WIDTH, x0 - HALO_X + place % WIDTH);
        __syncthreads();
        for (int place = t; place < ROWS * TILE_X; place += THREADS) {
            const Backs* const row = plane + place / TILE_X * WIDTH + place % TILE_X;
            Backs sum = {};
#pragma unroll
            for (int v = 0; v < TAPS_X; ++v)
#pragma unroll
                for (int map = 0; map < MAPS; ++map)
                    sum.v[map] = multiply_add(problem.taps_x[v], row[HALO_X - v].v[map], sum.v[map]);
            across[place] = sum;
        }
        __syncthreads();
        T done[MAPS];
#pragma unroll
        for (int map = 0; map < MAPS; ++map) {
            T given = 0;
#pragma unroll
            for (int u = 0; u < TAPS_Y; ++u)
                given = multiply_add(problem.taps_y[u], across[(ty + HALO_Y - u) * TILE_X + tx].v[map], given);
            done[map] = multiply_add(problem.taps_z[0], given, HALO_Z > 0 ? partial[map][0] : T(0));
#pragma unroll
            for (int u = 0; u < PARTIAL - 1; ++u)
                partial[map][u] = multiply_add(problem.taps_z[u + 1], given, partial[map][u + 1]);
            partial[map][PARTIAL - 1] = problem.taps_z[HALO_Z] * given;
        }
        if (k < z0 || !inside) continue;
        const int row = y0 + ty, column = x0 + tx;
        const Pair pixel = volume.at(k, row, column);
        const T by_s = pixel.v[0] * done[0], d = pixel.v[1];
        const T to_x = problem.scale * (done[2] + multiply_add(-d, done[1], by_s));
        T to_y = 0;
        if constexpr (IMAGES == 2) to_y = problem.scale * (done[MAPS - 1] + multiply_add(d, done[1], by_s));
        if constexpr (FOLDED) {
            const long long index =
                ((block.volume * problem.covered_z + k) * problem.covered_y + row) * problem.covered_x + column;
            problem.folded[index] = to_x;
            if constexpr (IMAGES == 2) problem.folded[problem.positions + index] = to_y;
        } else {
            const long long index =
                ((block.volume * problem.depth + k - PAD_Z) * problem.height + row - PAD_Y) * problem.width + column -
                PAD_X;
            problem.grad_x[index] = to_x;
            if constexpr (IMAGES == 2) problem.grad_y[index] = to_y;
        }
    }
}

__device__ __forceinline__ void gather_pixels(const Problem& problem) {
    const long long volume = blockIdx.x / problem.parts;
    const long long place = static_cast<long long>(blockIdx.x % problem.parts) * THREADS + threadIdx.x;
    const long long pixels_of_one = static_cast<long long>(problem.depth) * problem.height * problem.width;
    if (place >= pixels_of_one) return;
    const Place own(place, problem.height, problem.width);
    T to[IMAGES] = {};
    for (int k = 0; k <= 2 * PAD_Z; ++k) {
        const int pz = position<PADDING, PAD_Z>(k, own.z, problem.depth);
        for (int i = 0; pz >= 0 && i <= 2 * PAD_Y; ++i) {
            const int py = position<PADDING, PAD_Y>(i, own.row, problem.height);
            for (int j = 0; py >= 0 && j <= 2 * PAD_X; ++j) {
                const int px = position<PADDING, PAD_X>(j, own.column, problem.width);
                if (px < 0) continue;
                const long long index =
                    ((volume * problem.covered_z + pz) * problem.covered_y + py) * problem.covered_x + px;
                for (int image = 0; image < IMAGES; ++image)
                    to[image] += problem.folded[image * problem.positions + index];
            }
        }
    }
    const long long index = volume * pixels_of_one + place;
    problem.grad_x[index] = to[0];
    if constexpr (IMAGES == 2) problem.grad_y[index] = to[IMAGES - 1];
}

constexpr int MIN_BLOCKS = sizeof(T) / 8;  // on a multiprocessor: 1 lets the compiler use all registers, and not spill

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) volume(const GRID_CONSTANT Problem problem) {
    if constexpr (PHASE == WINDOWS) march_windows(problem);
    else if constexpr (PHASE == POSITIONS) march_positions(problem);
    else gather_pixels(problem);
}
