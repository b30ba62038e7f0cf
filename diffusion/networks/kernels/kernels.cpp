// Kernels for the network on a CPU, in float32; `library.py` compiles and calls them.
//
// Each keeps in registers or the L1 cache the intermediate results that separate torch operations write to memory and
// read again: the scores of attention (Dao et al. 2022, FlashAttention), and the input of the SiLU after a
// normalisation. Each head or group is computed by one thread, always in the same order.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#ifdef __AVX512F__
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif
typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef uint32_t IntLanes __attribute__((vector_size(4 * LANES)));

// The first `count` lanes, at most LANES; the others are 0.
static inline Lanes load(const float* from, int count) {
  Lanes x = {};
  if (count >= LANES) memcpy(&x, from, sizeof x);
  else memcpy(&x, from, sizeof(float) * count);
  return x;
}

static inline void store(float* to, const Lanes& x, int count) {
  if (count >= LANES) memcpy(to, &x, sizeof x);
  else memcpy(to, &x, sizeof(float) * count);
}

// 2^x in float32 precision, for x <= 127 (below -126, the value at -126): the integer part is added to the exponent
// bits; a minimax polynomial approximates the rest, -1/2..1/2. V is float or Lanes, I unsigned integers of its size.
template <class V, class I>
static inline V power_of_two(V x) {
  const V zero = {}, low = zero - 126.f, magic = zero + 12582912.f;  // adding 1.5 * 2^23 rounds to an integer
  x = x < low ? low : x;
  const V rounded = x + magic;
  const I integer = __builtin_bit_cast(I, rounded) - __builtin_bit_cast(I, magic);
  const V rest = x - (rounded - magic);
  V y = zero + 1.5403530e-4f;
  for (float c : {1.3333558e-3f, 9.6181291e-3f, 5.5504109e-2f, 2.4022651e-1f, 6.9314718e-1f, 1.f}) y = y * rest + c;
  return __builtin_bit_cast(V, __builtin_bit_cast(I, y) + (integer << 23));
}

static inline Lanes power_of_two(const Lanes& x) { return power_of_two<Lanes, IntLanes>(x); }

static inline float sigmoid(float x) {
  return 1.f / (1.f + power_of_two<float, uint32_t>(std::min(-1.44269504f * x, 127.f)));
}

static inline float square(float x) { return x * x; }

// Transposes `D` rows of `n` floats to n rows of D.
template <int D>
static std::vector<float> transposed(const float* rows, int n) {
  std::vector<float> columns(n * D);
  for (int c = 0; c < D; c++)
    for (int i = 0; i < n; i++) columns[i * D + c] = rows[c * n + i];
  return columns;
}

// One head: q, k, v, out (D, n); log_sum (n), log2 of the softmax's denominator. The lanes are queries.
template <int D>
static void head(const float* q, const float* k, const float* v, float* out, float* log_sum, int n) {
  const float scale = 1.44269504f / std::sqrt(float(D));  // times log2 e
  std::vector<float> scores(n * LANES);
  const auto keys = transposed<D>(k, n), values = transposed<D>(v, n);
  for (int i = 0; i < n; i += LANES) {
    Lanes query[D], sum[D] = {}, total = {}, highest = Lanes{} - INFINITY;
    for (int c = 0; c < D; c++) query[c] = load(q + c * n + i, n - i) * scale;
    for (int j = 0; j < n; j++) {
      Lanes score = {};
      for (int c = 0; c < D; c++) score += query[c] * keys[j * D + c];
      store(&scores[j * LANES], score, LANES);
      highest = score > highest ? score : highest;
    }
    for (int j = 0; j < n; j++) {
      const Lanes weight = power_of_two(load(&scores[j * LANES], LANES) - highest);
      total += weight;
      for (int c = 0; c < D; c++) sum[c] += weight * values[j * D + c];
    }
    for (int c = 0; c < D; c++) store(out + c * n + i, sum[c] / total, n - i);
    for (int l = 0; l < std::min(LANES, n - i); l++) log_sum[i + l] = highest[l] + std::log2(total[l]);
  }
}

// The gradients d_q, d_k, d_v (D, n) from d_out, the gradient of out. The lanes are keys, and queries for d_q.
template <int D>
static void head_backward(const float* q, const float* k, const float* v, const float* out, const float* log_sum,
                          const float* d_out, float* d_q, float* d_k, float* d_v, int n) {
  const float natural = 1 / std::sqrt(float(D)), scale = 1.44269504f * natural;
  const auto queries = transposed<D>(q, n), d_outs = transposed<D>(d_out, n);
  std::vector<float> mean(n), softmaxes(n * LANES), d_scores((n + LANES) * LANES);  // mean: of a row's d_scores
  for (int c = 0; c < D; c++)
    for (int i = 0; i < n; i++) mean[i] += d_out[c * n + i] * out[c * n + i];
  std::fill(d_q, d_q + D * n, 0.f);
  for (int j = 0; j < n; j += LANES) {
    Lanes key[D], value[D], d_key[D] = {}, d_value[D] = {};
    for (int c = 0; c < D; c++) key[c] = load(k + c * n + j, n - j) * scale, value[c] = load(v + c * n + j, n - j);
    for (int i = 0; i < n; i++) {
      Lanes score = Lanes{} - log_sum[i], d_score = Lanes{} - mean[i];
      for (int c = 0; c < D; c++) score += key[c] * queries[i * D + c];
      for (int c = 0; c < D; c++) d_score += value[c] * d_outs[i * D + c];
      const Lanes softmax = power_of_two(score);
      d_score *= softmax;
      store(&d_scores[i * LANES], d_score, LANES);
      store(&softmaxes[i * LANES], softmax, LANES);
    }
    for (int i = 0; i < n; i++) {
      const Lanes softmax = load(&softmaxes[i * LANES], LANES), d_score = load(&d_scores[i * LANES], LANES);
      for (int c = 0; c < D; c++) d_value[c] += softmax * d_outs[i * D + c];
      for (int c = 0; c < D; c++) d_key[c] += d_score * queries[i * D + c];
    }
    for (int c = 0; c < D; c++) store(d_k + c * n + j, d_key[c] * natural, n - j);
    for (int c = 0; c < D; c++) store(d_v + c * n + j, d_value[c], n - j);
    for (int i = 0; i < n; i += LANES) {
      float tile[LANES * LANES];
      for (int a = 0; a < LANES; a++)
        for (int b = 0; b < LANES; b++) tile[b * LANES + a] = d_scores[(i + a) * LANES + b];
      Lanes sum[D];
      for (int c = 0; c < D; c++) sum[c] = load(d_q + c * n + i, n - i);
      for (int b = 0; b < std::min(LANES, n - j); b++)
        for (int c = 0; c < D; c++) sum[c] += load(tile + b * LANES, LANES) * (k[c * n + j + b] * natural);
      for (int c = 0; c < D; c++) store(d_q + c * n + i, sum[c], n - i);
    }
  }
}

// qkv: (batch, 3, heads, D, n); out: (batch, heads, D, n); log_sum: (batch, heads, n)
template <int D>
static void attention(const float* qkv, float* out, float* log_sum, int batch, int heads, int n, int threads) {
  const int64_t size = D * n, all = heads * size;
#pragma omp parallel for num_threads(threads)
  for (int i = 0; i < batch * heads; i++) {
    const float* q = qkv + i / heads * 3 * all + i % heads * size;
    head<D>(q, q + all, q + 2 * all, out + i * size, log_sum + int64_t(i) * n, n);
  }
}

template <int D>
static void attention_backward(const float* qkv, const float* out, const float* log_sum, const float* d_out,
                               float* d_qkv, int batch, int heads, int n, int threads) {
  const int64_t size = D * n, all = heads * size;
#pragma omp parallel for num_threads(threads)
  for (int i = 0; i < batch * heads; i++) {
    const int64_t at = i / heads * 3 * all + i % heads * size;
    const float* q = qkv + at;
    float* d_q = d_qkv + at;
    head_backward<D>(q, q + all, q + 2 * all, out + i * size, log_sum + int64_t(i) * n, d_out + i * size, d_q,
                     d_q + all, d_q + 2 * all, n);
  }
}

#define ATTENTION(D)                                                                                              \
  extern "C" void attention_##D(const float* qkv, float* out, float* log_sum, int batch, int heads, int n,        \
                                int threads) {                                                                    \
    attention<D>(qkv, out, log_sum, batch, heads, n, threads);                                                    \
  }                                                                                                               \
  extern "C" void attention_backward_##D(const float* qkv, const float* out, const float* log_sum,                \
                                         const float* d_out, float* d_qkv, int batch, int heads, int n,           \
                                         int threads) {                                                           \
    attention_backward<D>(qkv, out, log_sum, d_out, d_qkv, batch, heads, n, threads);                             \
  }
ATTENTION(4)
ATTENTION(8)
ATTENTION(16)

// silu(group_norm(x)). x, out: (batch, groups, width, n), n pixels; scale, bias: (groups, width);
// mean, inverse (of the standard deviation): (batch, groups)
extern "C" void norm_silu(const float* x, const float* scale, const float* bias, float* out, float* mean,
                          float* inverse, float eps, int batch, int groups, int width, int n, int threads) {
  const int count = width * n;
#pragma omp parallel for num_threads(threads)
  for (int g = 0; g < batch * groups; g++) {
    const float* from = x + int64_t(g) * count;
    float* to = out + int64_t(g) * count;
    float sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < count; i++) sum += from[i];
    const float middle = sum / count;
#pragma omp simd reduction(+ : squares)
    for (int i = 0; i < count; i++) squares += square(from[i] - middle);
    mean[g] = middle;
    inverse[g] = 1 / std::sqrt(squares / count + eps);
    for (int c = 0; c < width; c++) {
      const float a = scale[g % groups * width + c] * inverse[g], b = bias[g % groups * width + c] - middle * a;
#pragma omp simd
      for (int i = c * n; i < (c + 1) * n; i++) {
        const float h = a * from[i] + b;
        to[i] = h * sigmoid(h);
      }
    }
  }
}

// d_scale, d_bias: (batch, groups, width), to be summed over the batch
extern "C" void norm_silu_backward(const float* x, const float* scale, const float* bias, const float* mean,
                                   const float* inverse, const float* d_out, float* d_x, float* d_scale, float* d_bias,
                                   int batch, int groups, int width, int n, int threads) {
  const int count = width * n;
#pragma omp parallel for num_threads(threads)
  for (int g = 0; g < batch * groups; g++) {
    const float *from = x + int64_t(g) * count, *d_from = d_out + int64_t(g) * count;
    float* to = d_x + int64_t(g) * count;
    float shared = 0, along = 0;  // the means over the group of the gradient of its normalised x, and of that times x
    for (int c = 0; c < width; c++) {
      const float a = scale[g % groups * width + c], b = bias[g % groups * width + c];
      float sum = 0, product = 0;
#pragma omp simd reduction(+ : sum, product)
      for (int i = c * n; i < (c + 1) * n; i++) {
        const float normal = (from[i] - mean[g]) * inverse[g], h = a * normal + b, s = sigmoid(h);
        to[i] = d_from[i] * s * (1 + h * (1 - s));
        sum += to[i];
        product += to[i] * normal;
      }
      d_bias[g * width + c] = sum;
      d_scale[g * width + c] = product;
      shared += a * sum / count;
      along += a * product / count;
    }
    for (int c = 0; c < width; c++) {
      const float a = scale[g % groups * width + c];
#pragma omp simd
      for (int i = c * n; i < (c + 1) * n; i++)
        to[i] = inverse[g] * (a * to[i] - shared - (from[i] - mean[g]) * inverse[g] * along);
    }
  }
}
