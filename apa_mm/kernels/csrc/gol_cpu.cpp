// The Gumbel Optimized Loss and its gradient in one pass, for CPUs.
//
// With e = exp(-s), q = exp(-e) (the Gumbel probability) and d = 1 - q:
//   negative  -log(d), slope e * q / d
//   positive  e,       slope -e
// d cancels for small e, and log(d) for small q; each has a form of its own
// there.
#include "apa_math.h"

namespace {

using namespace apa_mm;

// (1 - exp(-e)) / e for e in [0, 0.5].
inline float complement_series(float e) {
  float p = 1.f / 40320;
  p = 1.f / 5040 - p * e;
  p = 1.f / 720 - p * e;
  p = 1.f / 120 - p * e;
  p = 1.f / 24 - p * e;
  p = 1.f / 6 - p * e;
  p = 0.5f - p * e;
  return 1.f - p * e;
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

// -log(d) with q = 1 - d, both in [0, 1] and exact where they are small.
inline float negative_log(float d, float q) {
  const uint32_t bits = cast_bits<uint32_t>(d);
  // d = 2^power * m with m in [0.75, 1.5).
  const int32_t power = static_cast<int32_t>(bits - 0x3f400000u) >> 23;
  const float m =
      cast_bits<float>(bits - (static_cast<uint32_t>(power) << 23));
  const bool near_one = d >= 0.5f;
  const float s = (near_one ? -q : m - 1.f) / (near_one ? 2.f - q : m + 1.f);
  const float log_m = 2.f * (s + s * s * atanh_tail(s));
  const float log_d = (near_one ? 0.f : power * 0.693147181f) + log_m;
  return d == d ? -log_d : d;  // the bits above say nothing of NaN
}

struct Negative {
  float loss, slope;
};

inline Negative negative(float x, float low, float high) {
  const float score = x < low ? low : x > high ? high : x;
  // exp_negative takes up to 87, and scores end at -80.
  const float e = exp_negative(-score);
  const float q = exp_flushed(-e);
  const float d = e < 0.5f ? e * complement_series(e) : 1.f - q;
  const bool outside = x < low || x > high;
  return {negative_log(d, q), outside ? 0.f : e * (q / d)};
}

// Bijections of 32 and of 64 bits whose results look random.
inline uint32_t mix32(uint32_t v) {
  v = (v ^ (v >> 16)) * 0x7feb352du;
  v = (v ^ (v >> 15)) * 0x846ca68bu;
  return v ^ (v >> 16);
}

inline uint64_t mix64(uint64_t v) {
  v += 0x9e3779b97f4a7c15u;
  v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9u;
  v = (v ^ (v >> 27)) * 0x94d049bb133111ebu;
  return v ^ (v >> 31);
}

// Sums the negatives of columns begin to end of one row. common[j] is 1 for
// classes that are never dropped; a rare one is kept with probability ratio.
template <bool kDraw>
float row_part(const float* x, float* grad, const float* common, float ratio,
               int32_t label, uint64_t key, int32_t begin, int32_t end,
               float low, float high) {
  const uint32_t first = static_cast<uint32_t>(key);
  const uint32_t second = static_cast<uint32_t>(key >> 32);
  float total = 0.f;
#pragma omp simd reduction(+ : total)
  for (int32_t j = begin; j < end; ++j) {
    float keep = common[j];
    if (kDraw) {
      const uint32_t bits = mix32(mix32(j + first) + second) >> 8;
      const float draw = static_cast<int32_t>(bits) * (1.f / 16777216.f);
      keep = draw < ratio ? 1.f : keep;
    }
    keep = j == label ? 0.f : keep;
    const Negative n = negative(x[j], low, high);
    total += keep * n.loss;
    grad[j] = keep * n.slope;
  }
  return total;
}

}  // namespace

// x, grad: (rows, columns). losses: (rows,). labels: (rows,), negative where
// a row has no target. common: (columns,). ratios: (rows,).
extern "C" void gol_forward(const float* x, float* grad, float* losses,
                            const int64_t* labels, const float* common,
                            const float* ratios, uint64_t seed, int64_t rows,
                            int64_t columns, float low, float high,
                            int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t row = 0; row < rows; ++row) {
    const float* in = x + row * columns;
    float* out = grad + row * columns;
    const float ratio = ratios[row];
    const int32_t label = static_cast<int32_t>(labels[row]);
    const uint64_t key = mix64(seed + mix64(row));
    double total = 0;
    for (int64_t begin = 0; begin < columns; begin += kChunk) {
      const int64_t end = std::min(begin + kChunk, columns);
      total += ratio > 0.f ? row_part<true>(in, out, common, ratio, label, key,
                                            begin, end, low, high)
                           : row_part<false>(in, out, common, ratio, label,
                                             key, begin, end, low, high);
    }
    if (label >= 0) {
      const float score = in[label];
      const float e =
          std::exp(-(score < low ? low : score > high ? high : score));
      total += e;
      out[label] = score < low || score > high ? 0.f : -e;
    }
    losses[row] = static_cast<float>(total);
  }
}
