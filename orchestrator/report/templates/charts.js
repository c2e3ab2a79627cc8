// Charts that show their values when pointed at, drawn by uPlot (above) from the numbers in #data.
// Without script the page has the curves as pictures, each search in words, and every number in its tables.
(() => {
  const root = document.documentElement;
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");
  const waiting = new Map(); // element -> draws it, once it is near the window
  const drawn = new Map(); // element -> its uPlot
  const PRINTED = 322; // CSS pixels: half of an A4 page between margins

  const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  const number = (value) => (value === 0 ? "0" : Math.abs(value) < 0.01 || Math.abs(value) >= 1e5
    ? value.toExponential(2).replace(/\.?0+e/, "e") : String(+value.toPrecision(4)));
  const font = (size, weight = 400) => `${weight} ${size}px system-ui, "Segoe UI", Roboto, Arial, sans-serif`;

  function axis(extra) {
    return {
      stroke: () => colour("soft"), font: font(11), gap: 4, size: 26,
      grid: { stroke: () => colour("line"), width: 1 }, ticks: { show: false }, ...extra,
    };
  }

  const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 100000];
  const named = (label) => ({ label, labelSize: 14, labelGap: 0, labelFont: font(11), size: 22 });

  // Round numbers within a range, of powers of ten 1, 2 and 5 times each.
  function powers(low, high) {
    const found = [];
    for (let k = Math.floor(low); k <= Math.ceil(high); k++)
      for (const m of [1, 2, 5]) found.push(k + Math.log10(m));
    const inside = found.filter((at) => at >= low - 1e-9 && at <= high + 1e-9);
    return inside.length > 7 ? inside.filter((at) => Math.abs(at - Math.round(at)) < 1e-9) : inside;
  }

  function padded(low, high, part = 0.06) {
    const room = (high - low) * part || Math.abs(high) * 0.05 || 1;
    return [low - room, high + room];
  }

  // Draws a chart once its place is near the window, and again when its width changes.
  function place(element, height, draw) {
    element.style.minHeight = `${height}px`;
    waiting.set(element, (width) => {
      const chart = draw(Math.max(120, width ?? element.clientWidth), height);
      drawn.set(element, chart);
      waiting.delete(element);
      sizes.observe(element);
    });
    near.observe(element);
  }
  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting || !target.clientWidth) continue;
      near.unobserve(target);
      waiting.get(target)?.();
    }
  }, { rootMargin: "400px" });
  const sizes = new ResizeObserver((entries) => {
    if ("print" in root.dataset) return;
    for (const { target, contentRect } of entries) {
      const chart = drawn.get(target);
      if (contentRect.width && Math.abs(contentRect.width - chart.width) > 1)
        chart.setSize({ width: Math.floor(contentRect.width), height: chart.height });
    }
  });

  // Shows what `find` says about the place of the pointer: {text, x, y} in CSS pixels of the plot, or nothing.
  function pointed(chart, find) {
    const ring = chart.over.appendChild(document.createElement("div"));
    ring.className = "ring";
    ring.hidden = true;
    const show = (event) => {
      const box = chart.over.getBoundingClientRect();
      const found = find(event.clientX - box.left, event.clientY - box.top);
      ring.hidden = tip.hidden = !found;
      if (!found) return;
      ring.style.transform = `translate(${found.x}px, ${found.y}px)`;
      window.showTip(found.text, event.clientX, event.clientY);
    };
    chart.over.addEventListener("pointermove", show);
    chart.over.addEventListener("pointerdown", show);
    chart.over.addEventListener("pointerleave", () => {
      ring.hidden = tip.hidden = true;
      find(-1e6, -1e6);
    });
    return chart;
  }

  const LOOKS = {
    other: { stroke: "faded", width: 1 },
    "chosen seed": { stroke: "chosen", width: 1, alpha: 0.45 },
    "final seed": { stroke: "final", width: 1, alpha: 0.45 },
    chosen: { stroke: "chosen", width: 2 },
    final: { stroke: "final", width: 2, dash: [6, 3] },
  };

  // Curves over epochs. Series: {role, name, x, y}; null in y breaks a line, an epoch without a value does not.
  function curves(element, { series, ends, digits, epochs }) {
    const lines = series.filter((line) => line.x.length);
    const table = uPlot.join(lines.map((line) => [line.x, line.y]));
    const known = (line) => line.y.filter((value) => value !== null);
    const main = lines.filter((line) => line.role !== "other").flatMap(known).concat(ends.map((end) => end.value));
    const rest = lines.filter((line) => line.role === "other").flatMap(known).sort((a, b) => a - b);
    // Others that run away (a diverged loss) do not flatten the rest: of them, the middle nine tenths are in view.
    const inner = rest.length ? [rest[Math.floor(rest.length * 0.05)], rest[Math.ceil(rest.length * 0.95) - 1]] : [];
    const all = main.concat(inner);
    let over = null;
    place(element, 168, (width, height) => {
      const chart = new uPlot({
        width, height, padding: [8, 10, 0, 0], legend: { show: false }, cursor: { show: false },
        scales: {
          x: { time: false, range: () => (epochs[0] < epochs[1] ? epochs : [epochs[0] - 1, epochs[1] + 1]) },
          y: { range: () => padded(Math.min(...all), Math.max(...all)) },
        },
        axes: [
          axis({ incrs: WHOLE, space: 36, ...named("epoch") }),
          axis({ size: 44, space: 28, values: (_, at) => at.map(number) }),
        ],
        series: [{}, ...lines.map((line, i) => {
          const look = LOOKS[line.role];
          return {
            stroke: () => colour(over === i ? "ink" : look.stroke), width: look.width, dash: look.dash, alpha: look.alpha,
            points: { show: line.x.length === 1 || (look.width > 1 && line.x.length < 13), size: 5,
              fill: () => colour("card") },
          };
        })],
        hooks: { draw: [(u) => ends.forEach((end) => diamond(u, end.x, end.value))] },
      }, table, element);
      return pointed(chart, (left, top) => {
        const at = chart.posToVal(left, "x");
        let best = null;
        lines.forEach((line, i) => {
          const k = nearest(line, at);
          if (k === null) return;
          const y = chart.valToPos(line.y[k], "y"), x = chart.valToPos(line.x[k], "x");
          const far = Math.hypot(x - left, y - top);
          if (!best || far < best.far) best = { far, i, x, y, epoch: line.x[k], value: line.y[k], line };
        });
        const now = best && best.far < 40 ? best : null;
        if ((now?.i ?? null) !== over) {
          over = now && now.line.role === "other" ? now.i : null;
          chart.redraw(false);
        }
        if (!now) return null;
        const told = [`epoch ${now.epoch}`];
        for (const line of lines.filter((each) => each.role === "chosen" || each.role === "final")) {
          const k = line.x.indexOf(now.epoch);
          if (k >= 0 && line.y[k] !== null) told.push(`${line.name}: ${line.y[k].toFixed(digits)}`);
        }
        if (now.line.role !== "chosen" && now.line.role !== "final")
          told.push(`${now.line.name}: ${now.value.toFixed(digits)}`);
        if (ends.length) told.push(atEnd(ends, digits));
        return { x: now.x, y: now.y, text: told.join("\n") };
      });
    });
  }

  // The figures of the trials of the table: ◆ final, figure on test: 91.2; of several seeds from .. to ..
  function atEnd(ends, digits) {
    const values = ends.map((end) => end.value);
    const [low, high] = [Math.min(...values), Math.max(...values)].map((value) => value.toFixed(digits));
    if (ends.length === 1) return `${ends[0].name}: ${low}`;
    return `${ends[0].name.replace(/, seed [^,]*$/, "")}: ${low} to ${high} (${ends.length} seeds)`;
  }

  function nearest(line, at) {
    let found = null;
    for (let k = 0; k < line.x.length; k++)
      if (line.y[k] !== null && (found === null || Math.abs(line.x[k] - at) < Math.abs(line.x[found] - at))) found = k;
    return found;
  }

  function diamond(u, x, y) {
    const left = u.valToPos(x, "x", true), top = u.valToPos(y, "y", true), r = 5 * devicePixelRatio;
    u.ctx.save();
    u.ctx.translate(left, top);
    u.ctx.rotate(Math.PI / 4);
    u.ctx.fillStyle = colour("final");
    u.ctx.strokeStyle = colour("card");
    u.ctx.fillRect(-r * 0.7, -r * 0.7, 1.4 * r, 1.4 * r);
    u.ctx.strokeRect(-r * 0.7, -r * 0.7, 1.4 * r, 1.4 * r);
    u.ctx.restore();
  }

  // Dots of settings: filled those that ran in full, hollow those that were stopped, the best in the final's colour.
  function dots(element, search, xs, x) {
    const order = xs.map((_, i) => i).filter((i) => xs[i] !== null && search.settings[i].value !== null);
    order.sort((a, b) => xs[a] - xs[b] || a - b);
    const kind = (setting) => (setting.best ? "best" : setting.full ? "full" : "stopped");
    const of = (wanted) => order.map((i) => (kind(search.settings[i]) === wanted ? search.settings[i].value : null));
    const values = order.map((i) => search.settings[i].value);
    const dot = (name, hollow) => ({
      paths: () => null, stroke: () => colour(name),
      points: { show: true, size: name === "final" ? 10 : 7, width: 1.5, stroke: () => colour(name),
        fill: () => colour(hollow ? "card" : name) },
    });
    const table = [order.map((i) => xs[i]), of("stopped"), of("full"), of("best")];
    const lines = [dot("soft", true), dot("chosen"), dot("final")];
    if (x.best) {
      table.splice(1, 0, order.map((i) => search.settings[i].so_far));
      lines.unshift({ stroke: () => colour("chosen"), width: 2, paths: uPlot.paths.stepped({ align: 1 }), points: { show: false } });
    }
    place(element, 190, (width, height) => {
      const chart = new uPlot({
        width, height, padding: [8, 12, 0, 0], legend: { show: false }, cursor: { show: false },
        scales: { x: { time: false, range: () => x.range }, y: { range: () => padded(Math.min(...values), Math.max(...values)) } },
        axes: [axis({ space: 34, ...x.axis }), axis({ size: 44, space: 28, values: (_, at) => at.map(number) })],
        series: [{}, ...lines],
      }, table, element);
      return pointed(chart, (left, top) => {
        let best = null;
        for (const i of order) {
          const at = { x: chart.valToPos(xs[i], "x"), y: chart.valToPos(search.settings[i].value, "y"), i };
          const far = Math.hypot(at.x - left, at.y - top);
          if (far < 24 && (!best || far < best.far)) best = { ...at, far };
        }
        return best && { ...best, text: search.settings[best.i].text };
      });
    });
  }

  function fieldAxis(field, xs) {
    if (field.form === "choice") {
      const last = field.choices.length - 1;
      const splits = field.choices.map((_, i) => i);
      return { range: [-0.5, last + 0.5], axis: { splits: () => splits, values: () => field.choices.map(cut) } };
    }
    const known = xs.filter((x) => x !== null);
    const range = padded(Math.min(...known), Math.max(...known));
    if (field.form === "log")
      return { range, axis: { splits: () => powers(...range), values: (_, at) => at.map((k) => number(Math.pow(10, k))) } };
    return { range, axis: { values: (_, at) => at.map(number) } };
  }
  const cut = (text) => (text.length > 12 ? `${text.slice(0, 11)}…` : text);
  const along = (field, value) => (value === null ? null : field.form === "log" ? Math.log10(value) : value);

  // Parallel coordinates: a line for each setting over one axis for each field, the value at the right.
  function parallel(element, search) {
    const fields = [...search.fields, { title: search.title, form: "linear", digits: search.digits }];
    const shown = search.settings.filter((setting) => setting.value !== null);
    const raw = shown.map((s) => [...s.at, s.value].map((value, k) => along(fields[k], value)));
    const ends = fields.map((field, k) => {
      if (field.form === "choice") return [0, Math.max(1, field.choices.length - 1)];
      const known = raw.map((line) => line[k]).filter((value) => value !== null);
      const low = Math.min(...known), high = Math.max(...known);
      return high > low ? [low, high] : [low - 0.5, high + 0.5];
    });
    const rank = (s) => (s.best ? 3 : s.full ? (s.leading ? 2 : 1) : 0);
    const order = shown.map((_, i) => i).sort((a, b) => rank(shown[a]) - rank(shown[b]) || a - b);
    const part = (value, k) => (value === null ? null : (value - ends[k][0]) / (ends[k][1] - ends[k][0]));
    const lines = order.map((i) => raw[i].map(part));
    const looks = [
      { stroke: "soft", width: 1, alpha: 0.5, dash: [3, 3] }, { stroke: "chosen", width: 1, alpha: 0.45 },
      { stroke: "chosen", width: 2 }, { stroke: "final", width: 3 },
    ];
    let over = null;
    place(element, 250, (width, height) => {
      const chart = new uPlot({
        width, height, padding: [40, 46, 24, 46], legend: { show: false }, cursor: { show: false },
        scales: { x: { time: false, range: () => [0, fields.length - 1] }, y: { range: () => [0, 1] } },
        axes: [{ show: false }, { show: false }],
        series: [{}, ...order.map((i, n) => {
          const look = looks[rank(shown[i])];
          return {
            stroke: () => colour(over === n ? "ink" : look.stroke), width: look.width, alpha: look.alpha, dash: look.dash,
            points: { show: false },
          };
        })],
        hooks: { draw: [(u) => fields.forEach((field, k) => upright(u, field, k, ends[k], fields.length))] },
      }, [fields.map((_, k) => k), ...lines], element);
      return pointed(chart, (left, top) => {
        const at = chart.posToVal(left, "x");
        const k = Math.max(0, Math.min(fields.length - 2, Math.floor(at)));
        let best = null;
        lines.forEach((line, n) => {
          if (line[k] === null || line[k + 1] === null) return;
          const y = chart.valToPos(line[k] + (line[k + 1] - line[k]) * (at - k), "y");
          if (!best || Math.abs(y - top) <= Math.abs(best.y - top)) best = { n, y };
        });
        const now = best && Math.abs(best.y - top) < 24 ? best : null;
        if ((now?.n ?? null) !== over) {
          over = now?.n ?? null;
          chart.redraw(false);
        }
        return now && { x: left, y: now.y, text: shown[order[now.n]].text };
      });
    });
  }

  function upright(u, field, k, [low, high], count) {
    const ctx = u.ctx, ratio = devicePixelRatio, x = u.valToPos(k, "x", true), { top, height } = u.bbox;
    const wide = u.bbox.width / Math.max(1, count - 1);
    ctx.save();
    ctx.strokeStyle = colour("soft");
    ctx.lineWidth = ratio;
    ctx.beginPath();
    ctx.moveTo(x, top);
    ctx.lineTo(x, top + height);
    ctx.stroke();
    ctx.textAlign = "center";
    ctx.fillStyle = colour("ink");
    ctx.font = font(11 * ratio, 600);
    const room = Math.max(wide, 84 * ratio) - 6 * ratio;
    const raised = wide < 80 * ratio && k % 2 ? 12 * ratio : 0; // narrow: every other title stands higher
    ctx.textAlign = k === 0 ? "left" : k === count - 1 ? "right" : "center";
    const edge = (k === 0 ? -40 : k === count - 1 ? 40 : 0) * ratio;
    ctx.fillText(field.title, x + edge, top - 20 * ratio - raised, raised || wide >= 80 * ratio ? room : 1.6 * wide);
    ctx.textAlign = "center";
    ctx.fillStyle = colour("soft");
    ctx.font = font(11 * ratio);
    if (field.form === "choice") {
      ctx.textAlign = "right";
      field.choices.forEach((choice, i) => {
        const y = u.valToPos((i - low) / (high - low), "y", true);
        if (field.choices.length <= 8 || i % Math.ceil(field.choices.length / 8) === 0)
          ctx.fillText(cut(choice), x - 4 * ratio, y + (i === 0 ? -4 : 12) * ratio);
      });
    } else {
      const told = (value) => (field.digits !== undefined ? value.toFixed(field.digits)
        : number(field.form === "log" ? Math.pow(10, value) : value));
      ctx.fillText(told(high), x, top - 5 * ratio);
      ctx.fillText(told(low), x, top + height + 15 * ratio);
    }
    ctx.restore();
  }

  for (const [id, panels] of Object.entries(data.curves))
    for (const panel of panels) curves(document.getElementById(`${id}-${panel.id}`), panel);
  for (const [id, search] of Object.entries(data.searches)) {
    const at = (name) => document.getElementById(`${id}-${name}`);
    const numbers = search.settings.map((setting) => setting.number);
    dots(at("so-far"), search, numbers, { best: true, range: padded(1, Math.max(...numbers), 0.03),
      axis: { incrs: WHOLE } });
    search.fields.forEach((field, k) => {
      const xs = search.settings.map((setting) => along(field, setting.at[k]));
      if (xs.some((x) => x !== null)) dots(at(`field-${k}`), search, xs, fieldAxis(field, xs));
    });
    parallel(at("parallel"), search);
  }

  const again = () => drawn.forEach((chart) => chart.redraw());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  addEventListener("beforeprint", () => {
    root.dataset.print = ""; // light colours, whatever the screen has
    document.querySelectorAll("details").forEach((details) => {
      if (!details.open) details.dataset.shut = "";
      details.open = true;
    });
    const printed = (element) => (element.classList.contains("wide") ? 2 * PRINTED : PRINTED);
    drawn.forEach((chart, element) => {
      chart.setSize({ width: printed(element), height: chart.height });
      chart.redraw();
    });
    for (const [element, draw] of [...waiting]) draw(printed(element));
  });
  addEventListener("afterprint", () => {
    delete root.dataset.print;
    document.querySelectorAll("details[data-shut]").forEach((details) => {
      details.open = false;
      delete details.dataset.shut;
    });
    drawn.forEach((chart, element) => {
      if (element.clientWidth) chart.setSize({ width: element.clientWidth, height: chart.height });
      chart.redraw();
    });
  });
})();
