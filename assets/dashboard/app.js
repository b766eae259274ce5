// The dashboard's only script: asks for new cards when an event says so, and sends the verbs of the buttons.
// Cards are rendered by the server; nothing here builds HTML from data.

const headerToken = document.querySelector('meta[name="serin-token"]').content;
const cards = document.querySelector("#rollouts");
const live = document.querySelector("#live");
const AT_MOST_EVERY_MS = 400;

// --- new cards

let asked = 0;
let waiting = null;

function refreshSoon() {
  if (waiting !== null) return;
  const wait = Math.max(0, asked + AT_MOST_EVERY_MS - performance.now());
  waiting = setTimeout(async () => {
    asked = performance.now();
    try {
      await refresh();
    } finally {
      waiting = null;
    }
  }, wait);
}

async function refresh() {
  const response = await fetch("/dashboard/rollouts", { headers: { accept: "text/html" } });
  if (response.status === 401) return location.reload();
  if (!response.ok) return;
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html").body;
  const focused = document.activeElement?.dataset?.key;
  const known = new Map([...cards.children].map((card) => [card.id, card]));
  const next = [...fresh.children].map((card) => {
    const old = known.get(card.id);
    return old && old.outerHTML === card.outerHTML ? old : document.adoptNode(card);
  });
  const same = next.length === cards.children.length && next.every((card, i) => card === cards.children[i]);
  if (same) return;
  cards.replaceChildren(...next);
  if (focused) cards.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

// --- events

let beat = performance.now();

function say(state, text) {
  live.className = `live ${state}`;
  live.textContent = text;
}

const events = new EventSource("/api/v1/events");
for (const kind of ["rollout", "reset", "reload"]) events.addEventListener(kind, refreshSoon);
events.addEventListener("heartbeat", (event) => {
  beat = performance.now();
  const age = JSON.parse(event.data).heartbeat_age_s;
  if (age > 10) say("stale", `the evaluator has been silent for ${Math.round(age)} s: nothing rises`);
  else say("", "live");
});
events.addEventListener("open", () => say("", "live"));
events.addEventListener("error", () => say("lost", "serin does not answer: trying again"));
setInterval(() => {
  if (performance.now() - beat > 8000) say("lost", "serin does not answer: trying again");
}, 2000);

// --- verbs

const dialog = document.querySelector("dialog");
const form = dialog.querySelector("form");
const part = (name) => dialog.querySelector(`[data-part="${name}"]`);
let asking = null;

cards.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-verb]");
  if (!button) return;
  asking = { ...button.dataset };
  part("title").textContent = `${asking.title} ${asking.name}`;
  part("about").textContent = asking.about;
  for (const name of ["weight", "by", "full"]) {
    const wanted = (asking.fields ?? "").split(" ").includes(name);
    part(name).hidden = !wanted;
    part(name).querySelector("input").disabled = !wanted;
  }
  form.reset();
  part("error").textContent = "";
  form.elements.reason.required = asking.verb === "clear";
  part("go").textContent = asking.title;
  part("go").className = asking.verb === "abort" ? "lead danger" : "lead";
  part("go").disabled = false;
  dialog.showModal();
});

part("cancel").addEventListener("click", () => dialog.close());

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  part("go").disabled = true;
  part("error").textContent = "";
  try {
    const problem = await send(asking, new FormData(form));
    if (problem) part("error").textContent = problem;
    else {
      dialog.close();
      await refresh();
    }
  } catch {
    part("error").textContent = "serin does not answer; try again";
  } finally {
    part("go").disabled = false;
  }
});

async function send(what, fields) {
  const body = { reason: fields.get("reason").trim() };
  if (fields.has("weight")) body.weight = Number(fields.get("weight"));
  if (fields.has("by")) body.by = fields.get("by").trim();
  if (fields.has("full")) body.full = true;
  const headers = { "content-type": "application/json", "idempotency-key": crypto.randomUUID?.() ?? String(Math.random()) };
  if (headerToken) headers["x-serin-token"] = headerToken;
  // An abort is meant whatever happened meanwhile; everything else is meant for the rollout as it was seen.
  if (what.verb !== "abort") headers["if-match"] = `"${what.generation}"`;
  const path = `/api/v1/rollouts/${encodeURIComponent(what.name)}`;
  const response = what.verb === "set weight"
    ? await fetch(`${path}/weight`, { method: "PUT", headers, body: JSON.stringify(body) })
    : await fetch(`${path}/${what.verb}`, { method: "POST", headers, body: JSON.stringify(body) });
  if (response.ok) return null;
  const problem = await response.json().catch(() => ({}));
  return [problem.detail, problem.remedy].filter(Boolean).join(" — ") || `the answer was ${response.status}`;
}
