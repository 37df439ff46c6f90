// The activations, forward and backward, of one element and of vectors.
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

namespace apa_mm {

// Elements per piece of work: a few float arrays of it fit in the cache. The
// sums of the pieces are added in order, so that the gradients of the
// parameters do not depend on the number of threads.
constexpr int64_t kChunk = 512;

// A processor looks some hundred instructions ahead, so that a long chain of
// them waits for itself. It is cut into loops over so many elements.
constexpr int64_t kBlock = 256;

// Elements of one vector. What is left after whole vectors is padded to one:
// element by element, the 9 last of 25 would cost more than all.
constexpr int64_t kWidth = 16;

// Loops of a length that a caller knows would be unrolled before they could
// become vector code.
#define NOINLINE __attribute__((noinline))
#define ALWAYS_INLINE inline __attribute__((always_inline))

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

// 2^x for x <= -0; below -126, where normal float32 end, it stays there, and
// so does -NaN. The bits of two negative floats compare as their sizes do: one
// instruction, where a comparison of floats and a choice take two.
inline float exp2_negative(float x) {
  x = cast_bits<float>(
      std::min(cast_bits<uint32_t>(x), cast_bits<uint32_t>(-126.f)));
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

// log2(1 + v) on [0, 1], minimax to 3e-8 of it.
inline float log2_one_plus(float v) {
  float p = 7.5491156e-3f;
  p = p * v - 4.2566780e-2f;
  p = p * v + 0.11285570f;
  p = p * v - 0.19711851f;
  p = p * v + 0.27564117f;
  p = p * v - 0.35840840f;
  p = p * v + 0.48069295f;
  p = p * v - 0.72134021f;
  return (p * v + 1.44269500f) * v;
}

// max(t, 0) from the bits, whose sign is that of t.
inline float positive_part(float t) {
  return cast_bits<float>(std::max(cast_bits<int32_t>(t), int32_t{0}));
}

// Stands for infinity, which times 0 is NaN; the gradient of kappa squares it.
inline float finite(float z) {
  return std::fabs(z) > 1e15f ? std::copysign(1e15f, z) : z;
}

struct Parameters {
  float kappa, slope, offset, inverse_lambda;

  // t = slope * z + offset.
  static Parameters of(float kappa, float lambda) {
    return {kappa, -kappa * kLog2E, std::log2(lambda), 1.f / lambda};
  }

  bool has_nan() const { return slope != slope || !std::isfinite(offset); }
};

// eta(z), z * eta(z) and the Gumbel gate; the numbers are those of Python.
enum Kind { kGate = 0, kUnit = 1, kGumbel = 2 };

// -kappa * z, capped where exp(-exp(u)) < 1e-64: 0 as far as floats go.
inline float gumbel_exponent(float z, const Parameters& p) {
  const float u = -p.kappa * finite(z);
  return u > 5.f ? 5.f : u;
}

inline float gumbel_at(float z, const Parameters& p) {
  return z != z ? z : exp_flushed(-exp_negative(gumbel_exponent(z, p)));
}

// t and v as above. Numbers, not structures, go in and out of the stages of
// the calculation, or loops of them would not become vector code.
inline float t_at(float z, const Parameters& p) {
  return p.slope * z + p.offset;
}

inline float v_at(float t) { return exp2_negative(-std::fabs(t)); }

// The value at z for log2(eta). A NaN of z stays one.
template <Kind kKind>
inline float value_at(float z, float exponent) {
  const float eta = exp2_negative(exponent);
  return exponent < -126.f ? 0.f : kKind == kUnit ? z * eta : z != z ? z : eta;
}

inline float exponent_at(float t, float v, const Parameters& p) {
  return (positive_part(t) + log2_one_plus(v)) * -p.inverse_lambda;
}

template <Kind kKind>
inline float forward_at(float z, const Parameters& p) {
  if constexpr (kKind == kGumbel) return gumbel_at(z, p);
  if (p.has_nan()) return NAN;
  const float t = t_at(finite(z), p);
  return value_at<kKind>(z, exponent_at(t, v_at(t), p));
}

struct Gradient {
  float z, kappa, lambda;
};

// log2(eta), and the derivatives of log(eta) for kappa z and for lambda, both
// times lambda: what is the same for all elements is left to the sums.
struct Slopes {
  float exponent, z, lambda;
};

template <bool kPaper>
inline Slopes slopes_at(float t, float v, const Parameters& p) {
  const float tail = log1p_tail(v);
  const float inverse = 1.f / (1.f + v);
  const bool positive = t > 0.f;
  const float softplus =
      positive_part(t) + kLog2E * (v - v * v * tail);
  const float sigmoid = positive ? inverse : v * inverse;
  float lambda;
  if (kPaper) {
    lambda = -sigmoid * p.inverse_lambda;
  } else {
    const float low = v * p.inverse_lambda * v * (inverse - tail);
    const float high = (kLn2 * softplus - inverse) * p.inverse_lambda;
    lambda = positive ? high : low;
  }
  return Slopes{softplus * -p.inverse_lambda, sigmoid, lambda};
}

// The gradient for z, and those for kappa and lambda times lambda. z is not
// infinite.
template <Kind kKind>
inline Gradient gradient_at(float z, float grad, float exponent, float slope,
                            float lambda, const Parameters& p) {
  const float through = grad * exp2_flushed(exponent);  // to where eta is
  const float outer = kKind == kUnit ? through * z : z != z ? z : through;
  const float steep = outer * slope;
  return Gradient{steep * (p.kappa * p.inverse_lambda) +
                      (kKind == kUnit ? through : 0.f),
                  steep * z, outer * lambda};
}

inline Gradient gumbel_gradient_at(float z, float grad, const Parameters& p) {
  const float u = gumbel_exponent(z, p);
  const float slope = grad * exp_flushed(u - exp_negative(u));
  return {slope * p.kappa, slope * finite(z), 0.f};
}

template <Kind kKind, bool kPaper>
ALWAYS_INLINE Gradient backward_at(float z, float grad, const Parameters& p) {
  if constexpr (kKind == kGumbel) return gumbel_gradient_at(z, grad, p);
  z = finite(z);
  const float t = t_at(z, p);
  const Slopes at = slopes_at<kPaper>(t, v_at(t), p);
  const Gradient g =
      gradient_at<kKind>(z, grad, at.exponent, at.z, at.lambda, p);
  return Gradient{g.z, g.kappa * p.inverse_lambda,
                  g.lambda * p.inverse_lambda};
}

// Turns z into the activation; count is a multiple of kWidth. Parameters by
// value: what a reference points to might be stored to, and the loop would not
// become vector code.
template <Kind kKind, typename Ahead>
NOINLINE void forward_vectors(float* z, int64_t count, Parameters p,
                              Ahead ahead) {
  if (kKind == kGumbel) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) z[i] = gumbel_at(z[i], p);
    return;
  }
  if (p.has_nan()) return static_cast<void>(std::fill_n(z, count, NAN));
  float t[kBlock], v[kBlock];
  for (int64_t begin = 0; begin < count; begin += kBlock, z += kBlock) {
    const int64_t some = std::min(count - begin, kBlock);
    ahead(begin, some);
#pragma omp simd
    for (int64_t i = 0; i < some; ++i) {
      t[i] = t_at(finite(z[i]), p);
      v[i] = v_at(t[i]);
    }
#pragma omp simd
    for (int64_t i = 0; i < some; ++i) t[i] = exponent_at(t[i], v[i], p);
#pragma omp simd
    for (int64_t i = 0; i < some; ++i) z[i] = value_at<kKind>(z[i], t[i]);
  }
}

// Turns grad into the gradient for z, and adds those for kappa and lambda to
// two sums; count is a multiple of kWidth. z is made finite.
template <Kind kKind, bool kPaper, typename Ahead>
NOINLINE void backward_vectors(float* z, float* grad, int64_t count,
                               Parameters p, float* sums, Ahead ahead) {
  float k = 0.f, l = 0.f;
  float t[kBlock], v[kBlock], slope[kBlock];
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t some = std::min(count - begin, kBlock);
    ahead(begin, some);
    float *at = z + begin, *g = grad + begin;
    if (kKind == kGumbel) {
#pragma omp simd reduction(+ : k)
      for (int64_t i = 0; i < some; ++i) {
        const Gradient to = gumbel_gradient_at(at[i], g[i], p);
        g[i] = to.z;
        k += to.kappa;
      }
      continue;
    }
#pragma omp simd
    for (int64_t i = 0; i < some; ++i) {
      at[i] = finite(at[i]);
      t[i] = t_at(at[i], p);
      v[i] = v_at(t[i]);
    }
#pragma omp simd
    for (int64_t i = 0; i < some; ++i) {
      const Slopes one = slopes_at<kPaper>(t[i], v[i], p);
      t[i] = one.exponent, v[i] = one.z, slope[i] = one.lambda;
    }
#pragma omp simd reduction(+ : k, l)
    for (int64_t i = 0; i < some; ++i) {
      const Gradient to =
          gradient_at<kKind>(at[i], g[i], t[i], v[i], slope[i], p);
      g[i] = to.z;
      k += to.kappa;
      l += to.lambda;
    }
  }
  const float last = kKind == kGumbel ? 1.f : p.inverse_lambda;
  sums[0] += k * last, sums[1] += l * last;
}

}  // namespace apa_mm
