"use strict";

const $ = id => document.getElementById(id);
let limits = null;
let asking = null; // the request under way, which a new picture takes the place of
let shown = null; // the URL of the picture that is shown

// No line ends between a number and its unit.
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

// Which models say what: "All 3 models say cat.", "Teacher says cat; student and tiny say dog."
function verdict(titles, names) {
  if (names.length > 1 && names.every(name => name === names[0])) {
    return `All ${names.length} models say ${names[0]}.`;
  }
  const parts = [...new Set(names)].map(name => {
    const who = titles.filter((_, i) => names[i] === name);
    const last = who.pop();
    return who.length ? `${who.join(", ")} and ${last} say ${name}` : `${last} says ${name}`;
  });
  const text = parts.join("; ");
  return `${text[0].toUpperCase()}${text.slice(1)}.`;
}

// What the server answers; its refusals come as errors with its own words.
async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server can't be reached: is it still running?");
  }
  const told = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(told.error || `the server answered with status ${response.status}`);
  return told;
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
  return make("article", [title, make("p", "Waits for a picture.", { class: "waiting" }), facts(model)],
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
    const answer = models[i];
    const lines = answer.classes.map(one =>
      make("li", [make("span", one.name), make("span", percent(one.probability)), bar(one.probability)]));
    article.children[1].replaceWith(make("ol", lines));
    article.querySelector("small").textContent = `${answer.milliseconds.toFixed(1)}\u00a0ms`;
  });
  const titles = [...$("models").children].map(article => article.getAttribute("aria-label"));
  $("verdict").textContent = verdict(titles, models.map(answer => answer.classes[0].name));
  $("verdict").scrollIntoView({ block: "nearest" }); // on a phone it is below the picture
}

function showPicture(picture, blob) {
  if (shown) URL.revokeObjectURL(shown);
  shown = URL.createObjectURL(blob);
  const given = $("given");
  given.hidden = false;
  given.querySelector("img").src = shown;
  given.querySelector("figcaption").textContent = `as it came: ${size(picture)}`;
  const seen = picture.seen.map(one => make("figure", [
    make("img", [], { src: one.png, alt: "The picture as the models see it" }),
    make("figcaption", `as the models see it: ${size(one)}`),
  ], { class: "seen" }));
  $("shown").replaceChildren(given, ...seen);
  $("shown").hidden = false;
}

async function answer(blob) {
  asking?.abort();
  const own = asking = new AbortController();
  problem("");
  $("models").setAttribute("aria-busy", "true");
  try {
    if (limits && blob.size > limits.bytes) {
      throw new Error(`expected a picture of at most ${megabytes(limits.bytes)}, ` +
        `found ${megabytes(blob.size)}; make it smaller`);
    }
    const told = await ask("predict?preview=true", {
      method: "POST",
      body: blob,
      headers: { "Content-Type": "application/octet-stream" }, // the bytes say what it is
      signal: own.signal,
    });
    showPicture(told.picture, blob);
    show(told.models);
  } catch (error) {
    if (error.name !== "AbortError") problem(error.message);
  } finally {
    if (asking === own) $("models").removeAttribute("aria-busy");
  }
}

function take(files, otherwise) {
  if (files.length) answer(files[0]);
  else problem(otherwise);
}

async function example(number) {
  try {
    answer(await (await fetch(`examples/${number}.png`)).blob());
  } catch {
    problem("the server can't be reached: is it still running?");
  }
}

function listen() {
  for (const [button, input] of [["choose", "file"], ["take", "photo"]]) {
    $(button).addEventListener("click", () => $(input).click());
    $(input).addEventListener("change", () => {
      if ($(input).files.length) answer($(input).files[0]);
      $(input).value = ""; // so that the same file can be chosen again
    });
  }
  // The given picture may be of a format that the browser can't show.
  $("given").querySelector("img").addEventListener("error", () => { $("given").hidden = true; });
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
    take(event.dataTransfer.files, "expected a picture's file, found something else dropped");
  });
  document.addEventListener("paste", event => {
    take(event.clipboardData.files, "expected a picture in the clipboard, found none");
  });
}

async function start() {
  listen();
  try {
    const told = await ask("models");
    limits = told.limits;
    const data = told.models[0].data;
    const names = told.classes.slice(0, 20).join(", ") + (told.classes.length > 20 ? " and more" : "");
    $("about").textContent = `The models here know ${told.classes.length} classes` +
      `${data ? ` of ${data}` : ""}: ${names}. They know nothing else.`;
    $("allowed").textContent = "PNG, JPEG, WebP, GIF, BMP or TIFF; " +
      `at most ${limits.bytes / 1e6}\u00a0MB and ${limits.pixels / 1e6}\u00a0megapixels.`;
    $("models").replaceChildren(...told.models.map(card));
    const buttons = Array.from({ length: told.examples }, (_, i) => {
      const picture = make("img", [], { src: `examples/${i}.png`, alt: "", loading: "lazy" });
      const button = make("button", picture, { type: "button", "aria-label": `Example ${i + 1}` });
      button.addEventListener("click", () => example(i));
      return make("li", button);
    });
    $("examples").querySelector("ul").replaceChildren(...buttons);
    $("examples").hidden = !told.examples;
  } catch (error) {
    problem(error.message);
  }
}

start();
