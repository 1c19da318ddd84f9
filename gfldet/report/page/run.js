// The page of a validation: the filter of its errors, by kind, class and score, and the order of its classes.
"use strict";
const form = document.getElementById("filter");
const cards = [...document.querySelectorAll("figure[data-kind]")];
const sections = [...document.querySelectorAll("section.kind")];
const chosen = (name) => document.getElementById(name).value;

function filter() {
  const [kind, ofClass, from, to] = ["kind", "class", "from", "to"].map(chosen);
  let shown = 0;
  for (const card of cards) {
    const score = Number(card.dataset.score);
    const wanted = (kind === "" || card.dataset.kind === kind)
      && (ofClass === "" || card.dataset.classes.split(" ").includes(ofClass))
      && (from === "" || score >= Number(from)) && (to === "" || score <= Number(to));
    card.hidden = !wanted;
    shown += wanted;
  }
  for (const section of sections) {
    section.hidden = !section.querySelector("figure:not([hidden])");
  }
  document.getElementById("shown").textContent = `${shown} of ${cards.length} pictures are shown`;
}

// A kind in the table of errors leads to its pictures: no filter may hide them.
for (const link of document.querySelectorAll("a[href^='#errors-']")) {
  link.addEventListener("click", () => {
    form.reset();
    filter();
  });
}

function sort(table, column, ascending) {
  const value = (row) => {
    const text = row.cells[column].textContent;
    const number = Number(text.replaceAll(",", ""));
    return column === 0 ? text : Number.isNaN(number) ? -Infinity : number;
  };
  const compare = (a, b) => (column === 0 ? a.localeCompare(b) : a < b ? -1 : Number(a > b));
  const rows = [...table.tBodies[0].rows].map((row) => [value(row), row]);
  rows.sort(([a], [b]) => (ascending ? compare(a, b) : compare(b, a)));
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (!head.textContent) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sort(table, column, ascending);
    });
  });
}

form.hidden = false;
form.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
filter();
