// BatchNorm's own passes, and the end of a residual block, for CPUs.
//
// The end of a block is y = z * eta(z) with z = a * x + b * d + c, where x is
// the input of the last BatchNorm, d the shortcut (or the input of its
// BatchNorm), and a, b, c are one number per row: norm, gate and shortcut
// norm folded together. Layout as "rows" in apa_cpu.cpp; float32 only.
#include "apa_math.h"

#include <omp.h>

using namespace apa_mm;

// moments: (rows, 2), mean and sum of squared deviations of every row.
extern "C" void row_moments(const float* x, double* moments, int64_t rows,
                            int64_t inner, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t row = 0; row < rows; ++row) {
    const float* in = x + row * inner;
    double total = 0;
    for (int64_t begin = 0; begin < inner; begin += kChunk) {
      const int64_t end = begin + kChunk < inner ? begin + kChunk : inner;
      float sum = 0.f;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = begin; i < end; ++i) sum += in[i];
      total += sum;
    }
    const float mean = static_cast<float>(total / inner);
    double squares = 0;
    for (int64_t begin = 0; begin < inner; begin += kChunk) {
      const int64_t end = begin + kChunk < inner ? begin + kChunk : inner;
      float sum = 0.f;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = begin; i < end; ++i)
        sum += (in[i] - mean) * (in[i] - mean);
      squares += sum;
    }
    moments[row * 2] = total / inner;
    moments[row * 2 + 1] = squares;
  }
}

// grad <- a * grad + b * x + c, one triple per channel: BatchNorm's backward.
extern "C" void batch_norm_grad(float* grad, const float* x, const float* a,
                                const float* b, const float* c, int64_t rows,
                                int64_t inner, int64_t channels,
                                int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t channel = row % channels;
    const float ra = a[channel], rb = b[channel], rc = c[channel];
    float* out = grad + row * inner;
    const float* in = x + row * inner;
#pragma omp simd
    for (int64_t i = 0; i < inner; ++i)
      out[i] = ra * out[i] + rb * in[i] + rc;
  }
}

namespace {

Parameters shared(float kappa, float lambda) {
  return {kappa, std::log(lambda), 1.f / lambda, 1.f, 0.f, 0.f};
}

NOINLINE void end_forward(const float* in, const float* other, float* out,
                 int64_t count, float a, float b, float c, Parameters p) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i)
    out[i] = forward_at<kUnit>(a * in[i] + b * other[i] + c, p);
}

// What does not change along a row.
struct Row {
  float a, b, c, gate, center;
};

template <bool kPaper>
NOINLINE void end_backward(const float* in, const float* other, const float* gin,
                  float* out_z, float* out_h, int64_t count, Row row,
                  Parameters p, double* total) {
  float k = 0.f, l = 0.f, dz = 0.f, dzx = 0.f;
#pragma omp simd reduction(+ : k, l, dz, dzx)
  for (int64_t i = 0; i < count; ++i) {
    const Gradient g = backward_at<kUnit, kPaper>(
        row.a * in[i] + row.b * other[i] + row.c, gin[i], p);
    out_z[i] = g.z;
    out_h[i] = g.z * row.gate;
    k += g.kappa;
    l += g.lambda;
    dz += g.z;
    dzx += g.z * (in[i] - row.center);
  }
  total[0] += k, total[1] += l, total[2] += dz, total[3] += dzx;
}

}  // namespace

// kappa and lambda: one value per channel with stride 1, one with stride 0.
extern "C" void block_end_forward(const float* x, const float* d, float* y,
                                  const float* a, const float* b,
                                  const float* c, int64_t rows, int64_t inner,
                                  int64_t channels, const float* kappa,
                                  const float* lambda, int64_t stride,
                                  int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t channel = row % channels * stride;
    const Parameters p = shared(kappa[channel], lambda[channel]);
    const float ra = a[row], rb = b[row], rc = c[row];
    const float *in = x + row * inner, *other = d + row * inner;
    float* out = y + row * inner;
    const int64_t whole = inner / kWidth * kWidth, left = inner - whole;
    end_forward(in, other, out, whole, ra, rb, rc, p);
    if (left) {
      float one[kWidth] = {}, two[kWidth] = {}, result[kWidth];
      copy_some(in + whole, one, left);
      copy_some(other + whole, two, left);
      end_forward(one, two, result, kWidth, ra, rb, rc, p);
      copy_some(result, out + whole, left);
    }
  }
}

// grad_z: gradient for the shortcut's output; grad_h = gate * grad_z: for the
// norm's output. sums (rows, 4): gradients for kappa and lambda, grad_z, and
// grad_z * (x - center).
extern "C" void block_end_backward(
    const float* x, const float* d, const float* grad, float* grad_z,
    float* grad_h, double* sums, const float* a, const float* b,
    const float* c, const float* gate, const float* center, int64_t rows,
    int64_t inner, int64_t channels, const float* kappa, const float* lambda,
    int64_t stride, int paper, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t channel = row % channels;
    const Parameters p =
        shared(kappa[channel * stride], lambda[channel * stride]);
    const Row r{a[row], b[row], c[row], gate[row], center[channel]};
    const float *in = x + row * inner, *other = d + row * inner;
    const float* gin = grad + row * inner;
    float *out_z = grad_z + row * inner, *out_h = grad_h + row * inner;
    double total[4] = {0, 0, 0, 0};
    const auto part = paper ? end_backward<true> : end_backward<false>;
    const int64_t whole = inner / kWidth * kWidth, left = inner - whole;
    for (int64_t begin = 0; begin < whole; begin += kChunk) {
      const int64_t count = whole - begin < kChunk ? whole - begin : kChunk;
      part(in + begin, other + begin, gin + begin, out_z + begin,
           out_h + begin, count, r, p, total);
    }
    if (left) {
      float one[kWidth] = {}, two[kWidth] = {}, three[kWidth] = {};
      float result_z[kWidth], result_h[kWidth];
      copy_some(in + whole, one, left);
      copy_some(other + whole, two, left);
      copy_some(gin + whole, three, left);
      part(one, two, three, result_z, result_h, kWidth, r, p, total);
      copy_some(result_z, out_z + whole, left);
      copy_some(result_h, out_h + whole, left);
    }
    for (int j = 0; j < 4; ++j) sums[row * 4 + j] = total[j];
  }
}
