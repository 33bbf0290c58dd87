// SSIM of every window, its sum, its map, and the gradient, in one march down a strip of columns.
//
// A block owns a strip of columns and a segment of rows of one plane: pixels where a gradient is wanted, windows
// elsewhere. It reads every pixel row of its strip once and keeps nothing in global memory but what was asked for:
//
//     row of pixels -> s, d into a ring of rows in shared memory, about the block's pivots px, py
//     across:       each thread filters s, s^2, d, d^2 for its COLUMNS windows, about its own local pivot
//     down:         a transposed FIR: HALO_Y partial sums for each map and column shift through registers; the oldest
//                   leaves as a finished moment:  z[u] = z[u - 1] + w[u] row,  moment = z[HALO_Y - 1] + w[HALO_Y] row
//     formula:      SSIM and its derivatives 2 q_s, -2 q_d, p_s + p_d (p_s - p_d), see formula.cuh
//     down, back:   the same FIR mirrored: a gradient row leaves with the last window row that covers it
//     across, back: through one row in shared memory, then combined with s and d from the ring, and written
//
// One barrier a row: the way across, back, of row r - 1 is done beside the way across of row r, and the next row's pixels
// are under way meanwhile.
//
// Pivots keep e - m^2 from cancelling. px, py: the mean of 8 x 8 pixels of the block. Across, each thread and row has its
// own, a pixel amid the windows. Down, where numbers are short, each thread has one for every GROUP windows below each
// other, the mean of pixels amid the rows that all of them share; the windows under way belong to two or three groups:
//
//     across:   m = w_x*(s - a),  v = w_x*(s - a)^2 - m^2              a: the row's pivot
//     down:     w_y*(m + a - p),  w_y*((m + a - p)^2 + v)              p: that of the window's group
//
// A window gives its pivots' pixels a good part of its weight: the square of its mean about them is at most some times
// its variance, whatever lies around. Which partial sums belong to which group, the row's number tells, modulo GROUP:
// the code is there for each case.
//
// Under a mask a, see formula.cuh, a ring of weights runs beside that of s and d, and the FIR carries w*a as a fifth map.
// |x - y|, where L1: added up by the thread that fetches a pixel; its gradient joins SSIM's.
//
// Where HALVED, the means of 2 x 2 pixels, the images of MS-SSIM's next scale, are taken from the ring as the rows go by:
// s and d of four pixels added up make the x and y of one, exactly equal where all x and y are. An odd last row or column
// is left out. Blocks then share out pixels with and without a gradient.
//
// Where padding repeats pixels, positions outside the image are owned like others, by the block of the pixels that they
// repeat: their gradients are added to those pixels', across through a row in shared memory, down by adding to what this
// same thread has written.
//
// Positions: row and column of the padded image; pixel = position - PAD; window (i, j) covers positions i .. i + HALO_Y,
// j .. j + HALO_X and belongs to position (i + PAD_Y, j + PAD_X), its middle pixel, or its first under VALID.

constexpr int HALO_Y = TAPS_Y - 1, HALO_X = TAPS_X - 1;
constexpr int PAD_Y = PADDING == VALID ? 0 : TAPS_Y / 2, PAD_X = PADDING == VALID ? 0 : TAPS_X / 2;
constexpr bool FOLDED = PADDING == REFLECT || PADDING == SYMMETRIC || PADDING == REPLICATE;
constexpr bool GRADIENT = GRADIENTS > 0;
constexpr int PIXEL_Y = GRADIENT ? PAD_Y : 0, PIXEL_X = GRADIENT ? PAD_X : 0;  // where pixel 0 is in what blocks share out
constexpr int WINDOWS = THREADS * COLUMNS;             // window columns of a block
constexpr int PITCH = WINDOWS + HALO_X;                // pixel columns of a block
constexpr int STEP = PITCH / COLUMNS;                  // from one row of the ring to the next, in Pairs
constexpr int RING = GRADIENT ? HALO_Y + 3 : 2;        // pixel rows kept
constexpr int LOADS = (PITCH + THREADS - 1) / THREADS;  // pixels that a thread fetches in a row
constexpr int IMAGES = GRADIENTS == 2 ? 2 : 1;         // whose gradients are wanted
constexpr int MAPS = 2 + IMAGES;                       // maps on the way back
constexpr int MOMENTS = MASKED ? 5 : 4;                // maps on the way down
constexpr bool LOCAL = sizeof(T) < 8;                  // pivots beside the block's
constexpr int FAR = 4;                                 // times v + C2: what the square of a mean about its pivot may be
constexpr int GROUP = TAPS_Y / 2 + 1;                  // windows, one below the other, about one pivot
constexpr int GROUPS = 1 + (HALO_Y + GROUP - 1) / GROUP;  // under way at a time
constexpr int NEXT = GRADIENT ? THREADS : 1;             // from one group's pivot to that of the group before
constexpr int AMID[2] = {(GROUP - 1 + HALO_Y) / 2, (GROUP + HALO_Y) / 2};  // rows of the pivot, from a group's first on

struct Problem {
    const X* x;            // [N, C, H, W]
    const Y* y;            // [N, C, H, W]
    const W* mask;         // [N, C, H, W], where MASKED
    const T* upstream;     // [N, C, H', W'], where UPSTREAM
    T* ssim_map;           // [N, C, H', W'] contiguous, where MAP
    T* grad_x;             // [N, C, H, W] contiguous, where GRADIENT
    T* grad_y;             // [N, C, H, W] contiguous, where GRADIENTS == 2
    double* sums;          // [N C, segments, strips]
    double* counted;       // [N C, segments, strips]: windows with something to compare, where MASKED
    double* distances;     // [N C, segments, strips]: of |x - y|, where L1
    T* half_x;             // [N, C, H / 2, W / 2] contiguous, where HALVED
    T* half_y;             // [N, C, H / 2, W / 2] contiguous, where HALVED
    long long image_x, image_y, image_mask, image_upstream;          // from one image to the next, in elements
    long long channel_x, channel_y, channel_mask, channel_upstream;  // from one channel to the next, in elements
    int row_x, row_y, row_mask, row_upstream;                        // from one row to the next, in bytes
    int column_x, column_y, column_mask, column_upstream;            // from one column to the next, in bytes
    int channels, height, width;           // C, H, W
    int windows_y, windows_x;              // H', W'
    int first_y, rows, first_x, columns;   // what blocks share out: positions; without a gradient, windows (pixels)
    int segments, strips;
    Constants<T> constants;
    T scale, l1;                           // of the gradient, and of the sign of x - y
    T taps_y[TAPS_Y], taps_x[TAPS_X];      // each summing to 1
};

using Pair = Vector<T, 2>;             // s, d of a pixel
using Pairs = Vector<T, 2 * COLUMNS>;  // the same of adjacent pixels; q2_s, r2_d of adjacent windows
using Weights = Vector<T, COLUMNS>;    // of adjacent pixels
using Backs = Vector<T, IMAGES * COLUMNS>;

// A row of pixels, filtered across in a thread's windows.
struct Row {
    T s, d;                        // its pivots, beside the block's
    T moments[MOMENTS][COLUMNS];   // m_s, e_s, m_d, e_d about them, n
    T v_s[COLUMNS], v_d[COLUMNS];  // variances, times n where MASKED
    T inverse_n[COLUMNS];

    __device__ __forceinline__ T n(int c) const { return MASKED ? moments[MOMENTS - 1][c] : T(1); }
};

// Which group, the newest being 0, a window belongs to that a row enters at tap u; `phase`: the row's number in its group.
__device__ __forceinline__ constexpr int group_of(int u, int phase) {
    return !LOCAL || u <= phase ? 0 : (u - phase - 1) / GROUP + 1;
}

// Down: the oldest partial sums are done, the others move on. Return the pivot that they are about.
template <int PHASE>
__device__ __forceinline__ Pair descend(
    const Row& row, const Pair* pivots, const Problem& problem, T (&down)[MOMENTS][HALO_Y][COLUMNS],
    T (&done)[MOMENTS][COLUMNS]) {
    constexpr int HERE = group_of(HALO_Y, PHASE) + 1;
    T about[HERE][MOMENTS][COLUMNS];  // the row's moments about each group's pivot
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c)
#pragma unroll
        for (int g = 0; g < HERE; ++g) {
#pragma unroll
            for (int map = 0; map < MOMENTS; ++map) about[g][map][c] = row.moments[map][c];
            if constexpr (LOCAL) {
                const Pair pivot = pivots[g * NEXT];
                T& m_s = about[g][0][c];
                T& m_d = about[g][2][c];
                m_s = multiply_add(row.s - pivot.v[0], row.n(c), m_s);
                m_d = multiply_add(row.d - pivot.v[1], row.n(c), m_d);
                about[g][1][c] = multiply_add(row.inverse_n[c] * m_s, m_s, row.v_s[c]);
                about[g][3][c] = multiply_add(row.inverse_n[c] * m_d, m_d, row.v_d[c]);
            }
        }
#pragma unroll
    for (int map = 0; map < MOMENTS; ++map)
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) {
            T* const z = &down[map][0][c];
            done[map][c] =
                multiply_add(problem.taps_y[HALO_Y], about[HERE - 1][map][c], z[(HALO_Y - 1) * COLUMNS]);
#pragma unroll
            for (int u = HALO_Y - 1; u > 0; --u)
                z[u * COLUMNS] =
                    multiply_add(problem.taps_y[u], about[group_of(u, PHASE)][map][c], z[(u - 1) * COLUMNS]);
            z[0] = problem.taps_y[0] * about[0][map][c];
        }
    return LOCAL ? pivots[(HERE - 1) * NEXT] : Pair{};
}

// The same for a row's number `phase`, one of FIRST .. FIRST + COUNT - 1.
template <int COUNT = LOCAL ? GROUP : 1, int FIRST = 0>
__device__ __forceinline__ Pair go_down(
    int phase, const Row& row, const Pair* pivots, const Problem& problem, T (&down)[MOMENTS][HALO_Y][COLUMNS],
    T (&done)[MOMENTS][COLUMNS]) {
    constexpr int HALF = COUNT / 2;
    if constexpr (COUNT == 1) {
        return descend<FIRST>(row, pivots, problem, down, done);
    } else {
        if (phase < FIRST + HALF) return go_down<HALF, FIRST>(phase, row, pivots, problem, down, done);
        return go_down<COUNT - HALF, FIRST + HALF>(phase, row, pivots, problem, down, done);
    }
}

// The mean of up to 8 x 8 finite pixels with a weight, spread over rows y0 .. y1 - 1, columns x0 .. x1 - 1 of a plane; 0
// without any.
template <typename M>
__device__ __forceinline__ T mean_of_samples(
    const Problem& problem, const M* plane, int row, int column, const W* mask, int y0, int y1, int x0, int x1,
    T* scratch) {
    T total = 0, count = 0;
    for (int i = threadIdx.x; i < 64; i += THREADS) {
        const int y = y0 + (y1 - y0) * (i / 8) / 8, x = x0 + (x1 - x0) * (i % 8) / 8;
        const T value = pixel_from_memory<T, FRACTIONS>(*along(along(plane, y, row), x, column));
        bool wanted = finite(value);
        if constexpr (MASKED) {
            const W weight = *along(along(mask, y, problem.row_mask), x, problem.column_mask);
            wanted = wanted && from_memory<T>(weight) > T(0);
        }
        if (wanted) total += value, count += 1;
    }
    total = block_sum<THREADS>(total, scratch);
    count = block_sum<THREADS>(count, scratch);
    return count > 0 ? total / count : T(0);
}

// m_s, m_d about px, py, and v_s, v_d of window (i, j) of a plane, each about its mean: where a mask leaves a window
// nothing near its pivot.
__device__ __forceinline__ Vector<T, 4> by_the_definition(
    const Problem& problem, const X* x, const Y* y, const W* mask, int i, int j, T px, T py) {
    Vector<T, 4> own = {};
#pragma unroll 1
    for (int pass = 0; pass < 2; ++pass) {  // means; about these, their rests and the variances
        Vector<T, 4> sums = {};
        T n = 0;
#pragma unroll 1
        for (int u = 0; u < TAPS_Y; ++u) {
            const int row = pixel_at<PADDING>(i + u - PAD_Y, problem.height);
#pragma unroll 1
            for (int v = 0; v < TAPS_X; ++v) {
                const int column = pixel_at<PADDING>(j + v - PAD_X, problem.width);
                T weight = problem.taps_y[u] * problem.taps_x[v], x_value = 0, y_value = 0;
                if (row >= 0 && column >= 0) {  // or a zero of the padding
                    const W part = *along(along(mask, row, problem.row_mask), column, problem.column_mask);
                    if (!(from_memory<T>(part) > T(0))) continue;
                    weight *= from_memory<T>(part);
                    const X* const x_pixel = along(along(x, row, problem.row_x), column, problem.column_x);
                    const Y* const y_pixel = along(along(y, row, problem.row_y), column, problem.column_y);
                    x_value = pixel_from_memory<T, FRACTIONS>(*x_pixel);
                    y_value = pixel_from_memory<T, FRACTIONS>(*y_pixel);
                }
                const Pair pixel = pair_of(x_value, y_value, px, py);
                const T s = pixel.v[0] - own.v[0], d = pixel.v[1] - own.v[1];
                add(sums, weight, Vector<T, 4>{s, d, s * s, d * d});
                n += weight;
            }
        }
        own.v[0] += sums.v[0] / n;
        own.v[1] += sums.v[1] / n;
        own.v[2] = sums.v[2] / n;
        own.v[3] = sums.v[3] / n;
    }
    return own;
}

// Whether an earlier position's gradient has been written to pixel row `row`, which position `p` shows.
__device__ __forceinline__ bool row_was_written(int p, int row, int height) {
    if (p >= PAD_Y + height) return true;
    if (PADDING == REPLICATE) return p > 0 && row == 0;
    if (p < PAD_Y) return false;
    return PADDING == REFLECT ? row >= 1 && row <= PAD_Y : row < PAD_Y;
}

// Add to the gradients of this thread's pixels those of the positions outside that repeat them; `row` [IMAGES][WINDOWS].
__device__ __forceinline__ void fold_columns(T (&to)[IMAGES][COLUMNS], T* row, int x0, int x1, int width) {
    const int t = threadIdx.x;
#pragma unroll
    for (int g = 0; g < IMAGES; ++g)
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) row[g * WINDOWS + COLUMNS * t + c] = to[g][c];
    __syncthreads();
    for (int k = 0; k < 2 * PAD_X; ++k) {  // every position outside, from the left to the right
        const int position = k < PAD_X ? k : width + k;
        if (position < x0 || position >= x1) continue;
        const int target = pixel_at<PADDING>(position - PAD_X, width) + PAD_X - x0;
#pragma unroll
        for (int g = 0; g < IMAGES; ++g)
#pragma unroll
            for (int c = 0; c < COLUMNS; ++c)
                if (COLUMNS * t + c == target) to[g][c] += row[g * WINDOWS + position - x0];
    }
}

constexpr int MIN_BLOCKS = MASKED ? 1 : 0;  // on a multiprocessor: 1 lets the compiler use all registers, and not spill

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) march(const GRID_CONSTANT Problem problem) {
    SHARED(Pairs, ring_memory, RING * STEP);
    SHARED(Weights, weights_memory, MASKED ? RING * STEP : 1);
    SHARED(Pairs, variances_memory, GRADIENT ? 2 * THREADS : 1);
    SHARED(Backs, means_memory, GRADIENT ? 2 * THREADS : 1);
    SHARED(Pair, pivots_memory, GRADIENT && LOCAL ? GROUPS * THREADS : 1);
    SHARED(T, folded, GRADIENT && FOLDED ? IMAGES * WINDOWS : 1);
    SHARED(T, scratch, 32);
    SHARED(double, wide_scratch, 32);
    Pair* const ring = reinterpret_cast<Pair*>(ring_memory);
    T* const weights_ring = reinterpret_cast<T*>(weights_memory);

    const int t = threadIdx.x;
    const Part part = part_of(problem);
    const X* const x = plane_of(problem.x, problem.image_x, problem.channel_x, part);
    const Y* const y = plane_of(problem.y, problem.image_y, problem.channel_y, part);
    const W* const mask = MASKED ? plane_of(problem.mask, problem.image_mask, problem.channel_mask, part) : nullptr;
    const T* const upstream =
        UPSTREAM ? plane_of(problem.upstream, problem.image_upstream, problem.channel_upstream, part) : nullptr;

    // The block owns positions y0 .. y1 - 1, x0 .. x1 - 1, and computes windows first .. last - 1 from column `left` on.
    const int y0 = edge(problem.first_y, problem.rows, part.segment, problem.segments);
    const int y1 = edge(problem.first_y, problem.rows, part.segment + 1, problem.segments);
    const int x0 = edge(problem.first_x, problem.columns, part.strip, problem.strips);
    const int x1 = edge(problem.first_x, problem.columns, part.strip + 1, problem.strips);
    const int first = GRADIENT ? max(0, y0 - HALO_Y) : y0;
    const int last = min(y1, problem.windows_y);
    const int left = GRADIENT ? x0 - HALO_X : x0;
    const int steps = y1 - first + HALO_Y;  // rows of pixels; those behind the image's end count as zeros

    bool valid[COLUMNS], counted[COLUMNS];  // of this thread's windows
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) {
        const int j = left + COLUMNS * t + c;
        valid[c] = j >= 0 && j < problem.windows_x && j < x1;
        counted[c] = valid[c] && (!GRADIENT || (j + PAD_X >= x0 && j + PAD_X < x1));
    }
    // How far into a row the pixels lie that this thread fetches, in bytes; where there is none, the nearest.
    long long bytes_x[LOADS], bytes_y[LOADS], bytes_mask[LOADS];
    bool in_column[LOADS];   // whether there is one
    bool own_column[LOADS];  // whether this block adds up |x - y| there
    const int end_y = GRADIENT || y1 < problem.windows_y ? y1 : y1 + HALO_Y;  // of the pixels that this block adds up
    const int end_x = GRADIENT || x1 < problem.windows_x ? x1 : x1 + HALO_X;
#pragma unroll
    for (int load = 0; load < LOADS; ++load) {
        const int position = left + t + load * THREADS;
        own_column[load] = position >= max(x0, PAD_X) && position < min(end_x, PAD_X + problem.width);
        const int k = min(left + t + load * THREADS, x1 + HALO_X - 1);  // fetch nothing that no window needs
        const int pixel = pixel_at<PADDING>(k - PAD_X, problem.width);
        const int column = nearest(pixel, problem.width);
        bytes_x[load] = static_cast<long long>(column) * problem.column_x;
        bytes_y[load] = static_cast<long long>(column) * problem.column_y;
        if constexpr (MASKED) bytes_mask[load] = static_cast<long long>(column) * problem.column_mask;
        in_column[load] = pixel == column;
    }

    T px, py;
    {
        const int top = max(0, first - PAD_Y), bottom = min(problem.height, last + HALO_Y - PAD_Y);
        const int from = max(0, left - PAD_X), to = min(problem.width, x1 + HALO_X - PAD_X);
        px = mean_of_samples(
            problem, x, problem.row_x, problem.column_x, mask, min(top, bottom - 1), bottom, min(from, to - 1), to, scratch);
        py = mean_of_samples(
            problem, y, problem.row_y, problem.column_y, mask, min(top, bottom - 1), bottom, min(from, to - 1), to, scratch);
    }
    const T pivot_m = px + py, pivot_q = px - py;

    X fetched_x[LOADS];
    Y fetched_y[LOADS];
    W fetched_mask[LOADS];
    bool in_row = false, own_row = false;
    T distance = 0;  // of |x - y| since it went into `all_distances`
    double all_distances = 0;
    const auto fetch = [&](int step) {
        const int pixel = pixel_at<PADDING>(first + step - PAD_Y, problem.height);
        const int row = nearest(pixel, problem.height);
        in_row = pixel == row;
        own_row = first + step >= max(y0, PAD_Y) && first + step < min(end_y, PAD_Y + problem.height);
        const X* const x_row = settled(along(x, row, problem.row_x));
        const Y* const y_row = settled(along(y, row, problem.row_y));
#pragma unroll
        for (int load = 0; load < LOADS; ++load) {
            fetched_x[load] = *behind(x_row, bytes_x[load]);
            fetched_y[load] = *behind(y_row, bytes_y[load]);
            if constexpr (MASKED) fetched_mask[load] = *behind(along(mask, row, problem.row_mask), bytes_mask[load]);
        }
    };
    // The pixels of the pivot of the group that begins at a row: read a group before they are used.
    X amid_x[2];
    Y amid_y[2];
    W amid_mask[2];
    const auto in_image = [](int i, int n) { return nearest(FOLDED ? pixel_at<PADDING>(i, n) : i, n); };
    const int amid_column = in_image(left + COLUMNS * t + HALO_X / 2 - PAD_X, problem.width);
    const long long amid_x_bytes = static_cast<long long>(amid_column) * problem.column_x;
    const long long amid_y_bytes = static_cast<long long>(amid_column) * problem.column_y;
    const auto look = [&](int step) {
#pragma unroll
        for (int k = 0; k < 2; ++k) {
            const int row = in_image(first + step + AMID[k] - PAD_Y, problem.height);
            amid_x[k] = *behind(along(x, row, problem.row_x), amid_x_bytes);
            amid_y[k] = *behind(along(y, row, problem.row_y), amid_y_bytes);
            if constexpr (MASKED)
                amid_mask[k] = *along(along(mask, row, problem.row_mask), amid_column, problem.column_mask);
        }
    };
    const auto keep = [&](int slot) {
#pragma unroll
        for (int load = 0; load < LOADS; ++load) {
            const int k = t + load * THREADS;
            if ((load + 1) * THREADS > PITCH && k >= PITCH) continue;
            const bool outside = PADDING == ZEROS && !(in_row && in_column[load]);
            T x_value = pixel_from_memory<T, FRACTIONS>(fetched_x[load]);
            T y_value = pixel_from_memory<T, FRACTIONS>(fetched_y[load]);
            if (outside) x_value = y_value = 0;
            if constexpr (L1) {
                if (own_row && own_column[load]) distance += absolute(x_value - y_value);
            }
            Pair pixel = pair_of(x_value, y_value, px, py);
            if constexpr (MASKED) {
                T weight = outside ? T(1) : from_memory<T>(fetched_mask[load]);
                if (!(weight > T(0))) {
                    weight = 0;
                    pixel = {};
                }
                weights_ring[slot * COLUMNS + k] = weight;
            }
            ring[slot * COLUMNS + k] = pixel;
        }
    };

    T down[MOMENTS][HALO_Y][COLUMNS];  // partial sums of m_s, e_s, m_d, e_d, n
    T back[MAPS][HALO_Y][COLUMNS];  // partial sums of the derivatives
#pragma unroll
    for (int u = 0; u < HALO_Y; ++u)
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) {
#pragma unroll
            for (int map = 0; map < MOMENTS; ++map) down[map][u][c] = 0;
            if constexpr (GRADIENT) {
#pragma unroll
                for (int map = 0; map < MAPS; ++map) back[map][u][c] = 0;
            }
        }
    // Half rows: this thread's column of them, where its pixels lie in a row of the ring, their sums in the even row.
    const int half_column = ((x0 - PIXEL_X + 1) >> 1) + t;
    const bool halves = half_column >= 0 && 2 * half_column < x1 - PIXEL_X && half_column < problem.width / 2;
    const int half_from = halves ? 2 * half_column + PAD_X - left : 0;
    T half_s = 0, half_d = 0;

    T sum = 0;  // of SSIM since the last group began
    double total = 0;
    int windows = 0;  // with something to compare

    fetch(0);
    keep(0);
    // The pivots of this thread's groups, the newest first; a gradient leaves no registers for them.
    Pair own_pivots[GROUPS];
    Pair* const pivots = GRADIENT ? pivots_memory + t : own_pivots;
    if constexpr (LOCAL) {
        look(0);
#pragma unroll
        for (int g = 0; g < GROUPS; ++g) pivots[g * NEXT] = {};
    }
    int phase = 0;   // step % GROUP
    int slot = 0;    // where row `step` lies in the ring, in Pairs
    int buffer = 0;  // which of the two rows on their way back this step writes
    T* to_x = nullptr;  // where this thread's next gradients go
    T* to_y = nullptr;
    if constexpr (GRADIENT) {
        const long long place = (part.plane * problem.height + y0 - PAD_Y) * problem.width + x0 - PAD_X + COLUMNS * t;
        to_x = problem.grad_x + place;
        if (GRADIENTS == 2) to_y = problem.grad_y + place;
    }
    for (int step = 0;; ++step) {
        __syncthreads();
        fetch(step + 1);
        const int i = first + step - HALO_Y;  // the window row that this pixel row finishes

        // Across, back: the gradient of row i - 1.
        if constexpr (GRADIENT) {
            const int p = i - 1;
            T to[IMAGES][COLUMNS] = {};  // the gradients
            if (p >= y0 && COLUMNS * t < x1 - x0) {
                T q2_s[COLUMNS] = {}, r2_d[COLUMNS] = {};
                const int before = THREADS - buffer + t;
#pragma unroll
                for (int k = 0; k < (HALO_X + COLUMNS) / COLUMNS; ++k) {
                    const Pairs variances = variances_memory[before + k];
                    const Backs means = means_memory[before + k];
#pragma unroll
                    for (int from = 0; from < COLUMNS; ++from)
#pragma unroll
                        for (int c = 0; c < COLUMNS; ++c) {
                            const int u = HALO_X - (COLUMNS * k + from - c);
                            if (u < 0 || u > HALO_X) continue;
                            q2_s[c] = multiply_add(problem.taps_x[u], variances.v[2 * from], q2_s[c]);
                            r2_d[c] = multiply_add(problem.taps_x[u], variances.v[2 * from + 1], r2_d[c]);
#pragma unroll
                            for (int g = 0; g < IMAGES; ++g)
                                to[g][c] = multiply_add(problem.taps_x[u], means.v[IMAGES * from + g], to[g][c]);
                        }
                }
                const int kept = slot + (slot < (RING - 2) * STEP ? 2 : 2 - RING) * STEP;  // row step - 1 - HALO_Y
                const Pairs pixels = ring_memory[kept + t + HALO_X / COLUMNS];
#pragma unroll
                for (int c = 0; c < COLUMNS; ++c) {
                    const T by_s = pixels.v[2 * c] * q2_s[c], d = pixels.v[2 * c + 1];
                    T scale = problem.scale;
                    if constexpr (MASKED) scale *= weights_memory[kept + t + HALO_X / COLUMNS].v[c];
                    to[0][c] = scale * (to[0][c] + multiply_add(-d, r2_d[c], by_s));
                    if (IMAGES == 2) to[1][c] = scale * (to[1][c] + multiply_add(d, r2_d[c], by_s));
                    if constexpr (L1) {
                        const int row = p - PAD_Y, at = x0 + COLUMNS * t + c - PAD_X;
                        const bool itself = row >= 0 && row < problem.height && at >= 0 && at < problem.width;
                        const T by_distance = itself ? problem.l1 * sign(d + pivot_q) : T(0);
                        to[0][c] += by_distance;
                        if (IMAGES == 2) to[1][c] -= by_distance;
                    }
                }
                if constexpr (!FOLDED) {
#pragma unroll
                    for (int c = 0; c < COLUMNS; ++c) {
                        if (COLUMNS * t + c >= x1 - x0) continue;
                        to_x[c] = to[0][c];
                        if constexpr (IMAGES == 2) to_y[c] = to[1][c];
                    }
                    to_x += problem.width;
                    to_y += problem.width;
                }
            }
            if constexpr (FOLDED) {
                if (p >= y0) {
                    if (x0 == 0 || x1 == problem.columns) {
                        fold_columns(to, folded, x0, x1, problem.width);
                    }
                    const int row = pixel_at<PADDING>(p - PAD_Y, problem.height);
                    const long long place = (part.plane * problem.height + row) * problem.width;
                    const bool add = row_was_written(p, row, problem.height);
#pragma unroll
                    for (int c = 0; c < COLUMNS; ++c) {
                        const int local = COLUMNS * t + c, pixel = x0 + local - PAD_X;
                        if (local >= x1 - x0 || pixel < 0 || pixel >= problem.width) continue;
                        problem.grad_x[place + pixel] = to[0][c] + (add ? problem.grad_x[place + pixel] : T(0));
                        if constexpr (IMAGES == 2)
                            problem.grad_y[place + pixel] = to[1][c] + (add ? problem.grad_y[place + pixel] : T(0));
                    }
                }
            }
            if (step == steps) break;
        } else {
            if (step == steps) break;
        }

        if constexpr (HALVED) {
            const int pixel = first + step - PAD_Y;
            const Pair a = ring[slot * COLUMNS + half_from], b = ring[slot * COLUMNS + half_from + 1];
            const T s = a.v[0] + b.v[0], d = a.v[1] + b.v[1];
            const int even = pixel - 1 + PIXEL_Y;  // the row above, where this one is odd
            if (halves && pixel % 2 == 1 && pixel < problem.height && even >= y0 && even < y1) {
                const long long half_row = part.plane * (problem.height / 2) + pixel / 2;
                const long long place = half_row * (problem.width / 2) + half_column;
                problem.half_x[place] = multiply_add(T(0.125), (half_s + s) + (half_d + d), px);
                problem.half_y[place] = multiply_add(T(0.125), (half_s + s) - (half_d + d), py);
            }
            half_s = s;
            half_d = d;
        }

        T weight[COLUMNS];  // of this row's windows
        if constexpr (UPSTREAM) {
            const T* const upstream_row = along(upstream, nearest(i, problem.windows_y), problem.row_upstream);
#pragma unroll
            for (int c = 0; c < COLUMNS; ++c) {
                const int j = nearest(left + COLUMNS * t + c, problem.windows_x);
                weight[c] = *along(upstream_row, j, problem.column_upstream);
            }
        }

        if (phase == 0) {
            total += sum;
            sum = 0;
            if constexpr (L1) {
                all_distances += distance;
                distance = 0;
            }
            if constexpr (LOCAL) {
#pragma unroll
                for (int g = GROUPS - 1; g > 0; --g) pivots[g * NEXT] = pivots[(g - 1) * NEXT];
                Pair amid[2];
                bool there = true;
#pragma unroll
                for (int k = 0; k < 2; ++k) {
                    amid[k] = pair_of(
                        pixel_from_memory<T, FRACTIONS>(amid_x[k]), pixel_from_memory<T, FRACTIONS>(amid_y[k]), px, py);
                    if constexpr (MASKED) there = there && from_memory<T>(amid_mask[k]) > T(0) && finite(amid[k].v[0]);
                }
                if (there)  // elsewhere the last group's will do
                    pivots[0] = {T(0.5) * (amid[0].v[0] + amid[1].v[0]), T(0.5) * (amid[0].v[1] + amid[1].v[1])};
                look(step + GROUP);
            }
        }

        // Across: the four maps of this row, about its own pivot.
        Row row = {};
        if constexpr (LOCAL && MASKED) {
            T s = 0, d = 0, n = 0;
#pragma unroll
            for (int k = 0; k < HALO_X + COLUMNS; ++k) {
                const Pair pixel = ring[(slot + t) * COLUMNS + k];
                const T weight = weights_ring[(slot + t) * COLUMNS + k];
                s = multiply_add(weight, pixel.v[0], s);
                d = multiply_add(weight, pixel.v[1], d);
                n += weight;
            }
            if (n > T(0) && finite(s) && finite(n)) {
                row.s = s / n;
                row.d = d / n;
            }
        } else if constexpr (LOCAL) {
            const Pair pixel = ring[(slot + t) * COLUMNS + HALO_X / 2];
            row.s = pixel.v[0];
            row.d = pixel.v[1];
        }
#pragma unroll
        for (int k = 0; k < (HALO_X + COLUMNS) / COLUMNS; ++k) {
            const Pairs pixels = ring_memory[slot + t + k];
            Weights weights;
            if constexpr (MASKED) weights = weights_memory[slot + t + k];
#pragma unroll
            for (int from = 0; from < COLUMNS; ++from) {
                if (LOCAL && !MASKED && COLUMNS * k + from == HALO_X / 2) continue;  // the pivot, about itself 0
                T s = pixels.v[2 * from] - row.s, d = pixels.v[2 * from + 1] - row.d;
                T s2 = s * s, d2 = d * d;
                if constexpr (MASKED) {
                    s *= weights.v[from];
                    d *= weights.v[from];
                    s2 *= weights.v[from];
                    d2 *= weights.v[from];
                }
#pragma unroll
                for (int c = 0; c < COLUMNS; ++c) {
                    const int u = COLUMNS * k + from - c;
                    if (u < 0 || u > HALO_X) continue;
                    row.moments[0][c] = multiply_add(problem.taps_x[u], s, row.moments[0][c]);
                    row.moments[1][c] = multiply_add(problem.taps_x[u], s2, row.moments[1][c]);
                    row.moments[2][c] = multiply_add(problem.taps_x[u], d, row.moments[2][c]);
                    row.moments[3][c] = multiply_add(problem.taps_x[u], d2, row.moments[3][c]);
                    if constexpr (MASKED)
                        row.moments[4][c] = multiply_add(problem.taps_x[u], weights.v[from], row.moments[4][c]);
                }
            }
        }

#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) {
            const T n = row.n(c);
            row.inverse_n[c] = !MASKED ? T(1) : n > T(0) ? reciprocal(n) : T(0);
            const T m_s = row.inverse_n[c] * row.moments[0][c], m_d = row.inverse_n[c] * row.moments[2][c];
            row.v_s[c] = multiply_add(-row.moments[0][c], m_s, row.moments[1][c]);
            row.v_d[c] = multiply_add(-row.moments[2][c], m_d, row.moments[3][c]);
            if constexpr (MASKED && LOCAL) {
                const T hidden = T(FAR) * problem.constants.c2;
                if (m_s * m_s > hidden || m_d * m_d > hidden) {  // the row's pivot is far from this window's part of it
                    row.v_s[c] = row.v_d[c] = 0;
#pragma unroll 1
                    for (int u = 0; u < TAPS_X; ++u) {
                        const int k = (slot + t) * COLUMNS + c + u;
                        const T s = ring[k].v[0] - row.s - m_s, d = ring[k].v[1] - row.d - m_d;
                        const T weight = problem.taps_x[u] * weights_ring[k];
                        row.v_s[c] = multiply_add(weight * s, s, row.v_s[c]);
                        row.v_d[c] = multiply_add(weight * d, d, row.v_d[c]);
                    }
                }
            }
        }

        T done[MOMENTS][COLUMNS];
        const Pair from = go_down(phase, row, pivots, problem, down, done);

        // The formula, and its derivatives on their way back.
        if (i >= first) {
            const bool inside = i < last, own = inside && (!GRADIENT || (i + PAD_Y >= y0 && i + PAD_Y < y1));
            T derivatives[MAPS][COLUMNS];
#pragma unroll
            for (int c = 0; c < COLUMNS; ++c) {
                bool something = true;
                T inverse_n = 1;
                if constexpr (MASKED) {
                    something = done[4][c] > T(LEAST_WEIGHT);
                    inverse_n = something ? reciprocal(done[4][c]) : T(0);
#pragma unroll
                    for (int map = 0; map < 4; ++map) done[map][c] *= inverse_n;
                }
                T m_s = done[0][c], m_d = done[2][c];
                T v_s = multiply_add(-m_s, m_s, done[1][c]), v_d = multiply_add(-m_d, m_d, done[3][c]);
                if constexpr (MASKED && LOCAL) {
                    const bool far = m_s * m_s > T(FAR) * (v_s + problem.constants.c2) ||
                                     m_d * m_d > T(FAR) * (v_d + problem.constants.c2);
                    if (far && something && inside && valid[c]) {
                        const auto own = by_the_definition(problem, x, y, mask, i, left + COLUMNS * t + c, px, py);
                        m_s = own.v[0] - from.v[0];
                        m_d = own.v[1] - from.v[1];
                        v_s = own.v[2];
                        v_d = own.v[3];
                    }
                }
                const T of_s = m_s + from.v[0], of_d = m_d + from.v[1];
                const Window<T, UNBIASED, GRADIENT> window(
                    v_s, v_d, of_s + pivot_m, of_d + pivot_q, problem.constants);
                const T ssim = something ? window.ssim() : T(1);
                if (own && counted[c] && something) {
                    sum += ssim;
                    windows += MASKED;
                }
                if constexpr (MAP) {
                    const int j = left + COLUMNS * t + c;
                    if (own && counted[c])  // a neighbour block computes the same window about another pivot
                        problem.ssim_map[(part.plane * problem.windows_y + i) * problem.windows_x + j] = ssim;
                }
                if constexpr (GRADIENT) {
                    const Derivatives<T> f(window, problem.constants);
                    T p_s = multiply_add(-of_s, f.q2_s, f.f_ms), p_d = multiply_add(of_d, f.r2_d, f.f_md);
                    const T factor = (UPSTREAM ? weight[c] : T(1)) * inverse_n;
                    const T all[4] = {f.q2_s, f.r2_d, p_s + p_d, p_s - p_d};
#pragma unroll
                    for (int map = 0; map < MAPS; ++map)
                        derivatives[map][c] =
                            inside && valid[c] && something ? (UPSTREAM || MASKED ? factor * all[map] : all[map]) : T(0);
                }
            }
            if constexpr (GRADIENT) {
                Pairs variances;
                Backs means;
#pragma unroll
                for (int map = 0; map < MAPS; ++map)
#pragma unroll
                    for (int c = 0; c < COLUMNS; ++c) {
                        const T given = derivatives[map][c];
                        T* const z = &back[map][0][c];
                        const T finished = multiply_add(problem.taps_y[0], given, z[0]);
#pragma unroll
                        for (int u = 0; u < HALO_Y - 1; ++u)
                            z[u * COLUMNS] = multiply_add(problem.taps_y[u + 1], given, z[(u + 1) * COLUMNS]);
                        z[(HALO_Y - 1) * COLUMNS] = problem.taps_y[HALO_Y] * given;
                        if (map < 2) variances.v[2 * c + map] = finished;
                        else means.v[IMAGES * c + map - 2] = finished;
                    }
                variances_memory[buffer + t] = variances;
                means_memory[buffer + t] = means;
            }
        }

        slot = slot == (RING - 1) * STEP ? 0 : slot + STEP;
        keep(slot);
        buffer = THREADS - buffer;
        phase = phase == GROUP - 1 ? 0 : phase + 1;
    }

    total = block_sum<THREADS>(total + sum, wide_scratch);
    if (t == 0) problem.sums[blockIdx.x] = total;
    if constexpr (MASKED) {
        const double all = block_sum<THREADS>(double(windows), wide_scratch);
        if (t == 0) problem.counted[blockIdx.x] = all;
    }
    if constexpr (L1) {
        const double all = block_sum<THREADS>(all_distances + distance, wide_scratch);
        if (t == 0) problem.distances[blockIdx.x] = all;
    }
}
