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
let answerBy = 0;
let orderBy = 0;
// Where the keyboard stood before the question came.
let cameFrom = null;
let phaseShown = "";
// The code that was hidden by the officer.
let hidden = "";

const text = (key, values = {}) => {
  const sentence = texts[language][key];
  return sentence?.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
};

const coded = (code, values) => `${text(`code_${code}`, values) ?? text("code_other")} (${code})`;

/** The code a person reads out: that of the connection's end where there is none of its own. */
const searchable = (code) => (code.startsWith("over_") ? `V-${code.slice(5)}` : "V-4000");

const call = (view) => (view.phone ? text("call", { phone: view.phone }) : "");

/** What happened and what comes next, the code, and whom to call. */
const helped = (sentence, code, view) => `${sentence} (${code}) ${call(view)}`.trim();

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
  asked: ["allow", "refuse"],
  warned: ["again", "sign_out"],
  lost: ["sign_out"],
  left: ["again", "sign_out", "end"],
};

function problem(p) {
  if (!p) return "";
  const parts = [coded(p.code, { remaining: p.remaining })];
  if (p.remaining != null) parts.push(text("remaining", { n: p.remaining }));
  if (p.retry_after_s) parts.push(text("retry", { time: duration(p.retry_after_s) }));
  if (news.view.phone) parts.push(call(news.view));
  return parts.join(" ");
}

function byLease(view) {
  if (!view.lease_until_ms) return "";
  const format = { hour: "2-digit", minute: "2-digit", hour12: false };
  return text("by_lease", { time: new Date(view.lease_until_ms).toLocaleTimeString("vi-VN", format) });
}

function notice(view) {
  if (view.phase === "asked") {
    const left = Math.max(0, Math.round((answerBy - Date.now()) / 1000));
    return `${text("asked_why", { why: view.assist.why })}\n${text("asked_left", { time: duration(left) })}`;
  }
  return [byLease(view), reason(view)].filter(Boolean).join(" ");
}

function reason(view) {
  if (view.phase === "lost") {
    const seconds = Math.round((Date.now() - lostSince) / 1000);
    const lost = text(view.gateway_lost ? "gateway_lost_for" : "lost_for", { time: duration(seconds) });
    return helped(lost, view.gateway_lost ? "G-503" : "K-102", view);
  }
  if (view.warning) return text(`warn_${view.warning.code}`, { time: duration(view.warning.in_s) }) ?? "";
  if (view.assist && view.phase === "desktop") return text(`mark_${view.assist.stage}`, view.assist) ?? text("mark_watching", view.assist);
  const code = view.notice?.code;
  if (!code) return "";
  return text(code) ? helped(text(code), searchable(code), view) : [coded(code, {}), call(view)].join(" ").trim();
}

/** The code to read out, in two groups, with how far support is. */
function called(view) {
  const c = view.call;
  const shown = Boolean(c) && `${c.code}${c.state}` !== hidden;
  $("call").hidden = !shown;
  if (!shown) return;
  $("code").textContent = c.code.replace(/(...)(...)/, "$1 $2");
  const waits = ["made", "queued", "open"].includes(c.state) && c.code;
  const said = text(`call_${c.state}`, { by: c.by ?? "" }) ?? "";
  show("call-said", [waits ? text("call_read") : "", said, call(view)].filter(Boolean).join(" "));
}

/** This computer is no endpoint yet: six digits for who approves it, or why it was refused. */
function enrolling(view) {
  const e = view.enrolling;
  $("enrol").hidden = !e;
  if (!e) return;
  $("enrol-code").textContent = e.digits?.replace(/(...)(...)/, "$1 $2") ?? "";
  const said = e.state === "waits" ? text("enrol_waits") : `${text(`enrol_${e.code}`, { why: e.reason })} (${e.code})`;
  show("enrol-said", [said, call(view)].filter(Boolean).join(" "));
}

/** What support wants to do to this computer: told, or asked for. */
function ordered(view) {
  const o = view.order;
  const before = $("order").hidden;
  // Who typed when it came goes on where they were.
  if (!o && $("order").contains(document.activeElement)) (cameFrom?.isConnected ? cameFrom : $("title")).focus();
  $("order").hidden = !o;
  if (!o) return;
  const what = text(`order_${o.action}`) ?? text("order_other", { action: o.action });
  show("order-title", text(o.ask ? "order_asks" : "order_does", { who: o.who, what }));
  show("order-why", text("asked_why", { why: o.why }));
  const left = Math.max(0, Math.round((orderBy - Date.now()) / 1000));
  show("order-left", o.ask ? text("order_left", { time: duration(left) }) : "");
  $("order-allow").hidden = $("order-refuse").hidden = !o.ask;
  // On the sentence, never on a button: who types would press it.
  if (before && o.ask) {
    cameFrom = document.activeElement;
    $("order-title").focus();
  }
}

const phaseTitle = (view) => (view.phase === "lost" && view.gateway_lost ? "phase_gateway_lost" : `phase_${view.phase}`);

function render() {
  const view = news.view;
  const signing = view.phase === "sign_in" || view.phase === "signing";
  document.documentElement.lang = language;
  document.body.classList.toggle("lost", view.phase === "lost");
  $("language").textContent = language === "vi" ? "English" : "Tiếng Việt";
  $("language").lang = language === "vi" ? "en" : "vi";
  for (const at of document.querySelectorAll("[data-text]")) at.textContent = text(at.dataset.text);
  const title = signing ? "title" : view.phase === "asked" ? `asked_${view.assist.stage}` : phaseTitle(view);
  show("title", text(title, { name: view.name, desktop: view.desktop, who: view.assist?.who }));
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
  const watched = view.assist && view.assist.stage !== "asked" && view.phase !== "asked";
  // Nobody can be asked to end a session while the controller is away.
  const actions = (ACTIONS[view.phase] ?? []).filter((action) => action !== "end" || !view.lease_until_ms);
  buttons([...actions, ...(watched ? ["stop_assist"] : [])]);
  ordered(view);
  enrolling(view);
  called(view);
  $("call-support").hidden = view.phase === "asked";
  // What was fine a moment ago is being looked at again.
  const cause = view.phase === "lost" && view.cause === "fine" ? "looking" : view.cause;
  $("line").textContent = text(`cause_${cause}`) ?? "";
  $("lamp").className = cause === "fine" ? "fine" : ["slow", "looking"].includes(cause) ? cause : "bad";
  if (phaseShown !== view.phase) {
    // The keyboard is all there is: it stands where the next step is.
    phaseShown = view.phase;
    if (view.phase === "sign_in") ($("username").value ? $("password") : $("username")).focus();
    // Never on a button when the page comes up by itself: who types would press it.
    else if (["lost", "warned", "asked"].includes(view.phase)) $("title").focus();
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

$("call-support").addEventListener("click", () => {
  hidden = "";
  send("/api/action", { do: "call_support" }).catch(() => {});
  render();
});

for (const [id, word] of [["order-allow", "order_allow"], ["order-refuse", "order_refuse"]]) {
  $(id).addEventListener("click", () => send("/api/action", { do: word }).catch(() => {}));
}

$("call-hide").addEventListener("click", () => {
  const c = news.view.call;
  hidden = `${c.code}${c.state}`;
  render();
  $("call-support").focus();
});

// One key says no and leads back to the desktop: who types will not say yes by it.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (news.view.order?.ask) send("/api/action", { do: "order_refuse" }).catch(() => {});
  else if (news.view.phase === "asked") send("/api/action", { do: "refuse" }).catch(() => {});
});

setInterval(() => {
  if (["lost", "asked"].includes(news.view.phase) || news.view.order?.ask) render();
}, 1000);

async function follow() {
  for (;;) {
    try {
      const answer = await fetch(`/api/view?after=${news.version}`, { headers: { "x-tram-desk": secret } });
      if (!answer.ok) throw new Error(String(answer.status));
      const before = news.view.phase;
      const asked = JSON.stringify(news.view.order);
      news = await answer.json();
      const { order } = news.view;
      // Told once, when it begins; the same question may come again.
      if (order?.ask && (JSON.stringify(order) !== asked || orderBy < Date.now())) orderBy = Date.now() + order.left_s * 1000;
      if (news.view.phase === "asked") answerBy = Date.now() + news.view.assist.left_s * 1000;
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
