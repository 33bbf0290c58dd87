// What every kernel here uses. The text needs no header: NVRTC compiles it as it stands, and so does g++ behind
// tests/emulator/emulator.h. Options are C++ constants and types; see fastssim/cuda/instances.py.

#ifndef SHARED
#define SHARED(type, name, count) __shared__ type name[count]
#define GRID_CONSTANT __grid_constant__
#endif

// ------------------------------------------------------------------------------------------------------------ numbers

// N numbers that move between registers and memory as one word.
template <typename T, int N>
struct alignas(sizeof(T) * N) Vector {
    T v[N];
};

__device__ __forceinline__ float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double multiply_add(double a, double b, double c) { return fma(a, b, c); }

// sum += weight * part
template <typename T, int N>
__device__ __forceinline__ void add(Vector<T, N>& sum, T weight, const Vector<T, N>& part) {
#pragma unroll
    for (int i = 0; i < N; ++i) sum.v[i] = multiply_add(weight, part.v[i], sum.v[i]);
}

template <typename T>
__device__ __forceinline__ bool finite(T a) {
    return a - a == T(0);  // NaN and infinity minus themselves are NaN
}

// 1 / a for a > 0: the hardware's estimate, one unit in the last place off; the compiler's own division branches out for
// numbers that never come here.
__device__ __forceinline__ float estimated_reciprocal(float a) {
#ifdef __CUDA_ARCH__
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(a));
    return r;
#else
    return 1.0f / a;
#endif
}
__device__ __forceinline__ double estimated_reciprocal(double a) { return 1.0 / a; }

// The same to the last bit but rarely, by one step of Newton.
__device__ __forceinline__ float reciprocal(float a) {
    const float r = estimated_reciprocal(a);
    return fmaf(fmaf(-a, r, 1.0f), r, r);
}
__device__ __forceinline__ double reciprocal(double a) { return 1.0 / a; }

// a / b, given r = 1 / b or an estimate of it; exactly 1 where a == b.
template <typename T>
__device__ __forceinline__ T divide(T a, T b, T r) {
    const T q = a * r;
    return multiply_add(multiply_add(-q, b, a), r, q);
}

// ------------------------------------------------------------------------------------------------- numbers in memory

struct Half {  // IEEE binary16
    unsigned short bits;
};
struct BFloat {  // the upper half of a float
    unsigned short bits;
};

template <typename T>
__device__ __forceinline__ T from_memory(float a) {
    return T(a);
}
template <typename T>
__device__ __forceinline__ T from_memory(double a) {
    return T(a);
}
template <typename T>
__device__ __forceinline__ T from_memory(unsigned char a) {
    return T(a);
}
template <typename T>
__device__ __forceinline__ T from_memory(unsigned short a) {
    return T(a);
}
template <typename T>
__device__ __forceinline__ T from_memory(Half a) {
    float result;
#ifdef __CUDA_ARCH__
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(a.bits));
#else
    _Float16 half;
    memcpy(&half, &a, 2);
    result = half;
#endif
    return T(result);
}
template <typename T>
__device__ __forceinline__ T from_memory(BFloat a) {
    const unsigned bits = unsigned(a.bits) << 16;
    float result;
    memcpy(&result, &bits, 4);
    return T(result);
}

template <typename M>
constexpr int LARGEST = 0;  // number of an integer type
template <>
constexpr int LARGEST<unsigned char> = 255;
template <>
constexpr int LARGEST<unsigned short> = 65535;

// A pixel; an integer as the fraction of its type's largest number where FRACTIONS.
template <typename T, bool FRACTIONS, typename M>
__device__ __forceinline__ T pixel_from_memory(M a) {
    const T value = from_memory<T>(a);
    if constexpr (FRACTIONS && LARGEST<M> > 0) return divide(value, T(LARGEST<M>), T(1) / T(LARGEST<M>));
    return value;
}

template <typename M>
struct ToMemory {  // a computed number, rounded to the nearest of memory type M
    template <typename T>
    static __device__ __forceinline__ M from(T a) {
        return M(a);
    }
};
template <>
struct ToMemory<Half> {
    static __device__ __forceinline__ Half from(float a) {
        Half result;
#ifdef __CUDA_ARCH__
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(a));
#else
        const _Float16 half = static_cast<_Float16>(a);
        memcpy(&result, &half, 2);
#endif
        return result;
    }
};
template <>
struct ToMemory<BFloat> {
    static __device__ __forceinline__ BFloat from(float a) {
        unsigned bits;
        memcpy(&bits, &a, 4);
        const bool nan = !(a == a);
        const unsigned rounded = bits + 0x7fffu + ((bits >> 16) & 1u);  // to nearest, ties to even
        return {static_cast<unsigned short>(nan ? 0x7fffu : rounded >> 16)};
    }
};

// --------------------------------------------------------------------------------------------------------- geometry

// Where span `i` of `count` nearly equal spans of begin .. begin + length - 1 begins.
__device__ __forceinline__ int edge(int begin, int length, int i, int count) {
    return begin + static_cast<int>(static_cast<long long>(length) * i / count);
}

// What a block works on: a strip of columns and a segment of rows of a plane, which is channel `channel` of image n.
struct Part {
    int strip, segment;
    long long plane, n, channel;
};

template <typename P>
__device__ __forceinline__ Part part_of(const P& problem) {
    Part part;
    part.strip = blockIdx.x % problem.strips;
    part.segment = blockIdx.x / problem.strips % problem.segments;
    part.plane = blockIdx.x / problem.strips / problem.segments;
    part.n = part.plane / problem.channels;
    part.channel = part.plane % problem.channels;
    return part;
}

// Where the part's plane of some images begins; `image`, `channel`: from one to the next, in elements.
template <typename V>
__device__ __forceinline__ V* plane_of(V* images, long long image, long long channel, const Part& part) {
    return images + part.n * image + part.channel * channel;
}

enum Padding { VALID, ZEROS, REFLECT, SYMMETRIC, REPLICATE };
enum How { MEAN, MAX, MIN, MEAN_STD };  // overlapping tiles are brought together

// The pixel that position `i` of an axis of n pixels shows, -1 where it shows none; the axis begins at pixel 0, and the
// padding is no longer than the axis allows.
template <int MODE>
__device__ __forceinline__ int pixel_at(int i, int n) {
    if (MODE == REFLECT) return i < 0 ? -i : i >= n ? 2 * n - 2 - i : i;
    if (MODE == SYMMETRIC) return i < 0 ? -1 - i : i >= n ? 2 * n - 1 - i : i;
    if (MODE == REPLICATE) return i < 0 ? 0 : i >= n ? n - 1 : i;
    return i < 0 || i >= n ? -1 : i;
}

// The same for any padding: a short axis is gone along there and back, as often as it takes.
template <int MODE>
__device__ __forceinline__ int any_pixel_at(int i, int n) {
    if (MODE != REFLECT && MODE != SYMMETRIC) return pixel_at<MODE>(i, n);
    const int period = MODE == SYMMETRIC ? 2 * n : max(2 * (n - 1), 1);  // reflected, the pixels at the ends show once
    const int k = (i % period + period) % period;
    return min(k, period - (MODE == SYMMETRIC ? 1 : 0) - k) % n;
}

// Position number k of those that show pixel `pixel` of an axis of n pixels with PAD more on each side: the positions
// outside, then its own; -1 where number k shows another pixel.
template <int MODE, int PAD>
__device__ __forceinline__ int position(int k, int pixel, int n) {
    const int p = k == 2 * PAD ? pixel + PAD : k < PAD ? k : n + k;
    return any_pixel_at<MODE>(p - PAD, n) == pixel ? p : -1;
}

// Plane, row and column of element `index` of a volume.
struct Place {
    int z, row, column;

    __device__ __forceinline__ Place(long long index, int height, int width) {
        column = static_cast<int>(index % width);
        index /= width;
        row = static_cast<int>(index % height);
        z = static_cast<int>(index / height);
    }
};

// The index of 0 .. n - 1 that is nearest to i.
__device__ __forceinline__ int nearest(int i, int n) { return max(0, min(i, n - 1)); }

// What lies some bytes behind a pointer.
template <typename M>
__device__ __forceinline__ const M* behind(const M* start, long long bytes) {
    return reinterpret_cast<const M*>(reinterpret_cast<const char*>(start) + bytes);
}

// `bytes` times i behind a pointer: one multiplication for the whole address.
template <typename M>
__device__ __forceinline__ const M* along(const M* start, int i, int bytes) {
    return behind(start, static_cast<long long>(i) * bytes);
}

// A pointer that the compiler takes as it is: it would add up what lies behind several first, and each start last.
template <typename M>
__device__ __forceinline__ const M* settled(const M* pointer) {
#ifdef __CUDA_ARCH__
    asm("" : "+l"(pointer));
    __builtin_assume(__isGlobal(pointer));
#endif
    return pointer;
}

// -------------------------------------------------------------------------------------------------------------- sums

template <typename T>
__device__ __forceinline__ T sign(T a) {
    return a > T(0) ? T(1) : a < T(0) ? T(-1) : a;  // of NaN: NaN
}
template <typename T>
__device__ __forceinline__ T absolute(T a) {
    return a < T(0) ? -a : a;
}

// Sum over a block's threads, to all of them, always in the same order; `scratch` [32].
template <int THREADS, typename T>
__device__ __forceinline__ T block_sum(T value, T* scratch) {
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
    __syncthreads();  // an earlier sum in `scratch` has been read
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
    __syncthreads();
    T sum = scratch[0];
    for (int warp = 1; warp < THREADS / 32; ++warp) sum += scratch[warp];
    return sum;
}
