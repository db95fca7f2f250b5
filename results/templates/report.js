"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const draw = () => {
    const css = getComputedStyle(document.documentElement);
    const text = css.getPropertyValue("--text").trim();
    const line = css.getPropertyValue("--line").trim();
    for (const place of document.querySelectorAll("[data-figure]")) {
      const figure = figures[Number(place.dataset.figure)];
      const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, fixedrange: true };
      const layout = {
        ...figure.layout,
        font: { color: text, size: 12 },
        xaxis: { ...axis, ...figure.layout.xaxis },
        yaxis: { ...axis, ...figure.layout.yaxis },
      };
      Plotly.react(place, figure.data, layout, { displayModeBar: false, responsive: true });
    }
  };
  draw();
  dark.addEventListener("change", draw);
})();
