// Puts the page together and keeps it in step with what is asked for.

const LONGEST = 1024; // pixels of a map's longer side

// The picture or frame of one panel with its map and marks.
function stageOf(panel, entry, number, data) {
  const picture = data.pictures[entry.picture];
  const [width, height] = entry.image_wh;
  const factor = LONGEST / Math.max(width, height);
  const size = { width: Math.max(1, Math.round(width * factor)), height: Math.max(1, Math.round(height * factor)) };
  const image = make("img", { src: picture.frames[0], alt: `${picture.name}, ${width} x ${height} pixels` });
  const canvas = make("canvas", { ...size, "aria-hidden": "true" });
  const marks = svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const stage = make("div", { class: "stage" }, image, canvas, marks);
  stage.style.setProperty("--aspect", Math.min(20, Math.max(0.05, width / height)).toFixed(4));
  const caption = make("p", { class: "found" });
  const frames = picture.times ? picture.times.length : 0;
  const told = { panel, entry, number, picture, image, canvas, marks, caption, frames, frame: frames ? 0 : null, meshes: new Map() };
  told.cells = entry.tiles.reduce((sum, tile) => sum + tile.grid_hw[0] * tile.grid_hw[1], 0);
  told.node = make("figure", {}, stage, frames ? frameSlider(told) : null, make("figcaption", {}, caption, smallPrint(told)));
  return told;
}

function smallPrint({ entry, picture }) {
  const [width, height] = entry.image_wh;
  const name = isolated(picture.name);
  const scaled = picture.shown_wh[0] !== width || picture.shown_wh[1] !== height;
  const told = scaled ? `shown as ${picture.shown_as}; all coordinates are pixels of the original` : picture.shown_as;
  return make("p", { class: "small" }, name, ` · ${[`original ${width} x ${height} pixels`, told, ...picture.notes].join(" · ")}`);
}

function frameSlider(stage) {
  const { picture, entry } = stage;
  const say = (frame) => {
    const group = entry.slices.find((one) => one.includes(frame)).filter((one) => one !== frame);
    const shared = group.length ? `, on one grid with frame ${group.join(", ")}` : "";
    return `${frame} of 0 to ${picture.times.length - 1}, ${number(picture.times[frame])} s${shared}`;
  };
  const id = `frame-${stage.panel.index}-${stage.number}`;
  const one = slider("Frame", [0, stage.frames - 1, 1], 0, say, id, (frame) => {
    one.set(frame);
    stage.frame = frame;
    stage.image.src = picture.frames[frame];
    stage.panel.redraw();
  });
  return one.node;
}

function meshFor(stage, frame) {
  if (!stage.meshes.has(frame)) stage.meshes.set(frame, meshOf(stage.entry, frame));
  return stage.meshes.get(frame);
}

// The grids that are looked at for the scale: of a video, one frame of each group.
const framesOf = (stage) => (stage.frames ? stage.entry.slices.map((group) => group[0]) : [null]);

class Report {
  constructor(data, views) {
    this.data = data;
    this.views = views;
    this.scales = new Map();
    const layered = data.panels.filter((panel, n) => views[n].some((view) => view.layers.length));
    this.depth = Math.max(1, ...layered.map((panel) => panel.depth));
    this.panels = data.panels.map((panel, index) => this.panelOf({ ...panel, views: views[index], index }));
    this.state = this.begin();
  }

  begin() {
    const units = new Set(this.panels.map((panel) => panel.unit));
    const sizes = new Set(this.panels.map((panel) => panel.stages.map((stage) => stage.cells).join()));
    const judged = this.panels.some((panel) => panel.words.some((word) => riskOf(word)));
    return {
      panel: 0, word: 0, pinned: null, from: 0, to: this.depth - 1, heads: "all", opacity: 0.75, scale: "words",
      values: units.size > 1 || sizes.size > 1 ? "even" : "raw", colour: judged ? "risk" : "share",
      peak: true, box: false, boxes: true, unseen: true, sinks: true, without: false, solid: false,
    };
  }

  panelOf(panel) {
    const act = {
      shown: (word) => this.show(panel.index, word),
      left: () => this.leave(),
      pinned: (word) => this.pin(panel.index, word),
      pressed: (event, word) => this.press(event, panel, word),
    };
    panel.redraw = () => this.draw();
    panel.buttons = [];
    panel.stages = panel.pictures.map((entry, number) => stageOf(panel, entry, number, this.data));
    panel.buttons[0] = wordButton(panel.words[0], 0, act);
    panel.buttons[0].classList.add("whole");
    const whose = this.data.panels.length > 1 ? ` of panel ${panel.index + 1}, ${panel.title}` : "";
    const question = textLine(panel.question, panel, act, "question", `Question${whose}`);
    const answer = textLine(panel.answer, panel, act, "answer", `Answer${whose}`);
    panel.order = [...question.querySelectorAll("button"), ...answer.querySelectorAll("button"), panel.buttons[0]];
    panel.said = make("p", { class: "said small" });
    panel.table = make("details", { class: "table" }, make("summary", {}, "All words in numbers"));
    panel.table.addEventListener("toggle", () => this.fillTable(panel));
    panel.node = make(
      "article", { class: "panel" },
      make("h2", {}, isolated(panel.title), make("span", { class: "method" }, ` · ${panel.method}`)),
      question, make("div", { class: "row" }, answer, panel.buttons[0]),
      make("div", { class: "stages" }, ...panel.stages.map((stage) => stage.node)),
      panel.said, panel.table, provenanceOf(panel),
    );
    return panel;
  }

  // -- what is asked for ------------------------------------------------------------------------------------------------

  show(panel, word) {
    Object.assign(this.state, { panel, word });
    this.draw();
  }

  leave() {
    const { pinned } = this.state;
    if (pinned) this.show(pinned.panel, pinned.word);
  }

  pin(panel, word) {
    const { pinned } = this.state;
    const same = pinned && pinned.panel === panel && pinned.word === word;
    this.state.pinned = same ? null : { panel, word };
    this.show(panel, word);
  }

  press(event, panel, word) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    const at = panel.order.indexOf(panel.buttons[word]);
    const turned = getComputedStyle(panel.buttons[word].parentElement).direction === "rtl" ? -1 : 1;
    const steps = { ArrowLeft: at - turned, ArrowRight: at + turned, Home: 0, End: panel.order.length - 1 };
    if (event.key in steps) {
      const next = panel.order[Math.max(0, Math.min(panel.order.length - 1, steps[event.key]))];
      next.focus();
    } else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      this.step(event.key === "ArrowUp" ? 1 : -1);
    } else if (event.key === "Escape") {
      this.state.pinned = null;
      this.draw();
    } else return;
    event.preventDefault();
  }

  // From all layers to one, from one to the next, and past the ends to all again.
  step(by) {
    const { state, depth } = this;
    const one = state.from === state.to;
    const next = one ? state.from + by : by > 0 ? 0 : depth - 1;
    [state.from, state.to] = next < 0 || next >= depth ? [0, depth - 1] : [next, next];
    this.draw();
  }

  // -- maps -------------------------------------------------------------------------------------------------------------

  // Layers of a panel: those of the state, at the same relative depth where models differ in depth.
  rangeOf(panel) {
    const at = (layer) => Math.round(((layer + 0.5) / this.depth) * panel.depth - 0.5);
    return panel.depth === this.depth ? [this.state.from, this.state.to] : [at(this.state.from), at(this.state.to)];
  }

  viewOf(panel) {
    const { heads, without } = this.state;
    const fits = (view, sinks) => view.heads === heads && view.sinks === sinks;
    const wanted = without && panel.views.find((view) => fits(view, "drop"));
    const view = wanted || panel.views.find((one) => fits(one, "keep")) || panel.views[0];
    return { view, lines: linesIn(view, ...this.rangeOf(panel)) };
  }

  // The field of a word on one picture; null where there is none.
  fieldOf(panel, word, stage, frame) {
    const { view, lines } = this.viewOf(panel);
    if (!lines.length || panel.words[word].note) return null;
    const map = mapOf(view, word, lines);
    const shown = this.state.values === "even" ? evened(map, stage.entry.tiles[0].first_cell, stage.cells) : map;
    return shown && { ...onMesh(meshFor(stage, frame), shown), share: sharesOf(view, word, lines)[stage.number] };
  }

  // The word of another panel that goes with the one shown: the same one, else the whole answer.
  wordIn(panel) {
    const { panel: at, word } = this.state;
    if (panel.index === at) return word;
    const key = keyOf(this.panels[at].words[word]);
    return Math.max(0, panel.words.findIndex((one) => keyOf(one) === key));
  }

  // Whether the scale is that of the word alone. A whole answer is the mean of many words and far lower than any.
  aloneOnScale() {
    return this.state.scale === "word" || this.state.word === 0;
  }

  // One colour scale for all panels: from 0, or the lowest value below it, to the highest.
  scale() {
    const { state } = this;
    const word = this.aloneOnScale();
    const key = [state.heads, state.without, state.from, state.to, state.values, word && `${state.panel}.${state.word}`].join();
    if (!this.scales.has(key)) {
      let [low, high] = [0, 0];
      for (const panel of this.panels) {
        const words = word ? [this.wordIn(panel)] : [...panel.words.keys()].slice(1);
        for (const index of words) {
          for (const stage of panel.stages) {
            for (const frame of framesOf(stage)) {
              const field = this.fieldOf(panel, index, stage, frame);
              if (field && field.high > -Infinity) [low, high] = [Math.min(low, field.low), Math.max(high, field.high)];
            }
          }
        }
      }
      this.scales.set(key, [low, high]);
    }
    return this.scales.get(key);
  }

  // The word of an answer whose map has the highest value, all layers together: the page begins with it.
  sharpest(panel) {
    const heights = panel.words.map((word, index) => {
      if (word.part !== "answer") return -Infinity;
      const fields = panel.stages.map((stage) => this.fieldOf(panel, index, stage, framesOf(stage)[0]));
      return Math.max(-Infinity, ...fields.map((field) => (field ? field.high : -Infinity)));
    });
    const best = Math.max(...heights);
    return best > -Infinity ? heights.indexOf(best) : 0;
  }

  // -- drawing ----------------------------------------------------------------------------------------------------------

  draw() {
    const { state } = this;
    this.controls.follow();
    const scale = this.scale();
    const colours = palette(this.table, state.opacity, state.solid);
    for (const panel of this.panels) {
      const word = this.wordIn(panel);
      for (const stage of panel.stages) this.drawStage(panel, word, stage, scale, colours);
      this.markWords(panel, word);
      this.sayPanel(panel, word);
      this.fillTable(panel);
    }
    this.drawBar(scale);
    this.sayStatus();
  }

  drawStage(panel, word, stage, scale, colours) {
    const { state } = this;
    const field = this.fieldOf(panel, word, stage, stage.frame);
    const bare = onMesh(meshFor(stage, stage.frame), { values: new Float64Array(this.viewOf(panel).view.cells), hidden: null });
    paint(stage.canvas, field || bare, scale, colours);
    stage.image.classList.toggle("covered", state.solid && field !== null);
    const [width, height] = stage.entry.image_wh;
    const size = Math.max(width, height);
    const peak = field && peakOf(field);
    const unseen = unseenPath(field || bare);
    const id = `hatch-${panel.index}-${stage.number}`;
    stage.marks.replaceChildren(
      ...(state.unseen && unseen ? [hatch(id, size), svg("path", { d: unseen, fill: `url(#${id})`, class: "unseen" })] : []),
      ...(state.sinks ? this.sinkMarks(panel, stage) : []),
      ...(state.boxes ? boxMarks(panel, stage, size) : []),
      ...(state.box && field && !field.flat ? outlined(rectPath(...boxOf(field)), "own") : []),
      ...(state.peak && peak ? ring(peak.x, peak.y, size) : []),
    );
    stage.caption.textContent = foundText(panel.words[word], field, peak, stage);
  }

  sinkMarks(panel, stage) {
    const [from, to] = this.rangeOf(panel);
    const inside = (sink) => sink.layers.some((layer) => layer >= from && layer <= to);
    const boxes = (panel.sinks || []).filter(inside).flatMap((sink) => cellBoxes(stage, sink.cell));
    return boxes.length ? outlined(boxes.map((box) => rectPath(...box)).join(""), "sink") : [];
  }

  markWords(panel, word) {
    const { pinned, panel: active } = this.state;
    const { view, lines } = this.viewOf(panel);
    panel.buttons.forEach((node, index) => {
      const held = pinned !== null && pinned.panel === panel.index && pinned.word === index;
      node.setAttribute("aria-pressed", String(held));
      node.classList.toggle("shown", index === word);
      node.tabIndex = index === word || (panel.index !== active && index === 0 && !panel.buttons[word]) ? 0 : -1;
    });
    const shareOf = (index) => sharesOf(view, index, lines).reduce((a, b) => a + b, 0);
    const key = [this.state.colour, view.heads, view.sinks, lines.join()].join("|");
    if (panel.coloured !== key) colourWords(panel, this.state.colour, shareOf);
    panel.coloured = key;
  }

  layersText(panel) {
    const { view } = this.viewOf(panel);
    if (!view.layers.length) return "all layers";
    const [from, to] = this.rangeOf(panel);
    if (from === 0 && to === panel.depth - 1) return `all ${panel.depth} layers`;
    return from === to ? `layer ${from} of 0 to ${panel.depth - 1}` : `layers ${from} to ${to} of 0 to ${panel.depth - 1}`;
  }

  sayPanel(panel, word) {
    const { view, lines } = this.viewOf(panel);
    const told = [labelOf(panel.words[word]), this.layersText(panel), view.heads === "all" ? "all heads" : `heads: ${view.heads}`];
    if (view.heads !== this.state.heads) told.push(`this panel has no heads called ${this.state.heads}`);
    if (!lines.length) told.push("none of these heads lies in these layers");
    if (view.sinks === "drop") told.push("visual sinks left out");
    else if (this.state.without) told.push("no visual sinks to leave out");
    if (panel.index !== this.state.panel && word === 0 && this.state.word !== 0) told.push("this answer lacks the word: whole answer");
    panel.said.replaceChildren(isolated(told[0]), ` · ${told.slice(1).join(" · ")}`);
  }

  sayStatus() {
    const panel = this.panels[this.state.panel];
    const word = panel.words[this.state.word];
    const found = panel.stages.map((stage) => stage.caption.textContent).join("; ");
    const risk = riskOf(word);
    const told = [this.layersText(panel), found, risk && risk.told].filter(Boolean).join(" · ");
    const text = `${labelOf(word)} · ${told}`;
    if (this.status.textContent !== text) this.status.replaceChildren(make("strong", {}, isolated(labelOf(word))), ` · ${told}`);
  }

  drawBar([low, high]) {
    const names = { raw: this.panels[0].unit, even: "1 is an even look: each patch the same" };
    this.bar.ends[0].textContent = number(low);
    this.bar.ends[1].textContent = number(high);
    const whole = this.state.word === 0 ? "the whole answer" : "this word";
    const whose = this.aloneOnScale() ? whole : "all words";
    const shared = this.panels.length > 1 ? ", one scale for all panels" : "";
    this.bar.unit.textContent = high > low ? `${names[this.state.values]} (scale of ${whose}${shared})` : "nothing stands out: the maps are flat";
  }

  fillTable(panel) {
    if (!panel.table.open) return;
    const rows = panel.words.map((word, index) => this.tableRow(panel, word, index));
    const heads = ["word", "part", "on the picture", "peak", "log-probability", "risk"];
    const head = make("tr", {}, ...heads.map((name) => make("th", { scope: "col" }, name)));
    const body = make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
    panel.table.replaceChildren(panel.table.firstElementChild, make("div", { class: "wide", tabindex: "0", role: "group", "aria-label": "All words in numbers" }, body));
  }

  tableRow(panel, word, index) {
    const fields = panel.stages.map((stage) => this.fieldOf(panel, index, stage, stage.frame));
    const known = fields.filter((field) => field !== null);
    const peaks = known.map((field) => peakOf(field)).map((peak) => (peak ? `${number(peak.x)}, ${number(peak.y)}` : "flat"));
    const share = known.reduce((sum, field) => sum + field.share, 0);
    const risk = riskOf(word);
    const cells = [
      word.note ? "no map" : known.length ? percent(share) : "unknown", peaks.join("; "),
      word.log_probability === null ? "" : number(word.log_probability), risk ? risk.told : "",
    ];
    return make("tr", {}, make("th", { scope: "row" }, isolated(labelOf(word))), make("td", {}, word.part), ...cells.map((text) => make("td", {}, text)));
  }

  // -- the page ---------------------------------------------------------------------------------------------------------

  async build() {
    this.table = await unpack(this.data.colours.table);
    this.controls = controlPanel(this.panels, this.state, this.depth, () => this.draw());
    this.status = make("p", { class: "status", role: "status" });
    this.bar = colourBar(this.table);
    const main = document.getElementById("report");
    main.append(
      make("h1", { dir: "auto" }, isolated(this.data.title)),
      make("p", { class: "caution" }, `${this.data.caution[0].toUpperCase()}${this.data.caution.slice(1)}.`),
      make("div", { class: "panels" }, ...this.panels.map((panel) => panel.node)),
    );
    const below = make("div", { class: "below" }, this.status, this.bar.node, this.controls.node);
    const [first] = this.panels;
    // One panel has room beside its picture.
    if (this.panels.length === 1) first.node.insertBefore(below, first.said);
    else main.append(below);
    main.append(helpText());
    this.state.word = this.sharpest(first);
    this.draw();
    // Paper cannot be opened: what is closed is printed open, and closed again.
    let closed = [];
    addEventListener("beforeprint", () => {
      closed = [...document.querySelectorAll("details:not([open])")];
      closed.forEach((one) => (one.open = true));
      this.panels.forEach((panel) => this.fillTable(panel));
    });
    addEventListener("afterprint", () => closed.forEach((one) => (one.open = false)));
  }
}

function colourBar(table) {
  const canvas = make("canvas", { width: 256, height: 1, class: "colours", role: "img", "aria-label": "Colour scale, from low to high" });
  const image = canvas.getContext("2d").createImageData(256, 1);
  for (let level = 0; level < 256; level++) image.data.set([...table.subarray(3 * level, 3 * level + 3), 255], 4 * level);
  canvas.getContext("2d").putImageData(image, 0, 0);
  const sides = [make("span", {}), make("span", {})];
  const unit = make("span", { class: "unit" });
  const node = make("div", { class: "bar" }, sides[0], canvas, sides[1], unit);
  return { node, ends: sides, unit };
}

function cellBoxes(stage, cell) {
  for (const tile of stage.entry.tiles) {
    const at = cell - tile.first_cell;
    if (at < 0 || at >= tile.grid_hw[0] * tile.grid_hw[1]) continue;
    if (stage.frame !== null && !tile.frames.includes(stage.frame)) continue;
    const [row, col] = [Math.floor(at / tile.grid_hw[1]), at % tile.grid_hw[1]];
    return [[tile.cols[col][0], tile.rows[row][0], tile.cols[col][1], tile.rows[row][1]]];
  }
  return [];
}

function boxMarks(panel, stage, size) {
  const mine = panel.boxes.filter((box) => box.picture === stage.number);
  return mine.flatMap(({ box_xyxy: box, label }) => [...outlined(rectPath(...box), "given"), ...tag(label, box[0], box[1], size)]);
}

function foundText(word, field, peak, stage) {
  if (word.note) return `no map: ${word.note}`;
  if (field === null) return "no map here";
  const share = Number.isFinite(field.share) ? `${percent(field.share)} of its attention on the picture` : "its attention on the picture is not known";
  const where = stage.frame === null ? "" : ` of frame ${stage.frame}`;
  if (!field.count.some(Boolean)) return `it sees nothing of the picture · ${share}`;
  if (peak === null) return `flat, no peak · ${share}`;
  return `peak${where} at ${number4(peak.x)}, ${number4(peak.y)} (${number(peak.value)}) · ${share}`;
}

const number4 = (value) => String(Math.round(10 * value) / 10);

function provenanceOf(panel) {
  const list = make("dl", {});
  const said = { ...panel.provenance, notes: panel.notes, risk: panel.risk_by };
  for (const [name, value] of Object.entries(said)) {
    const empty = value === null || value === "" || (typeof value === "object" && !Object.keys(value).length);
    if (empty) continue;
    const versions = typeof value === "object" && !Array.isArray(value);
    const text = versions ? Object.entries(value).map((pair) => pair.join(" ")).join(", ") : Array.isArray(value) ? value.join("; ") : String(value);
    list.append(make("dt", {}, name), make("dd", {}, isolated(text)));
  }
  return make("details", { class: "provenance" }, make("summary", {}, "How this was made"), list);
}

function helpText() {
  const lines = [
    "Point at a word, or move to it with Tab and the left and right arrow keys, to see its map; click it, or press Enter, to keep it.",
    "The up and down arrow keys go through the layers one by one, and past the last back to all; Escape lets a kept word go.",
    "A patch shows its value wherever it lies; where several tiles show one place, their mean. Hatched places were not seen by the model.",
    "A map of several layers is the mean of theirs. High attention is no proof that the answer rests on a place, and low attention none that it does not: attention sinks draw much without regard to content.",
  ];
  return make("details", { class: "help" }, make("summary", {}, "How to read and use this page"), make("ul", {}, ...lines.map((line) => make("li", {}, line))));
}

async function begin() {
  const data = JSON.parse(document.getElementById("payload").textContent);
  const views = await Promise.all(data.panels.map((panel) => Promise.all(panel.views.map(unpackView))));
  await new Report(data, views).build();
  performance.mark("interactive");
  document.documentElement.dataset.ready = "true";
}

begin().catch((error) => {
  document.getElementById("report").append(make("p", { class: "caution", role: "alert" }, `This page could not be drawn: ${error.message}. It needs a browser of 2023 or later.`));
  throw error;
});
