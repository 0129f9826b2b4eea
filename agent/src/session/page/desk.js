// The sign-in page of an endpoint: shows what the agent says, and tells it what the officer wants.
"use strict";

const $ = (id) => document.getElementById(id);
const KEY = "tram-desk";

// The secret comes in the fragment, which no request carries, and leaves the address at once.
if (location.hash.length > 1) {
  sessionStorage.setItem(KEY, location.hash.slice(1));
  history.replaceState(null, "", "/");
}
const secret = sessionStorage.getItem(KEY) ?? "";

let texts = { vi: {}, en: {} };
let language = localStorage.getItem("language") === "en" ? "en" : "vi";
let news = { version: -1, view: { phase: "signing", cause: "looking" } };
let lostSince = 0;
let phaseShown = "";

const text = (key, values = {}) => {
  const sentence = texts[language][key];
  return sentence?.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
};

const coded = (code, values) => `${text(`code_${code}`, values) ?? text("code_other")} (${code})`;

async function send(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "x-tram-desk": secret, "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(String(answer.status));
}

function show(id, sentence) {
  const at = $(id);
  at.hidden = !sentence;
  if (sentence && at.textContent !== sentence) at.textContent = sentence;
}

function duration(seconds) {
  return seconds >= 90 ? text("minutes", { n: Math.round(seconds / 60) }) : text("seconds", { n: Math.ceil(seconds) });
}

function step(view) {
  const s = view.step;
  if (!s) return text(`phase_${view.phase}_more`) ?? "";
  const parts = [text(`step_${s.code}`) ?? text("step_other")];
  if (s.position) parts.push(text("position", { n: s.position }));
  if (s.estimate_s) parts.push(text("estimate", { time: duration(s.estimate_s) }));
  return parts.join(" ");
}

function buttons(wanted) {
  const nav = $("actions");
  nav.hidden = wanted.length === 0;
  if (nav.dataset.shown === wanted.join() + language) return;
  nav.dataset.shown = wanted.join() + language;
  nav.replaceChildren(
    ...wanted.map((action) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = text(action);
      button.addEventListener("click", () => send("/api/action", { do: action }).catch(() => {}));
      return button;
    }),
  );
}

const ACTIONS = {
  waiting: ["sign_out"],
  take_over: ["take_over", "sign_out"],
  opening: ["sign_out"],
  desktop: [],
  warned: ["again", "sign_out"],
  lost: ["sign_out"],
  left: ["again", "sign_out", "end"],
};

function problem(p) {
  if (!p) return "";
  const parts = [coded(p.code, { remaining: p.remaining })];
  if (p.remaining != null) parts.push(text("remaining", { n: p.remaining }));
  if (p.retry_after_s) parts.push(text("retry", { time: duration(p.retry_after_s) }));
  return parts.join(" ");
}

function byLease(view) {
  if (!view.lease_until_ms) return "";
  const format = { hour: "2-digit", minute: "2-digit", hour12: false };
  return text("by_lease", { time: new Date(view.lease_until_ms).toLocaleTimeString("vi-VN", format) });
}

function notice(view) {
  return [byLease(view), reason(view)].filter(Boolean).join(" ");
}

function reason(view) {
  if (view.phase === "lost") {
    const seconds = Math.round((Date.now() - lostSince) / 1000);
    return text("lost_for", { time: duration(seconds) });
  }
  if (view.warning) return text(`warn_${view.warning.code}`, { time: duration(view.warning.in_s) }) ?? "";
  const code = view.notice?.code;
  return code ? (text(code) ?? coded(code, {})) : "";
}

function render() {
  const view = news.view;
  const signing = view.phase === "sign_in" || view.phase === "signing";
  document.documentElement.lang = language;
  document.body.classList.toggle("lost", view.phase === "lost");
  $("language").textContent = language === "vi" ? "English" : "Tiếng Việt";
  $("language").lang = language === "vi" ? "en" : "vi";
  for (const at of document.querySelectorAll("[data-text]")) at.textContent = text(at.dataset.text);
  show("title", signing ? text("title") : text(`phase_${view.phase}`, { name: view.name, desktop: view.desktop }));
  show("notice", notice(view));
  show("problem", problem(view.problem));
  $("form").hidden = !signing;
  $("submit").disabled = view.phase === "signing";
  $("submit").textContent = text(view.phase === "signing" ? "phase_signing" : "sign_in");
  const busy = ["waiting", "opening", "lost"].includes(view.phase);
  $("progress").hidden = !busy;
  if (busy) {
    const done = view.step?.progress;
    if (done == null) $("bar").removeAttribute("value");
    else $("bar").value = done;
    $("step").textContent = step(view);
  }
  // Nobody can be asked to end a session while the controller is away.
  buttons((ACTIONS[view.phase] ?? []).filter((action) => action !== "end" || !view.lease_until_ms));
  // What was fine a moment ago is being looked at again.
  const cause = view.phase === "lost" && view.cause === "fine" ? "looking" : view.cause;
  $("line").textContent = text(`cause_${cause}`) ?? "";
  $("lamp").className = cause === "fine" ? "fine" : ["slow", "looking"].includes(cause) ? cause : "bad";
  if (phaseShown !== view.phase) {
    // The keyboard is all there is: it stands where the next step is.
    phaseShown = view.phase;
    if (view.phase === "sign_in") ($("username").value ? $("password") : $("username")).focus();
    // Never on a button when the page comes up by itself: who types would press it.
    else if (["lost", "warned"].includes(view.phase)) $("title").focus();
    else ($("actions").querySelector("button") ?? $("title")).focus();
  }
}

$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const who = { username: $("username").value, password: $("password").value };
  $("password").value = "";
  $("submit").disabled = true;
  try {
    await send("/api/sign-in", who);
  } catch {
    $("submit").disabled = false;
  }
});

$("language").addEventListener("click", () => {
  language = language === "vi" ? "en" : "vi";
  localStorage.setItem("language", language);
  render();
});

setInterval(() => {
  if (news.view.phase === "lost") render();
}, 1000);

async function follow() {
  for (;;) {
    try {
      const answer = await fetch(`/api/view?after=${news.version}`, { headers: { "x-tram-desk": secret } });
      if (!answer.ok) throw new Error(String(answer.status));
      const before = news.view.phase;
      news = await answer.json();
      if (news.view.phase === "lost" && before !== "lost") lostSince = Date.now();
      if (news.view.phase === "waiting" && before !== "waiting") $("username").value = "";
      render();
    } catch {
      // The agent restarts: its next start page comes with a new secret.
      news = { version: -1, view: { ...news.view, cause: "looking" } };
      await new Promise((done) => setTimeout(done, 1000));
    }
  }
}

fetch("/texts.json")
  .then((answer) => answer.json())
  .then((loaded) => {
    texts = loaded;
    render();
    follow();
  });
