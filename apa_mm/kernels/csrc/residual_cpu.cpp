// The end of a residual block, for CPUs.
//
// y = z * eta(z) with z = a * x + b * d + c, where x is the input of the last
// BatchNorm, d the shortcut (or the input of its BatchNorm), and a, b, c are
// one number per row: norm, gate and shortcut norm folded together. Layout as
// "rows" in apa_cpu.cpp; float32 only.
#include "rows.h"

#include <type_traits>

using namespace apa_mm;

namespace {

// What the arguments are computed from: scale and shift of both norms (null: 1
// and 0), one value per channel, and the gate, one per row.
struct Inputs {
  const float *x, *d;
  int64_t inner, channels;
  const float *scale, *shift, *gate, *short_scale, *short_shift;

  // Writes the arguments of a part of a row.
  void operator()(int64_t row, int64_t begin, int64_t count, float* z) const {
    const int64_t i = row % channels;
    const float a = scale ? scale[i] * gate[row] : gate[row];
    const float b = short_scale ? short_scale[i] : 1.f;
    const float c = (shift ? shift[i] * gate[row] : 0.f) +
                    (short_shift ? short_shift[i] : 0.f);
    const float* in = x + row * inner + begin;
    const float* other = d + row * inner + begin;
#pragma omp simd
    for (int64_t j = 0; j < count; ++j) z[j] = a * in[j] + b * other[j] + c;
  }
};

}  // namespace

// kappa and lambda: one value per channel with stride 1, one with stride 0.
extern "C" void block_end_forward(
    const float* x, const float* d, float* y, const float* scale,
    const float* shift, const float* gate, const float* short_scale,
    const float* short_shift, int64_t rows, int64_t inner, int64_t channels,
    const float* kappa, const float* lambda, int64_t stride, int threads) {
  const Inputs inputs{x,     d,    inner,       channels,   scale,
                      shift, gate, short_scale, short_shift};
  forward_rows<kUnit>(y, rows, inner, channels, {kappa, lambda, stride},
                      threads, inputs, [=](int64_t at, int64_t count) {
                        fetch(x + at, count);
                        fetch(d + at, count);
                        fetch<true>(y + at, count);
                      });
}

// grad_z: gradient for the sum of norm and shortcut. grad_gate: one per row.
// sums and short_sums (rows, 3): the factor that turns grad_z into the
// gradient for a norm's output, the sum of grad_z and that of grad_z against
// the norm's input less its mean. unit_sums (rows, 5): of the gradients for
// kappa and lambda, and work space. short_mean: null if the shortcut has no
// norm.
extern "C" void block_end_backward(
    const float* x, const float* d, const float* grad, float* grad_z,
    float* grad_gate, double* sums, double* short_sums, double* unit_sums,
    const float* mean, const float* short_mean, const float* scale,
    const float* shift, const float* gate, const float* short_scale,
    const float* short_shift, int64_t rows, int64_t inner, int64_t channels,
    const float* kappa, const float* lambda, int64_t stride, int paper,
    int threads) {
  const Inputs inputs{x,     d,    inner,       channels,   scale,
                      shift, gate, short_scale, short_shift};
  const auto load_grad = [=](int64_t row, int64_t begin, int64_t count,
                             float* to) {
    std::copy_n(grad + row * inner + begin, count, to);
  };
  const auto collect = [=](int64_t row, int64_t begin, int64_t count,
                           const float* from, float* total) {
    const float center = mean[row % channels];
    const float other_center = short_mean ? short_mean[row % channels] : 0.f;
    const float* in = x + row * inner + begin;
    const float* other = d + row * inner + begin;
    float* to = grad_z + row * inner + begin;
    float dz = 0.f, dzx = 0.f, dzd = 0.f;
#pragma omp simd reduction(+ : dz, dzx, dzd)
    for (int64_t i = 0; i < count; ++i) {
      to[i] = from[i];
      dz += from[i];
      dzx += from[i] * (in[i] - center);
      dzd += from[i] * (other[i] - other_center);
    }
    total[0] += dz, total[1] += dzx, total[2] += dzd;
  };
  const auto ahead = [=](int64_t at, int64_t count) {
    fetch(x + at, count);
    fetch(d + at, count);
    fetch(grad + at, count);
    fetch<true>(grad_z + at, count);
  };
  const auto walk = [&](auto constant) {
    backward_rows<kUnit, decltype(constant)::value, 5>(
        rows, inner, channels, {kappa, lambda, stride}, unit_sums, threads,
        inputs, load_grad, collect, ahead);
  };
  paper ? walk(std::true_type{}) : walk(std::false_type{});
  for (int64_t row = 0; row < rows; ++row) {
    const double* total = unit_sums + row * 5;
    const int64_t channel = row % channels;
    // h = scale * (x - mean) + bias, summed against grad_z.
    const double bias =
        shift[channel] + double{scale[channel]} * mean[channel];
    grad_gate[row] =
        static_cast<float>(scale[channel] * total[3] + bias * total[2]);
    sums[row * 3] = gate[row];
    sums[row * 3 + 1] = short_sums[row * 3 + 1] = total[2];
    sums[row * 3 + 2] = total[3];
    short_sums[row * 3] = 1, short_sums[row * 3 + 2] = total[4];
  }
}
