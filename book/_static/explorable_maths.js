// The arithmetic of the explorable: weights as ica/theory/constructions/explorable.py exports them, multiplied, and the gradient
// step by its formula. No framework, no drawing; the browser test of the book drives this file alone.
const Explorable = (() => {
  const dot = (a, b) => a.reduce((sum, v, i) => sum + v * b[i], 0);
  const minus = (a, b) => a.map((v, i) => v - b[i]);
  const norm = (a) => Math.hypot(...a);
  const softmax = (scores) => {
    const most = Math.max(...scores), w = scores.map((s) => Math.exp(s - most)), total = w.reduce((a, b) => a + b, 0);
    return w.map((v) => v / total);
  };

  // A matrix of the export at one stop of the inverse temperature, as rows.
  const dense = ({ shape: [rows, columns], at, values }, stop) => {
    const full = Array.from({ length: rows }, () => new Array(columns).fill(0));
    at.forEach((place, i) => {
      const value = values[i];
      full[Math.floor(place / columns)][place % columns] = Array.isArray(value) ? value[stop] : value;
    });
    return full;
  };
  const times = (matrix, vector) => matrix.map((row) => dot(row, vector));
  const plus = (matrix, vector, bias) => times(matrix, vector).map((v, i) => v + bias[i][0]);

  const prediction = ({ W, query }) => times(W, query);

  // One token for each response: what the construction takes as given, in its order.
  const tokens = (model, responses, rewards) => responses.map((y, i) => model.tokens.flatMap((name) => ({
    x: model.query, y, s: [dot(y, y)], r: [rewards[i]],
    position: responses.map((_, j) => (i === j ? 1 : 0)),
    slots: responses.flatMap((other, j) => other.map((v) => (i === j ? v : 0))),
  })[name]));

  // The forward pass: the residual stream before and after each block, each block's attention [head][query][key], the readout.
  const run = (model, stop, given) => {
    const matrices = model.matrices.map((m) => dense(m, stop)), [weight, bias] = model.embed.map((k) => matrices[k]);
    let h = given.map((token) => plus(weight, token, bias));
    const streams = [h], attention = [];
    for (const block of model.blocks) {
      const [WQ, WK, WV, WO, W1, b1, W2, b2] = block.matrices.map((k) => matrices[k]);
      const size = WQ.length / model.heads, part = (v, head) => v.slice(head * size, (head + 1) * size);
      const [q, k, v] = [WQ, WK, WV].map((M) => h.map((token) => times(M, token)));
      const looked = Array.from({ length: model.heads }, (_, head) => q.map((query) =>
        softmax(k.map((key) => dot(part(query, head), part(key, head)) / Math.sqrt(size)))));
      h = h.map((token, i) => {
        const mixed = looked.flatMap((weights, head) => part(v[0], head).map((_, at) =>
          weights[i].reduce((sum, w, j) => sum + w * v[j][head * size + at], 0)));
        const after = times(WO, mixed).map((value, at) => token[at] + value);
        const hidden = plus(W1, after, b1).map((value) => Math.max(value, 0));
        return plus(W2, hidden, b2).map((value, at) => after[at] + value);
      });
      streams.push(h);
      attention.push(looked);
    }
    return { streams, attention, readout: h.map((token) => times(matrices[model.readout], token)) };
  };

  const place = (model, token, name) => token.slice(...model.places[name]);

  // Where the prediction stands by what token `i` holds: its start and the change of the places that collect the step.
  const moved = (model, start, now, i = 0) => prediction(model).map((value, at) => Object.entries(model.moved).reduce(
    (sum, [name, factor]) => sum + factor * (place(model, now[i], name)[at] - place(model, start[i], name)[at]), value));

  // By how much the place that eliminates has changed, for each token; null where a construction eliminates nothing.
  const pushed = (model, start, now) => model.gone && now.map((token, i) =>
    Math.abs(place(model, token, model.gone.place)[0] - place(model, start[i], model.gone.place)[0]));

  const ranking = (rewards) => rewards.map((_, i) => i).sort((a, b) => rewards[b] - rewards[a]);

  // The prediction after one step of gradient descent on the Plackett-Luce loss, in closed form; null where rewards are tied.
  const descent = (model, responses, rewards) => {
    if (new Set(rewards).size < rewards.length) return null;
    const from = prediction(model), ranked = ranking(rewards).map((i) => responses[i]), end = [...from];
    for (let i = 0; i < ranked.length - 1; i++) {
      const left = ranked.slice(i), beta = softmax(left.map((y) => -(norm(minus(from, y)) ** 2)));
      end.forEach((_, at) => {
        end[at] += 2 * model.eta * (ranked[i][at] - left.reduce((sum, y, j) => sum + beta[j] * y[at], 0));
      });
    }
    return end;
  };

  // Standard normal numbers of a seed: mulberry32, then Box and Muller.
  const normals = (seed, count) => {
    let state = seed >>> 0;
    const uniform = () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), state | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    };
    return Array.from({ length: count }, () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()));
  };

  return { descent, minus, moved, norm, normals, prediction, pushed, ranking, run, tokens };
})();
