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
#pragma omp simd
    for (int64_t i = 0; i < inner; ++i)
      out[i] = forward_at<kUnit>(ra * in[i] + rb * other[i] + rc, p);
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
    const float ra = a[row], rb = b[row], rc = c[row], rg = gate[row];
    const float middle = center[channel];
    const float *in = x + row * inner, *other = d + row * inner;
    const float* gin = grad + row * inner;
    float *out_z = grad_z + row * inner, *out_h = grad_h + row * inner;
    double total[4] = {0, 0, 0, 0};
    for (int64_t begin = 0; begin < inner; begin += kChunk) {
      const int64_t end = begin + kChunk < inner ? begin + kChunk : inner;
      float k = 0.f, l = 0.f, dz = 0.f, dzx = 0.f;
      const auto add = [&](int64_t i, const Gradient& g) {
        out_z[i] = g.z;
        out_h[i] = g.z * rg;
        k += g.kappa;
        l += g.lambda;
        dz += g.z;
        dzx += g.z * (in[i] - middle);
      };
      if (paper) {
#pragma omp simd reduction(+ : k, l, dz, dzx)
        for (int64_t i = begin; i < end; ++i)
          add(i, backward_at<kUnit, true>(ra * in[i] + rb * other[i] + rc,
                                         gin[i], p));
      } else {
#pragma omp simd reduction(+ : k, l, dz, dzx)
        for (int64_t i = begin; i < end; ++i)
          add(i, backward_at<kUnit, false>(ra * in[i] + rb * other[i] + rc,
                                          gin[i], p));
      }
      total[0] += k, total[1] += l, total[2] += dz, total[3] += dzx;
    }
    for (int j = 0; j < 4; ++j) sums[row * 4 + j] = total[j];
  }
}
