// Single items of the stored models (companion_items.py): search, filters, and one dialogue whole. Every text is set as text, none as HTML.
// Data are script files beside the pages, so nothing is fetched and the page works from disk. Without scripts, or if this fails, the three
// dialogues of the page stay.
(() => {
  const folder = document.currentScript.dataset.folder, here = document.currentScript, PAGE = 25;
  const html = (tag, given = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(given)) {
      if (typeof value === "function") node.addEventListener(name, value);
      else if (value !== null && value !== false) node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child !== null));
    return node;
  };
  const load = (name) => new Promise((done, fail) => {
    if (window.companionItems?.[name]) return done(window.companionItems[name]);
    const src = `${folder}${name}.js`, script = html("script", { src, load: () => done(window.companionItems[name]), error: fail });
    document.head.append(script);
  });
  const plain = (name) => name.replaceAll("_", " ");
  const signed = (value) => value.toFixed(2).replace("-", "−");
  const shares = (scores) => {
    const top = Math.max(...scores), weights = scores.map((score) => Math.exp(score - top));
    return weights.map((weight) => weight / weights.reduce((a, b) => a + b));
  };

  const begin = ({ models, outcomes, leads, blocks, items }) => {
    const state = { model: "0", data: null, item: null, many: PAGE };
    const select = (label, options, change = filter) => {
      const choice = html("select", { change: () => change() }, ...options.map(([value, name]) => html("option", { value }, name)));
      return { choice, label: html("label", {}, html("span", {}, label), choice) };
    };
    const all = (names) => [["", "all"], ...names.map((name) => [name, plain(name)])];
    const model = select("Model", models.map((name, k) => [k, name]), () => open(model.choice.value));
    const category = select("Category", all([...new Set(items.map((item) => item.category))]));
    const condition = select("Condition", all([...new Set(items.map((item) => item.condition))]));
    const outcome = select("Correction", outcomes.map((name, k) => [k, name]));
    const first = select("First answer", [["", "all"], ["1", "right"], ["0", "wrong"]]);
    const second = select("Second answer", [["", "all"], ["same", "the same"], ["changed", "changed"], ["01", "wrong to right"], ["10", "right to wrong"], ["00", "wrong to other wrong"]]);
    const block = select("Stored", [["", "all"], ...blocks.map(({ name, title }) => [name, title])]);
    const words = html("input", { type: "search", input: () => filter(), autocomplete: "off", spellcheck: "false" });
    const count = html("p", { role: "status" }), list = html("ol", {}), shown = html("section", { class: "dialogue", "aria-label": "Dialogue" });
    const more = html("button", { type: "button", click: () => { state.many += PAGE; draw(); } }, "Show more");
    const move = (by) => { const next = found[found.indexOf(state.item) + by]; if (next) { choose(next); shown.querySelector("h2").focus(); } };
    const [previous, next] = [["Previous", -1], ["Next", 1]].map(([name, by]) => html("button", { type: "button", click: () => move(by) }, name));

    // Which items: a word of the search may stand anywhere in the texts or in what the model wrote.
    const pair = (item) => state.data.records[item.id]?.outcomes[+outcome.choice.value] ?? null;
    const fits = (item) => {
      const record = state.data.records[item.id], answers = record && pair(item);
      if (!record || !answers || (category.choice.value && item.category !== category.choice.value)) return false;
      if ((condition.choice.value && item.condition !== condition.choice.value) || (block.choice.value && !record.steps[block.choice.value])) return false;
      const [a, b] = answers.map((answer) => (answer === item.gold ? "1" : "0")), wanted = second.choice.value;
      if (first.choice.value && a !== first.choice.value) return false;
      if (wanted === "same" || wanted === "changed") { if ((answers[0] === answers[1]) !== (wanted === "same")) return false; }
      else if (wanted && wanted !== a + b) return false;
      if (wanted === "00" && answers[0] === answers[1]) return false;
      const text = [item.id, item.context, item.question, ...item.options, ...Object.values(record.said)].join(" ").toLowerCase();
      return words.value.toLowerCase().split(/\s+/).every((word) => text.includes(word));
    };
    let found = [];
    function filter() {
      found = items.filter(fits);
      state.many = PAGE;
      draw();
    }
    const mark = (item, answer) => (answer < 0 ? "no option" : answer === item.gold ? "right" : "wrong");
    function draw() {
      const asked = items.filter((item) => state.data.records[item.id] && pair(item)).length;
      count.textContent = `${found.length} of ${asked} items of ${models[+state.model]} that were asked with this correction`;
      list.replaceChildren(...found.slice(0, state.many).map((item) => html("li", {}, html("button",
        { type: "button", click: () => choose(item) },
        html("span", { class: "facts" }, `${plain(item.category)}, ${item.condition}: ${pair(item).map((answer) => mark(item, answer)).join(" → ")}`),
        html("span", {}, `${item.context} ${item.question}`)))));
      more.hidden = found.length <= state.many;
      current();
    }
    function current() {
      const at = found.indexOf(state.item);
      for (const [k, row] of [...list.children].entries()) row.firstChild.setAttribute("aria-current", k === at ? "true" : "false");
      [previous.disabled, next.disabled] = [!found[at - 1], !found[at + 1]];
    }

    // One dialogue.
    const fill = (text, item) => {
      const { said } = state.data.records[item.id];
      return text.replace(/\{([\w ]+)\}/g, (whole, name) => {
        if (/^[012]$/.test(name)) return item.options[+name];
        if (name === "context" || name === "question") return item[name];
        return whole in leads ? "[six demonstrations]\n\n" : said[name] ?? whole;
      });
    };
    const tags = (item, k) => [[item.gold === k, "right"], [item.unknown === k, "unknown"], [item.biased === k, "follows the stereotype"]]
      .filter(([is]) => is).map(([, name]) => html("span", { class: "tag" }, name));
    const table = (item, kind, read, chosen) => {
      const rows = Array.isArray(read[0]) ? read : [read], { counts } = state.data.records[item.id], options = kind === "options" || kind === "scores";
      const each = rows.map((row) => shares(kind === "options" ? row.map((sum, k) => sum / counts[k]) : row));
      const names = options ? item.options : kind.split("/"), order = rows.length > 1 ? ", by order" : "";
      const row = (name, k) => {
        const share = each.reduce((sum, one) => sum + one[k], 0) / each.length;
        return html("tr", { class: k === chosen ? "chosen" : null },
          html("th", { scope: "row" }, k === chosen ? "▸ " : "", name, " ", ...(options ? tags(item, k) : []), k === chosen ? html("span", { class: "tag" }, "chosen") : null),
          html("td", {}, html("span", { class: "bar", style: `--share: ${(100 * share).toFixed(1)}%`, "aria-hidden": "true" }), html("span", {}, share.toFixed(2))),
          html("td", { class: "numbers" }, ...rows.flatMap((one, at) => [at ? ", " : "", html("span", {}, signed(one[k]))])));
      };
      const unit = kind === "scores" ? "score" : "nats";
      return html("table", {}, html("thead", {}, html("tr", {}, html("th", { scope: "col" }, options ? "option" : "verdict"),
        html("th", { scope: "col" }, "share"), html("th", { scope: "col" }, `${unit}${order}`))), html("tbody", {}, ...names.map(row)));
    };
    const step = (item, [label, , tail, kind, read, chosen]) => {
      const { texts } = state.data, type = texts[kind], answer = type === "said" && chosen !== null;
      return html("li", {}, html("h3", {}, fill(texts[label], item)),
        html("pre", {}, fill(texts[tail], item).trim() || "(the question alone)"),
        type === "said" ? html("blockquote", {}, fill(texts[read], item)) : table(item, type, read, chosen),
        answer ? html("p", {}, chosen < 0 ? "It names no option." : `It names: ${item.options[chosen]} (${mark(item, chosen)}).`) : null);
    };
    // The question is shown where it differs from that of the step before: other order, other lead, letters.
    const part = (item, { name, title, pages }, opened) => {
      const { steps } = state.data.records[item.id], { texts } = state.data, rows = [];
      let before = null;
      for (const one of steps[name] ?? []) {
        if (one[1] !== before) rows.push(html("li", { class: "stem" }, html("h3", {}, "The prompt begins"), html("pre", {}, fill(texts[one[1]], item))));
        before = one[1];
        rows.push(step(item, one));
      }
      const links = pages.flatMap(([url, words], k) => [k ? ", " : "", html("a", { href: url }, words)]);
      return rows.length ? html("details", { open: opened ? "" : null }, html("summary", {}, `${title} (${steps[name].length} readings)`),
        html("p", {}, "Used on: ", ...links), html("ol", {}, ...rows)) : null;
    };
    function choose(item, told = true) {
      state.item = item;
      const { outcomes: pairs } = state.data.records[item.id];
      const line = (name, k) => html("tr", {}, html("th", { scope: "row" }, name),
        ...(pairs[k] ? pairs[k].map((answer) => html("td", {}, answer < 0 ? "no option" : item.options[answer], " ", html("span", { class: "tag" }, mark(item, answer)))) : [html("td", { colspan: "2" }, "not asked")]));
      shown.replaceChildren(
        html("h2", { tabindex: "-1" }, `${plain(item.category)}, ${item.condition}: ${item.question}`),
        html("p", { class: "steps" }, previous, next, html("span", {}, `Item ${item.id}, ${models[+state.model]}`)),
        html("p", {}, item.context), html("ul", {}, ...item.options.map((name, k) => html("li", {}, name, " ", ...tags(item, k)))),
        html("table", {}, html("thead", {}, html("tr", {}, ...["correction", "first answer", "second answer"].map((name) => html("th", { scope: "col" }, name)))),
          html("tbody", {}, ...outcomes.map(line))),
        ...blocks.map((one, k) => part(item, one, k === 0)).filter(Boolean));
      if (told) history.replaceState(null, "", `#${item.id}-${state.model}`);
      current();
    }

    const open = (name) => load(name).then((data) => {
      Object.assign(state, { model: name, data });
      filter();
      const kept = items.find((item) => item === state.item && data.records[item.id]) ?? found[0];
      if (kept) choose(kept, state.item !== null);
    }).catch(() => { count.textContent = "The dialogues of this model could not be loaded."; });
    const [, id, place] = location.hash.match(/^#([0-9a-f]{16})-(\d+)$/) ?? [];
    state.item = items.find((item) => item.id === id) ?? null;
    if (models[+place]) state.model = model.choice.value = place;
    const given = Object.entries(leads).map(([name, text]) => html("details", {}, html("summary", {}, `Demonstrations: ${name.slice(6, -1)}`), html("pre", {}, text.trim())));
    here.previousElementSibling.replaceWith(html("div", { class: "items-app" },
      html("div", { class: "settings", role: "group", "aria-label": "Which items" }, model.label, html("label", { class: "wide" }, html("span", {}, "Search"), words),
        ...[category, condition, outcome, first, second, block].map(({ label }) => label)),
      count, html("div", { class: "list" }, list, more), shown, html("div", { class: "leads" }, ...given)));
    open(state.model);
  };
  load("items").then(begin);
})();
