// APA and AGLU in one pass forward and one pass backward, for CPUs.
//
// Plain loops that the compiler turns into vector code; no library but the
// C++ runtime and OpenMP. Two layouts cover every use:
//
//   rows      x is (rows, inner), row r has the parameters r % channels;
//             (N, C, H, W) is rows = N * C, and a shared pair of parameters
//             is rows = 1, channels = 1.
//   channels  x is (rows, channels), channels last.
//
// The argument of the activation is z = scale * x + shift, per channel, which
// is how BatchNorm is folded in; without it scale is 1 and shift 0.
//
// With t = log(lambda) - kappa * z, v = exp(-|t|) and s = v / (2 + v):
//   log(1 + v)            = 2 atanh(s) = 2 s (1 + s^2/3 + s^4/5 + ...)
//   softplus(t)           = max(t, 0) + log(1 + v)
//   eta                   = exp(-softplus(t) / lambda)
//   softplus(t) - sigmoid(t), which the gradient for lambda holds, cancels
//   for small v; for t < 0 it is 2 s^2 (1 / (1 + s) + s/3 + s^3/5 + ...),
//   where nothing does.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include <omp.h>

namespace {

// Elements per unit of work: three float arrays of it fit in a 32 KiB cache.
// The partial sums of the units are added in order, so that the gradients of
// the parameters do not depend on the number of threads.
constexpr int64_t kChunk = 2048;

template <typename To, typename From>
inline To cast_bits(From from) {
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

// exp(x) for x <= 0, to about one unit in the last place; below -87.3, where
// float32 ends, it stays at 1e-38.
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

struct Parameters {
  float kappa, log_lambda, inverse_lambda, scale, shift;
};

struct Gradient {
  float z, kappa, lambda;
};

template <bool kProduct>
inline float forward_one(float x, const Parameters& p) {
  const float z = p.scale * x + p.shift;
  const float t = p.log_lambda - p.kappa * z;
  const float v = exp_negative(-std::fabs(t));
  const float s = v / (2.f + v);
  const float softplus =
      (t > 0.f ? t : 0.f) + 2.f * (s + s * s * atanh_tail(s));
  const float eta = exp_negative(-softplus * p.inverse_lambda);
  return kProduct ? z * eta : eta;
}

template <bool kProduct, bool kPaper>
inline Gradient backward_one(float x, float grad, const Parameters& p) {
  const float z = p.scale * x + p.shift;
  const float t = p.log_lambda - p.kappa * z;
  const float v = exp_negative(-std::fabs(t));
  const float r = 1.f / ((2.f + v) * (1.f + v));
  const float s = v * (1.f + v) * r;
  const float inverse = (2.f + v) * r;  // 1 / (1 + v)
  const float tail = atanh_tail(s);
  const float log1p = 2.f * (s + s * s * tail);
  const bool positive = t > 0.f;
  const float sigmoid = positive ? inverse : v * inverse;
  const float eta = exp_negative(
      -((positive ? t : 0.f) + log1p) * p.inverse_lambda);
  const float g = eta * sigmoid * p.inverse_lambda;
  const float outer = kProduct ? grad * z : grad;
  Gradient out;
  out.z = outer * g * p.kappa + (kProduct ? grad * eta : 0.f);
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

struct Problem {
  int64_t rows, inner, channels;
  const float *kappa, *lambda, *scale, *shift;
  int64_t parameter_stride;  // 0: one kappa and lambda for all channels

  Parameters at(int64_t channel) const {
    const float l = lambda[channel * parameter_stride];
    return {kappa[channel * parameter_stride], std::log(l), 1.f / l,
            scale ? scale[channel] : 1.f, shift ? shift[channel] : 0.f};
  }
};

template <typename T, bool kProduct>
void forward_rows(const Problem& problem, const T* x, T* y, int threads) {
  const int64_t inner = problem.inner;
  const int64_t units = (inner + kChunk - 1) / kChunk;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t unit = 0; unit < problem.rows * units; ++unit) {
    const int64_t row = unit / units, begin = unit % units * kChunk;
    const int64_t count = inner - begin < kChunk ? inner - begin : kChunk;
    const Parameters p = problem.at(row % problem.channels);
    const T* in = x + row * inner + begin;
    T* out = y + row * inner + begin;
#pragma omp simd
    for (int64_t i = 0; i < count; ++i)
      store(out + i, forward_one<kProduct>(load(in[i]), p));
  }
}

// Sums: per row grad_kappa, grad_lambda, sum of grad_z, sum of grad_z * x.
template <typename T, bool kProduct, bool kPaper>
void backward_rows(const Problem& problem, const T* x, const T* grad,
                   T* grad_z, double* sums, int threads) {
  const int64_t inner = problem.inner;
  const int64_t units = (inner + kChunk - 1) / kChunk;
  std::vector<float> partial(problem.rows * units * 4);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t unit = 0; unit < problem.rows * units; ++unit) {
    const int64_t row = unit / units, begin = unit % units * kChunk;
    const int64_t count = inner - begin < kChunk ? inner - begin : kChunk;
    const Parameters p = problem.at(row % problem.channels);
    const T* in = x + row * inner + begin;
    const T* gin = grad + row * inner + begin;
    T* out = grad_z + row * inner + begin;
    float k = 0.f, l = 0.f, dz = 0.f, dzx = 0.f;
#pragma omp simd reduction(+ : k, l, dz, dzx)
    for (int64_t i = 0; i < count; ++i) {
      const float value = load(in[i]);
      const Gradient g =
          backward_one<kProduct, kPaper>(value, load(gin[i]), p);
      store(out + i, g.z);
      k += g.kappa;
      l += g.lambda;
      dz += g.z;
      dzx += g.z * value;
    }
    float* into = partial.data() + unit * 4;
    into[0] = k, into[1] = l, into[2] = dz, into[3] = dzx;
  }
  for (int64_t row = 0; row < problem.rows; ++row)
    for (int j = 0; j < 4; ++j) {
      double sum = 0;
      for (int64_t unit = 0; unit < units; ++unit)
        sum += partial[(row * units + unit) * 4 + j];
      sums[row * 4 + j] = sum;
    }
}

struct ChannelTable {
  std::vector<float> kappa, log_lambda, inverse_lambda, scale, shift;

  explicit ChannelTable(const Problem& problem) {
    for (int64_t c = 0; c < problem.channels; ++c) {
      const Parameters p = problem.at(c);
      kappa.push_back(p.kappa);
      log_lambda.push_back(p.log_lambda);
      inverse_lambda.push_back(p.inverse_lambda);
      scale.push_back(p.scale);
      shift.push_back(p.shift);
    }
  }

  Parameters at(int64_t c) const {
    return {kappa[c], log_lambda[c], inverse_lambda[c], scale[c], shift[c]};
  }
};

template <typename T, bool kProduct>
void forward_channels(const Problem& problem, const T* x, T* y, int threads) {
  const ChannelTable table(problem);
  const int64_t channels = problem.channels;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t row = 0; row < problem.rows; ++row) {
    const T* in = x + row * channels;
    T* out = y + row * channels;
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c)
      store(out + c, forward_one<kProduct>(load(in[c]), table.at(c)));
  }
}

template <typename T, bool kProduct, bool kPaper>
void backward_channels(const Problem& problem, const T* x, const T* grad,
                       T* grad_z, double* sums, int threads) {
  const ChannelTable table(problem);
  const int64_t channels = problem.channels;
  // A fixed number of blocks: the order of the sums is the same for every
  // number of threads.
  const int64_t blocks = problem.rows < 64 ? problem.rows : 64;
  std::vector<float> partial(blocks * channels * 4, 0.f);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t block = 0; block < blocks; ++block) {
    float* k = partial.data() + block * channels * 4;
    float *l = k + channels, *dz = l + channels, *dzx = dz + channels;
    const int64_t first = problem.rows * block / blocks;
    const int64_t last = problem.rows * (block + 1) / blocks;
    for (int64_t row = first; row < last; ++row) {
      const T* in = x + row * channels;
      const T* gin = grad + row * channels;
      T* out = grad_z + row * channels;
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        const float value = load(in[c]);
        const Gradient g = backward_one<kProduct, kPaper>(
            value, load(gin[c]), table.at(c));
        store(out + c, g.z);
        k[c] += g.kappa;
        l[c] += g.lambda;
        dz[c] += g.z;
        dzx[c] += g.z * value;
      }
    }
  }
  for (int64_t c = 0; c < channels; ++c)
    for (int j = 0; j < 4; ++j) {
      double sum = 0;
      for (int64_t block = 0; block < blocks; ++block)
        sum += partial[(block * 4 + j) * channels + c];
      sums[c * 4 + j] = sum;
    }
}

template <typename T>
void forward(const Problem& problem, const void* x, void* y, bool product,
             bool channels_last, int threads) {
  const T* in = static_cast<const T*>(x);
  T* out = static_cast<T*>(y);
  if (channels_last)
    product ? forward_channels<T, true>(problem, in, out, threads)
            : forward_channels<T, false>(problem, in, out, threads);
  else
    product ? forward_rows<T, true>(problem, in, out, threads)
            : forward_rows<T, false>(problem, in, out, threads);
}

template <typename T, bool kProduct, bool kPaper>
void backward_layout(const Problem& problem, const void* x, const void* grad,
                     void* grad_z, double* sums, bool channels_last,
                     int threads) {
  const T* in = static_cast<const T*>(x);
  const T* gin = static_cast<const T*>(grad);
  T* out = static_cast<T*>(grad_z);
  if (channels_last)
    backward_channels<T, kProduct, kPaper>(problem, in, gin, out, sums,
                                           threads);
  else
    backward_rows<T, kProduct, kPaper>(problem, in, gin, out, sums, threads);
}

template <typename T>
void backward(const Problem& problem, const void* x, const void* grad,
              void* grad_z, double* sums, bool product, bool paper,
              bool channels_last, int threads) {
  if (!product)
    backward_layout<T, false, false>(problem, x, grad, grad_z, sums,
                                     channels_last, threads);
  else if (paper)
    backward_layout<T, true, true>(problem, x, grad, grad_z, sums,
                                   channels_last, threads);
  else
    backward_layout<T, true, false>(problem, x, grad, grad_z, sums,
                                    channels_last, threads);
}

}  // namespace

// dtype: 0 float32, 1 bfloat16, 2 float16. scale and shift may be null.
extern "C" void apa_forward(const void* x, void* y, int dtype, int64_t rows,
                            int64_t inner, int64_t channels,
                            const float* kappa, const float* lambda,
                            int64_t parameter_stride, const float* scale,
                            const float* shift, int product,
                            int channels_last, int threads) {
  const Problem problem{rows,  inner, channels, kappa,
                        lambda, scale, shift,    parameter_stride};
  if (dtype == 0)
    forward<float>(problem, x, y, product, channels_last, threads);
  else if (dtype == 1)
    forward<BFloat16>(problem, x, y, product, channels_last, threads);
  else
    forward<_Float16>(problem, x, y, product, channels_last, threads);
}

// sums: (rows, 4), or (channels, 4) for channels_last: the sums of the
// gradients for kappa and lambda, of grad_z and of grad_z * x.
extern "C" void apa_backward(const void* x, const void* grad, void* grad_z,
                             double* sums, int dtype, int64_t rows,
                             int64_t inner, int64_t channels,
                             const float* kappa, const float* lambda,
                             int64_t parameter_stride, const float* scale,
                             const float* shift, int product, int paper,
                             int channels_last, int threads) {
  const Problem problem{rows,  inner, channels, kappa,
                        lambda, scale, shift,    parameter_stride};
  if (dtype == 0)
    backward<float>(problem, x, grad, grad_z, sums, product, paper,
                    channels_last, threads);
  else if (dtype == 1)
    backward<BFloat16>(problem, x, grad, grad_z, sums, product, paper,
                       channels_last, threads);
  else
    backward<_Float16>(problem, x, grad, grad_z, sums, product, paper,
                       channels_last, threads);
}
