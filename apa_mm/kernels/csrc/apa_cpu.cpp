// APA, AGLU and the Gumbel gate, one pass forward and one backward, for CPUs.
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
#include "rows.h"

#include <type_traits>

namespace {

using namespace apa_mm;

struct Problem {
  int64_t rows, inner, channels;
  const float *kappa, *lambda, *scale, *shift, *center;
  int64_t parameter_stride;  // 0: one kappa and lambda for all channels

  Pair pair() const { return {kappa, lambda, parameter_stride}; }

  // Writes the arguments of a part of a row.
  template <typename T>
  auto filler(const T* x) const {
    return [=, *this](int64_t row, int64_t begin, int64_t count, float* z) {
      const float a = scale ? scale[row % channels] : 1.f;
      const float b = shift ? shift[row % channels] : 0.f;
      const T* in = x + row * inner + begin;
#pragma omp simd
      for (int64_t i = 0; i < count; ++i) z[i] = a * load(in[i]) + b;
    };
  }
};

template <typename T, Kind kKind>
void forward_all_rows(const Problem& problem, const T* x, T* y, int threads) {
  forward_rows<kKind>(y, problem.rows, problem.inner, problem.channels,
                      problem.pair(), threads, problem.filler(x),
                      [=](int64_t at, int64_t count) {
                        fetch(x + at, count);
                        fetch<true>(y + at, count);
                      });
}

template <typename T, Kind kKind, bool kPaper>
void backward_all_rows(const Problem& problem, const T* x, const T* grad,
                       T* grad_z, double* sums, int threads) {
  const int64_t inner = problem.inner;
  const auto load_grad = [=](int64_t row, int64_t begin, int64_t count,
                             float* to) {
    const T* from = grad + row * inner + begin;
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) to[i] = load(from[i]);
  };
  const auto collect = [=](int64_t row, int64_t begin, int64_t count,
                           const float* from, float* total) {
    const T* in = x + row * inner + begin;
    T* to = grad_z + row * inner + begin;
    const float center =
        problem.center ? problem.center[row % problem.channels] : 0.f;
    float dz = 0.f, dzx = 0.f;
#pragma omp simd reduction(+ : dz, dzx)
    for (int64_t i = 0; i < count; ++i) {
      store(to + i, from[i]);
      dz += from[i];
      dzx += from[i] * (load(in[i]) - center);
    }
    total[0] += dz, total[1] += dzx;
  };
  backward_rows<kKind, kPaper, 4>(problem.rows, inner, problem.channels,
                                  problem.pair(), sums, threads,
                                  problem.filler(x), load_grad, collect,
                                  [=](int64_t at, int64_t count) {
                                    fetch(x + at, count);
                                    fetch(grad + at, count);
                                    fetch<true>(grad_z + at, count);
                                  });
}

double add_up(const float* values, int64_t count, int64_t stride) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += values[i * stride];
  return sum;
}

// Parameters of the channels as one array per kind, which vectorises.
struct ChannelTable {
  std::vector<float> kappa, slope, offset, inverse_lambda, scale, shift,
      center;

  explicit ChannelTable(const Problem& problem) {
    for (int64_t c = 0; c < problem.channels; ++c) {
      const Parameters p = problem.pair().of(c);
      kappa.push_back(p.kappa);
      slope.push_back(p.slope);
      offset.push_back(p.offset);
      inverse_lambda.push_back(p.inverse_lambda);
      scale.push_back(problem.scale ? problem.scale[c] : 1.f);
      shift.push_back(problem.shift ? problem.shift[c] : 0.f);
      center.push_back(problem.center ? problem.center[c] : 0.f);
    }
  }

  Parameters at(int64_t c) const {
    return {kappa[c], slope[c], offset[c], inverse_lambda[c]};
  }
};

template <typename T, Kind kKind>
void forward_channels(const Problem& problem, const T* x, T* y, int threads) {
  const ChannelTable table(problem);
  const int64_t channels = problem.channels;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t row = 0; row < problem.rows; ++row) {
    const T* in = x + row * channels;
    T* out = y + row * channels;
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) {
      const float z = table.scale[c] * load(in[c]) + table.shift[c];
      store(out + c, forward_at<kKind>(z, table.at(c)));
    }
  }
}

template <typename T, Kind kKind, bool kPaper>
void backward_channels(const Problem& problem, const T* x, const T* grad,
                       T* grad_z, double* sums, int threads) {
  const ChannelTable table(problem);
  const int64_t channels = problem.channels;
  // A fixed number of blocks: the order of the sums is the same for every
  // number of threads.
  const int64_t blocks = std::min<int64_t>(problem.rows, 64);
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
        const Gradient g = backward_at<kKind, kPaper>(
            table.scale[c] * value + table.shift[c], load(gin[c]),
            table.at(c));
        store(out + c, g.z);
        k[c] += g.kappa;
        l[c] += g.lambda;
        dz[c] += g.z;
        dzx[c] += g.z * (value - table.center[c]);
      }
    }
  }
  for (int64_t c = 0; c < channels; ++c)
    for (int j = 0; j < 4; ++j)
      sums[c * 4 + j] =
          add_up(&partial[j * channels + c], blocks, 4 * channels);
}

// Calls f with a value of the element type, and with the kind as a constant.
template <typename F>
void dispatch(int dtype, int kind, F f) {
  const auto with_kind = [&](auto element) {
    if (kind == kUnit)
      f(element, std::integral_constant<Kind, kUnit>{});
    else if (kind == kGate)
      f(element, std::integral_constant<Kind, kGate>{});
    else
      f(element, std::integral_constant<Kind, kGumbel>{});
  };
  if (dtype == 0)
    with_kind(float{});
  else if (dtype == 1)
    with_kind(BFloat16{});
  else
    with_kind(_Float16{});
}

}  // namespace

// dtype: 0 float32, 1 bfloat16, 2 float16; kind: see apa_math.h. scale and
// shift may be null. The Gumbel gate reads lambda and does not use it.
extern "C" void apa_forward(const void* x, void* y, int dtype, int64_t rows,
                            int64_t inner, int64_t channels,
                            const float* kappa, const float* lambda,
                            int64_t parameter_stride, const float* scale,
                            const float* shift, int kind,
                            int channels_last, int threads) {
  const Problem problem{rows,  inner, channels, kappa,  lambda,
                        scale, shift, nullptr,  parameter_stride};
  dispatch(dtype, kind, [&](auto element, auto constant) {
    using T = decltype(element);
    constexpr Kind kKind = decltype(constant)::value;
    const auto walk = channels_last ? forward_channels<T, kKind>
                                    : forward_all_rows<T, kKind>;
    walk(problem, static_cast<const T*>(x), static_cast<T*>(y), threads);
  });
}

// sums: (rows, 4), or (channels, 4) for channels_last: the sums of the
// gradients for kappa and lambda, of grad_z and of grad_z * (x - center).
extern "C" void apa_backward(const void* x, const void* grad, void* grad_z,
                             double* sums, int dtype, int64_t rows,
                             int64_t inner, int64_t channels,
                             const float* kappa, const float* lambda,
                             int64_t parameter_stride, const float* scale,
                             const float* shift, const float* center,
                             int kind, int paper, int channels_last,
                             int threads) {
  const Problem problem{rows,  inner, channels, kappa,  lambda,
                        scale, shift, center,   parameter_stride};
  dispatch(dtype, kind, [&](auto element, auto constant) {
    using T = decltype(element);
    constexpr Kind kKind = decltype(constant)::value;
    constexpr bool kPaper = kKind == kUnit;  // it has no other gradient
    const auto exact = channels_last ? backward_channels<T, kKind, false>
                                     : backward_all_rows<T, kKind, false>;
    const auto printed = channels_last ? backward_channels<T, kKind, kPaper>
                                       : backward_all_rows<T, kKind, kPaper>;
    (paper ? printed : exact)(
        problem, static_cast<const T*>(x), static_cast<const T*>(grad),
        static_cast<T*>(grad_z), sums, threads);
  });
}
