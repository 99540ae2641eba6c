/* Short loops that time what a core file needs and no guide gives; benchmarks/core_loops.py compiles and runs it.
   Every figure is the least of timings that lie between two of a loop of no-operations at full width, so that
   nothing shares the core. Cycles are those of a chain of dependent additions. WIDTH: issue slots a cycle. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <x86intrin.h>

#define TIMINGS 60
#define MOST 6000

static double cycles_a_tick;
static int busy, cpu;
static float data[4096] __attribute__((aligned(64)));
static unsigned char bits[200000];
static int counts[4096];

static int quiet(void) { /* 48 slots a turn; a core that stays busy gives way to the next one */
    long turns = 400;
    unsigned long start = __rdtsc();
    __asm__ volatile("1:\n .rept 46\n nop\n .endr\n dec %0\n jnz 1b" : "+r"(turns));
    int ok = (__rdtsc() - start) * cycles_a_tick / 400 < 1.06 * 48 / WIDTH;
    busy = ok ? 0 : busy + 1;
    if (busy > 30) {
        cpu_set_t next;
        CPU_ZERO(&next);
        cpu = (cpu + 1) % (int)sysconf(_SC_NPROCESSORS_ONLN);
        CPU_SET(cpu, &next);
        sched_setaffinity(0, sizeof next, &next);
        busy = 0;
    }
    return ok;
}

static void read_clock(void) {
    double best = 1e9;
    for (int i = 0; i < 20000; i++) {
        long turns = 300;
        unsigned long start = __rdtsc();
        __asm__ volatile("1:\n .rept 100\n add $1, %%rax\n .endr\n dec %0\n jnz 1b" : "+r"(turns)::"rax");
        double ticks = (__rdtsc() - start) / 30000.0;
        if (ticks < best) best = ticks;
    }
    cycles_a_tick = 1 / best;
}

/* prints the least of RUN (ticks) as cycles a STEP */
#define LEAST(NAME, STEPS, RUN)                                                              \
    do {                                                                                     \
        double least = 1e18;                                                                 \
        for (int timing = 0, good = 0; timing < MOST && good < TIMINGS; timing++) {          \
            int ok = quiet();                                                                \
            unsigned long start = __rdtsc();                                                 \
            RUN;                                                                             \
            double spent = (__rdtsc() - start) * cycles_a_tick / (STEPS);                    \
            if (!quiet() || !ok) continue;                                                   \
            good++;                                                                          \
            if (spent < least) least = spent;                                                \
        }                                                                                    \
        if (least < 1e18) printf("%-58s %7.2f\n", NAME, least);                              \
        else printf("%-58s   never on a quiet core\n", NAME);                                \
    } while (0)

#define LOOP(NAME, BODY)                                                                                         \
    LEAST(NAME, 4000, ({                                                                                         \
              long turns = 2000;                                                                                 \
              __asm__ volatile("1:\n .rept 2\n" BODY " .endr\n dec %0\n jnz 1b"                                  \
                               : "+r"(turns) : "D"(data), "S"(data + 1024)                                       \
                               : "rax", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",        \
                                 "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");                                     \
          }))

static void random_exits(int taken) { /* a branch on memory a turn, independent of all arithmetic */
    long turns = sizeof bits;
    unsigned char *at = bits;
    for (unsigned i = 0; i < sizeof bits; i++) bits[i] = taken ? rand() & 1 : 0;
    LEAST(taken ? "branch on random bytes, cycles a turn" : "branch on zeros, cycles a turn", sizeof bits, ({
              turns = sizeof bits, at = bits;
              __asm__ volatile("1:\n cmpb $0, (%1)\n jne 2f\n nop\n 2:\n inc %1\n dec %0\n jnz 1b"
                               : "+r"(turns), "+r"(at)::"memory");
          }));
}

static void pass(int rows) { /* 4 cycles an iteration at a width of 6 */
    long left = rows;
    int *at = counts;
    __asm__ volatile("1:\n movslq (%1), %%rcx\n 2:\n .rept 23\n nop\n .endr\n sub $1, %%rcx\n jnz 2b\n add $4, %1\n"
                     " dec %0\n jnz 1b" : "+r"(left), "+r"(at)::"rcx");
}

static int ascending(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

static void exits(const char *kind, int rows, int columns, double kept) {
    long all = 0;
    for (int i = 0; i < rows; i++) {
        counts[i] = 0;
        for (int j = 0; j < columns; j++) counts[i] += *kind == 'e' ? 1 : rand() < kept * RAND_MAX;
        if (!counts[i]) counts[i] = 1;
        all += counts[i];
    }
    if (*kind == 's') qsort(counts, rows, sizeof *counts, ascending);
    int passes = 2 + 60000 / (int)all;
    char name[80];
    snprintf(name, sizeof name, "%s rows: %d of %.0f blocks, cycles a row", kind, rows, (double)all / rows);
    for (int i = 0; i < 40 * passes; i++) pass(rows);
    LEAST(name, (double)passes * rows, ({ for (int i = 0; i < passes; i++) pass(rows); }));
    printf("%-58s %7.2f\n", "  without any exit mispredicted", 24.0 / WIDTH * (double)all / rows);
}

#define NOPS "nop\n nop\n nop\n nop\n nop\n nop\n nop\n nop\n nop\n nop\n nop\n nop\n"
#define LOAD "vmovups (%%rdi), %%xmm8\n"
#define ADD(I) "vaddps %%xmm14, %%xmm15, %%xmm" #I "\n"
#define FMA(I) "vfmadd231ps %%xmm14, %%xmm15, %%xmm" #I "\n"
#define MULADD(I, J) "vmulps %%xmm" #I ", %%xmm15, %%xmm" #I "\n vaddps %%xmm" #I ", %%xmm" #J ", %%xmm" #J "\n"
#define MOVD "vmovd %%eax, %%xmm8\n"

int main(void) {
    read_clock();
    srand(1);
    LOOP("add, store, load of the same 16 bytes: a turn", "vaddps %%xmm8, %%xmm0, %%xmm0\n movdqu %%xmm0, (%%rsi)\n"
                                                          " movdqu (%%rsi), %%xmm0\n");
    LOOP("6 loads, then 12 no-operations", LOAD LOAD LOAD LOAD LOAD LOAD NOPS);
    LOOP("6 times a load and 2 no-operations", LOAD "nop\n nop\n" LOAD "nop\n nop\n" LOAD "nop\n nop\n" LOAD
         "nop\n nop\n" LOAD "nop\n nop\n" LOAD "nop\n nop\n");
    LOOP("8 adds and 2 moves from an integer register",
         ADD(0) MOVD ADD(1) ADD(2) ADD(3) ADD(4) MOVD ADD(5) ADD(6) ADD(7));
    LOOP("8 multiply-adds and 2 such moves", FMA(0) MOVD FMA(1) FMA(2) FMA(3) FMA(4) MOVD FMA(5) FMA(6) FMA(7));
    LOOP("7 loads, then 7 times a multiply and an add that needs it",
         "vmovups (%%rdi), %%xmm7\n vmovups 16(%%rdi), %%xmm8\n vmovups 32(%%rdi), %%xmm9\n"
         " vmovups 48(%%rdi), %%xmm10\n"
         " vmovups 64(%%rdi), %%xmm11\n vmovups 80(%%rdi), %%xmm12\n vmovups 96(%%rdi), %%xmm13\n" MULADD(7, 0)
             MULADD(8, 1) MULADD(9, 2) MULADD(10, 3) MULADD(11, 4) MULADD(12, 5) MULADD(13, 6));
    random_exits(0);
    random_exits(1);
    for (int blocks = 50; blocks <= 120; blocks += 10) exits("equal", 100, blocks, 1);
    exits("random", 100, 96, .2);
    exits("random", 100, 160, .2);
    exits("random", 100, 256, .2);
    exits("random", 400, 96, .2);
    exits("random", 400, 160, .2);
    exits("sorted", 96, 576, .1);
    exits("sorted", 256, 256, .2);
    exits("sorted", 960, 160, .2);
    return 0;
}
