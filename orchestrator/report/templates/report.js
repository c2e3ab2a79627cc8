// Tooltips at once instead of after the browser's pause. The page says everything without this.
(() => {
  const tip = document.getElementById("tip");
  document.querySelectorAll("[data-tip] > title").forEach((title) => title.remove());
  document.addEventListener("pointermove", (event) => {
    const over = event.target.closest("[data-tip]");
    tip.hidden = !over;
    if (!over) return;
    tip.textContent = over.dataset.tip;
    const x = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    const y = event.clientY + 18 + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 10 : event.clientY + 18;
    tip.style.transform = `translate(${Math.max(8, x)}px, ${y}px)`;
  });
})();
