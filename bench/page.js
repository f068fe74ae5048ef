// The page reads whole without this: it adds sorting, filtering and a button that stops the animations.
"use strict";

const make = (tag, given = {}, ...inside) => {
  const element = Object.assign(document.createElement(tag), given);
  element.append(...inside);
  return element;
};

// Empty keys come last whichever way; numbers by size, words by alphabet.
const order = (a, b, up) => {
  if (a === "" || b === "") return (a === "") - (b === "");
  const by = isNaN(a) || isNaN(b) ? a.localeCompare(b, "en", { numeric: true }) : a - b;
  return up ? by : -by;
};

const sortable = (table) => {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    const key = (row) => row.cells[column].dataset.key ?? row.cells[column].textContent.trim();
    const button = make("button", { type: "button", title: "sort by this column" }, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      body.append(...[...body.rows].sort((a, b) => order(key(a), key(b), up)));
    });
  });
};

const filterable = (table) => {
  const rows = [...table.tBodies[0].rows];
  const wanted = new Set();
  const box = make("input", { type: "search", placeholder: "filter rows" });
  box.setAttribute("aria-label", "filter rows by any word in them");
  const told = make("output");
  const show = () => {
    const words = box.value.toLowerCase().split(/\s+/);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = (wanted.size && !wanted.has(row.className)) || !words.every((word) => text.includes(word));
    }
    const left = rows.filter((row) => !row.hidden).length;
    told.textContent = left < rows.length ? `${left} of ${rows.length} rows` : "";
  };
  box.addEventListener("input", show);
  const bar = make("div", { className: "filter" }, box);
  for (const mark of new Set(rows.map((row) => row.className))) {
    const button = make("button", { type: "button", className: mark }, mark);
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      if (!wanted.delete(mark)) wanted.add(mark);
      button.setAttribute("aria-pressed", String(wanted.has(mark)));
      show();
    });
    bar.append(button);
  }
  bar.append(told);
  table.parentNode.before(bar);
};

const stoppable = (pictures) => {
  if (!pictures.length || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  const moving = new Map(pictures.map((picture) => [picture.querySelector("img"), picture.querySelector("img").src]));
  const button = make("button", { type: "button", className: "stop" }, "stop the animations");
  let running = true;
  button.addEventListener("click", () => {
    running = !running;
    for (const [image, source] of moving)
      image.src = running ? source : image.parentNode.querySelector("source").srcset;
    button.textContent = running ? "stop the animations" : "start the animations";
  });
  pictures[0].closest(".tiles").before(button);
};

document.documentElement.classList.add("script");
document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll("table.filterable").forEach(filterable);
stoppable([...document.querySelectorAll("picture.moving")]);
const folds = [...document.querySelectorAll("details")];
addEventListener("beforeprint", () => folds.forEach((fold) => (fold.open = true)));
