// The activations of one element, forward and backward, and element types.
//
// With t = log(lambda) - kappa * z, v = exp(-|t|) and s = v / (2 + v):
//   log(1 + v)            = 2 atanh(s) = 2 s (1 + s^2/3 + s^4/5 + ...)
//   softplus(t)           = max(t, 0) + log(1 + v)
//   eta                   = exp(-softplus(t) / lambda)
//   softplus(t) - sigmoid(t), which the gradient for lambda holds, cancels
//   for small v; for t < 0 it is 2 s^2 (1 / (1 + s) + s/3 + s^3/5 + ...),
//   where nothing does.
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

// exp(x) for x <= 0 (and a little above: up to 88), to about one unit in the
// last place; below -87.3, where float32 ends, it stays at 1e-38.
inline float exp_negative(float x) {
  x = x < -87.3f ? -87.3f : x;
  const float shifted = x * 1.44269504f + 12582912.f;  // rounds to an integer
  const float n = shifted - 12582912.f;
  const float f = (x - n * 0.693145752f) - n * 1.42860677e-6f;
  float p = 1.f / 5040;
  p = p * f + 1.f / 720;
  p = p * f + 1.f / 120;
  p = p * f + 1.f / 24;
  p = p * f + 1.f / 6;
  p = p * f + 0.5f;
  p = p * f + 1.f;
  p = p * f + 1.f;
  const uint32_t power =
      (cast_bits<uint32_t>(shifted) << 23) + 0x3f800000u;
  return p * cast_bits<float>(power);
}

// The same, but 0 where float32 ends.
inline float exp_flushed(float x) {
  return x < -87.3f ? 0.f : exp_negative(x);
}

// sum_{k >= 1} s^(2k - 1) / (2k + 1) for s in [0, 1/3].
inline float atanh_tail(float s) {
  const float q = s * s;
  float p = 1.f / 15;
  p = p * q + 1.f / 13;
  p = p * q + 1.f / 11;
  p = p * q + 1.f / 9;
  p = p * q + 1.f / 7;
  p = p * q + 1.f / 5;
  p = p * q + 1.f / 3;
  return p * s;
}

// Stands for infinity, which times 0 is NaN; the gradient of kappa squares it.
inline float finite(float z) {
  z = z < -1e15f ? -1e15f : z;
  return z > 1e15f ? 1e15f : z;
}

struct Parameters {
  float kappa, log_lambda, inverse_lambda, scale, shift, center;
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
    return exp_flushed(-exp_negative(gumbel_exponent(z, p)));
  const float t = p.log_lambda - p.kappa * finite(z);
  const float v = exp_negative(-std::fabs(t));
  const float s = v / (2.f + v);
  const float softplus =
      (t > 0.f ? t : 0.f) + 2.f * (s + s * s * atanh_tail(s));
  const float exponent = -softplus * p.inverse_lambda;
  const float eta = exp_negative(exponent);
  return exponent < -87.3f ? 0.f : kKind == kUnit ? z * eta : eta;
}

template <Kind kKind, bool kPaper>
ALWAYS_INLINE Gradient backward_at(float z, float grad, const Parameters& p) {
  if constexpr (kKind == kGumbel) {
    const float u = gumbel_exponent(z, p);
    const float slope = grad * exp_flushed(u - exp_negative(u));
    return Gradient{slope * p.kappa, slope * z, 0.f};
  }
  z = finite(z);
  const float t = p.log_lambda - p.kappa * z;
  const float v = exp_negative(-std::fabs(t));
  const float r = 1.f / ((2.f + v) * (1.f + v));
  const float s = v * (1.f + v) * r;
  const float inverse = (2.f + v) * r;  // 1 / (1 + v)
  const float tail = atanh_tail(s);
  const float log1p = 2.f * (s + s * s * tail);
  const bool positive = t > 0.f;
  const float sigmoid = positive ? inverse : v * inverse;
  const float eta = exp_flushed(
      -((positive ? t : 0.f) + log1p) * p.inverse_lambda);
  const float g = eta * sigmoid * p.inverse_lambda;
  const float outer = kKind == kUnit ? grad * z : grad;
  Gradient out;
  out.z = outer * g * p.kappa + (kKind == kUnit ? grad * eta : 0.f);
  out.kappa = outer * z * g;
  if (kPaper) {
    out.lambda = -outer * g * p.inverse_lambda;
  } else {
    const float scaled = s * p.inverse_lambda;
    const float low =
        2.f * scaled * scaled * (0.5f * (2.f + v) * inverse + tail);
    const float high =
        (t + log1p - inverse) * p.inverse_lambda * p.inverse_lambda;
    out.lambda = outer * eta * (positive ? high : low);
  }
  return out;
}

template <Kind kKind>
inline float forward_one(float x, const Parameters& p) {
  return forward_at<kKind>(p.scale * x + p.shift, p);
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

// grads (2, channels or 1): the sums of columns 0 and 1 of ``sums`` (rows,
// columns) per channel (stride 1) or over all (stride 0), in a fixed order.
inline void add_parameter_grads(const double* sums, int columns, int64_t rows,
                                int64_t channels, int64_t stride,
                                float* grads) {
  const int64_t count = stride ? channels : 1;
  std::vector<double> total(2 * count, 0.0);
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t place = row % channels * stride;
    total[place] += sums[row * columns];
    total[count + place] += sums[row * columns + 1];
  }
  for (int64_t i = 0; i < 2 * count; ++i)
    grads[i] = static_cast<float>(total[i]);
}

}  // namespace apa_mm
