// The activations of one element, forward and backward, and element types.
//
// In base 2, since the powers of 2 are what a float holds. With
// t = log2(lambda * exp(-kappa z)), v = 2^-|t| and log(1 + v) = v - v^2 h(v):
//   softplus(t) = max(t, 0) + log2(1 + v)
//   eta         = 2^(-softplus(t) / lambda)
//   log(1 + v) - v / (1 + v), which the gradient for lambda holds, cancels for
//   small v; it is v^2 (1 / (1 + v) - h(v)), where nothing does.
// The Gumbel gate is the limit of lambda to 0, exp(-exp(-kappa * z)).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace apa_mm {

// Elements per unit of work: three float arrays of it fit in a 32 KiB cache.
// The partial sums of the units are added in order, so that the gradients of
// the parameters do not depend on the number of threads.
constexpr int64_t kChunk = 2048;

// Elements of one vector. What is left of a row after whole vectors is padded
// to one: element by element, the 9 last of 25 would cost more than all.
constexpr int64_t kWidth = 16;

// For loops that are called with kWidth: known lengths are unrolled before
// they could become vector code.
#define NOINLINE __attribute__((noinline))
#define ALWAYS_INLINE inline __attribute__((always_inline))

template <typename T>
inline void copy_some(const T* from, T* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = from[i];
}

template <typename To, typename From>
inline To cast_bits(From from) {
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

constexpr float kLog2E = 1.44269504f, kLog2ERest = 1.92596303e-8f;
constexpr float kLn2 = 0.693147181f;
constexpr float kRounding = 12582912.f;  // added to a float, rounds it

// 2^(rounded + f) for f in [-1/2, 1/2], to about one unit in the last place;
// shifted is rounded + kRounding. The polynomial is minimax, with 2^0 = 1.
inline float power_of_two(float f, float shifted) {
  float p = 1.5353362e-4f;
  p = p * f + 1.3398874e-3f;
  p = p * f + 9.6184374e-3f;
  p = p * f + 5.5503325e-2f;
  p = p * f + 0.24022648f;
  p = p * f + 0.69314720f;
  p = p * f + 1.f;
  return cast_bits<float>(cast_bits<uint32_t>(p) +
                          (cast_bits<uint32_t>(shifted) << 23));
}

// 2^x for x <= 0 (and a little above: up to 126); below -126, where normal
// float32 end, it stays there.
inline float exp2_negative(float x) {
  x = x < -126.f ? -126.f : x;
  const float shifted = x + kRounding;
  return power_of_two(x - (shifted - kRounding), shifted);
}

// The same, but 0 where normal float32 end.
inline float exp2_flushed(float x) {
  return x < -126.f ? 0.f : exp2_negative(x);
}

// exp(x) likewise: for x <= 87, and not below exp(-87.3).
inline float exp_negative(float x) {
  x = x < -87.3f ? -87.3f : x;
  const float shifted = x * kLog2E + kRounding;
  const float n = shifted - kRounding;
  return power_of_two((x * kLog2E - n) + x * kLog2ERest, shifted);
}

inline float exp_flushed(float x) {
  return x < -87.3f ? 0.f : exp_negative(x);
}

// h(v) = (v - log(1 + v)) / v^2 on [0, 1], minimax to 7e-8.
inline float log1p_tail(float v) {
  float p = 4.3573998e-3f;
  p = p * v - 2.4780334e-2f;
  p = p * v + 6.6020293e-2f;
  p = p * v - 0.11497769f;
  p = p * v + 0.15816558f;
  p = p * v - 0.19845899f;
  p = p * v + 0.24985449f;
  p = p * v - 0.33332787f;
  return p * v + 0.49999997f;
}

// Stands for infinity, which times 0 is NaN; the gradient of kappa squares it.
inline float finite(float z) {
  z = z < -1e15f ? -1e15f : z;
  return z > 1e15f ? 1e15f : z;
}

struct Parameters {
  float kappa, slope, offset, inverse_lambda, scale, shift, center;

  // t = slope * z + offset.
  static Parameters of(float kappa, float lambda, float scale = 1.f,
                       float shift = 0.f, float center = 0.f) {
    return {kappa,        -kappa * kLog2E, std::log2(lambda),
            1.f / lambda, scale,           shift,
            center};
  }
};

struct Gradient {
  float z, kappa, lambda;
};

// eta(z), z * eta(z) and the Gumbel gate; the numbers are those of Python.
enum Kind { kGate = 0, kUnit = 1, kGumbel = 2 };

// -kappa * z, capped where exp(-exp(u)) < 1e-64: 0 as far as floats go.
inline float gumbel_exponent(float z, const Parameters& p) {
  const float u = -p.kappa * z;
  return u > 5.f ? 5.f : u;
}

template <Kind kKind>
inline float forward_at(float z, const Parameters& p) {
  if constexpr (kKind == kGumbel)
    return z != z ? z : exp_flushed(-exp_negative(gumbel_exponent(z, p)));
  const float t = p.slope * finite(z) + p.offset;
  const float v = exp2_negative(-std::fabs(t));
  const float log1p = v - v * v * log1p_tail(v);
  const float exponent =
      -((t > 0.f ? t : 0.f) + kLog2E * log1p) * p.inverse_lambda;
  const float eta = exp2_negative(exponent);
  // A NaN other than the usual one comes out of power_of_two as a number.
  return exponent < -126.f ? 0.f : kKind == kUnit ? z * eta : z != z ? z : eta;
}

template <Kind kKind, bool kPaper>
ALWAYS_INLINE Gradient backward_at(float z, float grad, const Parameters& p) {
  if constexpr (kKind == kGumbel) {
    const float u = gumbel_exponent(z, p);
    const float slope = grad * exp_flushed(u - exp_negative(u));
    return Gradient{slope * p.kappa, slope * z, 0.f};
  }
  z = finite(z);
  const float t = p.slope * z + p.offset;
  const float v = exp2_negative(-std::fabs(t));
  const float inverse = 1.f / (1.f + v);
  const float tail = log1p_tail(v);
  const bool positive = t > 0.f;
  const float softplus =
      (positive ? t : 0.f) + kLog2E * (v - v * v * tail);
  const float sigmoid = positive ? inverse : v * inverse;
  const float eta = exp2_flushed(-softplus * p.inverse_lambda);
  const float g = eta * sigmoid * p.inverse_lambda;
  const float outer = kKind == kUnit ? grad * z : grad;
  Gradient out;
  out.z = outer * g * p.kappa + (kKind == kUnit ? grad * eta : 0.f);
  out.kappa = outer * z * g;
  if (kPaper) {
    out.lambda = -outer * g * p.inverse_lambda;
  } else {
    const float scaled = v * p.inverse_lambda;
    const float low = scaled * scaled * (inverse - tail);
    const float high =
        (kLn2 * softplus - inverse) * p.inverse_lambda * p.inverse_lambda;
    out.lambda = outer * eta * (positive ? high : low);
  }
  return out;
}

template <Kind kKind, bool kPaper>
ALWAYS_INLINE Gradient backward_one(float x, float grad, const Parameters& p) {
  return backward_at<kKind, kPaper>(p.scale * x + p.shift, grad, p);
}

// --- element types: float, bfloat16 and float16 in memory, float inside ---
struct BFloat16 {
  uint16_t bits;
};

inline float load(float x) { return x; }
inline float load(_Float16 x) { return static_cast<float>(x); }
inline float load(BFloat16 x) {
  return cast_bits<float>(static_cast<uint32_t>(x.bits) << 16);
}
inline void store(float* to, float x) { *to = x; }
inline void store(_Float16* to, float x) { *to = static_cast<_Float16>(x); }
inline void store(BFloat16* to, float x) {
  const uint32_t bits = cast_bits<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  to->bits = static_cast<uint16_t>(x != x ? 0x7fc0u : rounded);
}

// Parameters by value: what a reference points to might be stored to, and the
// loop would not become vector code.
template <Kind kKind, typename T>
NOINLINE void apply_whole(const float* z, T* out, int64_t count,
                          Parameters p) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i)
    store(out + i, forward_at<kKind>(z[i], p));
}

// z is readable up to a multiple of kWidth.
template <Kind kKind, typename T>
void apply(const float* z, T* out, int64_t count, const Parameters& p) {
  const int64_t whole = count / kWidth * kWidth;
  apply_whole<kKind>(z, out, whole, p);
  if (whole < count) {
    T result[kWidth];
    apply_whole<kKind>(z + whole, result, kWidth, p);
    copy_some(result, out + whole, count - whole);
  }
}

// The activation of rows whose arguments are computed first: fill(row, begin,
// count, z) writes those of a part of a row. Where all rows share kappa and
// lambda (stride 0), many short rows are one piece of work.
template <Kind kKind, typename T, typename Fill>
void forward_rows(T* y, int64_t rows, int64_t inner, int64_t channels,
                  const float* kappa, const float* lambda, int64_t stride,
                  int threads, Fill fill) {
  const int64_t total = rows * inner;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t begin = 0; begin < total; begin += kChunk) {
    const int64_t end = std::min(begin + kChunk, total);
    float z[kChunk + kWidth];
    std::fill_n(z + (end - begin), kWidth, 0.f);
    for (int64_t row = begin / inner; row * inner < end; ++row) {
      const int64_t from = std::max(begin, row * inner);
      const int64_t count = std::min(end, (row + 1) * inner) - from;
      float* part = z + (from - begin);
      fill(row, from - row * inner, count, part);
      const int64_t c = row % channels;
      if (stride)
        apply<kKind>(part, y + from, count,
                     Parameters::of(kappa[c], lambda[c]));
    }
    if (!stride)
      apply<kKind>(z, y + begin, end - begin,
                   Parameters::of(*kappa, *lambda));
  }
}

}  // namespace apa_mm
