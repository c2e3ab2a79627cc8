// Values at once when pointed at, and tables that sort and filter. The page says everything without this.
(() => {
  document.documentElement.classList.add("live");
  const tip = document.getElementById("tip");
  window.showTip = (text, x, y) => {
    tip.textContent = text;
    tip.hidden = false;
    const left = Math.min(x + 14, innerWidth - tip.offsetWidth - 8);
    const top = y + 18 + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 10 : y + 18;
    tip.style.transform = `translate(${Math.max(8, left)}px, ${Math.max(8, top)}px)`;
  };
  document.querySelectorAll("[data-tip] > title").forEach((title) => title.remove());
  document.addEventListener("pointermove", (event) => {
    if (event.target.closest(".uplot")) return;
    const over = event.target.closest("[data-tip]");
    if (over) window.showTip(over.dataset.tip, event.clientX, event.clientY);
    else tip.hidden = true;
  });

  // A link to a trial opens the list that it is in.
  const open = () => {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let each = target && target.closest("details"); each; each = each.parentElement.closest("details")) each.open = true;
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", open);
  open();

  // Rows of a trial: its own, and below it that of its error.
  const blocks = (body) => {
    const found = [];
    for (const row of body.rows) row.classList.contains("error") ? found.at(-1).push(row) : found.push([row]);
    return found;
  };
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
  };
  document.querySelectorAll("table.trials").forEach((table) => {
    const body = table.tBodies[0];
    const original = blocks(body);
    const names = [...table.tHead.rows[0].cells].map((head) => head.textContent);
    for (const [row] of original) names.forEach((name, column) => { row.cells[column].dataset.label = name; }); // for phones
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const next = { none: "ascending", ascending: "descending", descending: "none" }[head.ariaSort ?? "none"];
        [...table.tHead.rows[0].cells].forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", next);
        const value = ([row]) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
        const sign = next === "descending" ? -1 : 1;
        const sorted = next === "none" ? original : [...original].sort((a, b) => {
          const [x, y] = [value(a), value(b)];
          return x === "" || y === "" ? compare(x, y) : sign * compare(x, y); // those without a value stay last
        });
        body.append(...sorted.flat());
      });
    });
    const bar = document.createElement("p");
    bar.className = "filter";
    const words = Object.assign(document.createElement("input"), { type: "search", placeholder: "filter: digits 0.95 done" });
    words.setAttribute("aria-label", "Show only the trials whose line has all of these words");
    const count = document.createElement("span");
    count.setAttribute("role", "status");
    bar.append(words, " ", count);
    table.closest(".scroll").before(bar);
    words.addEventListener("input", () => {
      const asked = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const rows of original) {
        const text = rows.map((row) => row.textContent).join(" ").toLowerCase();
        const wanted = asked.every((word) => text.includes(word));
        rows.forEach((row) => { row.hidden = !wanted; });
        shown += wanted;
      }
      count.textContent = asked.length ? `${shown} of ${original.length}` : "";
    });
  });
})();
