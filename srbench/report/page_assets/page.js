// The table and the details of a number. Words from records only ever become text nodes.
"use strict";
const srbench = {
  /** An element with properties and children; strings become text. */
  make(tag, properties = {}, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  },
  /** Details of elements that have no place in the table: element → () → [[term, words], …]. */
  facts: new WeakMap(),
};

(() => {
  const index = window.srbenchIndex;

  // Sorting: numbers by value with gaps last, in both directions; names as text.
  const key = (row, column) => {
    const cell = row.cells[column];
    if (column === 0) return cell.textContent;
    return cell.dataset.sort === "" ? null : Number(cell.dataset.sort);
  };
  const compare = (a, b) => typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
  const sortable = (table) => {
    const body = table.tBodies[0], heads = table.tHead.rows[0].cells; // scale rows have a body of their own
    for (const head of heads) {
      head.firstElementChild.addEventListener("click", () => {
        const column = head.cellIndex;
        const first = column === 0 || head.textContent.includes("↓") ? "ascending" : "descending";
        const other = first === "ascending" ? "descending" : "ascending";
        const order = head.getAttribute("aria-sort") === first ? other : first;
        for (const each of heads) each.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const rows = [...body.rows].map((row) => [key(row, column), row]);
        rows.sort(([a], [b]) => (a === null) - (b === null) || (a === null ? 0 : sign * compare(a, b)));
        body.append(...rows.map(([, row]) => row));
      });
    }
  };
  for (const table of document.querySelectorAll("table")) sortable(table);

  // Details: hover and focus show, a click or tap keeps, Esc or a click elsewhere closes.
  const box = document.getElementById("details");
  let owner = null, kept = false, soon = 0;
  const factsOf = (element) => {
    if (element.dataset.place) {
      const [table, row, column] = element.dataset.place.split(",");
      return index.details[table][row][column];
    }
    const facts = srbench.facts.get(element);
    return facts ? facts() : null;
  };
  const hide = () => {
    if (owner) owner.removeAttribute("aria-describedby");
    owner = null; kept = false; box.hidden = true;
  };
  const show = (element) => {
    if (owner === element) return;
    const facts = factsOf(element);
    hide();
    if (!facts) return;
    const list = srbench.make("dl");
    for (const [term, words] of facts) {
      list.append(srbench.make("div", {}, srbench.make("dt", {}, term), srbench.make("dd", {}, words)));
    }
    const more = srbench.make("a", { href: "#protocol" }, "all of the protocol");
    box.replaceChildren(list, srbench.make("p", {}, more));
    box.hidden = false;
    owner = element;
    element.setAttribute("aria-describedby", "details");
    const at = element.getBoundingClientRect(), width = box.offsetWidth, height = box.offsetHeight;
    const left = Math.max(8, Math.min(at.left, document.documentElement.clientWidth - width - 8));
    const below = at.bottom + height + 8 < innerHeight || at.top < height + 8;
    box.style.left = `${left + scrollX}px`;
    box.style.top = `${(below ? at.bottom + 4 : at.top - height - 4) + scrollY}px`;
  };
  const numberAt = (event) => event.target instanceof Element ? event.target.closest("button.number") : null;
  document.addEventListener("pointerover", (event) => {
    if (event.pointerType !== "mouse" || kept) return;
    const number = numberAt(event);
    clearTimeout(soon); // a pointer on its way across the table opens nothing
    if (number) soon = setTimeout(() => { if (!kept) show(number); }, 150); else if (!box.contains(event.target) && owner !== document.activeElement) hide();
  });
  document.addEventListener("focusin", (event) => {
    const number = numberAt(event);
    if (number) { if (owner !== number) show(number); } else if (!box.contains(event.target)) hide();
  });
  document.addEventListener("click", (event) => {
    const number = numberAt(event);
    if (number) {
      if (owner === number && kept) { hide(); } else { show(number); kept = true; }
    } else if (!box.contains(event.target) || event.target.closest("a")) hide();
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
})();
