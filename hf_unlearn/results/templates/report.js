// Replaces the drawings of the page by charts that answer to the pointer. Without scripts the drawings stay, and on paper.
(() => {
  "use strict";
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const coarse = matchMedia("(pointer: coarse)").matches;
  const config = { displayModeBar: false, responsive: true, doubleClick: "reset" };

  // "var(--after)" in a chart is the page's own colour of that name.
  const resolved = (value, style) => {
    if (typeof value === "string") {
      const name = /^var\((--[a-z]+)\)$/.exec(value);
      return name ? style.getPropertyValue(name[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map((item) => resolved(item, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolved(item, style)]));
  };

  const axis = (own, style) => ({
    automargin: true,
    gridcolor: style.getPropertyValue("--grid"),
    linecolor: style.getPropertyValue("--muted"),
    tickcolor: style.getPropertyValue("--muted"),
    zerolinecolor: style.getPropertyValue("--muted"),
    showline: true,
    zeroline: false,
    ticks: "outside",
    ticklen: 3,
    nticks: 7,
    ...own,
    title: { font: { size: 12 }, standoff: 8, ...own.title },
  });

  const layoutOf = (chart, style, height) => {
    const ink = style.getPropertyValue("--ink").trim();
    const layout = resolved(chart.layout, style);
    return {
      ...layout,
      height,
      autosize: true,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: style.getPropertyValue("--sans"), size: 12, color: style.getPropertyValue("--muted").trim() },
      title: undefined,
      margin: { l: 8, r: 12, t: 8, b: 8 },
      showlegend: false,
      hoverlabel: { bgcolor: style.getPropertyValue("--paper").trim(), font: { color: ink }, align: "left",
        bordercolor: style.getPropertyValue("--muted").trim() },
      dragmode: coarse ? false : "zoom",
      xaxis: axis(layout.xaxis || {}, style),
      yaxis: axis(layout.yaxis || {}, style),
    };
  };

  // Title and legend stand above the chart as text, which wraps where a panel is narrow.
  const paths = {
    circle: "M16 3a4 4 0 1 0 .01 0z", square: "M12 3h8v8h-8z", "triangle-up": "M16 2.5l4.6 8h-9.2z",
    "triangle-down": "M16 11.5l4.6-8h-9.2z", cross: "M14.3 3h3.4v2.6h2.6v3.4h-2.6v2.6h-3.4v-2.6h-2.6v-3.4h2.6z",
    "diamond-open": "M16 1.5l5.5 5.5-5.5 5.5-5.5-5.5z",
  };
  const dashes = { dash: "6 4", dot: "1.5 2.5", dashdot: "6 3 1.5 3" };
  const shape = (tag, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };
  const swatch = ({ color, dash, symbol, band }) => {
    const svg = shape("svg", { viewBox: "0 0 32 14", class: "swatch" });
    if (band) svg.append(shape("rect", { x: 2, y: 2, width: 28, height: 10, fill: color, opacity: 0.25 }));
    else if (symbol) {
      const open = symbol.endsWith("-open");
      svg.append(shape("path", { d: paths[symbol], fill: open ? "none" : color, stroke: color, "stroke-width": open ? 2 : 0 }));
    } else {
      svg.append(shape("path", { d: "M2 7h28", stroke: color, "stroke-width": 2, "stroke-dasharray": dashes[dash] || "" }));
    }
    return svg;
  };
  const headOf = (chart) => {
    const head = document.createElement("div");
    head.className = "chart-head";
    const entry = (name, look) => {
      const item = document.createElement("span");
      item.append(swatch(look), name);
      head.append(item);
    };
    if (chart.title) {
      const title = document.createElement("strong");
      title.textContent = chart.title;
      head.append(title);
    }
    for (const { name, look } of chart.legend) entry(name, look);
    return head;
  };

  const draw = (drawing) => {
    const style = getComputedStyle(document.documentElement);
    const chart = charts[drawing.dataset.chart];
    const still = drawing.querySelector("svg");
    let live = drawing.querySelector(".live");
    if (!live) {
      live = document.createElement("div");
      live.className = "live";
      live.setAttribute("role", "img");
      live.setAttribute("aria-label", still.getAttribute("aria-label"));
      live.dataset.height = Math.max(200, Math.round(still.getBoundingClientRect().height));
      live.append(headOf(chart), document.createElement("div"));
      drawing.append(live);
      drawing.classList.add("replaced");
    }
    const plot = live.lastChild, height = Number(live.dataset.height) - live.firstChild.offsetHeight;
    const data = resolved(chart.data, style).map((trace) => ({ type: "scatter", ...trace }));
    return Plotly.react(plot, data, layoutOf(chart, style, Math.max(150, height)), config);
  };

  // Drawn when they come near the window, as those of folded parts have no width before.
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      seen.unobserve(entry.target);
      draw(entry.target).catch(() => entry.target.classList.remove("replaced"));
    }
  }, { rootMargin: "600px" });
  document.querySelectorAll("[data-chart]").forEach((drawing) => seen.observe(drawing));
  dark.addEventListener("change", () => document.querySelectorAll(".replaced").forEach(draw));
})();
