// The status page: what /api/v1/status says, every two seconds, and what /events says, as it comes.
//
// Names and texts come from guests and from strangers. They are put into the page as text only, and
// cut; nothing here makes markup of a string. Whatever comes, the page has a bounded number of rows.
"use strict";

(() => {
  const POLL = 2000; // ms between two looks at the status
  const PATIENCE = 8000; // ms that an answer may take
  const FLUSH = 250; // ms between two changes of the list of events
  const HISTORY = 100; // how many events from before to begin with
  const MAX_ROWS = 200; // of each table
  const MAX_TEXT = 300; // characters in a cell
  const MAX_JSON = 8192; // characters of an event that can be looked at
  const SILENCE = 15000; // ms after which a stream that should say something is given up
  const MAX_DELAY = 10000; // ms between two attempts to connect

  const SVG = "http://www.w3.org/2000/svg";
  const $ = (id) => document.getElementById(id);

  // Words

  const cut = (text, length = MAX_TEXT) =>
    text.length > length ? `${text.slice(0, length - 1)}…` : text;
  const number = (value) => (typeof value === "number" ? value.toLocaleString("en") : "–");
  const round = (value) => number(value < 10 ? Math.round(value * 10) / 10 : Math.round(value));

  function duration(seconds) {
    if (typeof seconds !== "number") return "–";
    if (seconds < 1) return "under 1 s";
    if (seconds < 120) return `${Math.floor(seconds)} s`;
    if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
    if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
    return `${Math.floor(seconds / 86400)} d`;
  }

  function size(bytes) {
    if (bytes < 1024) return `${bytes} B`;
    const unit = Math.min(4, Math.floor(Math.log2(bytes) / 10));
    const value = bytes / 2 ** (10 * unit);
    return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${"KMGT"[unit - 1]}iB`;
  }

  const between = (since, until) => Math.max(0, (Date.parse(until) - Date.parse(since)) / 1000);
  const ago = (time, now) => (time === null ? "never" : `${duration(between(time, now))} ago`);

  function clock(time) {
    const when = new Date(time);
    if (Number.isNaN(when.getTime())) return "–";
    const part = (value, digits = 2) => String(value).padStart(digits, "0");
    const hour = `${part(when.getHours())}:${part(when.getMinutes())}:${part(when.getSeconds())}`;
    return `${hour}.${part(when.getMilliseconds(), 3)}`;
  }

  // Tables

  function say(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function cell(row, label, kind = "") {
    const made = row.insertCell();
    made.dataset.label = label;
    made.className = kind;
    return made;
  }

  function sayState(target, state) {
    const element = target.firstChild ?? target.appendChild(document.createElement("span"));
    element.className = "state";
    element.dataset.state = state;
    say(element, state);
  }

  // A table whose rows are used again: the i-th row shows the i-th thing.
  const table = (body, columns) => (things) => {
    const shown = Math.min(things.length, MAX_ROWS);
    while (body.rows.length > shown) body.deleteRow(-1);
    while (body.rows.length < shown) {
      const row = body.insertRow();
      for (const [label, kind] of columns) cell(row, label, kind);
    }
    for (let i = 0; i < shown; i += 1) {
      columns.forEach(([label, , words], j) => {
        const target = body.rows[i].cells[j];
        if (label === "State") sayState(target, things[i].state);
        else say(target, cut(words(things[i])));
      });
    }
  };

  let status = null; // the newest one

  const showVMs = table($("vm-rows"), [
    ["VM", "name", (vm) => vm.name],
    ["State", ""],
    ["Last event", "number", (vm) => ago(vm.last_event, status.time)],
    ["Events", "number", (vm) => number(vm.events)],
    ["Session", "number", (vm) => number(vm.session)],
    ["Sequence", "number", (vm) => number(vm.sequence)],
    ["Where", "name", (vm) => vm.where],
    ["Problem", "words", (vm) => vm.problem ?? ""],
  ]);

  const lag = (sink) => `${number(sink.lag_events)}, ${duration(sink.lag_seconds)}`;
  const next = (sink) => `in ${duration(between(status.time, sink.next_attempt))}`;

  const showSinks = table($("sink-rows"), [
    ["Sink", "name", (sink) => sink.name],
    ["Kind", "name", (sink) => sink.kind],
    ["State", ""],
    ["Lag", "number", (sink) => (sink.lag_events ? lag(sink) : "none")],
    ["Sent", "number", (sink) => number(sink.sent)],
    ["Attempts", "number", (sink) => number(sink.attempts)],
    ["Dead letters", "number", (sink) => number(sink.dead)],
    ["Next attempt", "number", (sink) => (sink.next_attempt === null ? "" : next(sink))],
    ["Last error", "words", (sink) => sink.last_error ?? ""],
  ]);

  // The picture of the rate

  function draw(name, attributes, text = "") {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  }

  function showRate(rate) {
    const values = rate.events_per_second;
    const width = Math.max(280, $("chart").clientWidth);
    const [left, right, top, bottom] = [46, width - 6, 10, 166];
    const slots = Math.max(values.length, Math.round(600 / rate.interval_seconds));
    const minutes = Math.round((slots * rate.interval_seconds) / 60);
    const peak = Math.max(0, ...values);
    const power = 10 ** Math.floor(Math.log10(Math.max(peak, 1)));
    const most = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= peak);
    const x = (i) => right - ((values.length - i) / slots) * (right - left);
    const y = (value) => bottom - (value / most) * (bottom - top);
    const parts = [];
    for (const part of [0, 0.5, 1]) {
      const height = y(part * most);
      parts.push(draw("line", { class: "grid", x1: left, x2: right, y1: height, y2: height }));
      const at = { x: left - 6, y: height + 4, "text-anchor": "end" };
      parts.push(draw("text", at, round(part * most)));
    }
    for (let minute = 0; minute <= minutes; minute += width < 500 ? 5 : 2) {
      const anchor = minute === 0 ? "end" : minute === minutes ? "start" : "middle";
      const place = right - (minute / minutes) * (right - left);
      const at = { x: place, y: bottom + 18, "text-anchor": anchor };
      parts.push(draw("text", at, minute ? `−${minute} min` : "now"));
    }
    // Each value holds for its whole interval: a step, not a slope.
    const steps = values.map((value, i) => `${x(i)},${y(value)} ${x(i + 1)},${y(value)}`).join(" ");
    if (steps) {
      const area = `${x(0)},${bottom} ${steps} ${right},${bottom}`;
      parts.push(draw("polygon", { class: "area", points: area }));
      parts.push(draw("polyline", { class: "line", points: steps }));
    }
    const mean = values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
    const words = values.length
      ? `now ${round(values[values.length - 1])}, mean ${round(mean)}, peak ${round(peak)}`
      : "nothing measured yet";
    say($("rate-words"), words);
    $("chart").setAttribute("viewBox", `0 0 ${width} 190`);
    $("chart").setAttribute("aria-label", `the last ${minutes} minutes: ${words}`);
    $("chart").replaceChildren(...parts);
  }

  // The status

  const ORDER = ["gap", "busy", "connecting", "up", "gone"]; // what needs a look comes first

  const wanted = (name) => name.toLowerCase().includes($("filter").value.trim().toLowerCase());
  const well = (things) => `${number(things.filter((each) => each.state === "up").length)} of `
    + `${number(things.length)} up`;

  function showFleet() {
    const vms = status.vms.filter((vm) => wanted(vm.name));
    const rank = (vm) => ORDER.indexOf(vm.state);
    vms.sort((a, b) => rank(a) - rank(b) || (a.name < b.name ? -1 : 1));
    showVMs(vms);
    say($("vms-words"), well(status.vms));
    $("vms-more").hidden = vms.length <= MAX_ROWS;
    say($("vms-more"), `and ${number(vms.length - MAX_ROWS)} more: narrow it down by name`);
  }

  function showSpool(spool) {
    $("spool-meter").hidden = spool === null;
    $("spool-meter").value = spool?.max_bytes ? spool.bytes / spool.max_bytes : 0;
    const share = spool && `${size(spool.bytes)} of ${size(spool.max_bytes)}`;
    say($("spool-events"), number(spool?.events));
    say($("spool-size"), share ?? "there is none");
    say($("spool-oldest"), duration(spool?.oldest_age_seconds));
    say($("spool-dropped"), number(spool?.dropped));
  }

  function show() {
    const { config, node, started, time, version } = status;
    say($("node"), cut(`on ${node}`));
    say($("version"), cut(`txqmp ${version}`));
    say($("running"), duration(between(started, time)));
    const loaded = `loaded ${ago(config.loaded, time)}`;
    say($("config"), config.successful ? loaded : `the newest has errors; in force: ${loaded}`);
    showRate(status.rate);
    showSpool(status.spool);
    showFleet();
    showSinks(status.sinks);
    say($("sinks-words"), status.sinks.length ? well(status.sinks) : "none");
  }

  // Whether all this is true still

  const alive = { status: false, stream: false };

  function tell() {
    const connected = alive.status && alive.stream;
    const lost = "not connected: trying again.";
    const old = status === null ? lost : `${lost} All this is from ${clock(status.time)}`;
    $("connection").dataset.state = connected ? "connected" : "lost";
    say($("connection"), connected ? "connected" : old);
    document.title = connected ? "qmp-monitor" : "(not connected) qmp-monitor";
  }

  async function poll() {
    try {
      const options = { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) };
      const answer = await fetch("api/v1/status", options);
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      status = await answer.json();
      show();
      alive.status = true;
      if (stream.source === null && !stream.resting) begin();
      else if (silentTooLong()) again();
    } catch {
      alive.status = false;
    }
    tell();
    setTimeout(poll, POLL);
  }

  // The events

  const stream = { source: null, resting: false, feed: null, position: null, heard: 0, delay: 1000 };

  function begin() {
    if (stream.position === null) {
      stream.feed = status.feed.identity;
      stream.position = Math.max(0, status.feed.last - HISTORY);
    }
    const source = new EventSource(`events?after=${stream.position}&behind=1000`);
    stream.source = source;
    stream.heard = Date.now();
    source.addEventListener("hello", (message) => {
      heard();
      if (JSON.parse(message.data).feed === stream.feed) return;
      // Positions mean nothing in another spool: begin with what is in this one.
      stream.position = null;
      note("the daemon has another spool now");
      again();
    });
    source.addEventListener("gap", (message) => {
      heard(message.lastEventId);
      noteGap(JSON.parse(message.data));
    });
    source.onmessage = (message) => {
      heard(message.lastEventId);
      take(message.data);
    };
    source.onerror = again;
  }

  function heard(position) {
    stream.heard = Date.now();
    stream.delay = 1000;
    if (position !== undefined) stream.position = Number(position);
    if (alive.stream) return;
    alive.stream = true;
    tell();
  }

  // A connection can die without a word: then the daemon has events that did not come.
  const silentTooLong = () => stream.source !== null && status.feed.last > stream.position
    && Date.now() - stream.heard > SILENCE;

  // Not left to the browser, which gives up for good when it gets any answer but a stream. After a
  // rest, the next status that comes begins a new one.
  function again() {
    stream.source.close();
    stream.source = null;
    stream.resting = true;
    alive.stream = false;
    tell();
    setTimeout(() => { stream.resting = false; }, stream.delay * (0.75 + Math.random() / 2));
    stream.delay = Math.min(MAX_DELAY, stream.delay * 2);
  }

  // What an event is, whichever way it is written: as a CloudEvent or as a plain record.
  function read(text) {
    const found = JSON.parse(text);
    if (!("specversion" in found)) {
      const what = found.event === undefined ? found.data : found.qmp?.data;
      return { time: found.time, vm: found.vm, name: found.event ?? found.kind, what };
    }
    const data = found.data ?? {};
    const name = data.event ?? data.kind ?? found.type;
    return { time: found.time, vm: data.vm ?? found.subject, name, what: data.data };
  }

  const words = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const brief = (what) => cut(Object.entries(what ?? {})
    .map(([name, value]) => `${name}: ${words(value)}`).join(", "));

  let pending = []; // rows to be, the newest last
  let missed = 0; // how many will never be rows, because the list was held
  const paused = () => $("pause").getAttribute("aria-pressed") === "true";

  function keep(entry) {
    pending.push(entry);
    if (pending.length < 2 * MAX_ROWS) return;
    missed += pending.length - MAX_ROWS;
    pending = pending.slice(-MAX_ROWS);
  }

  function take(text) {
    let [event, what] = [{ name: "(not readable)" }, ""];
    try {
      event = read(text);
      what = brief(event.what);
    } catch {
      // It is shown as it came.
    }
    const [vm, name] = [event.vm, event.name].map((each) => cut(String(each ?? "")));
    keep({ time: event.time, vm, name, what, whole: cut(text, MAX_JSON) });
  }

  const note = (what) => keep({ time: Date.now(), vm: "", name: "gap", what, whole: null });

  function noteGap(gap) {
    const count = gap.count === 1 ? "1 event" : `${number(gap.count)} events`;
    note({
      skipped: `${count} skipped: this page was too slow, or away for too long`,
      dropped: `${count} missing: the spool has let go of them`,
      "unknown position": "the daemon does not know what came before",
    }[gap.reason] ?? cut(String(gap.reason)));
  }

  function makeRow(entry) {
    const row = document.createElement("tr");
    cell(row, "Time").textContent = clock(entry.time);
    cell(row, "VM").textContent = entry.vm;
    cell(row, "Event").textContent = entry.name;
    const what = cell(row, "What");
    if (entry.whole === null) {
      row.className = "gap";
      what.textContent = entry.what;
      return row;
    }
    const [details, summary, pre] = ["details", "summary", "pre"].map((name) =>
      document.createElement(name));
    summary.textContent = entry.what || "–";
    pre.textContent = entry.whole; // as it came: read and written again, large numbers change
    details.append(summary, pre);
    what.append(details);
    row.hidden = !wanted(entry.vm);
    return row;
  }

  function flush() {
    const body = $("event-rows");
    if (!paused() && pending.length) {
      body.prepend(...pending.slice(-MAX_ROWS).reverse().map(makeRow));
      [pending, missed] = [[], 0];
      while (body.rows.length > MAX_ROWS) body.deleteRow(-1);
    }
    const more = `paused; ${number(pending.length + missed)} more have come`;
    say($("events-words"), paused() ? more : `the newest ${number(body.rows.length)}`);
    setTimeout(flush, FLUSH);
  }

  // What people do

  $("pause").addEventListener("click", () => {
    const pressed = !paused();
    $("pause").setAttribute("aria-pressed", String(pressed));
    say($("pause"), pressed ? "Go on" : "Pause");
  });
  addEventListener("resize", () => {
    if (status !== null) showRate(status.rate);
  });
  $("filter").addEventListener("input", () => {
    if (status !== null) showFleet();
    for (const row of $("event-rows").rows) {
      row.hidden = row.className !== "gap" && !wanted(row.cells[1].textContent);
    }
  });

  flush();
  poll();
})();
