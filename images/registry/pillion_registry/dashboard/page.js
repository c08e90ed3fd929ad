// The dashboard: what /watch and /events tell, shown as it comes. Everything shown is put in as text, never as markup.

const MAX_SHOWN = 500; // instances; a page of ten thousand helps nobody
const MAX_EVENTS = 50;
const FRESH_MS = 5000; // an event that is younger is marked
const LOST_MS = 2000; // a stream that is cut off is opened again by the browser; what takes longer is told

const at = (id) => document.getElementById(id);
const instances = new Map(); // by InstanceID
let needs = new Map(); // service -> its node in /graph
const changed = new Set(); // ids to mark

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined && text !== null) made.textContent = text;
  return made;
}

const STATES = ["up", "starting", "draining", "down"];
const stateClass = (state) => (STATES.includes(state) ? `state ${state}` : "state");

function clock(text) {
  const time = new Date(text);
  const made = element("time", "", Number.isNaN(time.getTime()) ? text : time.toLocaleTimeString());
  made.dateTime = text;
  made.title = text;
  return made;
}

// Services.

function fits(one, words) {
  const text = [one.ServiceName, one.State, one.ServiceURL, one.InstanceID, one.Zone, one.Version, ...(one.Tags || [])].join(" ").toLowerCase();
  return words.every((word) => text.includes(word));
}

function drawInstance(one) {
  const row = element("li", changed.has(one.InstanceID) ? "instance new" : "instance");
  row.dataset.id = one.InstanceID;
  row.append(element("span", stateClass(one.State), one.State), element("span", "url", one.ServiceURL));
  const about = element("span", "about");
  about.append("since ", clock(one.Since));
  const rest = [one.Version && `version ${one.Version}`, one.Zone && `zone ${one.Zone}`, ...(one.Tags || [])].filter(Boolean);
  if (rest.length) about.append(`, ${rest.join(", ")}`);
  row.append(about, element("span", "reason", one.Suspect || one.Reason || ""));
  return row;
}

function drawService(name, members) {
  const made = element("section", "service");
  made.dataset.name = name;
  const head = element("header");
  const up = members.filter((one) => one.State === "up").length;
  head.append(element("h3", "", name), element("p", "quiet", `${up} of ${members.length} up`));
  const node = needs.get(name);
  const required = (node && node.Requires) || [];
  if (required.length) {
    const words = required.map((one) => `${one.Name}${one.Needs > 1 ? `:${one.Needs}` : one.Needs ? "" : " (optional)"}${one.Met ? "" : " \u2715"}`);
    head.append(element("p", "quiet", `requires ${words.join(", ")}`));
  }
  if (node && node.Impact && node.Impact.length) head.append(element("p", "quiet", `if it stops, it hurts ${node.Impact.join(", ")}`));
  const list = element("ul", "instances");
  members.sort((a, b) => (a.ServiceURL < b.ServiceURL ? -1 : 1));
  list.append(...members.map(drawInstance));
  made.append(head, list);
  return made;
}

let drawing = false;
function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const words = at("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const all = [...instances.values()];
    const fitting = all.filter((one) => fits(one, words));
    const groups = new Map();
    for (const one of fitting.slice(0, MAX_SHOWN)) {
      if (!groups.has(one.ServiceName)) groups.set(one.ServiceName, []);
      groups.get(one.ServiceName).push(one);
    }
    const names = [...groups.keys()].sort((a, b) => (a.toLowerCase() < b.toLowerCase() ? -1 : 1));
    at("services").replaceChildren(...names.map((name) => drawService(name, groups.get(name))));
    changed.clear();
    at("empty").hidden = all.length > 0;
    at("more").hidden = fitting.length <= MAX_SHOWN && (fitting.length > 0 || !all.length);
    at("more").textContent = fitting.length ? `${fitting.length - MAX_SHOWN} more; filter to see them` : "Nothing fits this filter.";
    const counts = STATES.map((state) => [state, all.filter((one) => one.State === state).length]).filter(([, count]) => count);
    at("counts").textContent = counts.map(([state, count]) => `${count} ${state}`).join(", ");
    document.title = all.some((one) => one.State === "down") ? "Pillion: something is down" : "Pillion";
  });
}

// What is missing: asked for a moment after the last change, since it follows from all of them together.

let asking = null;
function askGraph() {
  clearTimeout(asking);
  asking = setTimeout(async () => {
    try {
      const graph = await (await fetch("graph")).json();
      needs = new Map(graph.Services.map((one) => [one.Name, one]));
      const missing = graph.Missing.map((one) => {
        const there = one.Registered ? `${one.Up} of ${one.Needs} up` : "nobody has registered it";
        const meant = one.Similar ? `; did you mean ${one.Similar}?` : "";
        return element("li", "", `${one.Name}: ${there}, required by ${one.RequiredBy.join(", ")}${meant}`);
      });
      const cycles = graph.Cycles.map((names) => element("li", "", `${names.join(", ")} require each other: none can wait for all it requires`));
      at("missing-list").replaceChildren(...missing, ...cycles);
      at("missing").hidden = !missing.length && !cycles.length;
      draw();
    } catch {
      askGraph(); // the registry is away; the streams tell
    }
  }, 150);
}

// The streams. The browser opens them again by itself and says what it has seen last.

const lost = new Set();
function stream(path, handlers) {
  const source = new EventSource(path);
  let timer = null;
  source.onopen = () => {
    clearTimeout(timer);
    lost.delete(path);
    tell();
  };
  source.onerror = () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      lost.add(path);
      tell();
      if (source.readyState === EventSource.CLOSED) stream(path, handlers); // it was refused: too many are open
    }, LOST_MS);
  };
  for (const [kind, handle] of Object.entries(handlers)) source.addEventListener(kind, (event) => handle(JSON.parse(event.data)));
}

function tell() {
  at("link").className = lost.size ? "link lost" : "link live";
  at("link").textContent = lost.size ? "the registry does not answer; this is what was known last" : "live";
}

stream("watch", {
  snapshot: (told) => {
    instances.clear();
    for (const one of told.Services) instances.set(one.InstanceID, one);
    draw();
    askGraph();
  },
  change: (told) => {
    if (told.Gone) instances.delete(told.Instance.InstanceID);
    else {
      instances.set(told.Instance.InstanceID, told.Instance);
      changed.add(told.Instance.InstanceID);
    }
    draw();
    askGraph();
  },
});

let newest = 0;
stream("events?limit=50", {
  event: (told) => {
    if (told.ID <= newest) return;
    newest = told.ID;
    const row = element("li", Date.now() - Date.parse(told.Time) < FRESH_MS ? "new" : "");
    const kind = element("span", /^[a-z]+$/.test(told.Event) ? `kind ${told.Event}` : "kind", told.Event);
    const said = [told.Service && (told.ServiceURL ? `${told.Service} at ${told.ServiceURL}` : told.Service), told.Reason !== told.Event && told.Reason];
    const what = element("span", "what", said.filter(Boolean).join(": "));
    if (told.By) what.append(` (by ${told.By})`);
    row.append(clock(told.Time), kind, what);
    at("events").prepend(row);
    while (at("events").children.length > MAX_EVENTS) at("events").lastChild.remove();
  },
});

at("filter").addEventListener("input", draw);
