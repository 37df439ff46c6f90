// BatchNorm's statistics and backward pass around AGLU, for CPUs.
//
// Layout as "rows" in apa_cpu.cpp, one row per image and channel; float32.
#include "apa_math.h"

#include <omp.h>

using namespace apa_mm;

namespace {

struct Moments {
  double mean, squares;  // mean, sum of squared deviations from it
};

Moments row_moments(const float* in, int64_t inner) {
  double total = 0;
  for (int64_t begin = 0; begin < inner; begin += kChunk) {
    const int64_t end = std::min(begin + kChunk, inner);
    float sum = 0.f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = begin; i < end; ++i) sum += in[i];
    total += sum;
  }
  const float mean = static_cast<float>(total / inner);
  // The second pass corrects the mean, whose sum was rounded.
  double squares = 0, rest = 0;
  for (int64_t begin = 0; begin < inner; begin += kChunk) {
    const int64_t end = std::min(begin + kChunk, inner);
    float sum = 0.f, off = 0.f;
#pragma omp simd reduction(+ : sum, off)
    for (int64_t i = begin; i < end; ++i) {
      const float away = in[i] - mean;
      sum += away * away;
      off += away;
    }
    squares += sum, rest += off;
  }
  return {mean + rest / inner, squares - rest * rest / inner};
}

}  // namespace

// Mean, 1 / sqrt(var + eps) with the biased variance, and the running ones
// moved by ``factor``, the unbiased variance in them; (channels,) each.
extern "C" void batch_statistics(const float* x, float* mean, float* invstd,
                                 float* running_mean, float* running_var,
                                 double eps, double factor, int64_t images,
                                 int64_t inner, int64_t channels,
                                 int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t c = 0; c < channels; ++c) {
    // Chan's formula joins the rows: within plus between.
    double sum = 0, within = 0, between = 0, first = 0;
    for (int64_t n = 0; n < images; ++n) {
      const Moments m = row_moments(x + (n * channels + c) * inner, inner);
      if (n == 0) first = m.mean;
      within += m.squares;
      sum += m.mean - first;
      between += (m.mean - first) * (m.mean - first);
    }
    const double count = static_cast<double>(images) * inner;
    const double shift = sum / images, average = first + shift;
    const double spread = between - images * shift * shift;
    const double var = (within + (spread > 0 ? spread : 0) * inner) / count;
    mean[c] = static_cast<float>(average);
    invstd[c] = static_cast<float>(1 / std::sqrt(var + eps));
    running_mean[c] += static_cast<float>(factor * (average - running_mean[c]));
    running_var[c] += static_cast<float>(
        factor * (var * (count / (count - 1)) - running_var[c]));
  }
}

// The rest of the backward pass of aglu(batch_norm(x)). grad: gradient for
// the norm's output, turned into that for x. sums (rows, 4): as apa_backward
// leaves them, with the mean as center. batch_stats: whether mean and invstd
// depend on x. norm_grads (2, channels): for weight and bias. parameter_grads
// (2, channels or 1): for kappa and lambda.
extern "C" void batch_norm_aglu_grads(
    float* grad, const float* x, const double* sums, const float* weight,
    const float* mean, const float* invstd, float* norm_grads,
    float* parameter_grads, int batch_stats, int64_t images, int64_t inner,
    int64_t channels, int64_t stride, int threads) {
  const int64_t rows = images * channels;
  std::vector<double> total(channels, 0.0), covariance(channels, 0.0);
  for (int64_t row = 0; row < rows; ++row) {
    total[row % channels] += sums[row * 4 + 2];
    covariance[row % channels] += sums[row * 4 + 3];
  }
  // grad <- a * grad + b * x + c
  std::vector<float> a(channels), b(channels, 0.f), c(channels, 0.f);
  const double count = static_cast<double>(images) * inner;
  for (int64_t i = 0; i < channels; ++i) {
    const double inverse = invstd[i], scale = weight[i] * inverse;
    a[i] = static_cast<float>(scale);
    norm_grads[i] = static_cast<float>(covariance[i] * inverse);
    norm_grads[channels + i] = static_cast<float>(total[i]);
    if (batch_stats) {
      const double pull = scale * covariance[i] * inverse * inverse / count;
      b[i] = static_cast<float>(-pull);
      c[i] = static_cast<float>(pull * mean[i] - scale * total[i] / count);
    }
  }
  add_parameter_grads(sums, 4, rows, channels, stride, parameter_grads);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t channel = row % channels;
    const float ra = a[channel], rb = b[channel], rc = c[channel];
    float* out = grad + row * inner;
    const float* in = x + row * inner;
#pragma omp simd
    for (int64_t i = 0; i < inner; ++i) out[i] = ra * out[i] + rb * in[i] + rc;
  }
}
