// The page of `omgsr serve`: pictures go to the service's own jobs, and come back as results.

import { Refused, call, send, wait } from "./service.js";
import { zipped } from "./zip.js";

const $ = (id) => document.getElementById(id);
const AT_ONCE = 3;            // jobs of this page
const ASK_EVERY = 700;        // milliseconds

const pictures = [];
let chosen = null;
let about = null;

// ---- The service ----

async function meet() {
  for (;;) {
    try {
      about = await (await call("v1/about")).json();
      break;
    } catch (error) {
      $("about").textContent = error.status === 503 ? "The model is being prepared …" : error.message;
      await wait(2000);
    }
  }
  $("about").textContent = `model ${about.model}`;
  $("largest").textContent = `to ${about.largest} px`;
  const names = { adain: "Tone of the picture", wavelet: "Large shades of the picture", lab: "Tone, in Lab", none: "The model's own" };
  for (const color of about.colors) {
    const text = `${names[color] || color} (${color})`;
    settings.color.add(new Option(text, color));
  }
  settings.color.options[0].textContent = `Usual (${about.color})`;
  refresh();
}

// ---- One picture's way ----

const settings = $("settings").elements;

function asked() {
  const query = new URLSearchParams({ format: settings.format.value });
  const scale = settings.scale.value;
  if (scale === "fit") query.set("longest_side", about.largest);
  else query.set("scale", scale);
  if (settings.color.value) query.set("color", settings.color.value);
  if (settings.seed.value.trim()) query.set("seed", settings.seed.value.trim());
  return query.toString();
}

function add(files) {
  const found = [...files].filter((file) => file.type.startsWith("image/") || /\.(tiff?|avif|hei[cf])$/i.test(file.name));
  for (const file of found) {
    const picture = { file, url: URL.createObjectURL(file), state: "new", text: sizeOf(file), share: null };
    picture.row = row(picture);
    pictures.push(picture);
    $("list").append(picture.row);
  }
  if (found.length && !chosen?.result) choose(pictures[pictures.length - found.length]);
  refresh();
}

const sizeOf = (file) => file.size < 1e6 ? `${Math.ceil(file.size / 1e3)} kB` : `${(file.size / 1e6).toFixed(1)} MB`;

function remove(picture) {
  forget(picture);
  URL.revokeObjectURL(picture.url);
  if (picture.result) URL.revokeObjectURL(picture.result.url);
  picture.row.remove();
  pictures.splice(pictures.indexOf(picture), 1);
  picture.state = "gone";
  if (chosen === picture) choose(pictures[0] || null);
  refresh();
}

function forget(picture) {
  if (picture.job) fetch(`v1/jobs/${picture.job}`, { method: "DELETE", keepalive: true }).catch(() => {});
  picture.job = null;
}

function start() {
  const query = asked();
  for (const picture of pictures) {
    if (isBusy(picture) || (picture.state === "done" && picture.query === query)) continue;
    if (picture.file.size > about.upload_bytes) {
      mark(picture, "failed", `It has ${sizeOf(picture.file)}; at most ${Math.floor(about.upload_bytes / 2 ** 20)} MiB are taken.`);
      continue;
    }
    picture.query = query;
    mark(picture, "waiting", "Waiting");
  }
  next();
}

const isBusy = (picture) => picture.state === "waiting" || picture.state === "working";

function next() {
  while (pictures.filter((p) => p.state === "working").length < AT_ONCE) {
    const picture = pictures.find((p) => p.state === "waiting");
    if (!picture) break;
    mark(picture, "working", "Sending");
    restore(picture).catch((error) => {
      if (picture.state !== "gone") mark(picture, "failed", sentence(error.message));
    }).finally(() => { forget(picture); next(); });
  }
  refresh();
}

async function restore(picture) {
  const begun = performance.now();
  let state = await accepted(picture);
  picture.job = state.id;
  while (state.status === "queued" || state.status === "running") {
    tell(picture, state);
    await wait(ASK_EVERY);
    if (picture.state === "gone") return;
    try {
      state = await (await call(`v1/jobs/${picture.job}`)).json();
    } catch (error) {
      if (error instanceof Refused) throw error;  // else no connection: it is asked again
    }
  }
  if (state.status === "failed") throw new Refused(state.error_status, state.error, 0);
  const blob = await (await call(`v1/jobs/${picture.job}/result`)).blob();
  if (picture.state === "gone") return;
  if (picture.result) URL.revokeObjectURL(picture.result.url);
  picture.result = { blob, url: URL.createObjectURL(blob), size: state.size, notes: state.notes || [] };
  const seconds = ((performance.now() - begun) / 1000).toFixed(1);
  mark(picture, "done", `${state.size.replace("x", " × ")} px, ${seconds} s`);
  if (chosen === picture || !chosen?.result) choose(picture);
}

async function accepted(picture) {
  for (;;) {
    try {
      return await send(`v1/jobs?${picture.query}`, picture.file, (share) => mark(picture, "working", "Sending", share * 0.1));
    } catch (error) {
      if (!error.retryAfter || picture.state === "gone") throw error;
      mark(picture, "working", error.status === 429 ? "Many pictures wait; trying again" : sentence(error.message));
      await wait(1000 * error.retryAfter);
      if (picture.state === "gone") throw error;
    }
  }
}

function tell(picture, state) {
  if (state.status === "queued") {
    mark(picture, "working", state.before ? `${state.before} before it` : "Waiting for its turn");
    return;
  }
  const left = state.seconds_left ? `, about ${Math.ceil(state.seconds_left)} s left` : "";
  mark(picture, "working", `Restoring${left}`, state.share === undefined ? null : 0.1 + 0.9 * state.share);
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

// ---- The list ----

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function row(picture) {
  const image = element("img", { src: picture.url, alt: "", loading: "lazy" });
  image.onerror = () => { picture.unseen = true; image.remove(); };
  const thumb = element("button", { type: "button", className: "thumb", onclick: () => choose(picture) }, image);
  thumb.setAttribute("aria-label", `Show ${picture.file.name}`);
  const save = element("a", { className: "button save", textContent: "↓", hidden: true, title: "Download" });
  save.setAttribute("aria-label", `Download ${picture.file.name}`);
  const away = element("button", { type: "button", textContent: "×", title: "Remove", onclick: () => remove(picture) });
  away.setAttribute("aria-label", `Remove ${picture.file.name}`);
  return element("li", {}, thumb,
    element("span", { className: "name", textContent: picture.file.name, title: picture.file.name }),
    element("span", { className: "acts" }, save, away),
    element("span", { className: "state", textContent: picture.text }),
    element("progress", { max: 1, hidden: true }));
}

function mark(picture, state, text, share = null) {
  if (picture.state === "gone") return;
  Object.assign(picture, { state, text, share });
  const line = picture.row;
  line.className = `${state}${picture === chosen ? " on" : ""}`;
  line.querySelector(".state").textContent = text;
  const bar = line.querySelector("progress");
  bar.hidden = !isBusy(picture);
  if (share === null) bar.removeAttribute("value");
  else bar.value = share;
  const save = line.querySelector(".save");
  save.hidden = !picture.result;
  if (picture.result) offer(save, picture, nameOf(picture));
  refresh();
}

function offer(link, picture, name) {
  link.href = picture.result.url;
  link.download = name;
}

function nameOf(picture) {
  const suffix = picture.result.blob.type.replace("image/", ".").replace("jpeg", "jpg");
  return picture.file.name.replace(/\.[^.]*$/, "") + suffix;
}

function refresh() {
  const done = pictures.filter((p) => p.result).length;
  const busy = pictures.filter(isBusy).length;
  const many = pictures.length === 1 ? "1 picture" : `${pictures.length} pictures`;
  $("count").textContent = pictures.length ? `${many}${done ? `, ${done} done` : ""}` : "No pictures yet";
  $("more").hidden = !pictures.length;
  $("all").hidden = done < 2;
  $("drop").hidden = pictures.length > 0;
  const query = about ? asked() : "";
  const open = pictures.filter((p) => !isBusy(p) && !(p.state === "done" && p.query === query));
  $("start").disabled = !about || !open.length || !$("settings").checkValidity();
  $("start").textContent = !open.length && busy ? "Restoring …" : open.length > 1 ? `Restore ${open.length} pictures` : "Restore";
}

// ---- All results in one file ----

async function saveAll() {
  const taken = new Set(), files = [];
  for (const picture of pictures.filter((p) => p.result)) {
    const wanted = nameOf(picture);
    let name = wanted;
    for (let n = 2; taken.has(name.toLowerCase()); n++) name = wanted.replace(/(\.[^.]*)$/, ` (${n})$1`);
    taken.add(name.toLowerCase());
    files.push({ name, blob: picture.result.blob });
  }
  const url = URL.createObjectURL(await zipped(files));
  element("a", { href: url, download: "restored.zip" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

// ---- Before and after ----

const stage = $("stage");
const view = { split: 0.5, zoom: 1, x: 0, y: 0, width: 0, height: 0, natural: 1 };

function choose(picture) {
  chosen = picture;
  for (const one of pictures) one.row.classList.toggle("on", one === picture);
  stage.hidden = !picture;
  $("tools").hidden = !picture;
  if (!picture) return;
  const result = picture.result;
  const hasBefore = !picture.unseen;
  const both = Boolean(result) && hasBefore;
  stage.classList.toggle("fresh", Boolean(result));
  $("before").hidden = !hasBefore;
  $("before").src = picture.url;
  $("cut").hidden = !result;
  $("divider").hidden = !both;
  for (const tag of stage.querySelectorAll(".tag")) tag.hidden = !both;
  if (result) {
    $("after").src = result.url;
    offer($("save"), picture, nameOf(picture));
  }
  $("save").hidden = !result;
  const notes = result ? [...result.notes] : [];
  if (!hasBefore) notes.unshift(result ? "This browser cannot show the original." : "This browser cannot show this kind of picture; the result will be seen.");
  $("note").hidden = !notes.length;
  $("note").textContent = notes.join(" ");
  $("shown").textContent = picture.file.name;
  const image = result ? $("after") : $("before");
  const ready = () => { if (chosen === picture) fit(image); };
  if (image.complete && image.naturalWidth) ready();
  else image.onload = ready;
}

function fit(image = $("cut").hidden ? $("before") : $("after")) {
  if (!image.naturalWidth || !stage.clientWidth) return;
  const most = Math.min(stage.clientWidth / image.naturalWidth, stage.clientHeight / image.naturalHeight);
  view.natural = image.naturalWidth;
  view.width = image.naturalWidth * most;
  view.height = image.naturalHeight * most;
  view.zoom = 1;
  place();
}

// Keeps the picture in sight, and draws.
function place() {
  const kept = (at, size, room) => size <= room ? (room - size) / 2 : Math.min(0, Math.max(room - size, at));
  const { clientWidth: w, clientHeight: h } = stage;
  view.x = kept(view.x, view.width * view.zoom, w);
  view.y = kept(view.y, view.height * view.zoom, h);
  for (const image of [$("before"), $("after")]) {
    image.style.width = `${view.width}px`;
    image.style.height = `${view.height}px`;
    image.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.zoom})`;
    image.style.imageRendering = view.zoom > 1 && scaleNow() > 6 ? "pixelated" : "auto";
  }
  const at = $("divider").hidden ? 0 : view.split * w;
  $("cut").style.clipPath = `inset(0 0 0 ${at}px)`;
  $("divider").style.left = `${at}px`;
  $("divider").setAttribute("aria-valuenow", Math.round(view.split * 100));
  $("percent").textContent = `${Math.round(scaleNow() * 100)} %`;
}

// Pixels of the screen for one of the picture.
const scaleNow = () => view.width * view.zoom * devicePixelRatio / view.natural;

function zoomTo(zoom, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
  const most = Math.max(1, 8 / (scaleNow() / view.zoom));
  const next = Math.min(most, Math.max(1, zoom));
  view.x = x - (x - view.x) * next / view.zoom;
  view.y = y - (y - view.y) * next / view.zoom;
  view.zoom = next;
  place();
}

const full = () => view.zoom * (1 / scaleNow());

function divide(split) {
  view.split = Math.min(1, Math.max(0, split));
  place();
}

const fingers = new Map();
let dragged = null;

function position(event) {
  const box = stage.getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top };
}

stage.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  stage.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, position(event));
  const onDivider = $("divider").contains(event.target);
  dragged = onDivider || (view.zoom === 1 && !$("divider").hidden) ? "divider" : "picture";
  if (dragged === "divider") divide(position(event).x / stage.clientWidth);
});

stage.addEventListener("pointermove", (event) => {
  const before = fingers.get(event.pointerId);
  if (!before) return;
  const now = position(event);
  const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
  fingers.set(event.pointerId, now);
  if (other) {
    const apart = (a) => Math.hypot(a.x - other.x, a.y - other.y) || 1;
    zoomTo(view.zoom * apart(now) / apart(before), (now.x + other.x) / 2, (now.y + other.y) / 2);
  } else if (dragged === "divider") {
    divide(now.x / stage.clientWidth);
  } else {
    view.x += now.x - before.x;
    view.y += now.y - before.y;
    place();
  }
});

for (const kind of ["pointerup", "pointercancel"]) stage.addEventListener(kind, (event) => fingers.delete(event.pointerId));

stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const { x, y } = position(event);
  zoomTo(view.zoom * Math.exp(-event.deltaY / 300), x, y);
}, { passive: false });

stage.addEventListener("dblclick", (event) => {
  const { x, y } = position(event);
  if (view.zoom > 1) fit();
  else zoomTo(Math.max(2, full()), x, y);
});

$("divider").addEventListener("keydown", (event) => {
  const steps = { ArrowLeft: -0.02, ArrowRight: 0.02, PageDown: -0.1, PageUp: 0.1, Home: -1, End: 1 };
  if (event.key in steps) divide(view.split + steps[event.key]);
  else if (event.key === "+" || event.key === "=") zoomTo(view.zoom * 1.4);
  else if (event.key === "-") zoomTo(view.zoom / 1.4);
  else if (event.key === "0") fit();
  else return;
  event.preventDefault();
});

// ---- What the user does ----

$("files").addEventListener("change", (event) => { add(event.target.files); event.target.value = ""; });
$("more").addEventListener("click", () => $("files").click());
$("all").addEventListener("click", saveAll);
$("in").addEventListener("click", () => zoomTo(view.zoom * 1.4));
$("out").addEventListener("click", () => zoomTo(view.zoom / 1.4));
$("fit").addEventListener("click", () => fit());
$("full").addEventListener("click", () => zoomTo(full()));
$("settings").addEventListener("submit", (event) => { event.preventDefault(); start(); });
$("settings").addEventListener("input", refresh);
document.addEventListener("paste", (event) => add(event.clipboardData?.files || []));
document.addEventListener("dragover", (event) => { event.preventDefault(); $("veil").hidden = false; });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("veil").hidden = true; });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("veil").hidden = true;
  add(event.dataTransfer.files);
});
addEventListener("resize", () => { if (view.zoom === 1) fit(); else place(); });
addEventListener("pagehide", () => pictures.forEach(forget));

meet();
