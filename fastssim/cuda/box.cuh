// Sums over a box of TAPS_Y x TAPS_X numbers by running sums, at a cost that does not depend on its size.
//
//     down:    v[k] += new row - row that leaves          one running sum for each map and column
//     across:  P[k] = v[0] + .. + v[k]                    prefix sums of a row, in shared memory
//              box[j] = P[j + HALO_X] - P[j - 1]
//
// All in float64: what goes in comes out again to the last bits, and e - m^2 does not cancel. A number that is not finite
// is left out and counted, by the last map, so that it spoils the boxes that hold it and no others.

constexpr int HALO_Y = TAPS_Y - 1, HALO_X = TAPS_X - 1;
constexpr int PAD_Y = PADDING == VALID ? 0 : TAPS_Y / 2, PAD_X = PADDING == VALID ? 0 : TAPS_X / 2;

__device__ __forceinline__ double bad() {
    const double zero = 0.0;
    return zero / zero;
}

// Prefix sums over a block, `prefix` [THREADS] of each map; `totals` [MAPS][WARPS]. The caller passes a barrier before it
// reads `prefix`, and another one before it calls this again.
template <int MAPS>
__device__ __forceinline__ void prefix_sums(const double (&column)[MAPS], double* prefix, double* totals) {
    constexpr int WARPS = THREADS / 32;
    const int t = threadIdx.x, lane = t % 32, warp = t / 32;
    double sums[MAPS];
#pragma unroll
    for (int map = 0; map < MAPS; ++map) {
        sums[map] = column[map];
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            const double before = __shfl_sync(0xffffffffu, sums[map], max(lane - step, 0));
            if (lane >= step) sums[map] += before;
        }
        if (lane == 31) totals[map * WARPS + warp] = sums[map];
    }
    __syncthreads();
#pragma unroll
    for (int map = 0; map < MAPS; ++map) {
        for (int other = 0; other < warp; ++other) sums[map] += totals[map * WARPS + other];
        prefix[map * THREADS + t] = sums[map];
    }
}

// The box of columns t .. t + HALO_X.
__device__ __forceinline__ double box_sum(const double* prefix) {
    const int t = threadIdx.x;
    return prefix[t + HALO_X] - (t > 0 ? prefix[t - 1] : 0.0);
}
