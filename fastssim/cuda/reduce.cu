// Sums of SSIM from the blocks' sums, in a fixed order: one block for each result.

struct Problem {
    const double* sums;  // [results, parts]
    OUT* out;            // [results]
    long long parts;     // of each result
    double scale;
};

extern "C" __global__ void __launch_bounds__(THREADS) reduce(const GRID_CONSTANT Problem problem) {
    SHARED(double, scratch, 32);
    const double* const sums = problem.sums + blockIdx.x * problem.parts;
    double total = 0;
    for (long long i = threadIdx.x; i < problem.parts; i += THREADS) total += sums[i];
    total = block_sum<THREADS>(total, scratch);
    if (threadIdx.x == 0) problem.out[blockIdx.x] = ToMemory<OUT>::from(total * problem.scale);
}
