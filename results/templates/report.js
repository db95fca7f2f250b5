"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const places = [...document.querySelectorAll("[data-figure]")];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const drawn = new Set();

  const draw = (place) => {
    const css = getComputedStyle(document.documentElement);
    const text = css.getPropertyValue("--text").trim();
    const line = css.getPropertyValue("--line").trim();
    const figure = figures[Number(place.dataset.figure)];
    const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, fixedrange: true };
    const layout = {
      ...figure.layout,
      font: { color: text, size: 12 },
      xaxis: { ...axis, ...figure.layout.xaxis },
      yaxis: { ...axis, ...figure.layout.yaxis },
    };
    Plotly.react(place, figure.data, layout, { displayModeBar: false, responsive: true });
    drawn.add(place);
  };

  // Many plots are drawn when they come into view, so that a large page opens at once; a printed page has all of them.
  if (places.length <= 24) {
    places.forEach(draw);
  } else {
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting && !drawn.has(entry.target)) draw(entry.target);
      }
    }, { rootMargin: "400px" });
    places.forEach((place) => seen.observe(place));
  }
  dark.addEventListener("change", () => drawn.forEach(draw));
  addEventListener("beforeprint", () => places.forEach((place) => drawn.has(place) || draw(place)));

  // A click on a head sorts by its column, a second one the other way round; places without a number stay last.
  const value = (row, column) => {
    const text = row.children[column].dataset.value;
    return text === undefined || text === "" ? null : Number(text);
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const sort = () => {
        const down = head.getAttribute("aria-sort") !== "descending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows];
        if (column === 0) {
          rows.sort((a, b) => a.cells[0].textContent.localeCompare(b.cells[0].textContent) * (down ? 1 : -1));
        } else {
          rows.sort((a, b) => {
            const one = value(a, column);
            const other = value(b, column);
            if (one === null || other === null) return (one === null) - (other === null);
            return (other - one) * (down ? 1 : -1);
          });
        }
        rows.forEach((row) => body.append(row));
      };
      head.tabIndex = 0;
      head.addEventListener("click", sort);
      head.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") {
          event.preventDefault();
          sort();
        }
      });
    });
  }

  // Every word of the filter has to be in a row, or in a cell's line, for it to be shown.
  const filter = document.getElementById("filter");
  if (filter !== null) {
    filter.addEventListener("input", () => {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const one of document.querySelectorAll("table.sortable tbody tr, details.cell")) {
        const text = (one.dataset.name ?? one.textContent).toLowerCase();
        one.hidden = !words.every((word) => text.includes(word));
      }
    });
  }
})();
