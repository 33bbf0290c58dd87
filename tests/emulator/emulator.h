// Runs CUDA kernels on the CPU: put in front of a kernel's text, it makes g++ compile that text as it stands.
//
// Every CUDA thread of a block is a fiber; one scheduler runs a block's fibers in the order asked for, each until it
// reaches a barrier, a shuffle, or its end. Blocks run one after another. Shared memory comes from one arena that is
// filled with NaN before each block. What CUDA leaves undefined ends the run with a message: a barrier that only a part
// of the block reaches, two barriers at once, a shuffle that waits for a thread that has gone elsewhere, a write outside
// a shared array, more shared memory than a block may have.
//
// Not modelled: the memory model, warp-synchronous timing, bank conflicts, tensor cores, textures, asynchronous copies.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(start, size) ((void)(start), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(start, size) ((void)(start), (void)(size))
#endif

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#ifndef EMULATOR_SHARED_LIMIT
#define EMULATOR_SHARED_LIMIT (48 * 1024)  // what a block may have without asking for more
#endif

struct dim3 {
    unsigned x, y, z;
};

namespace emulator {

constexpr int WARP = 32;
constexpr size_t STACK = 256 * 1024;
constexpr size_t GUARD = 64;  // bytes behind every shared array
constexpr size_t ARENA = 256 * 1024;
constexpr unsigned char POISON = 0xff;      // a NaN in every floating-point type
constexpr unsigned char GUARD_BYTE = 0xa5;

enum class State { READY, BARRIER, EXCHANGE, DONE };

struct Fiber {
#if defined(__x86_64__)
    void* stack_pointer;
#else
    ucontext_t context;
#endif
    char* stack;
    dim3 thread;
    State state;
    int line;             // of the barrier or exchange it waits at
    unsigned mask;        // lanes that take part in the exchange
    int source;           // lane whose value it wants
    unsigned char value[16], received[16];
    size_t size;
};

struct SharedArray {
    int id, line;
    size_t offset, bytes;
};

struct Machine {
    std::vector<Fiber> fibers;
    Fiber* current = nullptr;
    dim3 grid{}, block_size{}, block{};
    const void* argument = nullptr;
    std::vector<SharedArray> arrays;
    size_t shared_used = 0;  // as CUDA counts
    size_t arena_used = 0;   // with guards
    alignas(256) unsigned char arena[ARENA];
    std::string error;
#if defined(__x86_64__)
    void* scheduler = nullptr;
#else
    ucontext_t scheduler;
#endif
};

static Machine machine;  // not inline: libraries loaded side by side must not share it

void run_thread();  // the kernel with its argument; defined by EMULATE

// ------------------------------------------------------------------------------------------------- switching of fibers

#if defined(__x86_64__)
extern "C" void emulator_switch(void** from, void* to);
asm(R"(
.text
.local emulator_switch
.type emulator_switch, @function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulator_switch, .-emulator_switch
)");

inline void to_scheduler() { emulator_switch(&machine.current->stack_pointer, machine.scheduler); }
inline void to_fiber(Fiber& fiber) { emulator_switch(&machine.scheduler, fiber.stack_pointer); }
#else
inline void to_scheduler() { swapcontext(&machine.current->context, &machine.scheduler); }
inline void to_fiber(Fiber& fiber) { swapcontext(&machine.scheduler, &fiber.context); }
#endif

inline void fiber_main() {
    run_thread();
    machine.current->state = State::DONE;
    to_scheduler();
    abort();  // nobody resumes a fiber that is done
}

inline void start(Fiber& fiber) {
    ASAN_UNPOISON_MEMORY_REGION(fiber.stack, STACK);  // of the frames that an ended run left
    fiber.state = State::READY;
#if defined(__x86_64__)
    void** top = reinterpret_cast<void**>(fiber.stack + STACK);
    *--top = nullptr;                                  // the stack stands at 16 k + 8 on entry, as after a call
    *--top = reinterpret_cast<void*>(&fiber_main);
    for (int i = 0; i < 6; ++i) *--top = nullptr;      // the registers that emulator_switch pops
    fiber.stack_pointer = top;
#else
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, &fiber_main, 0);
#endif
}

// ------------------------------------------------------------------------------------------------- what kernels call

inline void fail(const std::string& what) {
    if (machine.error.empty()) {
        const dim3 b = machine.block;
        machine.error = "block (" + std::to_string(b.x) + ", " + std::to_string(b.y) + ", " + std::to_string(b.z) + "): " + what;
    }
}

inline void wait(State state, int line) {
    machine.current->state = state;
    machine.current->line = line;
    to_scheduler();
}

inline void barrier(int line) { wait(State::BARRIER, line); }

// Meet the lanes of `mask`; return what the lane `source` brought, NaN where it brought nothing.
template <typename T>
T exchange(unsigned mask, T value, int source, int line) {
    static_assert(sizeof(T) <= sizeof(Fiber::value), "too large to shuffle");
    Fiber& fiber = *machine.current;
    fiber.mask = mask;
    fiber.source = source;
    fiber.size = sizeof(T);
    memcpy(fiber.value, &value, sizeof(T));
    wait(State::EXCHANGE, line);
    T received;
    memcpy(&received, fiber.received, sizeof(T));
    return received;
}

inline int lane() {
    const Fiber& fiber = *machine.current;
    const dim3 size = machine.block_size;
    return static_cast<int>((fiber.thread.x + size.x * (fiber.thread.y + size.y * fiber.thread.z)) % WARP);
}

// The place of a shared array, the same for every thread of a block.
inline void* shared_array(int id, int line, size_t bytes) {
    for (const SharedArray& array : machine.arrays)
        if (array.id == id) return machine.arena + array.offset;
    const size_t offset = (machine.arena_used + 15) / 16 * 16;
    machine.shared_used = (machine.shared_used + 15) / 16 * 16 + bytes;
    machine.arena_used = offset + bytes + GUARD;
    if (machine.shared_used > EMULATOR_SHARED_LIMIT || machine.arena_used > ARENA) {
        fail("shared memory of " + std::to_string(machine.shared_used) + " bytes, a block may have " +
             std::to_string(EMULATOR_SHARED_LIMIT));
        wait(State::DONE, line);
    }
    memset(machine.arena + offset + bytes, GUARD_BYTE, GUARD);
    ASAN_POISON_MEMORY_REGION(machine.arena + offset + bytes, GUARD);
    machine.arrays.push_back({id, line, offset, bytes});
    return machine.arena + offset;
}

// ------------------------------------------------------------------------------------------------- the scheduler

inline bool check_guards() {
    for (const SharedArray& array : machine.arrays) {
        const unsigned char* guard = machine.arena + array.offset + array.bytes;
        ASAN_UNPOISON_MEMORY_REGION(guard, GUARD);
        for (size_t i = 0; i < GUARD; ++i)
            if (guard[i] != GUARD_BYTE) {
                fail("a write " + std::to_string(i) + " bytes behind the shared array of line " + std::to_string(array.line));
                return false;
            }
    }
    return true;
}

// Let the fibers that wait at a barrier go on, once all wait at the same one.
inline bool release_barrier() {
    const size_t count = machine.fibers.size();
    size_t waiting = 0, done = 0;
    int line = 0;
    for (const Fiber& fiber : machine.fibers) {
        done += fiber.state == State::DONE;
        if (fiber.state != State::BARRIER) continue;
        if (waiting > 0 && fiber.line != line) {
            fail("divergent barriers: some threads wait at line " + std::to_string(line) + ", others at line " + std::to_string(fiber.line));
            return false;
        }
        line = fiber.line;
        ++waiting;
    }
    if (waiting == 0) return false;
    if (waiting < count) {
        fail("the barrier of line " + std::to_string(line) + " was reached by " + std::to_string(waiting) + " of " +
             std::to_string(count) + " threads; " + std::to_string(done) + " have ended");
        return false;
    }
    for (Fiber& fiber : machine.fibers) fiber.state = State::READY;
    return true;
}

// Let every group of lanes go on that has met for an exchange.
inline bool release_exchanges() {
    bool any = false;
    const size_t count = machine.fibers.size();
    for (size_t first = 0; first < count; first += WARP) {
        for (size_t i = first; i < first + WARP && i < count; ++i) {
            Fiber& asking = machine.fibers[i];
            if (asking.state != State::EXCHANGE) continue;
            const unsigned mask = asking.mask;
            bool met = (mask >> (i - first)) & 1u;
            for (size_t lane = 0; lane < WARP && met; ++lane) {
                if (!((mask >> lane) & 1u)) continue;
                const bool exists = first + lane < count;
                met = exists && machine.fibers[first + lane].state == State::EXCHANGE &&
                      machine.fibers[first + lane].mask == mask && machine.fibers[first + lane].line == asking.line;
            }
            if (!met) continue;
            for (size_t lane = 0; lane < WARP; ++lane) {
                if (!((mask >> lane) & 1u)) continue;
                Fiber& fiber = machine.fibers[first + lane];
                const bool brought = fiber.source >= 0 && fiber.source < WARP && ((mask >> fiber.source) & 1u);
                if (brought) memcpy(fiber.received, machine.fibers[first + fiber.source].value, fiber.size);
                else memset(fiber.received, POISON, fiber.size);
                fiber.state = State::READY;
            }
            any = true;
        }
    }
    return any;
}

struct Order {  // 0 forward, 1 backward, others: a random one drawn from that seed
    uint64_t state;
    int kind;

    explicit Order(int kind) : state(0x9e3779b97f4a7c15ull * static_cast<uint64_t>(kind + 1)), kind(kind) {}

    uint64_t next() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state;
    }

    void arrange(std::vector<size_t>& places) {
        const size_t count = places.size();
        for (size_t i = 0; i < count; ++i) places[i] = kind == 1 ? count - 1 - i : i;
        if (kind < 2) return;
        for (size_t i = count; i > 1; --i) std::swap(places[i - 1], places[next() % i]);
    }
};

inline bool run_block(Order& order, std::vector<size_t>& places) {
    machine.arrays.clear();
    machine.shared_used = machine.arena_used = 0;
    ASAN_UNPOISON_MEMORY_REGION(machine.arena, ARENA);
    memset(machine.arena, POISON, ARENA);
    for (Fiber& fiber : machine.fibers) start(fiber);
    for (;;) {
        order.arrange(places);
        for (size_t place : places) {
            machine.current = &machine.fibers[place];
            if (machine.current->state == State::READY) to_fiber(*machine.current);
            if (!machine.error.empty()) return false;
        }
        size_t done = 0;
        for (const Fiber& fiber : machine.fibers) done += fiber.state == State::DONE;
        if (done == machine.fibers.size()) return check_guards();
        if (release_exchanges()) continue;
        if (release_barrier()) continue;
        if (machine.error.empty()) fail("deadlock: a shuffle waits for lanes that never come");
        return false;
    }
}

// Run a whole grid; return nothing, or what went wrong.
inline const char* run(const void* argument, const unsigned* grid, const unsigned* block, int order_kind) {
    machine.error.clear();
    machine.argument = argument;
    machine.grid = {grid[0], grid[1], grid[2]};
    machine.block_size = {block[0], block[1], block[2]};
    const size_t threads = size_t(block[0]) * block[1] * block[2];
    if (threads == 0 || threads > 1024) return "a block has 1 to 1024 threads";
    while (machine.fibers.size() > threads) {
        munmap(machine.fibers.back().stack, STACK);
        machine.fibers.pop_back();
    }
    while (machine.fibers.size() < threads) {
        machine.fibers.emplace_back();
        void* stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stack == MAP_FAILED) return "no memory for a fiber";
        machine.fibers.back().stack = static_cast<char*>(stack);
    }
    for (size_t i = 0; i < threads; ++i) {
        const unsigned n = static_cast<unsigned>(i);
        machine.fibers[i].thread = {n % block[0], n / block[0] % block[1], n / (block[0] * block[1])};
    }
    Order order(order_kind);
    std::vector<size_t> blocks(size_t(grid[0]) * grid[1] * grid[2]), places(threads);
    order.arrange(blocks);
    for (size_t i : blocks) {
        const unsigned n = static_cast<unsigned>(i);
        machine.block = {n % grid[0], n / grid[0] % grid[1], n / (grid[0] * grid[1])};
        if (!run_block(order, places)) return machine.error.c_str();
    }
    return nullptr;
}

}  // namespace emulator

// Make `kernel`, which takes one structure by value, callable from outside.
#define EMULATE(kernel, argument_type)                                                                       \
    void emulator::run_thread() { kernel(*static_cast<const argument_type*>(emulator::machine.argument)); } \
    extern "C" const char* emulate(const void* argument, const unsigned* grid, const unsigned* block, int order) { \
        return emulator::run(argument, grid, block, order);                                                  \
    }                                                                                                        \
    extern "C" size_t argument_size() { return sizeof(argument_type); }

// ------------------------------------------------------------------------------------------------- the words of CUDA

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
using std::max;
using std::min;
#define threadIdx (emulator::machine.current->thread)
#define blockIdx (emulator::machine.block)
#define blockDim (emulator::machine.block_size)
#define gridDim (emulator::machine.grid)
#define __syncthreads() emulator::barrier(__LINE__)
#define __syncwarp(mask) ((void)emulator::exchange(mask, 0, emulator::lane(), __LINE__))
#define __shfl_sync(mask, value, source) emulator::exchange(mask, value, source, __LINE__)
#define __shfl_xor_sync(mask, value, other) emulator::exchange(mask, value, emulator::lane() ^ (other), __LINE__)
#define __shfl_down_sync(mask, value, step)                                                     \
    emulator::exchange(mask, value,                                                             \
                       emulator::lane() + int(step) < emulator::WARP ? emulator::lane() + int(step) : emulator::lane(), \
                       __LINE__)
#define GRID_CONSTANT
#define SHARED(type, name, count) \
    type* const name = static_cast<type*>(emulator::shared_array(__COUNTER__, __LINE__, sizeof(type) * size_t(count)))
