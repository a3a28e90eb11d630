"use strict";
// Contents: open beside wide pages, folded above narrow ones; the current section is marked.
(() => {
  const toc = document.querySelector(".toc details");
  if (!toc) return;
  const wide = matchMedia("(min-width: 75rem)");
  const fold = () => { toc.open = wide.matches; };
  wide.addEventListener("change", fold);
  fold();
  const links = [...toc.querySelectorAll("a")];
  const heads = links.map((link) => document.getElementById(link.getAttribute("href").slice(1)));
  const mark = () => {
    const bottom = scrollY > 0 && innerHeight + scrollY >= document.documentElement.scrollHeight - 4;
    const past = heads.filter((head) => head.getBoundingClientRect().top < innerHeight * 0.3).length;
    const here = bottom ? links.length - 1 : Math.max(0, past - 1);
    links.forEach((link, i) => link.classList.toggle("here", i === here));
  };
  addEventListener("scroll", mark, { passive: true });
  addEventListener("resize", mark);
  mark();
})();

// Images: a click enlarges; arrow keys and swipes step through all images of the page.
(() => {
  const images = [...document.querySelectorAll(".zoom img")];
  if (!images.length) return;
  const dialog = document.createElement("dialog");
  const big = document.createElement("img");
  const title = document.createElement("p");
  const help = document.createElement("small");
  dialog.append(big, title);
  document.body.append(dialog);
  let current = 0;
  const show = (index) => {
    current = (index + images.length) % images.length;
    big.src = images[current].src;
    big.alt = images[current].alt;
    help.textContent = `${current + 1} of ${images.length} · ← → to step, Esc to close`;
    title.replaceChildren(images[current].alt, help);
  };
  images.forEach((image, index) => image.parentElement.addEventListener("click", () => {
    show(index);
    dialog.showModal();
  }));
  let from = null;
  dialog.addEventListener("pointerdown", (event) => { from = event.clientX; });
  dialog.addEventListener("click", (event) => {
    const moved = from === null ? 0 : event.clientX - from;
    if (Math.abs(moved) > 40) show(current - Math.sign(moved));
    else dialog.close();
  });
  dialog.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) { event.preventDefault(); show(current + step); }
  });
  big.draggable = false;
  dialog.style.touchAction = "none";
})();

// Charts: the values of all lines at the nearest x.
for (const chart of document.querySelectorAll(".chart")) {
  const data = JSON.parse(chart.querySelector("script").textContent);
  const area = chart.querySelector(".area");
  const lines = data.series.filter((line) => line.x.length);
  if (!lines.length) continue;
  const place = ([low, high, log], value) =>
    log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
  const cursor = document.createElement("div");
  const tip = document.createElement("div");
  cursor.className = "cursor";
  tip.className = "tip";
  const spots = lines.map((line) => {
    const spot = document.createElement("div");
    spot.className = `spot s${(data.series.indexOf(line) % 8) + 1}`;
    return spot;
  });
  const parts = [cursor, ...spots, tip];
  const number = (value) => value.toLocaleString("en", { maximumSignificantDigits: 5 });
  const row = (line, index, spot) => {
    const item = document.createElement("div");
    const name = document.createElement("span");
    const value = document.createElement("b");
    item.className = spot.className.replace("spot ", "");
    name.textContent = line.name;
    value.textContent = number(line.y[index]);
    item.append(name, value);
    return item;
  };
  area.addEventListener("pointermove", (event) => {
    const box = area.getBoundingClientRect();
    const at = (event.clientX - box.left) / box.width;
    const nearest = lines.map((line) => line.x.reduce((best, x, i) =>
      Math.abs(place(data.x, x) - at) < Math.abs(place(data.x, line.x[best]) - at) ? i : best, 0));
    const gaps = nearest.map((index, k) => Math.abs(place(data.x, lines[k].x[index]) - at));
    const closest = gaps.indexOf(Math.min(...gaps));
    const x = lines[closest].x[nearest[closest]];
    const left = place(data.x, x);
    cursor.style.left = `${100 * left}%`;
    // A line without a point near this x has no value here.
    const here = lines.map((line, k) => Math.abs(place(data.x, line.x[nearest[k]]) - left) < 0.02);
    spots.forEach((spot, k) => {
      spot.hidden = !here[k];
      spot.style.left = `${100 * place(data.x, lines[k].x[nearest[k]])}%`;
      spot.style.top = `${100 - 100 * place(data.y, lines[k].y[nearest[k]])}%`;
    });
    const head = document.createElement("span");
    head.textContent = `${data.label} ${number(x)}`;
    tip.replaceChildren(head, ...lines.map((line, k) => row(line, nearest[k], spots[k])).filter((_, k) => here[k]));
    tip.style.left = left < 0.5 ? `calc(${100 * left}% + 14px)` : "";
    tip.style.right = left < 0.5 ? "" : `calc(${100 - 100 * left}% + 14px)`;
    area.append(...parts);
  });
  area.addEventListener("pointerleave", () => parts.forEach((part) => part.remove()));
}
