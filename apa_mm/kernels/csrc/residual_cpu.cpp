// The end of a residual block, for CPUs.
//
// y = z * eta(z) with z = a * x + b * d + c, where x is the input of the last
// BatchNorm, d the shortcut (or the input of its BatchNorm), and a, b, c are
// one number per row: norm, gate and shortcut norm folded together. Layout as
// "rows" in apa_cpu.cpp; float32 only.
#include "apa_math.h"

#include <omp.h>

using namespace apa_mm;

namespace {

// What does not change along a row.
struct Row {
  float a, b, c, gate;
};

// Scale and shift of both norms (null: 1 and 0 for the shortcut), one value
// per channel, and the gate, one per row.
struct Folded {
  const float *scale, *shift, *gate, *short_scale, *short_shift;

  Row at(int64_t row, int64_t channel) const {
    const float c = shift[channel] * gate[row];
    return {scale[channel] * gate[row],
            short_scale ? short_scale[channel] : 1.f,
            short_shift ? c + short_shift[channel] : c, gate[row]};
  }
};

template <bool kPaper>
NOINLINE void end_backward(const float* in, const float* other,
                           const float* gin, float* out_z, float* out_h,
                           int64_t count, Row row, Parameters p,
                           double* total) {
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
    dzx += g.z * in[i];
  }
  total[0] += k, total[1] += l, total[2] += dz, total[3] += dzx;
}

}  // namespace

// kappa and lambda: one value per channel with stride 1, one with stride 0.
extern "C" void block_end_forward(
    const float* x, const float* d, float* y, const float* scale,
    const float* shift, const float* gate, const float* short_scale,
    const float* short_shift, int64_t rows, int64_t inner, int64_t channels,
    const float* kappa, const float* lambda, int64_t stride, int threads) {
  const Folded folded{scale, shift, gate, short_scale, short_shift};
  const auto fill = [=](int64_t row, int64_t begin, int64_t count, float* z) {
    const Row r = folded.at(row, row % channels);
    const float* in = x + row * inner + begin;
    const float* other = d + row * inner + begin;
#pragma omp simd
    for (int64_t i = 0; i < count; ++i)
      z[i] = r.a * in[i] + r.b * other[i] + r.c;
  };
  forward_rows<kUnit>(y, rows, inner, channels, kappa, lambda, stride, threads,
                      fill);
}

// grad_z: gradient for the shortcut's output; grad_h = gate * grad_z: for the
// norm's output. grad_gate: one per row. sums (rows, 2) is work space;
// parameter_grads (2, channels or 1): gradients for kappa, then for lambda.
extern "C" void block_end_backward(
    const float* x, const float* d, const float* grad, float* grad_z,
    float* grad_h, float* grad_gate, double* sums, float* parameter_grads,
    const float* scale, const float* shift, const float* gate,
    const float* short_scale, const float* short_shift, int64_t rows,
    int64_t inner, int64_t channels, const float* kappa, const float* lambda,
    int64_t stride, int paper, int threads) {
  const Folded folded{scale, shift, gate, short_scale, short_shift};
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t channel = row % channels;
    const Parameters p =
        Parameters::of(kappa[channel * stride], lambda[channel * stride]);
    const Row r = folded.at(row, channel);
    const float *in = x + row * inner, *other = d + row * inner;
    const float* gin = grad + row * inner;
    float *out_z = grad_z + row * inner, *out_h = grad_h + row * inner;
    double total[4] = {0, 0, 0, 0};
    const auto part = paper ? end_backward<true> : end_backward<false>;
    const int64_t whole = inner / kWidth * kWidth, left = inner - whole;
    for (int64_t begin = 0; begin < whole; begin += kChunk)
      part(in + begin, other + begin, gin + begin, out_z + begin,
           out_h + begin, std::min(whole - begin, kChunk), r, p, total);
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
    // h = scale * x + shift, summed against grad_z.
    grad_gate[row] = static_cast<float>(scale[channel] * total[3] +
                                        shift[channel] * total[2]);
    sums[row * 2] = total[0], sums[row * 2 + 1] = total[1];
  }
  add_parameter_grads(sums, 2, rows, channels, stride, parameter_grads);
}
