// BatchNorm's statistics and backward pass around AGLU, for CPUs.
//
// Layout as "rows" in apa_cpu.cpp, one row per image and channel; float32.
#include "apa_math.h"

#include <vector>

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
// moved by ``factor``, the unbiased variance in them; (channels,) each. away
// (rows): the mean of a row less that of its channel.
extern "C" void batch_statistics(const float* x, float* mean, float* invstd,
                                 float* away, float* running_mean,
                                 float* running_var,
                                 double eps, double factor, int64_t images,
                                 int64_t inner, int64_t channels,
                                 int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t c = 0; c < channels; ++c) {
    // Chan's formula joins the rows: within plus between.
    double sum = 0, within = 0, between = 0, first = 0;
    std::vector<double> means(images);
    for (int64_t n = 0; n < images; ++n) {
      const Moments m = row_moments(x + (n * channels + c) * inner, inner);
      if (n == 0) first = m.mean;
      within += m.squares;
      sum += m.mean - first;
      between += (m.mean - first) * (m.mean - first);
      means[n] = m.mean;
    }
    const double count = static_cast<double>(images) * inner;
    const double shift = sum / images, average = first + shift;
    const double spread = between - images * shift * shift;
    const double var = (within + (spread > 0 ? spread : 0) * inner) / count;
    for (int64_t n = 0; n < images; ++n)
      away[n * channels + c] = static_cast<float>(means[n] - average);
    mean[c] = static_cast<float>(average);
    invstd[c] = static_cast<float>(1 / std::sqrt(var + eps));
    running_mean[c] += static_cast<float>(factor * (average - running_mean[c]));
    running_var[c] += static_cast<float>(
        factor * (var * (count / (count - 1)) - running_var[c]));
  }
}

// Gradients of BatchNorm. The gradient for its output is factor * grad plus
// pooled / inner, one number each per row (null: 1 and 0). sums: per row that
// of grad and that of grad * (x - mean); columns: the stride of sums and
// factor. away as from batch_statistics, for pooled. out: gradient for x, may
// be grad. norm_grads (2, channels): for weight and bias. batch_stats: whether
// mean and invstd depend on x.
extern "C" void batch_norm_grads(
    const float* grad, const float* x, float* out, const double* sums,
    const double* factor, const float* pooled, const float* away,
    const float* weight, const float* mean, const float* invstd,
    float* norm_grads, int64_t columns, int batch_stats, int64_t images,
    int64_t inner, int64_t channels, int threads) {
  const int64_t rows = images * channels;
  std::vector<double> total(channels, 0.0), covariance(channels, 0.0);
  for (int64_t row = 0; row < rows; ++row) {
    const double times = factor ? factor[row * columns] : 1.0;
    const double more = pooled ? pooled[row] : 0.0;
    total[row % channels] += times * sums[row * columns] + more;
    covariance[row % channels] += times * sums[row * columns + 1] +
                                  (pooled ? more * away[row] : 0.0);
  }
  // out = a * (factor * grad + pooled / inner) + b * x + c
  std::vector<double> a(channels), b(channels, 0.0), c(channels, 0.0);
  const double count = static_cast<double>(images) * inner;
  for (int64_t i = 0; i < channels; ++i) {
    const double inverse = invstd[i];
    a[i] = weight[i] * inverse;
    norm_grads[i] = static_cast<float>(covariance[i] * inverse);
    norm_grads[channels + i] = static_cast<float>(total[i]);
    if (batch_stats) {
      b[i] = -a[i] * covariance[i] * inverse * inverse / count;
      c[i] = -b[i] * mean[i] - a[i] * total[i] / count;
    }
  }
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t i = row % channels;
    const float ra = a[i] * (factor ? factor[row * columns] : 1.0);
    const float rb = b[i];
    const float rc = c[i] + (pooled ? a[i] * pooled[row] / inner : 0.0);
    const float *g = grad + row * inner, *in = x + row * inner;
    float* to = out + row * inner;
    if (batch_stats) {
#pragma omp simd
      for (int64_t j = 0; j < inner; ++j) to[j] = ra * g[j] + rb * in[j] + rc;
    } else {  // x may be infinite, which times 0 is NaN
#pragma omp simd
      for (int64_t j = 0; j < inner; ++j) to[j] = ra * g[j] + rc;
    }
  }
}

// grads (2, channels or 1): the first two of the columns, added up per channel
// (stride 1) or over all (stride 0): gradients for kappa, then for lambda.
extern "C" void parameter_grads(const double* sums, int64_t columns,
                                int64_t rows, int64_t channels, int64_t stride,
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
