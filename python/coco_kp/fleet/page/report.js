"use strict";
// Draws the report. Words of others reach the page through `textContent` alone.

const report = JSON.parse(document.getElementById("document").textContent);
const PAGE = 100; // rows drawn at a time: a registry has thousands
const STANDINGS = {
  encrypted: ["✓", "encrypted"],
  doubtful: ["!", "in doubt"],
  "partly readable": ["◐", "partly readable"],
  readable: ["✗", "readable"],
  unknown: ["?", "not known"],
};
const BAD = ["failed", "refused", "moved"];

const byId = (id) => document.getElementById(id);
const number = (value) => value.toLocaleString("en");
const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;
const minutes = (time) => time.slice(0, 16).replace("T", " ");

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; bytes >= 1024 && unit < units.length - 1; unit++) bytes /= 1024;
  return `${unit ? bytes.toFixed(1) : bytes} ${units[unit]}`;
}

function duration(seconds) {
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** Make an element with attributes, properties (class, text) and what is in it. */
function make(name, { text, on, ...attributes } = {}, ...inside) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  if (on) element.addEventListener("click", on);
  element.append(...inside.filter((one) => one !== null));
  return element;
}

/** Text of others: it keeps its direction to itself, and breaks after a slash rather than elsewhere. */
const words = (text, attributes = {}) => make("bdi", attributes,
  ...text.split(/(?<=[/@])/).flatMap((part) => [part, make("wbr")]));
const link = (text, on) => make("button", { type: "button", class: "plain", on }, words(text));

function standing(name) {
  const [sign, title] = STANDINGS[name];
  return make("span", { class: `standing ${name.split(" ")[0]}` }, `${sign} `, make("span", { text: title }));
}

// Tables ------------------------------------------------------------------------------------------

/** A table that is sorted by its headings. A column: title, value to sort by, cell, number?, first? */
class Table {
  constructor(id, columns, sorted, descending, label) {
    this.columns = columns;
    this.sorted = sorted;
    this.descending = descending;
    this.rows = [];
    this.shown = PAGE;
    // Roles are said, since the narrow view takes those of a table's elements away.
    this.body = make("tbody", { role: "rowgroup" });
    this.headings = columns.map((column, place) =>
      make("th", { scope: "col", role: "columnheader", ...(column.number && { class: "number" }) },
        make("button", { type: "button", text: column.title, on: () => this.sortBy(place) })));
    const table = byId(id);
    table.setAttribute("role", "table");
    table.setAttribute("aria-label", label);
    table.append(
      make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...this.headings)), this.body);
    this.more = make("button", { type: "button", class: "more", on: () => this.draw(this.shown + PAGE) });
    table.after(this.more);
    // On paper there is no button for more.
    addEventListener("beforeprint", () => this.draw(Infinity));
    addEventListener("afterprint", () => this.draw(PAGE));
  }

  sortBy(place) {
    this.descending = place === this.sorted ? !this.descending : Boolean(this.columns[place].number);
    this.sorted = place;
    this.draw();
  }

  show(rows) {
    this.rows = rows;
    this.draw(PAGE);
  }

  draw(shown = this.shown) {
    this.shown = shown;
    const { value } = this.columns[this.sorted];
    const sign = this.descending ? -1 : 1;
    const keyed = this.rows.map((row) => [value(row), row]);
    keyed.sort(([a], [b]) => (a < b ? -sign : a > b ? sign : 0));
    this.headings.forEach((heading, place) => heading.setAttribute("aria-sort",
      place !== this.sorted ? "none" : this.descending ? "descending" : "ascending"));
    this.body.replaceChildren(...keyed.slice(0, this.shown).map(([, row]) => this.row(row)));
    const left = this.rows.length - this.shown;
    this.more.hidden = left <= 0;
    this.more.textContent = `Show ${number(Math.min(left, PAGE))} more of ${number(left)}`;
  }

  row(row) {
    return make("tr", { role: "row" }, ...this.columns.map((column, place) => place
      ? make("td", { role: "cell", "data-label": column.title, class: column.class ?? (column.number ? "number" : "") },
        ...column.cell(row))
      : make("th", { scope: "row", role: "rowheader" }, ...column.cell(row))));
  }
}

// The filter --------------------------------------------------------------------------------------

/** What is shown: words, standing, outcome, and a key or message that was followed. */
const chosen = { words: "", standing: "", outcome: "", kid: null, message: null };

const messages = (image) => [...new Set(
  [...image.findings, ...(image.error ? [image.error] : [])].map((one) => one.message))];

for (const image of report.images) {
  image.searched = [image.image, image.source, image.digest ?? "", ...image.recipients, ...messages(image)]
    .join("\n").toLowerCase();
}

function isShown(image) {
  return (!chosen.standing || image.standing === chosen.standing)
    && (!chosen.outcome || image.outcome === chosen.outcome)
    && (chosen.kid === null || image.recipients.includes(chosen.kid))
    && (chosen.message === null || messages(image).includes(chosen.message))
    && chosen.words.split(/\s+/).every((word) => image.searched.includes(word));
}

function filter(changes) {
  Object.assign(chosen, changes);
  const rows = report.images.filter(isShown);
  byId("words").value = chosen.words === byId("words").value.trim().toLowerCase()
    ? byId("words").value : chosen.words;
  byId("standing").value = chosen.standing;
  byId("outcome").value = chosen.outcome;
  byId("count").textContent = `${number(rows.length)} of ${plural(report.images.length, "image")}`;
  const failed = rows.filter((image) => image.plan_line);
  byId("save").hidden = !report.images.some((image) => image.plan_line);
  byId("save").disabled = !failed.length;
  byId("reset").disabled = Object.values(chosen).every((value) => !value);
  for (const button of byId("standings").children) {
    button.setAttribute("aria-pressed", button.dataset.standing === chosen.standing);
  }
  const followed = chosen.kid ?? chosen.message;
  byId("chosen").hidden = followed === null;
  byId("chosen").replaceChildren(
    chosen.kid === null ? "Images with: " : "Images encrypted for: ", words(followed ?? ""));
  images.show(rows);
}

const NOTHING = { words: "", standing: "", outcome: "", kid: null, message: null };

/** Show only what has a key, message or standing, and go there. */
function follow(what) {
  filter({ ...NOTHING, ...what });
  byId("images-title").focus({ preventScroll: true });
  byId("images-title").scrollIntoView();
}

// What one image has to say -----------------------------------------------------------------------

function details(image) {
  const list = make("dl");
  const add = (title, ...inside) => list.append(
    make("div", {}, make("dt", { text: title }), make("dd", {}, ...inside)));
  const items = (texts) => make("ul", {}, ...texts.map((text) => make("li", {}, words(text))));
  if (image.reasons.length) add("Why", items(image.reasons));
  if (image.error) {
    add("Error", words(`${image.error.message} (exit code ${image.error.exit_code})`));
    if (image.error.hint) add("Way out", words(image.error.hint));
  }
  if (image.findings.length) {
    add("Findings", items(image.findings.map((one) => one.hint ? `${one.message}: ${one.hint}` : one.message)));
  }
  if (image.did !== image.action) {
    add("Done", image.did === "nothing" ? "nothing was left to do" : `${image.did} was enough`);
  }
  if (image.source !== image.image) add("Source", words(image.source, { class: "mono" }));
  add("Planned", words(image.planned, { class: "mono" }));
  if (image.digest) add("Is now", words(image.digest, { class: "mono" }));
  if (image.recipients.length) add("For", items(image.recipients));
  if (image.layers) {
    const { encrypted, taken_over, readable } = image.layers;
    add("Layers", `${encrypted} encrypted by this run, ${taken_over} before, ${readable} readable`);
  }
  add("Read, written", `${size(image.bytes_read)}, ${size(image.bytes_written)}`);
  if (image.repeat) {
    const copy = make("button", { type: "button", class: "copy", text: "Copy", on: () => {
      navigator.clipboard?.writeText(image.repeat).then(
        () => { copy.textContent = "Copied"; }, () => { getSelection().selectAllChildren(command); });
    } });
    const command = make("pre", { text: image.repeat });
    add("To repeat", command, copy);
  }
  return make("tr", { role: "row", class: "details" },
    make("td", { role: "cell", colspan: images.columns.length }, list));
}

function toggle(event, image) {
  const button = event.currentTarget;
  const row = button.closest("tr");
  const open = button.getAttribute("aria-expanded") === "true";
  if (open) row.nextSibling.remove();
  else row.after(details(image));
  button.setAttribute("aria-expanded", !open);
}

function imageName(image) {
  const button = link(image.image.replace(/^docker:\/\//, ""), (event) => toggle(event, image));
  button.setAttribute("aria-expanded", false);
  return button;
}

function keysOf(image) {
  const [first, ...others] = image.recipients;
  if (first === undefined) return [];
  return [words(first), ...(others.length ? [make("span", { class: "soft", text: ` and ${others.length} more` })] : [])];
}

const layersOf = (image) => (image.layers ? Object.values(image.layers).reduce((a, b) => a + b) : -1);

const images = new Table("images", [
  { title: "Image", value: (image) => image.image, cell: (image) => [imageName(image)] },
  { title: "Readable?", value: (image) => Object.keys(STANDINGS).indexOf(image.standing), number: false,
    cell: (image) => [standing(image.standing)] },
  { title: "Outcome", value: (image) => image.outcome, class: "outcome", cell: (image) => [
    make("span", { text: `${image.action}: ${image.outcome}`, class: BAD.includes(image.outcome) ? "readable" : "" })] },
  { title: "For", value: (image) => image.recipients.join(" "), class: "names", cell: keysOf },
  { title: "Layers", value: layersOf, number: true, cell: (image) => (image.layers ? [String(layersOf(image))] : []) },
  { title: "Bytes", value: (image) => image.bytes_read + image.bytes_written, number: true,
    cell: (image) => [size(image.bytes_read + image.bytes_written)] },
  { title: "Time", value: (image) => image.seconds, number: true, cell: (image) => [duration(image.seconds)] },
  { title: "Ended (UTC)", value: (image) => image.finished, class: "time", cell: (image) => [minutes(image.finished)] },
], 0, false, "Images");

// The page ----------------------------------------------------------------------------------------

const count = (test) => report.images.filter(test).length;

function sentence(of) {
  const all = report.images.length;
  const readable = of.readable + of["partly readable"];
  const parts = [
    readable && `${number(readable)} of ${plural(all, "image")} can be read, wholly or in part`,
    of.doubtful && `${number(of.doubtful)} in doubt`,
    of.unknown && `${number(of.unknown)} not known`,
  ].filter(Boolean);
  if (!all) return "The results name no image";
  if (!parts.length) return all === 1 ? "The one image is encrypted" : `All ${number(all)} images are encrypted`;
  return `${readable ? "" : "Nothing is known to be readable; "}${parts.join("; ")}`;
}

function verdict() {
  const of = Object.fromEntries(Object.keys(STANDINGS).map(
    (name) => [name, count((image) => image.standing === name)]));
  byId("verdict").textContent = sentence(of);
  document.title = `${byId("verdict").textContent} – fleet report`;
  byId("origin").textContent = `As of ${minutes(report.made)} UTC, from ${plural(report.results, "result")}`
    + (report.replaced ? `, ${number(report.replaced)} of them replaced by later ones of the same image` : "");
  for (const [name, images] of Object.entries(of)) {
    const [sign, title] = STANDINGS[name];
    if (images) {
      const part = make("i", { class: name.split(" ")[0] });
      part.style.flexGrow = images;
      byId("bar").append(part);
    }
    byId("standings").append(make("button", { type: "button", "data-standing": name, "aria-pressed": false,
      on: () => filter({ standing: chosen.standing === name ? "" : name }) },
      make("b", { class: name.split(" ")[0], text: number(images) }), `${sign} ${title}`));
    byId("standing").append(make("option", { value: name, text: title }));
  }
}

function totals() {
  const add = (title, text) => byId("totals").append(
    make("div", {}, make("dt", { text: title }), make("dd", { text })));
  const outcomes = new Set(report.images.map((image) => image.outcome));
  for (const outcome of ["done", "unchanged", "moved", "refused", "failed"]) {
    if (!outcomes.has(outcome)) continue;
    add(outcome, number(count((image) => image.outcome === outcome)));
    byId("outcome").append(make("option", { value: outcome, text: outcome }));
  }
  add("read", size(report.bytes_read));
  add("written", size(report.bytes_written));
  add("work", duration(report.seconds));
}

const registered = (key) => key.registered.map(({ kbs, at }) => `${minutes(at)} at ${kbs}`).join(", ");

const keys = new Table("keys", [
  { title: "Key ID", value: (key) => key.kid, cell: (key) => [key.images ? link(key.kid, () => follow({ kid: key.kid })) : words(key.kid)] },
  { title: "Images", value: (key) => key.images, number: true, cell: (key) => [number(key.images)] },
  { title: "Known for", value: (key) => key.known_for_days, number: true, cell: (key) => [plural(key.known_for_days, "day")] },
  { title: "First result (UTC)", value: (key) => key.first_seen, class: "time", cell: (key) => [minutes(key.first_seen)] },
  { title: "Registered from here (UTC)", value: registered, cell: (key) => (key.registered.length ? [words(registered(key))] : ["no record"]) },
], 1, true, "Keys");

const findings = new Table("findings", [
  { title: "What", value: (one) => one.message, cell: (one) => [link(one.message, () => follow({ message: one.message }))] },
  { title: "Images", value: (one) => one.images, number: true, cell: (one) => [number(one.images)] },
  { title: "Exit code", value: (one) => one.exit_code, number: true, cell: (one) => [String(one.exit_code)] },
], 1, true, "Findings and failures");

function allFindings() {
  const found = new Map();
  for (const image of report.images) {
    for (const message of messages(image)) {
      const first = [...image.findings, image.error].find((one) => one?.message === message);
      const known = found.get(message) ?? { message, images: 0, exit_code: first.exit_code };
      known.images += 1;
      found.set(message, known);
    }
  }
  return [...found.values()];
}

/** Save the plan lines of what is shown and failed: `coco-kp fleet run` does them again. */
function save() {
  const lines = report.images.filter((image) => image.plan_line && isShown(image)).map((image) => `${image.plan_line}\n`);
  const address = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
  make("a", { href: address, download: "again.jsonl" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

let waiting;
byId("words").addEventListener("input", (event) => {
  clearTimeout(waiting);
  waiting = setTimeout(() => filter({ words: event.target.value.trim().toLowerCase() }), 100);
});
byId("standing").addEventListener("change", (event) => filter({ standing: event.target.value }));
byId("outcome").addEventListener("change", (event) => filter({ outcome: event.target.value }));
byId("reset").addEventListener("click", () => filter(NOTHING));
byId("filter").addEventListener("submit", (event) => event.preventDefault());
byId("save").addEventListener("click", save);

verdict();
totals();
keys.show(report.keys);
findings.show(allFindings());
byId("keys-title").parentElement.hidden = !keys.rows.length;
byId("findings-title").parentElement.hidden = !findings.rows.length;
filter(NOTHING);
