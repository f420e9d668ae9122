"use strict";
(() => {
  const coarse = matchMedia("(pointer: coarse)").matches;
  const narrow = matchMedia("(max-width: 40rem)").matches;
  const config = { responsive: true, displayModeBar: false };

  const shows = (trace, state) => Object.entries(trace.meta ?? {}).every(([key, value]) => (state[key] ?? false) === value);
  const words = (text) => text.replaceAll("<br>", ", ").replaceAll(/<\/?b>/g, "");

  // What a point tells: what its label would show, or else its trace's name and place.
  function tell(trace, at) {
    if (!trace.hovertemplate) return words(`${trace.name ?? ""}: ${trace.x[at]}, ${trace.y[at]}`);
    const fill = (whole, field, digits) => {
      const value = trace[field]?.[at] ?? "";
      return digits && typeof value === "number" ? value.toFixed(Number(digits)) : value;
    };
    return words(trace.hovertemplate.replace(/<extra>.*/, "").replaceAll(/%\{(\w+)(?::\.(\d)f)?\}/g, fill));
  }

  // Arrow keys go from point to point of what is drawn, so that the chart can be read without a pointer.
  function walkByKeys(drawing, told) {
    let at = -1;
    const points = () =>
      drawing.data.flatMap((trace, curveNumber) =>
        trace.visible === false || trace.visible === "legendonly" || trace.hoverinfo === "skip"
          ? []
          : trace.x.map((_, pointNumber) => ({ curveNumber, pointNumber })).filter(({ pointNumber: n }) => trace.x[n] !== null)
      );
    drawing.addEventListener("keydown", (event) => {
      const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
      const step = steps[event.key];
      const all = points();
      if (event.key === "Escape") return Plotly.Fx.unhover(drawing);
      if (!step || !all.length) return;
      event.preventDefault();
      at = at < 0 && step < 0 ? all.length - 1 : (at + step + all.length) % all.length;
      const point = all[at];
      Plotly.Fx.hover(drawing, [point]);
      told.textContent = tell(drawing.data[point.curveNumber], point.pointNumber);
    });
  }

  for (const group of document.querySelectorAll("[data-group]")) {
    const state = {};
    const plots = [...group.querySelectorAll(".plot")].map((drawing) => {
      const plot = JSON.parse(document.getElementById(drawing.dataset.plot).textContent);
      // A finger that drags means to scroll the page, not to zoom.
      if (coarse) plot.layout.dragmode = false;
      if (narrow && group.dataset.legend === "wide") plot.layout.showlegend = false;
      Plotly.newPlot(drawing, plot.data, plot.layout, config);
      walkByKeys(drawing, drawing.nextElementSibling);
      const paper = drawing.classList.contains("square") ? { width: 340, height: 400 } : { width: 640, height: plot.height ?? 380 };
      addEventListener("beforeprint", () => Plotly.relayout(drawing, paper));
      addEventListener("afterprint", () => Plotly.relayout(drawing, { width: null, height: null, autosize: true }));
      return { drawing, plot };
    });

    // A layer that has nothing on this axis cannot be ticked.
    const boxes = [...group.querySelectorAll("input[data-show]")];
    const enable = () => {
      for (const box of boxes) {
        const wanted = { ...state, [box.dataset.show]: true };
        box.disabled = !plots.some(({ plot }) => plot.data.some((t) => t.meta?.[box.dataset.show] && shows(t, wanted)));
      }
    };
    const redraw = (key, value) => {
      state[key] = value;
      enable();
      for (const { drawing, plot } of plots) {
        const layout = plot.axes?.[value]?.layout;
        const visible = plot.data.map((trace) => shows(trace, state));
        Plotly.update(drawing, { visible }, layout ? { ...layout, "xaxis.autorange": true } : {});
      }
    };
    const buttons = group.querySelectorAll("button[data-set]");
    for (const button of buttons) {
      if (button.getAttribute("aria-pressed") === "true") state[button.dataset.set] = button.dataset.value;
      button.addEventListener("click", () => {
        for (const one of buttons) one.setAttribute("aria-pressed", String(one === button));
        redraw(button.dataset.set, button.dataset.value);
      });
    }
    for (const select of group.querySelectorAll("select[data-set]")) {
      state[select.dataset.set] = select.value;
      select.addEventListener("change", () => redraw(select.dataset.set, select.value));
    }
    for (const box of boxes) {
      box.checked = false; // browsers remember what was ticked when a page is opened again
      box.addEventListener("change", () => redraw(box.dataset.show, box.checked));
    }
    enable();
  }

  // Only what scrolls is a stop for the Tab key, and a region of its own.
  const frames = [...document.querySelectorAll(".scroll")];
  const fit = () => {
    for (const frame of frames) {
      const scrolls = frame.scrollWidth > frame.clientWidth + 1;
      frame.toggleAttribute("tabindex", scrolls);
      frame.toggleAttribute("role", scrolls);
      if (scrolls) frame.tabIndex = 0;
      if (scrolls) frame.setAttribute("role", "region");
    }
  };
  const watch = new ResizeObserver(fit);
  for (const frame of frames) watch.observe(frame);
  fit();

  // Paper cannot be unfolded.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open], [data-paper=no])")];
    for (const one of folded) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of folded) one.open = false;
  });
})();
