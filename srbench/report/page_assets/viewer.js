// Prompts and their videos. A prompt's data is a script of its own, loaded when it is opened;
// only the open prompt has video elements.
"use strict";
(() => {
  const { make, facts } = srbench, index = window.srbenchIndex;
  const $ = (id) => document.getElementById(id);
  const texts = new Map(index.prompts);
  const rank = new Map(index.prompts.map(([number], i) => [number, i]));
  const reference = index.methods.findIndex((m) => m.reference);
  const PAGE = 8;

  // -- one prompt's data: <script src=…> calls back, since file: allows no fetch

  const waiting = new Map();
  let newest = null; // one shard is kept; a prompt of 81-frame scores is some 100 kB
  window.srbenchShard = (number, data) => { newest = [number, data]; };
  const load = (number) => {
    if (newest && newest[0] === number) return Promise.resolve(newest[1]);
    if (!waiting.has(number)) {
      const script = make("script", { src: `report/data/p${String(number).padStart(4, "0")}.js` });
      waiting.set(number, new Promise((resolve, reject) => {
        script.onload = () => resolve(newest[1]);
        script.onerror = () => reject(new Error("its data could not be read"));
        document.head.append(script);
      }).finally(() => { waiting.delete(number); script.remove(); }));
    }
    return waiting.get(number);
  };

  // -- the list of prompts

  let shown = PAGE;
  const option = (value, text) => make("option", { value }, text);
  index.methods.forEach((m, i) => { if (i !== reference) $("loss-method").append(option(i, m.label)); });
  index.metrics.forEach((m) => $("loss-metric").append(option(m.name, m.difference ? `${m.heading} − reference` : m.heading)));
  if (!index.metrics.length || !$("loss-method").options.length) {
    $("order").replaceChildren(option("random", "random"), option("run", "as in the run"));
  }
  for (const seed of index.seeds) $("seed").append(option(seed, seed));

  const lossOf = (number) => {
    const rows = index.loss[$("loss-metric").value];
    return rows ? rows[rank.get(number)][Number($("loss-method").value)] ?? null : null;
  };
  const ordered = () => {
    const order = $("order").value;
    const words = $("find").value.trim().toLowerCase();
    let numbers = order === "random" ? index.random : index.prompts.map(([number]) => number);
    if (words) numbers = numbers.filter((n) => texts.get(n).toLowerCase().includes(words));
    if (order !== "worst" && order !== "best") return numbers;
    const metric = index.metrics.find((m) => m.name === $("loss-metric").value);
    const sign = (order === "worst") === metric.higher ? 1 : -1;
    const keyed = numbers.map((n) => [lossOf(n), n]);
    keyed.sort(([a], [b]) => (a === null) - (b === null) || (a === null ? 0 : sign * (a - b)));
    return keyed.map(([, n]) => n);
  };
  const list = () => {
    const numbers = ordered(), order = $("order").value;
    const metric = index.metrics.find((m) => m.name === $("loss-metric").value);
    $("prompts").replaceChildren(...numbers.slice(0, shown).map((number) => {
      const loss = lossOf(number);
      const link = make("a", { href: address({ ...state, prompt: number, method: null, frame: 0 }) }, texts.get(number));
      if (number === state.prompt) link.setAttribute("aria-current", "true");
      const value = loss === null ? "–" : `${metric.heading} ${metric.difference && loss > 0 ? "+" : ""}${loss.toPrecision(4)} ${metric.unit}`.trim().replace("-", "−");
      return make("li", {}, make("span", { className: "order" }, String(number)), link,
        make("span", { className: "loss" }, ["worst", "best"].includes(order) ? value : ""));
    }));
    const random = order === "random" ? ` (random order, seed ${index.random_seed})` : "";
    $("shown").textContent = `${Math.min(shown, numbers.length)} of ${numbers.length}${random}`;
    $("more").hidden = shown >= numbers.length;
  };
  for (const id of ["order", "loss-method", "loss-metric", "find"]) {
    $(id).addEventListener("input", () => {
      if (id.startsWith("loss") && !["worst", "best"].includes($("order").value)) $("order").value = "worst";
      shown = PAGE; list();
    });
  }
  $("more").addEventListener("click", () => { shown += 5 * PAGE; list(); });

  // -- what is open, as an address: #prompt=3&seed=0&method=srd_01-6a17&view=difference&frame=5

  const state = { prompt: null, seed: index.seeds[0], method: null, view: "video", frame: 0 };
  const address = (s) => {
    const query = new URLSearchParams({ prompt: s.prompt, seed: s.seed });
    if (s.method) query.set("method", s.method);
    if (s.view !== "video") query.set("view", s.view);
    if (s.frame) query.set("frame", s.frame);
    return `#${query}`;
  };
  const parse = (hash) => {
    const query = new URLSearchParams(hash.slice(1)), number = Number(query.get("prompt"));
    if (!query.has("prompt") || !texts.has(number)) return null;
    const seed = query.get("seed") ?? index.seeds[0]; // a word: numbers above 2^53 would be rounded
    return {
      prompt: number,
      seed: index.seeds.includes(seed) ? seed : index.seeds[0],
      method: index.methods.some((m) => m.slug === query.get("method")) ? query.get("method") : null,
      view: query.get("view") === "difference" ? "difference" : "video",
      frame: Math.max(0, Number.parseInt(query.get("frame"), 10) || 0),
    };
  };
  const remember = () => { history.replaceState(null, "", address(state)); };

  // -- tiles

  let tiles = [], fps = index.fps || 8, frames = 0, playing = false, turn = 0;
  const lead = () => tiles.find((t) => t.ready);

  const clear = () => {
    pause();
    for (const tile of tiles) {
      if (!tile.video) continue;
      tile.gone = true;
      tile.video.removeAttribute("src");
      tile.video.load(); // frees the decoder
    }
    tiles = [];
    $("tiles").replaceChildren();
  };

  const number = (text, getFacts) => {
    const button = make("button", { type: "button", className: "number" }, text);
    facts.set(button, getFacts);
    return button;
  };

  /** A line of per-frame scores with a mark at the frame shown. */
  const spark = (values) => {
    const known = values.filter((v) => v !== null);
    if (known.length < 2) return null;
    const low = Math.min(...known), range = Math.max(...known) - low || 1;
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 100 20");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    const x = (i) => 100 * i / (values.length - 1);
    const line = document.createElementNS(svg.namespaceURI, "polyline");
    line.setAttribute("points", values.map((v, i) => v === null ? "" : `${x(i)},${18 - 16 * (v - low) / range}`).join(" "));
    const mark = document.createElementNS(svg.namespaceURI, "line");
    mark.setAttribute("y1", 0); mark.setAttribute("y2", 20);
    svg.append(line, mark);
    svg.at = (i) => { mark.setAttribute("x1", x(i)); mark.setAttribute("x2", x(i)); };
    return svg;
  };

  const scoreLine = (tile, score) => {
    const metric = index.metrics.find((m) => m.name === score.name);
    const heading = metric ? metric.heading : score.name, unit = metric && metric.unit ? ` ${metric.unit}` : "";
    const text = score.value === null ? `${heading} –` : `${heading} ${score.value.toPrecision(4)}${unit}`;
    const now = make("span", { className: "now" });
    const line = make("p", { className: "score" }, number(text, () => [
      ["method", tile.method.label], ["prompt", texts.get(state.prompt)], ["seed", state.seed],
      ...score.facts, ["mean over", `${score.frames.length} frames`],
      ...(score.reason ? [["why missing", score.reason]] : []), ...tile.cell.facts,
    ]), now);
    const svg = spark(score.frames);
    if (svg) {
      line.append(svg);
      tile.onframe.push((i) => {
        svg.at(Math.min(i, score.frames.length - 1));
        const value = score.frames[i];
        now.textContent = value === undefined || value === null ? "" : `frame ${value.toPrecision(3)}`;
      });
    }
    return line;
  };

  const makeTile = (method, cell) => {
    const tile = { method, cell, video: null, canvas: null, frame: -1, ready: false, onframe: [] };
    const link = make("a", { href: address({ ...state, method: method.slug, frame: 0 }), title: "link to this video" }, method.label);
    const head = make("h4", {}, link);
    if (method.reference) head.append(make("span", { className: "tag" }, "reference"));
    tile.element = make("article", { className: "tile" }, head);
    tile.element.dataset.method = method.slug;
    const screen = make("div", { className: "screen" });
    tile.element.append(screen);
    if (!cell || !cell.video) {
      const word = cell ? cell.outcome : "missing";
      const why = cell ? cell.reason || "no reason recorded" : "the run has no record of it";
      screen.append(make("p", { className: "missing" }, word === "done" ? why : `${word}: ${why}`));
      return tile;
    }
    tile.video = make("video", { muted: true, playsInline: true, preload: "auto", src: cell.video });
    tile.video.setAttribute("aria-label", `${method.label}: ${texts.get(state.prompt)}`);
    tile.canvas = make("canvas", { hidden: true });
    screen.append(tile.video, tile.canvas);
    for (const score of cell.scores) tile.element.append(scoreLine(tile, score));
    const path = cell.switches.length ? `switched after ${cell.switches.join(", ")} of ${cell.steps} steps` : `${cell.steps} steps, one model`;
    tile.element.append(make("p", { className: "path" }, number(path, () => [["method", method.label], ...cell.facts])));
    watch(tile);
    return tile;
  };

  const tell = (frame) => {
    $("scrubber").value = frame;
    $("frame").textContent = `${frame + 1} / ${frames}`;
  };

  /** Keep tile.frame at the frame that is on the screen. */
  const watch = (tile) => {
    const { video } = tile;
    video.addEventListener("loadeddata", () => {
      if (tile.gone) return;
      tile.ready = true;
      tile.canvas.width = video.videoWidth;
      tile.canvas.height = video.videoHeight;
      tile.video.classList.toggle("small", video.videoWidth < 200);
      tile.canvas.classList.toggle("small", video.videoWidth < 200);
      frames = Math.max(frames, Math.round(video.duration * fps) || 0);
      $("scrubber").max = Math.max(0, frames - 1);
      seek(tile, Math.min(state.frame, frames - 1));
      tell(Math.min(state.frame, frames - 1));
    });
    video.addEventListener("error", () => {
      if (!tile.gone) video.replaceWith(make("p", { className: "missing" }, "the browser can't play its video"));
    });
    const see = (time) => {
      tile.frame = Math.round(time * fps - 1e-6);
      tile.element.dataset.frame = tile.frame;
      for (const each of tile.onframe) each(tile.frame);
      // Only while it plays: a first frame that comes before the seek is no one's wish.
      if (playing && tile === lead()) {
        state.frame = tile.frame;
        tell(tile.frame);
      }
      if (state.view === "difference") difference(tile);
    };
    const byClock = () => see(Math.floor(video.currentTime * fps + 1e-3) / fps);
    // A busy browser may skip the frame callback of a seek in a paused video, or bring it late.
    video.addEventListener("seeked", () => { if (video.paused) byClock(); });
    if (video.requestVideoFrameCallback) {
      const next = (_, { mediaTime }) => {
        if (tile.gone) return;
        if (!video.paused) see(mediaTime);
        else if (!video.seeking) byClock();
        video.requestVideoFrameCallback(next);
      };
      video.requestVideoFrameCallback(next);
    } else video.addEventListener("timeupdate", byClock);
  };

  /**
   * |a − b| · gain, exact in 8 bits: blend with "difference", then double by adding the picture to
   * itself. No pixel is read back, which a browser forbids for videos from disk.
   */
  const difference = (changed) => {
    const base = tiles[reference];
    if (!base || !base.ready) return;
    for (const tile of changed === base ? tiles : [changed]) {
      // Two frames of different times have no difference to show; the next callback brings the pair.
      if (!tile.ready || tile.frame !== base.frame) continue;
      const { canvas } = tile, context = canvas.getContext("2d");
      context.globalCompositeOperation = "copy";
      context.drawImage(tile.video, 0, 0);
      context.globalCompositeOperation = "difference";
      context.drawImage(base.video, 0, 0);
      context.globalCompositeOperation = "lighter";
      for (let gain = Number($("gain").value); gain > 1; gain /= 2) context.drawImage(canvas, 0, 0);
    }
  };

  // -- one clock for all

  const seek = (tile, frame) => { tile.video.currentTime = (frame + 0.5) / fps; };
  const settled = (tile) => new Promise((resolve) => {
    if (!tile.video.seeking) resolve();
    else {
      tile.video.addEventListener("seeked", resolve, { once: true });
      setTimeout(resolve, 2000); // a broken file must not hold the others
    }
  });
  const ready = () => tiles.filter((t) => t.ready);
  const go = async (frame) => {
    state.frame = Math.max(0, Math.min(frame, frames - 1));
    for (const tile of ready()) seek(tile, state.frame);
    tell(state.frame);
    await Promise.all(ready().map(settled));
  };
  const setPlaying = (value) => { playing = value; $("play").textContent = value ? "Pause" : "Play"; };
  const pause = () => {
    turn += 1;
    setPlaying(false);
    for (const { video } of ready()) video.pause();
  };
  const start = async (from) => {
    const own = ++turn;
    setPlaying(true);
    await go(from >= frames - 1 ? 0 : from);
    if (own !== turn) return;
    const speed = Number($("speed").value);
    await Promise.all(ready().map((t) => { t.video.playbackRate = speed; return t.video.play().catch(() => {}); }));
    const keep = () => {
      if (own !== turn) return;
      const running = ready().filter((t) => !t.video.ended);
      if (!running.length) { start(0); return; }
      hold(running.map((t) => t.video), speed);
      requestAnimationFrame(keep);
    };
    requestAnimationFrame(keep);
  };
  /**
   * All wait for the slowest. Who is a little ahead slows down, unseen; who is half a frame ahead
   * stops until the others are there. Nobody jumps: on a busy machine a jump takes longest of all.
   */
  const hold = (videos, speed) => {
    const slowest = Math.min(...videos.map((v) => v.currentTime));
    for (const video of videos) {
      const ahead = (video.currentTime - slowest) * fps; // in frames
      if (ahead > 0.5) { video.pause(); continue; }
      video.playbackRate = speed * (ahead < 0.1 ? 1 : 1 - ahead / 2);
      if (video.paused && ahead < 0.2) video.play().catch(() => {});
    }
  };

  $("play").addEventListener("click", () => {
    if (playing) { pause(); go(state.frame).then(remember); } else start(state.frame);
  });
  const step = (by) => { pause(); return go(state.frame + by).then(remember); };
  $("back").addEventListener("click", () => step(-1));
  $("forward").addEventListener("click", () => step(1));
  $("scrubber").addEventListener("input", () => { pause(); go(Number($("scrubber").value)); });
  $("scrubber").addEventListener("change", remember);
  $("speed").addEventListener("input", () => { if (playing) start(state.frame); });

  const showView = () => {
    const on = state.view === "difference" && tiles[reference] && tiles[reference].video;
    $("view").value = state.view;
    $("gain-label").hidden = state.view !== "difference";
    for (const tile of tiles) if (tile.canvas) { tile.canvas.hidden = !on; tile.video.classList.toggle("under", Boolean(on)); }
    $("status").textContent = state.view !== "difference" ? ""
      : on ? `|video − reference| × ${$("gain").value} in each colour, clipped at white; black where they are equal.`
        : "The reference's video is missing, so there is no difference to show.";
    if (on) difference(tiles[reference]);
  };
  $("view").addEventListener("input", () => { state.view = $("view").value; showView(); remember(); });
  $("gain").addEventListener("input", showView);
  $("seed").addEventListener("input", () => open({ ...state, seed: $("seed").value, frame: 0 }).then(remember));

  // -- opening

  const mark = () => {
    for (const tile of tiles) tile.element.classList.toggle("chosen", tile.method.slug === state.method);
  };
  const open = async (wanted) => {
    const same = wanted.prompt === state.prompt && wanted.seed === state.seed && tiles.length;
    Object.assign(state, wanted);
    if (!same) {
      clear();
      frames = 0;
      $("viewer").hidden = false;
      $("prompt-title").textContent = texts.get(state.prompt);
      $("seed").value = state.seed;
      $("status").textContent = "";
      let data;
      try { data = await load(state.prompt); } catch (error) { $("status").textContent = error.message; return; }
      if (wanted.prompt !== state.prompt || wanted.seed !== state.seed) return; // another was opened meanwhile
      const cells = data.seeds[state.seed] || {};
      tiles = index.methods.map((method, i) => makeTile(method, cells[i]));
      $("tiles").replaceChildren(...tiles.map((t) => t.element));
      list();
    } else await go(state.frame);
    showView();
    mark();
  };
  const follow_address = async (scroll) => {
    const wanted = parse(location.hash);
    if (!wanted) return false;
    await open(wanted);
    const tile = tiles.find((t) => t.method.slug === state.method);
    if (scroll) (tile ? tile.element : $("viewer")).scrollIntoView({ block: tile ? "center" : "start" });
    return true;
  };
  addEventListener("hashchange", () => follow_address(true));
  list();
  follow_address(true).then((found) => {
    if (found || !index.random.length) return;
    // Nothing is decoded before a reader comes near it.
    new IntersectionObserver((entries, observer) => {
      if (!entries.some((e) => e.isIntersecting)) return;
      observer.disconnect();
      if (state.prompt === null) open({ ...state, prompt: index.random[0] });
    }, { rootMargin: "200px" }).observe($("list-controls"));
  });
})();
