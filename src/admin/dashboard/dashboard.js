// The dashboard. It asks the admin API and nobody else. Whatever a peer or a file said becomes the
// text of a node (`textContent`), never markup; the page's policy would refuse it besides.
"use strict";

const $ = (id) => document.getElementById(id);
const EVERY = 2000;
// Of a sparkline: two minutes.
const POINTS = 60;
const MOST_ROUTES = 200;
const MOST_LIVE = 200;

// --- asking

async function ask(target, method = "GET") {
  const headers = method === "POST" ? { "X-Edge-Gateway-Admin": "1" } : {};
  const response = await fetch(target, { method, headers, cache: "no-store" });
  const body = await response.json();
  if (!response.ok && response.status !== 422) {
    const error = new Error(body.error || `status ${response.status}`);
    throw Object.assign(error, { status: response.status });
  }
  return body;
}

// --- nodes

function node(name, text, classes) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = text;
  if (classes) made.className = classes;
  return made;
}

function row(cells) {
  const made = node("tr");
  for (const cell of cells) {
    if (cell instanceof Node && cell.nodeName === "TD") made.append(cell);
    else {
      const td = node("td");
      td.append(cell instanceof Node ? cell : document.createTextNode(cell ?? ""));
      made.append(td);
    }
  }
  return made;
}

const td = (text, classes) => node("td", text, classes);
const number = (text, name) => {
  const made = td(text, "n");
  made.dataset.name = name;
  return made;
};
const badge = (text, kind) => node("span", text, `badge ${kind}`);

function fill(table, rows, empty) {
  const body = $(table).tBodies[0];
  if (rows.length === 0) {
    const none = td(empty, "quiet");
    none.colSpan = 9;
    rows = [row([none])];
  }
  body.replaceChildren(...rows);
}

function spark(values) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const line = document.createElementNS(space, "polyline");
  const top = Math.max(1e-9, ...values);
  const points = values.map((value, place) =>
    `${(POINTS - values.length + place) * 100 / (POINTS - 1)},${19 - value / top * 17}`);
  line.setAttribute("points", points.join(" "));
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", "0 0 100 20");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${rateText(values.at(-1) ?? 0)} requests a second, at most ${rateText(top)}`);
  svg.append(line);
  return svg;
}

// --- figures

const rateText = (rate) => rate === 0 ? "0" : rate < 10 ? rate.toFixed(1) : Math.round(rate).toLocaleString("en");
const timeText = (ms) => ms === null ? "–" : ms >= 10000 ? `${(ms / 1000).toFixed(0)} s` : ms >= 10 ? `${ms.toFixed(0)} ms` : `${ms.toFixed(1)} ms`;
const clockText = (stamp) => new Date(stamp).toLocaleTimeString("en-GB");

// As Prometheus' histogram_quantile.
function quantile(share, bounds, counts) {
  const all = counts.at(-1);
  if (!all) return null;
  const wanted = all * share;
  const place = counts.findIndex((count) => count >= wanted);
  if (place >= bounds.length) return bounds.at(-1);
  const [lower, before] = place > 0 ? [bounds[place - 1], counts[place - 1]] : [0, 0];
  const within = counts[place] - before;
  return lower + (bounds[place] - lower) * (within > 0 ? (wanted - before) / within : 1);
}

// Readings of the last two minutes, so that p50 and p99 are of now and not since the start.
const readings = [];

function since(now, name) {
  const old = readings[0];
  const of = (stats) => name === undefined ? stats.downstream : stats.byName.get(name);
  const [after, before] = [of(now), old && of(old)];
  if (!after) return null;
  const less = (a, b) => Math.max(0, a - (b ?? 0));
  return {
    hits: less(after.hits, before?.hits),
    errors: less(after.responses[4], before?.responses[4]),
    refused: less(after.connect_failures, before?.connect_failures),
    answered: after.responses.reduce((sum, count, place) => sum + less(count, before?.responses[place]), 0),
    times: after.times.map((count, place) => less(count, before?.times[place])),
  };
}

function history(name) {
  const of = (stats) => name === undefined ? stats.downstream : stats.byName.get(name);
  return readings.slice(1).map((stats, place) => {
    const [now, before] = [of(stats), of(readings[place])];
    const seconds = Math.max(0.1, (stats.time_ms - readings[place].time_ms) / 1000);
    return now ? Math.max(0, now.hits - (before?.hits ?? 0)) / seconds : 0;
  });
}

// --- what is shown

let routes = [];

function showStats() {
  const now = readings.at(-1);
  const last = history().at(-1);
  const all = since(now);
  $("rate").textContent = last === undefined ? "–" : rateText(last);
  const seconds = Math.max(1, (now.time_ms - readings[0].time_ms) / 1000);
  $("errors").textContent = readings.length > 1 ? rateText(all.errors / seconds) : "–";
  $("errors").className = readings.length > 1 && all.errors > 0 ? "bad" : "";
  $("p50").textContent = timeText(quantile(0.5, now.buckets_ms, all.times));
  $("p99").textContent = timeText(quantile(0.99, now.buckets_ms, all.times));
  $("connections").textContent = now.connections.toLocaleString("en");
}

// What is no HTTP has nothing to match; its hits are connections or flows.
const PLAIN = { tcproute: "every connection", tlsroute: "every connection", udproute: "every datagram" };

// Of requests those that were answered 5xx, of connections those that the backend did not take.
function errorShare(plain, counted) {
  const [errors, all] = plain ? [counted.refused, counted.hits] : [counted.errors, counted.answered];
  return all ? Math.min(1, errors / all) : null;
}

// Without its kind, and without how it is spoken to, which stands beside it.
const parts = (name) => name.replace(/\/(tcp|udp)$/, "").split("/").slice(1);

// Without the namespace where that is the route's own.
function backendName(route, backend) {
  if (backend.name === null) return "nothing (500)";
  const [namespace, ...name] = parts(backend.name);
  return (namespace === route.rule.split("/")[1] ? name : [namespace, ...name]).join("/");
}

function showRoutes() {
  const now = readings.at(-1);
  const filter = $("route-filter").value.toLowerCase();
  const wanted = routes.filter((route) =>
    `${route.host ?? "*"} ${route.match} ${route.rule} ${route.backends.map((one) => backendName(route, one))}`.toLowerCase().includes(filter));
  const rows = [];
  // Figures are a rule's, by all of its matches on all listeners: they stand in its first row.
  const told = new Set();
  let listener = null;
  for (const route of wanted.slice(0, MOST_ROUTES)) {
    const on = `${route.listener}, port ${route.port}`;
    if (on !== listener) {
      listener = on;
      const group = td(on, "group");
      group.colSpan = 9;
      rows.push(row([group]));
    }
    const counted = now && since(now, route.rule);
    const weights = route.backends.length > 1;
    const backends = route.backends.map((one) => weights ? `${backendName(route, one)} ×${one.weight}` : backendName(route, one));
    const plain = PLAIN[route.rule.split("/")[0]];
    const match = td(plain ?? route.match, plain ? "quiet" : "mono");
    match.title = route.rule;
    const cells = [
      td(route.host ?? (plain ? "any" : "any host"), "host"), match, td(route.filters.join("\n"), "mono"), td(backends.join(", "))];
    if (told.has(route.rule)) {
      const same = number("″", "hits");
      same.title = `counted in the first row of ${route.rule}`;
      rows.push(row([...cells, same, "", "", "", ""]));
      continue;
    }
    told.add(route.rule);
    const errors = counted ? errorShare(plain, counted) : null;
    // Counted every two seconds; the list of routes is asked for now and then.
    const hits = now?.byName.get(route.rule)?.hits ?? route.hits;
    const errorText = errors === null ? "–" : errors === 0 ? "0 %" : `${(errors * 100).toFixed(errors < 0.1 ? 1 : 0)} %`;
    rows.push(row([
      ...cells,
      number(hits?.toLocaleString("en") ?? "–", "hits"),
      number(errorText, "errors"),
      number(timeText(counted ? quantile(0.5, now.buckets_ms, counted.times) : null), "p50"),
      number(timeText(counted ? quantile(0.99, now.buckets_ms, counted.times) : null), "p99"),
      counted ? spark(history(route.rule)) : "",
    ]));
    if (errors > 0) rows.at(-1).cells[5].firstChild.replaceWith(badge(errorText, "bad"));
  }
  fill("routes", rows, filter ? "no route has that in it" : "no route is served");
  const more = wanted.length - MOST_ROUTES;
  $("routes-more").textContent = more > 0 ? `and ${more} more; filter to see them` : "";
}

function showListeners(listeners) {
  fill("listeners", listeners.map((one) => row([
    td(one.address, "mono nowrap"), one.protocol, td(one.name, "wide"), one.hostname ?? "any host", number(one.matches, "matches")])),
  "nothing is listened on");
}

function showClusters(clusters) {
  const kinds = { ejected: "bad", healthy: "good", unhealthy: "bad", unreachable: "bad", unresolved: "bad" };
  const rows = clusters.flatMap((cluster) => {
    const name = parts(cluster.name).join("/");
    const protocol = cluster.tls ? `${cluster.protocol} over TLS` : cluster.protocol;
    if (cluster.endpoints.length === 0) return [row([td(name, "wide"), protocol, "none", badge("no endpoint", "bad")])];
    return cluster.endpoints.map((one) => row([
      td(name, "wide"), protocol,
      td(one.name && one.name !== one.address ? `${one.address} (${one.name})` : one.address, "mono"),
      badge(one.health, kinds[one.health] ?? "warn")]));
  });
  fill("clusters", rows, "there is no backend");
}

function showCertificates(certificates) {
  const kinds = { good: "good", overdue: "warn", unknown: "warn" };
  const days = (one) => Math.floor(one.certificate.seconds_left / 86400);
  const rows = certificates.map((one) => {
    const names = one.certificate?.names.join(", ") ?? (one.hostnames.length ? one.hostnames.join(", ") : null) ?? one.listeners.map((on) => on.hostname ?? on.name).join(", ");
    return row([
      td(names, "wide"), badge(one.verdict, kinds[one.verdict] ?? "bad"),
      number(one.certificate ? days(one).toLocaleString("en") : "–", "days left"), one.certificate?.issuer ?? ""]);
  });
  fill("certificates", rows, "no listener ends TLS");
  const left = certificates.filter((one) => one.certificate).map(days);
  $("days").textContent = left.length ? Math.min(...left).toLocaleString("en") : "–";
  $("days").className = left.length && Math.min(...left) < 15 ? "bad" : "";
}

function showReloads(reloads) {
  fill("reloads", reloads.map((one) => row([
    td(clockText(one.at), "nowrap"), one.cause,
    badge(one.loaded ? "loaded" : "refused", one.loaded ? "good" : "bad"),
    number(one.took_ms, "ms"), number(one.serving.generation, "generation")])), "nothing was loaded");
}

function showTrouble(status, conditions, reloads, certificates, clusters) {
  const items = [];
  const item = (kind, text, place) => {
    const made = node("li", text, kind);
    if (place) made.prepend(node("code", place));
    items.push(made);
  };
  const latest = reloads[0];
  // A load of the API's says nothing of the files that were refused before it.
  for (const line of status.refusal?.lines ?? (status.trouble ? [status.trouble] : [])) item("bad", line);
  for (const text of status.impaired) item("bad", text);
  for (const one of status.refusal && !latest?.loaded ? [] : latest?.diagnostics ?? []) {
    const place = [one.file, one.line, one.column].filter((part) => part !== null).join(":");
    const where = [one.object, one.field].filter(Boolean).join(", ");
    item(one.severity === "error" ? "bad" : "warn", `${where ? `${where}: ` : ""}${one.problem}`, place);
  }
  for (const one of conditions) {
    // Most conditions are a diagnostic that has been told already, with its place.
    const told = latest?.diagnostics.some((other) => other.object === one.object && one.message.includes(other.problem));
    if (!told) item("bad", `${one.object}${one.part ? `, ${one.part}` : ""}: ${one.type} is ${one.status}, ${one.reason}: ${one.message}`);
  }
  for (const one of certificates) for (const problem of one.problems) {
    item("bad", `certificate ${one.secret ?? one.listeners[0]?.name ?? ""}: ${problem}`);
  }
  for (const one of clusters) {
    if (one.endpoints.length && one.endpoints.every((endpoint) => endpoint.health !== "healthy")) {
      const all = one.endpoints.map((endpoint) => endpoint.address).join(", ");
      item("bad", `${one.name}: no endpoint can be reached: ${all}`);
    }
  }
  const bad = items.filter((one) => one.className === "bad").length;
  $("trouble-list").replaceChildren(...items.slice(0, 100));
  $("trouble").hidden = items.length === 0;
  $("trouble-count").textContent = items.length > 100 ? `the first 100 of ${items.length}` : "";
  const [text, kind] = status.trouble ? ["files refused", "bad"]
    : bad ? [`${bad} ${bad === 1 ? "problem" : "problems"}`, "bad"]
    : items.length ? [`${items.length} ${items.length === 1 ? "warning" : "warnings"}`, "warn"] : ["healthy", "good"];
  $("health").textContent = text;
  $("health").className = `badge ${kind}`;
  // What is wrong is told below, with its place.
  $("summary").textContent = `${status.status.split("; ")[0]} · ${status.version}`;
}

// --- requests, live

let seen = 0;
let missed = null;
let live = [];

async function follow() {
  if (!$("live-on").checked) return;
  const told = await ask(`requests?after=${seen}`);
  // Numbers begin anew with the process.
  const passed = seen && told.last >= seen ? told.last - seen - told.requests.length : 0;
  const lost = passed + (missed === null ? 0 : told.missed - missed);
  seen = told.last;
  live = [...told.requests.reverse(), ...live].slice(0, 1000);
  if (lost > 0) {
    $("live-note").textContent = `${lost} left out at ${clockText(Date.now())}: more came at once than could be kept`;
  }
  missed = told.missed;
  showLive();
}

// What is no HTTP has neither method nor status; it is one line when it has ended.
const isPlain = (one) => ["TCP", "TLS", "UDP"].includes(one.protocol);
const requestText = (one) => isPlain(one)
  ? `${one.protocol} ${one.host === "-" ? one.listener : one.host}, ${one.request_bytes} bytes up, ${one.response_bytes} down`
  : `${one.method} ${one.host}${one.path}`;

function statusBadge(one) {
  if (isPlain(one)) return one.flags === "-" ? badge("ended", "good") : badge("failed", "bad");
  // Without a status the client has left.
  return badge(one.status || "none", one.status >= 500 || !one.status ? "bad" : one.status >= 400 ? "warn" : "good");
}

function showLive() {
  const filter = $("live-filter").value.toLowerCase();
  const wanted = live.filter((one) =>
    `${one.status} ${requestText(one)} ${one.upstream ?? ""} ${one.client} ${one.flags} ${one.route ?? ""} ${one.user_agent ?? ""}`
      .toLowerCase().includes(filter));
  fill("live", wanted.slice(0, MOST_LIVE).map((one) => {
    const status = td(undefined, "n");
    status.append(statusBadge(one));
    const request = td(requestText(one), "mono wide");
    request.title = [one.route ?? "no route", one.details, one.client, one.user_agent].filter(Boolean).join(", ");
    const flags = one.flags === "-" ? "" : ` ${one.flags}`;
    return row([td(clockText(one.time), "nowrap"), status, request,
      td(`${one.upstream ?? "–"}${flags}`, "mono"), number(one.duration_ms.toFixed(1), "ms"), td(one.client, "mono")]);
  }), live.length ? "no request has that in it" : "none since this page is open");
}

// --- a request that is tried

async function tried(event) {
  event.preventDefault();
  const query = new URLSearchParams({ method: $("try-method").value, url: $("try-url").value.trim() });
  if ($("try-header").value.trim()) query.append("header", $("try-header").value);
  const list = $("explained");
  const parts = [];
  const tell = (name, text, kind) => parts.push(node("dt", name), node("dd", text, kind));
  try {
    const told = await ask(`explain?${query}`);
    const { listener, answer } = told;
    if (listener) tell("listener", `${listener.name} (${listener.hostname ?? "any host"}, port ${listener.port})`);
    if (told.rule) tell("rule", told.rule, "good");
    if (told.matched) tell("match", told.matched);
    const effects = (filters) => filters.map((one) => [one.filter, ...one.changes.map((change) => `  ${change}`)].join("\n"));
    for (const text of effects(told.filters)) tell("filter", text);
    for (const one of told.backends) {
      tell("backend", [`${one.percent.toFixed(0)} % to ${one.what}`, ...effects(one.filters), ...one.endpoints].join("\n"));
    }
    if (told.forwarded) tell("forwards", told.forwarded);
    if (answer) {
      const flag = answer.flag ? ` (${answer.flag})` : "";
      const failed = answer.flag || answer.status === 0;
      tell("answer", [`${answer.status || "none"}${flag}: ${answer.why}`, ...answer.headers].join("\n"), failed ? "bad" : "good");
    }
    for (const lost of told.lost) tell("lost", `${lost.what}: ${lost.why}`);
    if (told.left_out) tell("", `and ${told.left_out} more`);
  } catch (error) {
    tell("error", error.message, "bad");
  }
  list.replaceChildren(...parts);
}

// --- changes

function notice(text, kind) {
  $("notice").textContent = text;
  $("notice").className = kind;
  $("notice").hidden = !text;
}

async function change(button, target, done) {
  button.disabled = true;
  try {
    done(await ask(target, "POST"));
  } catch (error) {
    notice(error.message, "bad");
  }
  button.disabled = false;
}

$("reload").addEventListener("click", (event) => change(event.target, "reload", (told) => {
  const result = told.loaded ? `Loaded as generation ${told.serving.generation}` : "Refused; still serving the previous configuration";
  notice(`${result}, after ${told.took_ms} ms.`, told.loaded ? "good" : "bad");
  slow();
}));
$("drain").addEventListener("click", (event) => {
  if (!confirm("Take no more connections, let what is under way finish, and end the process?")) return;
  change(event.target, "drain_listeners", (told) =>
    notice(`Draining ${told.connections} connections, for up to ${Math.round(told.timeout_ms / 1000)} s.`, "warn"));
});
$("try").addEventListener("submit", tried);
$("live-filter").addEventListener("input", showLive);
$("route-filter").addEventListener("input", showRoutes);

// --- again and again

async function quick() {
  const stats = await ask("stats?format=json");
  stats.byName = new Map(stats.routes.map((one) => [one.name, one]));
  readings.push(stats);
  if (readings.length > POINTS + 1) readings.shift();
  showStats();
  await follow();
  // A table that is written anew under somebody's selection would lose it.
  if (document.getSelection().isCollapsed) showRoutes();
}

async function slow() {
  const [served, listeners, clusters, certificates, conditions, reloads, status] = await Promise.all(
    ["routes", "listeners", "clusters", "certs", "conditions", "reloads", "status"].map((target) => ask(target)));
  routes = served.routes;
  showRoutes();
  showListeners(listeners.listeners);
  showClusters(clusters.clusters);
  showCertificates(certificates.certificates);
  showReloads(reloads.reloads);
  showTrouble(status, conditions.conditions, reloads.reloads, certificates.certificates, clusters.clusters);
}

let turn = 0;
async function again() {
  try {
    // Nobody looks at a page that is hidden.
    if (!document.hidden) {
      if (turn++ % 5 === 0) await slow();
      await quick();
    }
  } catch (error) {
    const drains = error.status === 503;
    $("health").textContent = drains ? "draining" : "does not answer";
    $("health").className = drains ? "badge warn" : "badge bad";
    turn = 0;
  }
  // Rates are made of two readings: the second is not far behind the first.
  setTimeout(again, readings.length < 2 ? 500 : EVERY);
}
again();
