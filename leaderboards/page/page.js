"use strict";

// Theme and layout are decided before the first paint; everything else waits for the document.
const root = document.documentElement;
root.classList.add("js");
// A visit that begins at the top need not wait for the layout of what is below; one that begins elsewhere must know its place.
if (!location.hash && performance.getEntriesByType("navigation")[0]?.type === "navigate") {
  root.classList.add("loading");
  addEventListener("load", () => setTimeout(() => root.classList.remove("loading")));
}
const stored = {
  get() { try { return localStorage.getItem("theme"); } catch { return null; } },
  set(theme) { try { localStorage.setItem("theme", theme); } catch { /* a file without storage forgets it */ } },
};
if (["light", "dark"].includes(stored.get())) root.dataset.theme = stored.get();

document.addEventListener("DOMContentLoaded", () => {
  const $ = (id) => document.getElementById(id);
  const make = (tag, text = "", name = "") => Object.assign(document.createElement(tag), { textContent: text, className: name });
  const tables = [...document.querySelectorAll("main table")];
  const status = $("status");

  // ---- Theme -------------------------------------------------------------------------------------------------------
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches);
  const showTheme = () => $("theme").setAttribute("aria-pressed", String(isDark()));
  $("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    stored.set(root.dataset.theme);
    showTheme();
  });
  systemDark.addEventListener("change", showTheme);
  showTheme();
  $("theme").hidden = false;

  // ---- Sorting -----------------------------------------------------------------------------------------------------
  // Sorted rows stand in a body of their own, without the paper's blocks; each of them says its block in small print.
  for (const table of tables) {
    table.setAttribute("role", "grid");
    const blocks = [...table.tBodies].map((body) => ({ body, rows: [...body.rows].slice(1) }));
    const rows = blocks.flatMap((block) => block.rows);
    const flat = document.createElement("tbody");
    const heads = [...table.tHead.rows[0].cells];
    const keyOf = (row, column) => {
      if (column === 0) return row.querySelector(".label").textContent;
      const value = row.cells[column].dataset.v;
      return value === "" ? null : Number(value);
    };
    const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);

    const sort = (column, direction) => {
      heads.forEach((head, i) => (i === column && direction ? head.setAttribute("aria-sort", direction) : head.removeAttribute("aria-sort")));
      table.classList.toggle("sorted", Boolean(direction));
      if (direction) {
        if (!flat.isConnected) {
          for (const { body, rows: own } of blocks)
            for (const row of own) row.cells[0].append(make("small", body.rows[0].textContent.trim(), "of"));
        }
        const sign = direction === "ascending" ? 1 : -1;
        const keyed = rows.map((row) => [keyOf(row, column), row]);
        keyed.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b)));
        flat.append(...keyed.map(([, row]) => row));
        table.append(flat);
      } else {
        flat.remove();
        for (const { body, rows: own } of blocks) body.append(...own);
        table.querySelectorAll("small.of").forEach((note) => note.remove());
      }
      hideEmpty(table);
      const name = heads[column].querySelector("bdi")?.textContent ?? "system";
      status.textContent = direction ? `Sorted by ${name}, ${direction}` : "The paper's order";
    };

    heads.forEach((head, column) => {
      const button = make("button");
      button.type = "button";
      button.tabIndex = -1;
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const next = { ascending: "descending", descending: "" }[head.getAttribute("aria-sort")] ?? "ascending";
        sort(column, next);
      });
    });
  }

  // ---- Filtering ---------------------------------------------------------------------------------------------------
  const lines = tables.flatMap((table) =>
    [...table.querySelectorAll("tr[data-origin]")].map((row) => ({
      row,
      name: `${row.querySelector(".label").textContent} ${row.dataset.system}`.toLowerCase(),
    })),
  );

  function hideEmpty(table) {
    for (const body of table.tBodies) body.hidden = ![...body.rows].some((row) => !row.hidden && !row.classList.contains("block"));
    const none = ![...table.tBodies].some((body) => !body.hidden);
    const scroll = table.parentElement;
    scroll.hidden = none;
    scroll.nextElementSibling.hidden = !none;
    if (table.querySelector("[tabindex='0']")?.closest("[hidden]")) enter(table);
  }

  const filter = () => {
    const words = $("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const size = $("size").value;
    const origins = { measured: $("measured"), published: $("published") };
    let count = 0;
    for (const { row, name } of lines) {
      const fits = origins[row.dataset.origin].checked && (size === "*" || size === `=${row.dataset.size}`) && words.every((word) => name.includes(word));
      row.hidden = !fits;
      count += fits;
    }
    tables.forEach(hideEmpty);
    if (shown?.closest("[hidden]")) release();
    status.textContent = count === lines.length ? `${count} rows` : `${count} of ${lines.length} rows`;
  };
  $("filter").addEventListener("input", filter);
  $("filter").addEventListener("submit", (event) => event.preventDefault());
  $("filter").hidden = false;

  // ---- Details -----------------------------------------------------------------------------------------------------
  const { cells, groups, pairs } = JSON.parse($("details").textContent);
  const panel = $("panel");
  const wide = matchMedia("(min-width: 75rem)");
  let kept = null; // the cell whose details stay open
  let shown = null;
  let timer = 0;

  const factsOf = (cell) => cells[cell.dataset.d].map((group) => groups[group].map((pair) => pairs[pair]));

  const tell = (facts) => {
    const list = make("dl");
    for (const [what, text] of facts) {
      const told = make("dd");
      if (/^[0-9a-f]{24,}$/.test(text)) told.append(make("span", text.slice(0, 12), "short"), make("span", text, "full"));
      else told.textContent = text;
      list.append(make("dt", what), told);
    }
    return list;
  };

  const show = (cell) => {
    clearTimeout(timer);
    if (shown === cell) return;
    shown?.classList.remove("shown");
    shown?.removeAttribute("aria-describedby");
    shown = cell;
    panel.dataset.told = String(Boolean(cell));
    if (!cell) {
      $("panel-title").textContent = "";
      $("panel-body").replaceChildren();
      return;
    }
    const table = cell.closest("table");
    const head = table.tHead.rows[0].cells[cell.cellIndex].querySelector("bdi").textContent;
    const [own, protocol = [], provenance = []] = factsOf(cell);
    $("panel-title").textContent = `${cell.parentElement.querySelector(".label").textContent} · ${head}`;
    $("panel-body").replaceChildren(tell(own));
    for (const [title, facts] of [["Protocol", protocol], ["Provenance", provenance]])
      if (facts.length) $("panel-body").append(make("h4", title), tell(facts));
    panel.scrollTop = 0;
    panel.classList.toggle("top", cell.getBoundingClientRect().top > innerHeight / 2);
    $("brief").textContent = own.map((fact) => fact.join(" ")).join("; ");
    cell.setAttribute("aria-describedby", "brief");
    cell.classList.add("shown");
  };

  const keep = (cell) => {
    kept = null;
    show(cell);
    kept = cell;
    panel.classList.add("kept");
    $("close").hidden = false;
    panel.tabIndex = 0;
    panel.focus({ preventScroll: true });
  };

  const release = () => {
    const cell = kept;
    kept = null;
    panel.classList.remove("kept");
    $("close").hidden = true;
    panel.tabIndex = -1;
    if (cell && !cell.closest("[hidden]")) focusOn(cell);
    show(null);
  };

  // In small windows, where details lie over the page, they go when the pointer leaves their cell for anything but them.
  const leave = () => {
    const focused = document.activeElement.closest("main td");
    if (shown && !kept) show(focused);
  };
  document.addEventListener("pointerover", (event) => {
    clearTimeout(timer);
    if (kept || event.pointerType === "touch" || panel.contains(event.target)) return;
    const cell = event.target.closest("main td");
    if (cell) timer = setTimeout(show, 60, cell);
    else if (!wide.matches) timer = setTimeout(leave, 300);
  });
  $("close").addEventListener("click", release);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || $("enlarged").open || !shown) return;
    event.preventDefault();
    if (kept) release();
    else show(null);
  });
  panel.hidden = false;

  // ---- Keyboard in tables: one stop for Tab, then arrow keys ---------------------------------------------------------
  const reach = (cell) => cell.querySelector("button, a") ?? cell;
  const visibleRows = (table) => [...table.rows].filter((row) => !row.hidden && !row.parentElement.hidden);

  function enter(table) {
    table.querySelector("[tabindex='0']")?.setAttribute("tabindex", "-1");
    reach(table.rows[0].cells[0]).tabIndex = 0;
  }

  const stop = (cell) => {
    const target = reach(cell);
    cell.closest("table").querySelector("[tabindex='0']")?.setAttribute("tabindex", "-1");
    target.tabIndex = 0;
    return target;
  };

  function focusOn(cell) {
    const target = stop(cell);
    target.focus({ preventScroll: true });
    // The first column covers what scrolls below it.
    const scroll = cell.closest(".scroll");
    const label = cell.parentElement.cells[0];
    cell.scrollIntoView({ block: "nearest", inline: "nearest" });
    if (cell !== label) {
      const hidden = label.getBoundingClientRect().right - cell.getBoundingClientRect().left;
      if (hidden > 0) scroll.scrollLeft -= hidden;
    } else scroll.scrollLeft = 0;
  }

  for (const table of tables) {
    let column = 0; // kept while the title of a block, one cell wide, is passed
    for (const link of table.querySelectorAll("tbody a")) link.tabIndex = -1;
    enter(table);

    table.addEventListener("focusin", (event) => {
      const cell = event.target.closest("td, th");
      if (!cell) return;
      stop(cell);
      if (!kept) show(cell.matches("td") ? cell : null);
    });

    table.addEventListener("click", (event) => {
      const cell = event.target.closest("td");
      if (cell) {
        column = cell.cellIndex;
        stop(cell);
        keep(cell);
      }
    });

    table.addEventListener("keydown", (event) => {
      const cell = event.target.closest("td, th");
      if (!cell || event.altKey || event.metaKey || event.shiftKey) return;
      const all = visibleRows(table);
      const last = all.length - 1;
      const here = all.indexOf(cell.parentElement);
      const isTitle = cell.colSpan > 1;
      if (!isTitle) column = cell.cellIndex;
      const width = cell.parentElement.cells.length - 1;
      const page = 10;
      let row = here;
      switch (event.key) {
        case "ArrowDown": row += 1; break;
        case "ArrowUp": row -= 1; break;
        case "ArrowRight": column = Math.min(column + 1, isTitle ? column : width); break;
        case "ArrowLeft": column = Math.max(column - 1, isTitle ? column : 0); break;
        case "PageDown": row = Math.min(last, row + page); break;
        case "PageUp": row = Math.max(0, row - page); break;
        case "Home": column = 0; if (event.ctrlKey) row = 0; break;
        case "End": column = table.rows[0].cells.length - 1; if (event.ctrlKey) row = last; break;
        case "Enter":
        case " ":
          if (!cell.matches("td")) return;
          event.preventDefault();
          keep(cell);
          return;
        default: return;
      }
      if (event.ctrlKey && !["Home", "End"].includes(event.key)) return;
      event.preventDefault();
      if (row < 0 || row > last) return;
      const to = all[row].cells;
      focusOn(to[Math.min(column, to.length - 1)]);
    });
  }

  // A region that needs no scrolling needs no stop for Tab either. Asking for sizes here would lay the whole page out at once.
  const observer = new ResizeObserver((entries) => {
    for (const region of new Set(entries.map(({ target }) => target.closest(".scroll")))) {
      const overflows = region.scrollWidth > region.clientWidth;
      const attributes = { role: "region", tabindex: "0", "aria-labelledby": region.parentElement.querySelector("h3").id };
      for (const [name, value] of Object.entries(attributes))
        if (overflows) region.setAttribute(name, value);
        else region.removeAttribute(name);
    }
  });
  for (const table of tables) [table, table.parentElement].forEach((part) => observer.observe(part));

  // ---- Figures -----------------------------------------------------------------------------------------------------
  const enlarged = $("enlarged");
  for (const image of document.querySelectorAll("figure img")) {
    const button = make("button");
    button.type = "button";
    image.replaceWith(button);
    button.append(image, make("span", ", enlarge", "vh"));
    button.addEventListener("click", () => {
      enlarged.querySelector(".card").replaceChildren(image.cloneNode());
      enlarged.showModal();
    });
  }
  enlarged.addEventListener("click", (event) => event.target === enlarged && enlarged.close());

  addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details")) part.open = true;
    for (const image of document.images) image.loading = "eager";
  });
  filter();
});
