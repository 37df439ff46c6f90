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

// What a row of gradients adds up to: those for kappa and lambda, of z, and
// the last against x and d, less their means.
struct Sums {
  double kappa = 0, lambda = 0, z = 0, x = 0, d = 0;
};

template <bool kPaper>
NOINLINE void end_backward(const float* in, const float* other,
                           const float* gin, float* out, int64_t count,
                           Row row, Parameters p, float mean, float short_mean,
                           Sums* total) {
  float k = 0.f, l = 0.f, dz = 0.f, dzx = 0.f, dzd = 0.f;
#pragma omp simd reduction(+ : k, l, dz, dzx, dzd)
  for (int64_t i = 0; i < count; ++i) {
    const Gradient g = backward_at<kUnit, kPaper>(
        row.a * in[i] + row.b * other[i] + row.c, gin[i], p);
    out[i] = g.z;
    k += g.kappa;
    l += g.lambda;
    dz += g.z;
    dzx += g.z * (in[i] - mean);
    dzd += g.z * (other[i] - short_mean);
  }
  total->kappa += k, total->lambda += l;
  total->z += dz, total->x += dzx, total->d += dzd;
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

// grad_z: gradient for the sum of norm and shortcut. grad_gate: one per row.
// sums and short_sums (rows, 3): the factor that turns grad_z into the
// gradient for a norm's output, the sum of grad_z and that of grad_z against
// the norm's input less its mean. unit_sums (rows, 2): of the gradients for
// kappa and lambda. short_mean: null if the shortcut has no norm.
extern "C" void block_end_backward(
    const float* x, const float* d, const float* grad, float* grad_z,
    float* grad_gate, double* sums, double* short_sums, double* unit_sums,
    const float* mean, const float* short_mean, const float* scale,
    const float* shift, const float* gate, const float* short_scale,
    const float* short_shift, int64_t rows, int64_t inner, int64_t channels,
    const float* kappa, const float* lambda, int64_t stride, int paper,
    int threads) {
  const Folded folded{scale, shift, gate, short_scale, short_shift};
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t channel = row % channels;
    const Parameters p =
        Parameters::of(kappa[channel * stride], lambda[channel * stride]);
    const Row r = folded.at(row, channel);
    const float center = mean[channel];
    const float other_center = short_mean ? short_mean[channel] : 0.f;
    const float *in = x + row * inner, *other = d + row * inner;
    const float* gin = grad + row * inner;
    float* out = grad_z + row * inner;
    Sums total;
    const auto part = paper ? end_backward<true> : end_backward<false>;
    const int64_t whole = inner / kWidth * kWidth, left = inner - whole;
    for (int64_t begin = 0; begin < whole; begin += kChunk)
      part(in + begin, other + begin, gin + begin, out + begin,
           std::min(whole - begin, kChunk), r, p, center, other_center,
           &total);
    if (left) {
      float one[kWidth] = {}, two[kWidth] = {}, three[kWidth] = {};
      float result[kWidth];
      copy_some(in + whole, one, left);
      copy_some(other + whole, two, left);
      copy_some(gin + whole, three, left);
      part(one, two, three, result, kWidth, r, p, center, other_center,
           &total);
      copy_some(result, out + whole, left);
    }
    // h = scale * (x - mean) + bias, summed against grad_z.
    const double bias = shift[channel] + double{scale[channel]} * center;
    grad_gate[row] =
        static_cast<float>(scale[channel] * total.x + bias * total.z);
    const auto write = [&](double* to, double factor, double against) {
      to[row * 3] = factor, to[row * 3 + 1] = total.z;
      to[row * 3 + 2] = against;
    };
    write(sums, r.gate, total.x);
    if (short_mean) write(short_sums, 1.0, total.d);
    unit_sums[row * 2] = total.kappa, unit_sums[row * 2 + 1] = total.lambda;
  }
}
