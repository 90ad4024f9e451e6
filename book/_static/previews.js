// Shows what a link leads to at the link: a term's definition, an equation, a theorem, a reference. Under the mouse, with keyboard focus,
// or at the first tap (the second follows the link). Escape closes it. It stands hidden in the page, as the description of the link.
(() => {
  let box, shown, leaving, tapped;

  const close = () => {
    clearTimeout(leaving);
    if (box) box.hidden = true;
    shown = null;
  };
  const closeSoon = () => { leaving = setTimeout(close, 150); }; // time to move the mouse from the word into the box

  const place = (link) => {
    const gap = 6, word = link.getClientRects()[0], width = document.documentElement.clientWidth;
    box.style.left = `${Math.max(gap, Math.min(word.left, width - box.offsetWidth - gap))}px`;
    const above = word.top - box.offsetHeight - gap;
    const below = word.bottom + gap;
    box.style.top = `${below + box.offsetHeight > window.innerHeight && above > 0 ? above : below}px`;
  };

  const open = (link) => {
    clearTimeout(leaving);
    if (shown === link) return;
    const text = document.getElementById(link.getAttribute("aria-describedby"));
    if (!text) return;
    if (!box) {
      box = document.createElement("div");
      box.className = "preview-box mathjax_ignore";
      box.setAttribute("role", "tooltip");
      box.addEventListener("mouseenter", () => clearTimeout(leaving));
      box.addEventListener("mouseleave", closeSoon);
      document.body.append(box);
    }
    box.replaceChildren(...text.cloneNode(true).childNodes);
    box.hidden = false;
    shown = link;
    place(link);
  };

  document.addEventListener("DOMContentLoaded", () => {
    for (const link of document.querySelectorAll("a:is(.term, .seen)[aria-describedby]")) {
      link.addEventListener("mouseenter", () => open(link));
      link.addEventListener("mouseleave", closeSoon);
      link.addEventListener("focus", () => open(link));
      link.addEventListener("blur", close);
      link.addEventListener("pointerdown", (event) => { tapped = event.pointerType === "touch" && shown !== link; });
      link.addEventListener("click", (event) => {
        if (tapped) event.preventDefault();
        tapped = false;
      });
    }
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
    document.addEventListener("pointerdown", (event) => { if (shown && !shown.contains(event.target) && !box.contains(event.target)) close(); });
    window.addEventListener("scroll", close, { passive: true }); // of the page: the box may scroll by itself
    window.addEventListener("resize", close);
  });
})();
