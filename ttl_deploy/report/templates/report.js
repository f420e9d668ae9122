"use strict";
(() => {
  const coarse = matchMedia("(pointer: coarse)").matches;
  const narrow = matchMedia("(max-width: 40rem)").matches;
  const config = { responsive: true, displayModeBar: false };

  for (const figure of document.querySelectorAll("figure[data-plot]")) {
    const plot = JSON.parse(document.getElementById(figure.dataset.plot).textContent);
    const drawing = figure.querySelector(".plot");
    // A finger that drags means to scroll the page, not to zoom.
    if (coarse) plot.layout.dragmode = false;
    if (narrow && figure.dataset.legend === "wide") plot.layout.showlegend = false;
    Plotly.newPlot(drawing, plot.data, plot.layout, config);

    const buttons = figure.querySelectorAll("button[data-axis]");
    for (const button of buttons) {
      button.addEventListener("click", () => {
        for (const one of buttons) one.setAttribute("aria-pressed", String(one === button));
        const axis = button.dataset.axis;
        const visible = plot.data.map((trace) => trace.meta === axis);
        Plotly.update(drawing, { visible }, { ...plot.axes[axis].layout, "xaxis.autorange": true });
      });
    }

    addEventListener("beforeprint", () => Plotly.relayout(drawing, { width: 640, height: 380 }));
    addEventListener("afterprint", () => Plotly.relayout(drawing, { width: null, height: null, autosize: true }));
  }
})();
