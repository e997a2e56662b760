"use strict";
(() => {
  const form = document.getElementById("filters");
  if (!form) return;
  const rows = [...document.querySelectorAll("#rows > li")];
  const field = (id) => document.getElementById(id);
  const [search, owner, split, family, kind, count] =
    ["search", "owner", "split", "family", "kind", "count"].map(field);
  const plain = (text) => text.normalize("NFKC").toLowerCase();
  let texts = null; // made at the first search, for it reads every row
  const kinds = {
    told: (row) => "t" in row.dataset,
    silent: (row) => !("t" in row.dataset),
    blames: (row) => "b" in row.dataset,
  };

  function show() {
    const words = plain(search.value).split(/\s+/u).filter(Boolean);
    if (words.length && !texts)
      texts = rows.map((row) =>
        plain([...row.querySelectorAll(".x, .who bdi")].map((part) => part.textContent).join("\n")));
    let hits = 0;
    rows.forEach((row, at) => {
      const data = row.dataset;
      const fits =
        (!owner.value || data.o === owner.value) &&
        (!split.value || data.s === split.value) &&
        (!family || !family.value || data.f === family.value) &&
        (!kind.value || kinds[kind.value](row)) &&
        words.every((word) => texts[at].includes(word));
      row.hidden = !fits;
      hits += fits;
    });
    const all = rows.length.toLocaleString("en");
    count.textContent = hits === rows.length ? `${all} rows` : `${hits.toLocaleString("en")} of ${all} rows`;
  }

  let waiting;
  const later = (wait) => {
    clearTimeout(waiting);
    waiting = setTimeout(show, wait);
  };
  form.addEventListener("input", (event) => later(event.target === search ? 150 : 0));
  form.addEventListener("reset", () => later(0)); // after the fields are empty
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  show(); // a browser may have kept what was chosen before the page was loaded again
})();
