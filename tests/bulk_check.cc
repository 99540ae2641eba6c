// A compiled arithmetic unit against two references, on every operand or on many: the host's float, and integers alone.
//
//   UNIT [-j THREADS] [--first CASE] [--count CASES]      exit code 1 if a bit differs
//
// Built by tests/bulk_build.py, which defines UNIT_<NAME> and LATENCY and puts the design beside this file as unit.cc.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "unit.cc"

static float as_float(uint32_t bits) { float x; std::memcpy(&x, &bits, 4); return x; }
static uint32_t as_bits(float x) { uint32_t bits; std::memcpy(&bits, &x, 4); return bits; }
static uint32_t canonical(uint32_t x) { return (x & 0x7FFFFFFF) > 0x7F800000 ? 0x7FC00000 : x; }

// Integers: a finite value is (-1)^sign * significand * 2^power.
struct Parts { uint32_t sign; uint64_t significand; int power; bool inf, nan; };

static Parts parts(uint32_t bits, int fraction_bits, int exponent_bits) {
  uint32_t top = (1u << exponent_bits) - 1, exponent = bits >> fraction_bits & top;
  uint32_t fraction = bits & ((1u << fraction_bits) - 1);
  int bias = (1 << (exponent_bits - 1)) - 1;
  Parts p{bits >> (fraction_bits + exponent_bits) & 1, fraction, 1 - bias - fraction_bits, false, false};
  if (exponent == top) { p.inf = !fraction; p.nan = fraction; return p; }
  if (exponent) { p.significand |= 1ull << fraction_bits; p.power = int(exponent) - bias - fraction_bits; }
  return p;
}

// significand * 2^power, with `sticky` for a nonzero rest below it, to nearest even in the given format.
static uint32_t rounded(uint32_t sign, unsigned __int128 significand, int power, bool sticky, int fraction_bits,
                        int exponent_bits) {
  int bias = (1 << (exponent_bits - 1)) - 1, length = 0;
  uint32_t out = sign << (fraction_bits + exponent_bits);
  for (unsigned __int128 rest = significand; rest; rest >>= 1) length++;
  if (!length) return out;
  int least = 1 - bias - fraction_bits, quantum = power + length - 1 - fraction_bits;
  if (quantum < least) quantum = least;
  int drop = quantum - power;
  unsigned __int128 kept;
  if (drop <= 0) {
    kept = significand << -drop;
  } else if (drop > 126) {
    kept = 0;
  } else {
    unsigned __int128 rest = significand & (((unsigned __int128)1 << drop) - 1), half = (unsigned __int128)1 << (drop - 1);
    kept = significand >> drop;
    if (rest > half || (rest == half && (sticky || (kept & 1)))) kept++;
  }
  uint64_t found = uint64_t(kept) + (uint64_t(quantum - least) << fraction_bits);
  uint64_t infinity = uint64_t((1u << exponent_bits) - 1) << fraction_bits;
  return out | uint32_t(found < infinity ? found : infinity);
}

static uint32_t integer_sum(uint32_t a, uint32_t b) {
  Parts x = parts(a, 23, 8), y = parts(b, 23, 8);
  if (x.nan || y.nan || (x.inf && y.inf && x.sign != y.sign)) return 0x7FC00000;
  if (x.inf || y.inf) return (x.inf ? x.sign : y.sign) << 31 | 0x7F800000;
  if (x.power < y.power) { Parts z = x; x = y; y = z; }
  int distance = x.power - y.power;
  bool sticky = false;
  if (distance > 60) {  // only that there is something can matter
    sticky = y.significand != 0;
    y.significand = 0;
    distance = 60;
  }
  int power = x.power - distance;
  __int128 left = (__int128)x.significand << distance, right = y.significand;
  __int128 total = (x.sign ? -left : left) + (y.sign ? -right : right);
  if (sticky && x.sign != y.sign) total += x.sign ? 1 : -1;  // the rest lies below: one unit less, and a rest above it
  if (!total && !sticky) return x.sign && y.sign ? 0x80000000 : 0;
  uint32_t sign = total < 0;
  return rounded(sign, total < 0 ? -total : total, power, sticky, 23, 8);
}

static uint64_t mixed(uint64_t x) {  // splitmix64
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

// Pairs of binary32 in which every part of an adder works: near exponents, runs of ones and zeros, cancellation, ties.
static void pair(uint64_t number, uint32_t &a, uint32_t &b, uint32_t lowest, uint32_t highest) {
  static const uint32_t ends[] = {0, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 1, 0x807FFFFF, 0x7F7FFFFF,
                                  0x00800000, 0x80800000};
  uint64_t r = mixed(2 * number), s = mixed(2 * number + 1);
  a = uint32_t(r), b = uint32_t(r >> 32);
  uint32_t exponent = lowest + (s & 0xFFFF) % (highest - lowest + 1);
  int near = int(exponent) + int((s >> 16 & 0xFF) % 61) - 30;
  uint32_t low = (1u << (s >> 24 & 0xFF) % 24) - 1, kind = s >> 32 & 15;
  a = (a & 0x807FFFFF) | exponent << 23;
  if (near < int(lowest)) near = lowest;
  if (near > int(highest)) near = highest;
  b = (b & 0x807FFFFF) | uint32_t(near) << 23;
  if (kind == 1) { a &= ~low; b &= ~(low >> 1); }
  if (kind == 2) { a |= low & 0x7FFFFF; b |= low >> 2; }
  if (kind == 3) b = a ^ 0x80000000 ^ (uint32_t(r >> 40) & low);
  if (kind == 4) b = (b & 0x807FFFFF & ~low) | (a & 0x7F800000);
  if (kind == 5) b = lowest ? b : (b & 0x80FFFFFF);
  if (kind == 6) a = lowest ? a : (a & 0x81FFFFFF);
  if (kind == 7) b = ends[(s >> 40) % 10];
  if (kind == 8) a = ends[(s >> 40) % 10];
}

#if defined(UNIT_MULTIPLIER)
static const uint64_t ALL = 1ull << 32;
static void operands(uint64_t i, uint32_t &a, uint32_t &b) { a = i >> 16; b = i & 0xFFFF; }
static float widened(uint32_t half) {  // exact, by the host's multiplication with a power of two
  uint32_t e = half >> 10 & 31, f = half & 1023;
  float x = e == 31 ? as_float(0x7F800000 | f << 13) : as_float((e ? 1024 | f : f) ? 0x4B000000 : 0);
  if (e != 31) x = float(e ? 1024 | f : f) * as_float(uint32_t((e ? e : 1) + 102) << 23);
  return half >> 15 ? -x : x;
}
static uint32_t by_host(uint32_t a, uint32_t b) { return canonical(as_bits(widened(a) * widened(b))); }
static uint32_t by_integers(uint32_t a, uint32_t b) {
  Parts x = parts(a, 10, 5), y = parts(b, 10, 5);
  bool zero = (!x.inf && !x.nan && !x.significand) || (!y.inf && !y.nan && !y.significand);
  if (x.nan || y.nan || ((x.inf || y.inf) && zero)) return 0x7FC00000;
  if (x.inf || y.inf) return (x.sign ^ y.sign) << 31 | 0x7F800000;
  return rounded(x.sign ^ y.sign, x.significand * y.significand, x.power + y.power, false, 23, 8);
}
static void set(cxxrtl_design::p_unit &u, uint32_t a, uint32_t b) { u.p_a.set<uint32_t>(a); u.p_b.set<uint32_t>(b); }
#elif defined(UNIT_ADDER)
static const uint64_t ALL = 100000000;
static void operands(uint64_t i, uint32_t &a, uint32_t &b) { pair(i, a, b, 0, i & 1 ? 40 : 254); }
static uint32_t by_host(uint32_t a, uint32_t b) { return canonical(as_bits(as_float(a) + as_float(b))); }
static uint32_t by_integers(uint32_t a, uint32_t b) { return integer_sum(a, b); }
static void set(cxxrtl_design::p_unit &u, uint32_t a, uint32_t b) { u.p_a.set<uint32_t>(a); u.p_b.set<uint32_t>(b); }
#elif defined(UNIT_SUM)
static const uint64_t ALL = 100000000;
static uint32_t form(uint32_t x) {  // the array's 31 bits
  uint32_t e = x >> 23 & 255, code = e == 0 ? 0 : e == 255 ? 127 : e - 77;
  return (x & 0x7FFFFF) | code << 23 | x >> 31 << 30;
}
static uint32_t within(uint32_t x) {  // multiples of 2^-48, zero is +0, one NaN
  uint32_t e = x >> 23 & 255;
  if (e == 255) return canonical(x);
  if (e < 79 || e > 199) return 0;
  return e < 102 ? x & ~((1u << (102 - e)) - 1) : x;
}
static void operands(uint64_t i, uint32_t &a, uint32_t &b) { pair(i, a, b, 79, 199); a = within(a); b = within(b); }
static uint32_t by_host(uint32_t a, uint32_t b) { return form(canonical(as_bits(as_float(a) + as_float(b)))); }
static uint32_t by_integers(uint32_t a, uint32_t b) { return form(integer_sum(a, b)); }
static void set(cxxrtl_design::p_unit &u, uint32_t a, uint32_t b) {
  u.p_a.set<uint32_t>(form(a));
  u.p_b.set<uint32_t>(form(b));
}
#elif defined(UNIT_NARROW)
static const uint64_t ALL = 1ull << 32;
static void operands(uint64_t i, uint32_t &a, uint32_t &b) { a = uint32_t(i); b = 0; }
static uint32_t by_host(uint32_t a, uint32_t) {  // the quotient by the last place, rounded by the host's own addition
  uint32_t e = a >> 23 & 255, sign = a >> 31 << 15;
  if (e == 255) return a & 0x7FFFFF ? 0x7E00 : sign | 0x7C00;
  float x = as_float(a & 0x7FFFFFFF);
  if (x >= 65520.0f) return sign | 0x7C00;
  int place = e < 113 ? -24 : int(e) - 137;  // of the last bit
  double quotient = double(x) * __builtin_ldexp(1.0, -place);
  double shifter = 4503599627370496.0;  // 2^52: its unit is one
  volatile double sum = quotient + shifter;
  uint32_t kept = uint32_t(double(sum) - shifter);
  return sign | (e < 113 ? kept : kept + ((e - 113) << 10));
}
static uint32_t by_integers(uint32_t a, uint32_t) {
  Parts x = parts(a, 23, 8);
  if (x.nan) return 0x7E00;
  return x.inf ? x.sign << 15 | 0x7C00 : rounded(x.sign, x.significand, x.power, false, 10, 5);
}
static void set(cxxrtl_design::p_unit &u, uint32_t a, uint32_t) { u.p_x.set<uint32_t>(a); }
#else
#error "which unit?"
#endif

static std::atomic<uint64_t> wrong{0}, unlike{0};

static void part(uint64_t first, uint64_t end) {
  static const uint64_t late = LATENCY;
  cxxrtl_design::p_unit unit;
  std::vector<uint32_t> a(late), b(late);
  unit.p_clk.set<bool>(false);
  unit.p_en.set<bool>(true);
  for (uint64_t i = first; i < end + late; i++) {
    if (i >= first + late) {  // the oldest one is at the output
      uint32_t x = a[i % late], y = b[i % late], found = unit.p_y.get<uint32_t>();
      uint32_t host = by_host(x, y), integers = by_integers(x, y);
      if (host != integers && unlike++ < 5) std::printf("references differ: %08x %08x: %08x %08x\n", x, y, host, integers);
      if (found != host && wrong++ < 5) std::printf("wrong: %08x %08x: %08x, not %08x\n", x, y, found, host);
    }
    uint32_t x = 0, y = 0;
    if (i < end) operands(i, x, y);
    a[i % late] = x;
    b[i % late] = y;
    set(unit, x, y);
    unit.step();
    unit.p_clk.set<bool>(true);
    unit.step();
    unit.p_clk.set<bool>(false);
  }
}

int main(int count, char **words) {
  uint64_t first = 0, cases = ALL, threads = 1;
  for (int k = 1; k + 1 < count; k += 2) {
    uint64_t value = std::strtoull(words[k + 1], nullptr, 0);
    if (!std::strcmp(words[k], "-j")) threads = value;
    else if (!std::strcmp(words[k], "--first")) first = value;
    else if (!std::strcmp(words[k], "--count")) cases = value;
    else { std::fprintf(stderr, "usage: UNIT [-j THREADS] [--first CASE] [--count CASES]\n"); return 2; }
  }
  auto start = std::chrono::steady_clock::now();
  std::atomic<uint64_t> next{first};
  std::vector<std::thread> pool;
  const uint64_t share = 1 << 20;
  for (uint64_t k = 0; k < threads; k++)
    pool.emplace_back([&] {
      for (uint64_t at; (at = next.fetch_add(share)) < first + cases;)
        part(at, at + share < first + cases ? at + share : first + cases);
    });
  for (auto &thread : pool) thread.join();
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("%s: %llu cases from %llu, %llu wrong, references differ in %llu, %.0f s with %llu threads\n", NAME,
              (unsigned long long)cases, (unsigned long long)first, (unsigned long long)wrong,
              (unsigned long long)unlike, seconds, (unsigned long long)threads);
  return wrong || unlike || !cases;
}
