const NUMBERS = ["seconds", "takes", "guidance_scale", "text_guidance_scale", "temperature",
  "top_k", "top_p", "seed"];
const FILES = ["voice", "melody", "continue"];
const OWN = ["prompt", "seed", "takes"];  // settings that a request's line does not repeat
const $ = id => document.getElementById(id);
const takes = [];    // all that are on the page
const due = new Set();  // those to be drawn in the next frame
let rate = 44100;    // of the model, once it is known
let inputs = [];     // what the model takes beside the common fields
let most = Infinity; // bytes of a file
let clip = null;     // what is being generated, or was last
let live = null;     // its sound while it is generated
let request = null;  // an AbortController while a request is under way

// What is in the fields, by the names of a request; files as they were chosen.
function fields() {
  const asked = {prompt: words("prompt"), files: {}};
  for (const name of NUMBERS.filter(shown)) {
    if ($(name).validity.badInput) throw new Error(`${name} is not a number; correct it`);
    if ($(name).value !== "") asked[name] = Number($(name).value);
  }
  asked.seed ??= crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;
  for (const name of FILES.filter(shown))
    if ($(name).files.length) asked.files[name] = $(name).files[0];
  if (shown("iterations") && words("iterations")) {
    asked.iterations = words("iterations").split(/[\s,]+/).map(Number);
    if (asked.iterations.some(Number.isNaN))
      throw new Error("iterations are whole numbers with spaces between; correct them");
  }
  if (shown("voice") && words("voice_text")) asked.voice_text = words("voice_text");
  if (asked.voice_text && !asked.files.voice)
    throw new Error("these are the words of a voice; choose its file, or remove them");
  if (asked.files.voice && !asked.voice_text) throw new Error("say what is said in the voice");
  for (const [name, file] of Object.entries(asked.files))
    if (file.size > most)
      throw new Error(`the file of ${name} has ${file.size} bytes; take one of ${most}: a shorter `
        + "one, or an mp3");
  return asked;
}

function words(name) { return $(name).value.replace(/\s+/g, " ").trim(); }

// Whether the model takes what a field holds.
function shown(name) { return !$(name).closest("[hidden]"); }

// A request's body: files in base64.
async function bodyOf({files, ...asked}) {
  for (const [name, file] of Object.entries(files)) {
    const url = await new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result);
      reader.onerror = () => reject(new Error(`${file.name} cannot be read; choose it again`));
      reader.readAsDataURL(file);
    });
    asked[name] = url.slice(url.indexOf(",") + 1);
  }
  return JSON.stringify(asked);
}

async function run() {
  let sound = null, asked, card = null, take = null, ended = 0;
  fail("");
  $("result").hidden = true;

  // What an event of the answer says.
  function hear(event) {
    const title = asked.takes > 1 ? `Take ${ended + 1} of ${asked.takes}` : "Clip";
    const now = asked.takes > 1 ? `, take ${ended + 1} of ${asked.takes}` : "";
    if (event.event === "error") throw new Error(event.error);
    if (event.event === "queued") say(`Waiting, number ${event.place} in the queue`);
    if (event.event === "start") {
      clip = new Clip(event);
      card ??= newCard(asked);
      take = new Take(card.querySelector("ol"), clip, asked, title);
      say(ended ? `Generating${now}` : "Preparing; the first clip takes longest");
    }
    if (event.event === "audio") {
      const bytes = Uint8Array.from(atob(event.pcm), letter => letter.charCodeAt(0));
      const pcm = new Int16Array(bytes.buffer);
      if (!pcm.length) return;
      clip.add(pcm);
      live?.add(pcm, clip.channels, clip.rate);
      say(`Generating${now}`);
      const done = Math.min(1, clip.length / clip.expected);
      $("progress").value = (ended + done) / (asked.takes ?? 1);
      take.count((performance.now() - clip.start) / 1000);
      redraw(take);
    }
    if (event.event === "done") {
      if (!clip.length) fail("it ended at once, without a sound: take another seed");
      if (event.ended === false)
        fail("it did not end by itself, and is cut: take another seed, or a shorter text");
      end(event.seconds);
      ended += 1;
    }
  }

  // Keeps what there is of a take.
  function end(seconds) {
    if (take && !clip.length) take.remove();
    else if (take) {
      take.finish();
      take.count(seconds ?? (performance.now() - clip.start) / 1000);
    }
    take = null;
    if (card && !card.querySelector("li")) card.remove();
    $("history").hidden = !takes.length;
  }

  try {
    asked = fields();
    request = new AbortController();
    button("Stop");
    // At once, while the click still allows sound.
    try { sound = new Live(rate); } catch { /* then without */ }
    const response = await fetch("generate", {
      method: "POST",
      headers: {"content-type": "application/json"},
      body: await bodyOf(asked),
      signal: request.signal,
    });
    if (!response.ok) {
      const answer = await response.json().catch(() => ({}));
      throw new Error(answer.error || `the server answered ${response.status}; try again`);
    }
    live?.close();
    [live, clip] = [sound, null];
    for (const other of takes) other.player.pause();
    $("result").hidden = $("progress").hidden = false;
    $("progress").removeAttribute("value");
    for await (const event of events(response.body)) hear(event);
    if (ended < (asked.takes ?? 1))
      throw new Error("the connection ended early; is the server still running?");
    live?.flush();
  } catch (error) {
    sound?.close();
    if (live === sound) say("Stopped");
    if (error instanceof TypeError) fail("the server does not answer; is it still running?");
    else if (error.name !== "AbortError") fail(error.message);
  }
  request = null;
  button("Generate");
  $("progress").hidden = true;
  end();
  // Not at the last event: until its connection has ended, the button still stops the request.
  if (asked && ended === (asked.takes ?? 1)) say("Done");
}

// Where the takes of a request will be, before those of earlier ones.
function newCard(asked) {
  const card = $("request").content.cloneNode(true).querySelector("article");
  const said = Object.keys(asked).filter(name => !OWN.includes(name) && $(name)).map(name => {
    if (name === "seconds") return `${asked.seconds} s${inputs.includes("voice") ? " at most" : ""}`;
    const label = document.querySelector(`label[for=${name}]`).textContent.toLowerCase();
    return `${label} ${[asked[name]].flat().join(" ")}`;
  });
  for (const [name, file] of Object.entries(asked.files)) said.push(`${name} ${file.name}`);
  card.querySelector("h3").textContent = asked.prompt;
  card.querySelector("p").textContent = said.join(" · ");
  $("clips").prepend(card);
  $("history").hidden = false;
  return card;
}

// The fields as they were for a take, which they would give again.
function fill({asked, clip}) {
  const settings = {...asked, seed: clip.seed, takes: 1};
  for (const name of ["prompt", "iterations", "voice_text", ...NUMBERS])
    $(name).value = [settings[name] ?? ""].flat().join(" ");
  for (const name of FILES) {
    const data = new DataTransfer();
    if (asked.files[name]) data.items.add(asked.files[name]);
    $(name).files = data.files;
    $(name).dispatchEvent(new Event("change"));
  }
  document.querySelector("details").open = true;
  $("form").scrollIntoView({block: "start"});
  $("prompt").focus({preventScroll: true});
}

function button(text) {
  $("go").textContent = text;
  $("go").classList.toggle("stop", text === "Stop");
}

function say(text) { if ($("status").textContent !== text) $("status").textContent = text; }

function fail(text) {
  const first = text.split(" ")[0], named = first.replace(/^top_/, "top-").replaceAll("_", " ");
  const line = text.replace(first, named);
  $("error").textContent = line && line[0].toUpperCase() + line.slice(1);
  $("error").hidden = !text;
  if (text) $("error").scrollIntoView({block: "nearest"});
}

function redraw(take) {
  if (!due.size) requestAnimationFrame(draw);
  due.add(take);
}

function draw() {
  const now = [...due];
  due.clear();
  for (const take of now) if (take.item.isConnected) take.draw();
  $("mute").hidden = !live || live.over;
  if (live?.over) live.close();
}

function redrawAll() { for (const take of takes) redraw(take); }

$("form").addEventListener("submit", event => {
  event.preventDefault();
  if (request) request.abort();
  else run();
});
$("prompt").addEventListener("keydown", event => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !request) run();
});
$("mute").addEventListener("click", () => { live?.close(); redrawAll(); });
for (const name of FILES) {
  const remove = document.createElement("button");
  Object.assign(remove, {type: "button", className: "small remove", textContent: "Remove",
    ariaLabel: `Remove the file of ${name}`, hidden: true});
  remove.addEventListener("click", () => {
    $(name).value = "";
    remove.hidden = true;
    $(name).focus();
  });
  $(name).addEventListener("change", () => { remove.hidden = !$(name).files.length; });
  $(name).before(remove);
}
addEventListener("resize", redrawAll);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
fetch("health").then(response => response.json()).then(health => {
  const {limits, defaults} = health;
  ({rate, inputs} = health);
  most = limits.audio;
  const channels = {1: "mono", 2: "stereo"}[health.channels] ?? `${health.channels} channels`;
  $("name").textContent = health.name;
  $("model").textContent = [...(health.name ? [""] : []), health.system,
    `${rate / 1000} kHz ${channels}`, `up to ${limits.seconds} s`]
    .map(part => part.replaceAll(" ", "\u00a0")).join(" · ");
  $("prompt").maxLength = $("voice_text").maxLength = limits.prompt;
  $("seconds").max = limits.seconds;
  $("takes").max = limits.takes;
  $("of-takes").hidden = limits.takes === 1;
  for (const element of document.querySelectorAll("[data-input]"))
    element.hidden = !inputs.includes(element.dataset.input);
  $("inputs").hidden = !$("inputs").querySelector(":scope > :not([hidden])");
  const heading = document.querySelector("h1");
  if (inputs.includes("voice")) {
    heading.textContent = "Speech from text";
    $("of-prompt").textContent = "Text";
    $("prompt").placeholder = "three seven";
    $("of-seconds").textContent = "Seconds at most";
    $("of-guidance").hidden = true;
  }
  document.title = heading.textContent + (health.name && ` · ${health.name}`);
  for (const name of [...NUMBERS, "iterations"]) {
    if (name === "seed") continue;
    const own = [defaults[name] ?? ""].flat().join(" ");
    $(name).value ||= own;
    $(name).placeholder = own || (name === "text_guidance_scale" ? "none" : "its own");
  }
}).catch(() => fail("the server does not answer; is it still running?"));
