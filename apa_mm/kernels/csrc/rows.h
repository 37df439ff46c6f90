// Walks rows of elements in pieces that fit in the cache.
//
// A piece is copied to a buffer, which loops of vectors run over, and from
// there to the result. So it does not matter how long a row is: short ones
// share a piece.
#pragma once

#include <vector>

#include "apa_math.h"

namespace apa_mm {

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

// Asks for memory that will be read, or written, when what comes before is
// calculated.
template <bool kWrite = false, typename T>
inline void fetch(const T* from, int64_t count) {
  constexpr int64_t line = 64 / sizeof(T);
  for (int64_t i = 0; i < count; i += line)
    __builtin_prefetch(from + i, kWrite, 3);
}

// Equal pieces of rows of elements, for one thread each: some whole rows, or a
// part of one. Where the rows have parameters of their own (alone), each fills
// whole vectors.
struct Pieces {
  int64_t rows, inner, parts, pitch, together;

  Pieces(int64_t rows, int64_t inner, bool alone) : rows(rows), inner(inner) {
    const int64_t length = std::min(inner, kChunk);
    parts = (inner + length - 1) / length;
    pitch = alone ? whole(length) : length;
    together = kChunk / pitch;
  }

  int64_t count() const { return (rows + together - 1) / together * parts; }

  static int64_t whole(int64_t count) {
    return (count + kWidth - 1) / kWidth * kWidth;
  }
};

struct Piece {
  int64_t row, rows, part, begin, count, pitch;  // count: of every row

  Piece(const Pieces& all, int64_t index)
      : row(index / all.parts * all.together),
        rows(std::min(all.together, all.rows - row)),
        part(index % all.parts),
        begin(part * kChunk),
        count(std::min(all.inner - begin, kChunk)),
        pitch(all.pitch) {}

  // Where in memory the next one begins.
  int64_t end(int64_t inner) const {
    return (row + rows - 1) * inner + begin + count;
  }

  // Elements in a buffer.
  int64_t size() const { return Pieces::whole((rows - 1) * pitch + count); }
};

// Rows in a buffer: fill(row, begin, count, to) writes those of a part of one.
// The rest of the last vector, and of each row where it is alone, is 0.
template <typename Fill>
inline void fill_piece(const Piece& piece, float* buffer, const Fill& fill) {
  for (int64_t i = 0; i < piece.rows; ++i) {
    float* to = buffer + i * piece.pitch;
    fill(piece.row + i, piece.begin, piece.count, to);
    float* end =
        buffer + (i + 1 < piece.rows ? (i + 1) * piece.pitch : piece.size());
    std::fill(to + piece.count, end, 0.f);
  }
}

// Calls work(row, begin, count) for what shares kappa and lambda in a buffer.
template <typename Work>
inline void work_on_piece(const Piece& piece, bool alone, const Work& work) {
  if (!alone) return work(piece.row, 0, piece.size());
  for (int64_t i = 0; i < piece.rows; ++i)
    work(piece.row + i, i * piece.pitch, Pieces::whole(piece.count));
}

// kappa and lambda, one per channel with stride 1.
struct Pair {
  const float *kappa, *lambda;
  int64_t stride;

  Parameters of(int64_t channel) const {
    return Parameters::of(kappa[channel * stride], lambda[channel * stride]);
  }
};

// The activation of rows whose arguments are computed first.
template <Kind kKind, typename T, typename Fill, typename Ahead>
void forward_rows(T* y, int64_t rows, int64_t inner, int64_t channels,
                  const Pair& pair, int threads, Fill fill, Ahead ahead) {
  const Pieces pieces(rows, inner, pair.stride);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t index = 0; index < pieces.count(); ++index) {
    const Piece piece(pieces, index);
    float z[kChunk + kWidth];
    fill_piece(piece, z, fill);
    work_on_piece(piece, pair.stride,
                  [&](int64_t row, int64_t begin, int64_t count) {
                    forward_vectors<kKind>(
                        z + begin, count, pair.of(row % channels),
                        [=](int64_t at, int64_t some) {
                          ahead(piece.end(inner) + kChunk + begin + at, some);
                        });
                  });
    for (int64_t i = 0; i < piece.rows; ++i) {
      T* to = y + (piece.row + i) * inner + piece.begin;
      const float* from = z + i * piece.pitch;
#pragma omp simd
      for (int64_t j = 0; j < piece.count; ++j) store(to + j, from[j]);
    }
  }
}

// The gradients of rows: fill as above; collect(row, begin, count, grad, sums)
// takes the gradient for the argument of a part of a row and adds to kSums - 2
// sums. sums (rows, kSums): of the gradients for kappa and lambda, and those;
// what kappa and lambda share is summed in the first of some rows.
template <Kind kKind, bool kPaper, int kSums, typename Fill, typename Load,
          typename Collect, typename Ahead>
void backward_rows(int64_t rows, int64_t inner, int64_t channels,
                   const Pair& pair, double* sums, int threads, Fill fill,
                   Load load_grad, Collect collect, Ahead ahead) {
  const Pieces pieces(rows, inner, pair.stride);
  std::vector<float> partial(rows * pieces.parts * kSums, 0.f);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t index = 0; index < pieces.count(); ++index) {
    const Piece piece(pieces, index);
    const auto sums_of = [&](int64_t row) {
      return partial.data() + (row * pieces.parts + piece.part) * kSums;
    };
    float z[kChunk + kWidth], grad[kChunk + kWidth];
    fill_piece(piece, z, fill);
    fill_piece(piece, grad, load_grad);
    work_on_piece(piece, pair.stride,
                  [&](int64_t row, int64_t begin, int64_t count) {
                    backward_vectors<kKind, kPaper>(
                        z + begin, grad + begin, count,
                        pair.of(row % channels), sums_of(row),
                        [=](int64_t at, int64_t some) {
                          ahead(piece.end(inner) + kChunk + begin + at, some);
                        });
                  });
    for (int64_t i = 0; i < piece.rows; ++i)
      collect(piece.row + i, piece.begin, piece.count,
              grad + i * piece.pitch, sums_of(piece.row + i) + 2);
  }
  for (int64_t row = 0; row < rows; ++row)
    for (int j = 0; j < kSums; ++j) {
      double sum = 0;
      for (int64_t part = 0; part < pieces.parts; ++part)
        sum += partial[(row * pieces.parts + part) * kSums + j];
      sums[row * kSums + j] = sum;
    }
}

}  // namespace apa_mm
