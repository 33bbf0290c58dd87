// The result from the blocks' sums, in a fixed order: one block for each result,
//
//     offset + scale S / windows + l1 sum |x - y|
//
// S the sum of SSIM. Under a mask that averages, S is divided by the windows that count; without any, S / 0 is taken for 1.

struct Problem {
    const double* sums;       // [results, parts]
    const double* counted;    // [results, parts]: windows that count; null where all do, or a sum is wanted
    const double* distances;  // [results, parts]: of |x - y|, or null
    OUT* out;                 // [results]
    double* counts;           // [results]: windows that count, where `counted`
    long long parts;          // of each result
    double windows, offset, scale, l1;
};

__device__ __forceinline__ double total(const double* sums, long long parts, double* scratch) {
    if (sums == nullptr) return 0;
    sums += blockIdx.x * parts;
    double sum = 0;
    for (long long i = threadIdx.x; i < parts; i += THREADS) sum += sums[i];
    return block_sum<THREADS>(sum, scratch);
}

extern "C" __global__ void __launch_bounds__(THREADS) reduce(const GRID_CONSTANT Problem problem) {
    SHARED(double, scratch, 32);
    double ssim = total(problem.sums, problem.parts, scratch), windows = problem.windows;
    const double counted = total(problem.counted, problem.parts, scratch);
    const double distance = total(problem.distances, problem.parts, scratch);
    if (threadIdx.x != 0) return;
    if (problem.counted != nullptr) {
        problem.counts[blockIdx.x] = counted;
        if (counted == 0) ssim = windows = 1;
        else windows = counted;
    }
    const double result = problem.offset + problem.scale * (ssim / windows) + problem.l1 * distance;
    problem.out[blockIdx.x] = ToMemory<OUT>::from(result);
}
