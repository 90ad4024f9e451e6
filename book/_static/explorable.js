// The explorable of the theorem: takes the place of the recorded figure before this script. The weights are JSON in an attribute of
// this script, the arithmetic is in explorable_maths.js. Nothing is fetched. Without scripts, or if this fails, the figure stays.
(() => {
  const models = JSON.parse(document.currentScript.dataset.weights);
  const figure = document.querySelector("figure.explorable");
  const { descent, minus, moved, norm, normals, prediction, pushed, ranking, run, tokens } = Explorable;
  const state = { construction: models[0].construction, N: 4, stop: 10, block: 0, noise: 0, seed: 1, range: 2, dragging: false };

  const maker = (create) => (tag, given = {}, ...children) => {
    const node = create(tag);
    for (const [name, value] of Object.entries(given)) {
      if (typeof value === "function") node.addEventListener(name, value);
      else node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  };
  const html = maker((tag) => document.createElement(tag));
  const svg = maker((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));
  const set = (node, values) => Object.entries(values).forEach(([name, value]) => node.setAttribute(name, value));

  const fixed = (value, digits = 2) => value.toFixed(digits).replace("-", "−");
  const short = (value) => (value === 0 || value >= 0.01 && value < 1000 ? fixed(value, 3) : value.toExponential(1)).replace("e-", "e−");
  const point = (y) => `(${y.map((v) => fixed(v)).join(", ")})`;
  const across = (y) => [200 + 200 * y[0] / state.range, 200 - 200 * y[1] / state.range]; // of the plane, in units of the drawing
  const model = () => models.find((m) => m.construction === state.construction && m.N === state.N);

  // Controls
  const chosen = (change) => (event) => { change(event.target); update(); };
  const choice = (values, at, change) => html("select", { change: chosen(change) },
    ...values.map((v) => html("option", { value: v, ...(v === at && { selected: "" }) }, v)));
  const slider = (given, change) => html("input", { type: "range", ...given, input: chosen(change) });
  const button = (words, change) => html("button", { type: "button", click: chosen(change) }, words);
  const constructions = [...new Set(models.map((m) => m.construction))], sizes = [...new Set(models.map((m) => m.N))];
  const coldness = html("output"), noisiness = html("output");
  const cold = slider({ min: 0, max: models[0].stops.length - 1, value: state.stop }, (t) => { state.stop = +t.value; });
  const settings = html("div", { class: "settings" },
    html("label", {}, "Construction ", choice(constructions, state.construction, (t) => {
      state.construction = t.value;
      state.block = 0;
    })),
    html("label", {}, "Responses ", choice(sizes, state.N, (t) => { state.N = +t.value; begin(); })),
    html("label", {}, "Inverse temperature ", cold, coldness),
    html("label", {}, html("input", { type: "checkbox", change: chosen((t) => { state.range = t.checked ? 12 : 2; }) }), " Zoom out"));
  const rewards = html("div"), go = (block) => { state.block = Math.max(0, Math.min(block, model().blocks.length)); };
  const back = button("Back", () => go(state.block - 1)), next = button("Next block", () => go(state.block + 1));
  const last = button("Last block", () => go(Infinity)), reset = button("Reset", () => begin());
  const steps = html("div", { class: "steps" }, back, next, last, reset);
  const side = html("fieldset", {}, html("legend", {}, "Rewards"), rewards,
    html("label", {}, html("span", {}, "Noise"),
      slider({ min: 0, max: 0.5, step: 0.05, value: 0 }, (t) => { state.noise = +t.value; }), noisiness),
    button("Draw the noise again", () => { state.seed += 1; }));

  // The plane
  const line = (kind) => svg("line", { class: kind, x1: 0, y1: 0, x2: 0, y2: 0 });
  const truth = line("truth"), ghost = line("ghost"), goal = svg("rect", { class: "ghost", width: 12, height: 12 });
  const trail = svg("polyline", { class: "trail" }), stops = svg("g", { class: "trail" }), handles = svg("g");
  const guess = svg("g", { class: "guess" }, svg("circle", { r: 7 }), svg("text", { x: 11, y: 5 }, "ŷ"));
  const edge = ["start", "end"].map((side, i) => svg("text", { class: "axis", x: 4 + 392 * i, y: 194, "text-anchor": side }));
  const plane = svg("svg", { viewBox: "0 0 400 400", role: "group", "aria-label": "Plane of the responses" },
    svg("path", { class: "axis", d: "M0 200H400M200 0V400" }), ...edge, truth, ghost, goal, handles, trail, stops, guess);
  const inside = (v) => Math.max(-0.94 * state.range, Math.min(0.94 * state.range, v));
  const place = (i, y) => { state.responses[i] = y.map((v) => Math.round(inside(v) * 100) / 100); };
  const drag = (i) => (event) => {
    if (!state.dragging) return;
    const box = plane.getBoundingClientRect(), scale = (2 * state.range) / box.width;
    place(i, [(event.clientX - box.left) * scale - state.range, state.range - (event.clientY - box.top) * scale]);
    update();
  };
  const drop = () => { state.dragging = false; update(); };
  const key = (i) => (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!way) return;
    event.preventDefault();
    const size = state.range / 40 * (event.shiftKey ? 5 : 1);
    place(i, state.responses[i].map((v, at) => v + size * way[at]));
    update();
  };
  const handle = (i) => svg("g", {
    class: "response", tabindex: 0, role: "button", keydown: key(i), pointermove: drag(i), pointerup: drop, pointercancel: drop,
    pointerdown: (event) => {
      event.currentTarget.setPointerCapture(event.pointerId);
      state.dragging = true;
    },
  }, svg("circle", { class: "reach", r: 24 }), svg("circle", { r: 13 }),
  svg("path", { class: "cross", d: "M-16 -16L16 16M-16 16L16 -16" }), svg("text", { y: 5, "text-anchor": "middle" }, i + 1));

  // Attention: a table for each head that writes something; one row where all tokens look alike.
  const cell = (weight) => html("td", { style: `--weight: ${Math.round(75 * weight)}%` },
    weight === 0 ? "" : weight < 0.005 ? "·" : weight > 0.995 ? "1" : fixed(weight).slice(1));
  const table = (name, weights) => {
    const alike = weights.every((row) => row.every((w, j) => Math.abs(w - weights[0][j]) < 1e-12));
    const rows = alike ? [["every token", weights[0]]] : weights.map((row, i) => [`token ${i + 1}`, row]);
    return html("table", {}, html("caption", {}, name),
      html("thead", {}, html("tr", {}, html("th", { scope: "col" }, "looks at"),
        ...weights[0].map((_, j) => html("th", { scope: "col" }, j + 1)))),
      html("tbody", {}, ...rows.map(([who, row]) => html("tr", {}, html("th", { scope: "row" }, who), ...row.map(cell)))));
  };
  const heads = html("div", { class: "heads", tabindex: 0, role: "group", "aria-label": "Attention of each head in this block" });

  // What breaks an assumption of the weights, in words.
  const broken = (m, given) => {
    const order = ranking(given), gaps = order.slice(1).map((j, i) => given[order[i]] - given[j]), found = [];
    const [least, most] = [Math.min(...gaps), Math.max(...gaps)], spread = given[order[0]] - given[order.at(-1)];
    if (least === 0) found.push("Two rewards are tied: the loss is not defined, so there is no GD step to compare with.");
    else if (m.radius && least < m.gap - 1e-9) {
      found.push(`Two rewards are ${short(least)} apart; the weights are written for ${m.gap} or more.`);
    }
    if (!m.radius && (least < m.gap - 1e-9 || most > m.gap + 1e-9)) {
      found.push(`Neighbouring rewards are ${fixed(least)} to ${fixed(most)} apart; the elimination is set for ${m.gap}.`);
    }
    if (m.radius && (spread > 1 + 1e-9 || m.low !== null && (given[order.at(-1)] < m.low || given[order[0]] > m.low + 1))) {
      found.push(m.low === null ? "Rewards spread over more than 1." : "A reward lies outside of 0 to 1.");
    }
    state.responses.forEach((y, i) => {
      const far = norm(minus(y, prediction(m)));
      if (m.radius && far > m.radius) found.push(`Response ${i + 1} is ${fixed(far, 1)} from the prediction; the radius is ${m.radius}.`);
    });
    return found.length ? `Outside of the assumptions: ${found.join(" ")}` : "Within the assumptions of these weights.";
  };

  const told = html("p", { class: "told", "aria-live": "polite" }), limits = html("p", { class: "limits", "aria-live": "polite" });
  const tell = (m, now, end, far, gone) => {
    const all = m.blocks.length, names = m.blocks[state.block - 1]?.heads.filter(Boolean) ?? [];
    const words = [state.block ? `After block ${state.block} of ${all}${names.length ? "" : " (FFN only)"}.` : `Before block 1 of ${all}.`];
    if (m.gone) {
      const push = (by) => (m.construction === "paper" ? ` (pushed by ${short(by)})` : "");
      const out = gone.map((by, i) => (by > m.gone.above ? `${i + 1}${push(by)}` : ""));
      const cleared = m.gone.place === "mark" && state.block === all;
      words.push(cleared ? "Mask bits cleared." : `Eliminated: ${out.filter(Boolean).join(", ") || "none"}.`);
    }
    words.push(`ŷ = ${point(now)}${end ? `, GD's ŷ = ${point(end)}` : ""}.`);
    const share = end && norm(minus(now, end)) / norm(minus(end, prediction(m)));
    if (end) words.push(`${state.block === all ? "Error" : "Distance to GD"}: ${short(share)} of GD's step.`);
    if (far) words.push(`Noise of the critic: GD on the true rewards ends ${short(norm(minus(end ?? now, far)))} away (dotted).`);
    told.textContent = words.join(" ");
  };

  const update = () => {
    const m = model(), from = prediction(m), noise = normals(state.seed, m.N), all = m.blocks.length;
    const given = state.rewards.map((r, i) => r + state.noise * noise[i]);
    const { streams, attention } = run(m, state.stop, tokens(m, state.responses, given)), h = streams[state.block];
    const path = streams.slice(0, state.block + 1).map((stream) => moved(m, streams[0], stream)), now = path.at(-1);
    const end = descent(m, state.responses, given), far = state.noise ? descent(m, state.responses, state.rewards) : null;
    const gone = pushed(m, streams[0], h), ranks = ranking(given);
    for (const [mark, to] of [[ghost, end], [truth, far]]) {
      const [[x1, y1], [x2, y2]] = [across(from), across(to ?? from)];
      set(mark, { x1, y1, x2, y2 });
    }
    const [x, y] = across(end ?? from);
    set(goal, { x: x - 6, y: y - 6, visibility: end ? "visible" : "hidden" });
    trail.setAttribute("points", path.map(across).join(" "));
    stops.replaceChildren(...path.slice(0, -1).map(across).map(([cx, cy]) => svg("circle", { cx, cy, r: 3.5 })));
    guess.style.transform = `translate(${across(now).map((v) => `${v}px`).join(", ")})`;
    edge.forEach((text, i) => { text.textContent = `${i ? "" : "−"}${state.range}`; });
    plane.classList.toggle("still", state.dragging);
    [...handles.children].forEach((node, i) => {
      const out = gone?.[i] > m.gone?.above, rank = ranks.indexOf(i) + 1;
      node.classList.toggle("gone", Boolean(out));
      set(node, { transform: `translate(${across(state.responses[i])})`, "aria-label":
        `Response ${i + 1} at ${point(state.responses[i])}, rank ${rank} of ${m.N}${out ? ", eliminated" : ""}. Arrow keys move it.` });
      rewards.children[i].lastChild.textContent = `${fixed(given[i])}, rank ${rank}`;
    });
    const looked = (attention[state.block - 1] ?? []).map((weights, k) => [m.blocks[state.block - 1].heads[k], weights]);
    const about = state.block ? `Attention in block ${state.block}, before its FFN` : "Attention: step through the blocks to see it";
    heads.replaceChildren(html("p", {}, about), ...looked.filter(([name]) => name).map(([name, weights]) => table(name, weights)));
    cold.disabled = m.construction === "constant depth";
    coldness.textContent = cold.disabled ? "has none" : `${m.stops[state.stop]}`;
    cold.setAttribute("aria-valuetext", coldness.textContent);
    noisiness.textContent = fixed(state.noise);
    set(back, { "aria-disabled": state.block === 0 });
    set(next, { "aria-disabled": state.block === all });
    for (const words of [told, limits]) words.setAttribute("aria-busy", state.dragging);
    tell(m, now, end, far, gone);
    limits.textContent = broken(m, given);
  };

  const begin = () => {
    const { example } = model();
    Object.assign(state, { block: 0, responses: example.responses.map((y) => [...y]), rewards: [...example.rewards] });
    handles.replaceChildren(...state.rewards.map((_, i) => handle(i)));
    rewards.replaceChildren(...state.rewards.map((r, i) => html("label", {}, html("span", {}, `Response ${i + 1}`),
      slider({ min: 0, max: 1, step: 0.05, value: r }, (t) => { state.rewards[i] = +t.value; }), html("output"))));
  };

  begin();
  update();
  const app = html("div", { class: "explorable-app", role: "group", "aria-label": "The constructed transformer" },
    settings, html("div", { class: "panes" }, plane, html("div", { class: "words" }, told, limits), side, steps, heads));
  figure.querySelector("div").replaceWith(app);
  figure.classList.add("live");
})();
