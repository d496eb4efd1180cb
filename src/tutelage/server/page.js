"use strict";

const $ = id => document.getElementById(id);
let limits = null;
let request = null; // the pending request, which a new picture aborts
let shown = null; // the URL of the displayed picture

// No line break between a number and its unit.
const percent = share => `${(100 * share).toFixed(1)}\u00a0%`;
const megabytes = bytes => `${(bytes / 1e6).toFixed(2)}\u00a0MB`;
const size = one => `${one.width}\u00a0×\u00a0${one.height}`;

function make(tag, content, attributes = {}) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...[].concat(content ?? []));
  return element;
}

function problem(text) {
  $("problem").textContent = text ? text[0].toUpperCase() + text.slice(1) + "." : "";
  if (!text) return;
  $("verdict").textContent = "";
  $("problem").scrollIntoView({ block: "nearest" });
}

// "All 3 models predict cat.", "Teacher predicts cat; student and tiny predict dog."
function verdict(titles, names) {
  if (names.length > 1 && names.every(name => name === names[0])) {
    return `All ${names.length} models predict ${names[0]}.`;
  }
  const parts = [...new Set(names)].map(name => {
    const who = titles.filter((_, i) => names[i] === name);
    const last = who.pop();
    return who.length ? `${who.join(", ")} and ${last} predict ${name}` : `${last} predicts ${name}`;
  });
  const text = parts.join("; ");
  return `${text[0].toUpperCase()}${text.slice(1)}.`;
}

// The JSON of a response; an error status throws the message of the server.
async function fetchJson(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server is unreachable: is it still running?");
  }
  const content = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(content.error || `the server returned status ${response.status}`);
  return content;
}

function facts(model) {
  const rows = [];
  if ("accuracy" in model.figures) rows.push(["accuracy", percent(model.figures.accuracy)]);
  if (model.parameters !== null) rows.push(["parameters", model.parameters.toLocaleString("en")]);
  rows.push(["precision", model.precision], ["file", megabytes(model.bytes)]);
  return make("dl", rows.flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
}

function card(model) {
  const kind = ["teacher", "student"].includes(model.name) ? model.name : "other";
  const title = make("h3", [make("span", model.title), make("small", [])]);
  return make("article", [title, make("p", "No picture yet.", { class: "waiting" }), facts(model)],
    { class: kind, "aria-label": model.title });
}

function bar(share) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("aria-hidden", "true");
  const rect = document.createElementNS(space, "rect");
  rect.setAttribute("width", `${100 * share}%`);
  rect.setAttribute("height", "100%");
  svg.append(rect);
  return svg;
}

function show(models) {
  [...$("models").children].forEach((article, i) => {
    const prediction = models[i];
    const lines = prediction.classes.map(one =>
      make("li", [make("span", one.name), make("span", percent(one.probability)), bar(one.probability)]));
    article.children[1].replaceWith(make("ol", lines));
    article.querySelector("small").textContent = `${prediction.milliseconds.toFixed(1)}\u00a0ms`;
  });
  const titles = [...$("models").children].map(article => article.getAttribute("aria-label"));
  $("verdict").textContent = verdict(titles, models.map(prediction => prediction.classes[0].name));
  $("verdict").scrollIntoView({ block: "nearest" }); // on a phone it is below the picture
}

function showPicture(picture, blob) {
  if (shown) URL.revokeObjectURL(shown);
  shown = URL.createObjectURL(blob);
  const upload = $("upload");
  upload.hidden = false;
  upload.querySelector("img").src = shown;
  upload.querySelector("figcaption").textContent = `original: ${size(picture)}`;
  const seen = picture.seen.map(one => make("figure", [
    make("img", [], { src: one.png, alt: "The model input" }),
    make("figcaption", `model input: ${size(one)}`),
  ], { class: "seen" }));
  $("shown").replaceChildren(upload, ...seen);
  $("shown").hidden = false;
}

async function classify(blob) {
  request?.abort();
  const current = request = new AbortController();
  problem("");
  $("models").setAttribute("aria-busy", "true");
  try {
    if (limits && blob.size > limits.bytes) {
      throw new Error(`expected a picture of at most ${megabytes(limits.bytes)}, ` +
        `found ${megabytes(blob.size)}; make it smaller`);
    }
    const result = await fetchJson("predict?preview=true", {
      method: "POST",
      body: blob,
      headers: { "Content-Type": "application/octet-stream" }, // the server detects the format
      signal: current.signal,
    });
    showPicture(result.picture, blob);
    show(result.models);
  } catch (error) {
    if (error.name !== "AbortError") problem(error.message);
  } finally {
    if (request === current) $("models").removeAttribute("aria-busy");
  }
}

function take(files, otherwise) {
  if (files.length) classify(files[0]);
  else problem(otherwise);
}

async function example(number) {
  try {
    classify(await (await fetch(`examples/${number}.png`)).blob());
  } catch {
    problem("the server is unreachable: is it still running?");
  }
}

function listen() {
  for (const [button, input] of [["choose", "file"], ["take", "photo"]]) {
    $(button).addEventListener("click", () => $(input).click());
    $(input).addEventListener("change", () => {
      if ($(input).files.length) classify($(input).files[0]);
      $(input).value = ""; // so that the same file can be chosen again
    });
  }
  // The browser may not support the format of the picture.
  $("upload").querySelector("img").addEventListener("error", () => { $("upload").hidden = true; });
  let depth = 0; // of elements that a file is dragged over
  const over = change => {
    depth = Math.max(0, depth + change);
    document.body.classList.toggle("over", depth > 0);
  };
  document.addEventListener("dragenter", () => over(1));
  document.addEventListener("dragleave", () => over(-1));
  document.addEventListener("dragover", event => event.preventDefault());
  document.addEventListener("drop", event => {
    event.preventDefault();
    over(-depth);
    take(event.dataTransfer.files, "expected an image file, found something else");
  });
  document.addEventListener("paste", event => {
    take(event.clipboardData.files, "expected a picture in the clipboard, found none");
  });
}

async function start() {
  listen();
  try {
    const info = await fetchJson("models");
    limits = info.limits;
    const data = info.models[0].data;
    const names = info.classes.slice(0, 20).join(", ") + (info.classes.length > 20 ? " and more" : "");
    $("about").textContent = `The models distinguish ${info.classes.length} classes` +
      `${data ? ` of ${data}` : ""}: ${names}. They assign every picture to one of these.`;
    $("allowed").textContent = "PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF; " +
      `at most ${limits.bytes / 1e6}\u00a0MB and ${limits.pixels / 1e6}\u00a0megapixels.`;
    $("models").replaceChildren(...info.models.map(card));
    const buttons = Array.from({ length: info.examples }, (_, i) => {
      const picture = make("img", [], { src: `examples/${i}.png`, alt: "", loading: "lazy" });
      const button = make("button", picture, { type: "button", "aria-label": `Example ${i + 1}` });
      button.addEventListener("click", () => example(i));
      return make("li", button);
    });
    $("examples").querySelector("ul").replaceChildren(...buttons);
    $("examples").hidden = !info.examples;
  } catch (error) {
    problem(error.message);
  }
}

start();
