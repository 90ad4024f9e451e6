// A recorded figure to slide through (companion_slider.py): takes the place of the drawing before this script, with the figure's own data,
// which is JSON in an attribute of this script. Nothing is fetched. Without scripts, or if this fails, the drawing stays.
(() => {
  const { columns, names, rows, curves } = JSON.parse(document.currentScript.dataset.given);
  const figure = document.getElementById(document.currentScript.dataset.figure);
  const [BY, ALONG, X, Y, OF, LO, HI] = [0, 1, 2, 3, 4, 5, 6], moves = columns[ALONG] === columns[X]; // the slider goes along the curves
  const WIDTH = window.matchMedia("(max-width: 600px)").matches ? 360 : 560, HEIGHT = 320, LEFT = 52, RIGHT = 12, TOP = 10, BOTTOM = 44;

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
  const unique = (values) => [...new Set(values)];
  const short = (value) => (value === null ? "–" : String(+value.toPrecision(3)).replace("-", "−"));

  const groups = unique(rows.map((row) => row[BY]));
  const state = { by: groups[0], at: null };
  const inGroup = () => rows.filter((row) => row[BY] === state.by && row[Y] !== null);
  const stops = () => unique(inGroup().map((row) => row[ALONG])).sort((a, b) => a - b);

  const chart = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  const table = html("table"), output = html("output");
  const input = html("input", { type: "range", min: 0, step: 1, input: () => { state.at = stops()[+input.value]; update(); } });
  const choice = html("select", { change: () => { state.by = choice.value; begin(); } },
    ...groups.map((name) => html("option", { value: name }, name)));

  // Axes: x is linear, y logarithmic, and both the same wherever the slider stands.
  const scales = () => {
    const all = inGroup(), xs = all.map((row) => row[X]), ys = all.flatMap((row) => [row[Y], row[LO], row[HI]]).filter((v) => v > 0);
    const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.log(Math.min(...ys)), Math.log(Math.max(...ys))];
    return {
      x: (v) => LEFT + (WIDTH - LEFT - RIGHT) * (v - x0) / (x1 - x0 || 1),
      y: (v) => TOP + (HEIGHT - TOP - BOTTOM) * (y1 - Math.log(Math.max(v, Math.exp(y0)))) / (y1 - y0 || 1),
      xs: unique(xs).sort((a, b) => a - b), ends: [Math.exp(y0), Math.exp(y1)],
    };
  };
  const axes = ({ x, y, xs, ends }) => {
    const step = Math.ceil(xs.length * 80 / WIDTH), found = svg("g", { class: "axes" });
    for (const v of xs.filter((_, i) => i % step === 0)) {
      found.append(svg("text", { x: x(v), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle" }, short(v)));
    }
    for (let power = Math.floor(Math.log10(ends[0])); power <= Math.log10(ends[1]); power += 1) {
      for (const v of [1, 2, 5].map((m) => m * 10 ** power).filter((m) => m >= ends[0] && m <= ends[1])) {
        found.append(svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(v), y2: y(v) }),
          svg("text", { x: LEFT - 6, y: y(v) + 5, "text-anchor": "end" }, short(v)));
      }
    }
    found.append(svg("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, names[columns[X]]));
    return found;
  };

  const curve = (name, at, { x, y }, ghost) => {
    const own = inGroup().filter((row) => row[OF] === name && (moves || row[ALONG] === at)).sort((a, b) => a[X] - b[X]);
    const line = own.map((row) => `${x(row[X])},${y(row[Y])}`).join(" "), { light, dark, dashes } = curves[name];
    const look = { style: `--light: ${light}; --dark: ${dark}`, class: ghost ? "curve ghost" : "curve" };
    const banded = own.filter((row) => row[LO] !== null && row[HI] !== null);
    const edge = (end, list) => list.map((row) => `${x(row[X])},${y(row[end])}`);
    const band = [...edge(HI, banded), ...edge(LO, [...banded].reverse())].join(" ");
    return svg("g", look, ...(ghost ? [] : [svg("polygon", { points: band })]), svg("polyline", { points: line, "stroke-dasharray": dashes }),
      ...(ghost || !moves ? [] : own.filter((row) => row[X] === at).map((row) => svg("circle", { cx: x(row[X]), cy: y(row[Y]), r: 5 }))));
  };

  const update = () => {
    const at = state.at, all = inGroup(), scale = scales(), first = stops()[0];
    const there = unique(all.map((row) => row[OF])), x = moves ? at : Math.max(...all.map((row) => row[X]));
    chart.replaceChildren(axes(scale),
      ...(moves ? [svg("line", { class: "at", x1: scale.x(at), x2: scale.x(at), y1: TOP, y2: HEIGHT - BOTTOM })] : []),
      ...(moves || at === first ? [] : there.map((name) => curve(name, first, scale, true))),
      ...there.map((name) => curve(name, at, scale, false)));
    chart.setAttribute("aria-label", `${names[columns[Y]]} against ${names[columns[X]]}, logarithmic; values in the table`);
    const row = (name) => all.find((one) => one[OF] === name && one[X] === x && (moves || one[ALONG] === at));
    const { length } = there, found = there.map((name) => [name, row(name)]);
    table.replaceChildren(html("caption", {}, `${names[columns[Y]]}, ${names[columns[X]]} = ${short(x)}`),
      html("tbody", {}, ...found.map(([name, one]) => html("tr", {},
        html("th", { scope: "row" }, svg("svg", { viewBox: "0 0 34 10", "aria-hidden": "true", class: "key" },
          svg("g", { class: "curve", style: `--light: ${curves[name].light}; --dark: ${curves[name].dark}` },
            svg("polyline", { points: "1,5 33,5", "stroke-dasharray": curves[name].dashes }))), ` ${name}`),
        html("td", {}, one ? short(one[Y]) : "–"),
        html("td", {}, one && one[LO] !== null ? `${short(one[LO])} to ${short(one[HI])}` : "")))));
    output.textContent = short(at);
    input.setAttribute("aria-valuetext", `${short(at)}; ${length} curves`);
  };

  const begin = () => {
    const found = stops(), before = found.indexOf(state.at);
    state.at = found[before >= 0 ? before : 0];
    input.max = found.length - 1;
    input.value = found.indexOf(state.at);
    update();
  };

  begin();
  figure.querySelector("div").replaceWith(html("div", { class: "slider-app", role: "group", "aria-label": "The figure, to slide through" },
    html("div", { class: "settings" },
      ...(groups.length > 1 ? [html("label", {}, `${names[columns[BY]] ?? columns[BY]} `, choice)] : []),
      html("label", {}, `${names[columns[ALONG]]} `, input, output)),
    chart, html("div", { "aria-live": "polite" }, table)));
  figure.classList.add("live");
})();
