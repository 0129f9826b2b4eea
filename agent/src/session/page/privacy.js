// What this computer sent and what support did here, for the officer in front of it.
"use strict";

const $ = (id) => document.getElementById(id);
const secret = sessionStorage.getItem("tram-desk") ?? "";
const language = localStorage.getItem("language") === "en" ? "en" : "vi";
let texts = {};
let shown = 0;

const text = (key, values = {}) => texts[key]?.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");

function element(name, words) {
  const made = document.createElement(name);
  if (words) made.textContent = words;
  return made;
}

/** A sentence for an entry; what has none of its own is named by its kind. */
function sentence(entry) {
  if (entry.kind === "assist") return text(`stage_${entry.what.stage}`, entry.what) ?? text("sent_assist");
  return text(`sent_${entry.kind}`) ?? text("sent_other", { kind: entry.kind });
}

function row(entry) {
  const li = element("li");
  const when = new Date(entry.at_ms).toLocaleString(language === "vi" ? "vi-VN" : "en-GB", { hour12: false });
  li.append(element("b", text(`way_${entry.way}`)), ` · ${when} · ${sentence(entry)}`);
  const more = element("details");
  more.append(element("summary", text("privacy_raw")), element("pre", JSON.stringify(entry.what, null, 1)));
  li.append(more);
  return li;
}

function kinds(all) {
  const chosen = $("kind").value;
  const total = all.reduce((sum, [, n]) => sum + n, 0);
  const options = [["", text("privacy_all", { n: total })]];
  for (const [kind, n] of all) options.push([kind, `${text(`sent_${kind}`) ?? text("sent_other", { kind })} (${n})`]);
  $("kind").replaceChildren(
    ...options.map(([value, words]) => {
      const option = element("option", words);
      option.value = value;
      return option;
    }),
  );
  $("kind").value = chosen;
}

async function load(anew) {
  if (anew) shown = 0;
  const query = new URLSearchParams({ kind: $("kind").value, skip: String(shown) });
  const answer = await fetch(`/api/ledger?${query}`, { headers: { "x-tram-desk": secret } });
  if (!answer.ok) return;
  const book = await answer.json();
  const rows = book.entries.map(row);
  if (anew) $("entries").replaceChildren(...rows);
  else $("entries").append(...rows);
  shown += rows.length;
  $("none").hidden = shown > 0;
  $("more").hidden = shown >= book.total;
  kinds(book.kinds);
}

$("kind").addEventListener("change", () => load(true));
$("more").addEventListener("click", () => load(false));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") location.href = "/";
});

// The officer is needed at the desk: a question, a warning, a lost line. Without a number nothing counts as drawn.
setInterval(async () => {
  const answer = await fetch("/api/view", { headers: { "x-tram-desk": secret } }).catch(() => null);
  if (!answer?.ok) return;
  const { view } = await answer.json();
  if (["asked", "warned", "lost"].includes(view.phase)) location.href = "/";
}, 2000);

fetch("/texts.json")
  .then((answer) => answer.json())
  .then((loaded) => {
    texts = loaded[language];
    document.documentElement.lang = language;
    for (const at of document.querySelectorAll("[data-text]")) at.textContent = text(at.dataset.text);
    $("title").focus();
    return load(true);
  });
