// Sliders, choices and switches. Each changes the state and has everything drawn again.

function slider(name, [least, most, step], value, say, id, change) {
  const node = make("input", { type: "range", id, min: least, max: most, step, value });
  const told = make("span", { class: "told", "aria-hidden": "true" }); // the slider itself tells it
  const set = (to) => {
    node.value = to;
    told.textContent = say(Number(to));
    node.setAttribute("aria-valuetext", told.textContent);
  };
  node.addEventListener("input", () => change(Number(node.value)));
  set(value);
  return { node: make("div", { class: "control" }, make("label", { for: id }, name), node, told), input: node, set };
}

function choice(name, entries, value, change) {
  const id = `control-${name.toLowerCase().replaceAll(" ", "-")}`;
  const options = entries.map(([key, text, off]) => make("option", { value: key, disabled: Boolean(off) }, text));
  const node = make("select", { id }, ...options);
  node.value = value;
  node.addEventListener("change", () => change(node.value));
  return make("div", { class: "control" }, make("label", { for: id }, name), node);
}

function toggle(name, on, change) {
  const node = make("button", { type: "button", class: "toggle", "aria-pressed": String(on) }, name);
  node.addEventListener("click", () => {
    const pressed = node.getAttribute("aria-pressed") !== "true";
    node.setAttribute("aria-pressed", String(pressed));
    change(pressed);
  });
  return node;
}

// The heads that any panel can be read by, in order, with where they come from.
function headChoices(panels) {
  const found = new Map();
  for (const view of panels.flatMap((panel) => panel.views)) if (!found.has(view.heads)) found.set(view.heads, view.source);
  return [...found].map(([name, source]) => [name, name === "all" ? "all heads" : source ? `${name} (${source})` : name]);
}

const SWITCHES = [
  ["peak", "Peak", () => true],
  ["box", "Box of the top tenth", () => true],
  ["boxes", "Given boxes", (panels) => panels.some((panel) => panel.boxes.length)],
  ["unseen", "Unseen area", () => true],
  ["sinks", "Mark visual sinks", (panels) => panels.some((panel) => panel.sinks && panel.sinks.length)],
  ["without", "Leave sinks out", (panels) => panels.some((panel) => panel.views.some((view) => view.sinks === "drop"))],
  ["solid", "Map only", () => true],
];

function controlPanel(panels, state, depth, redraw) {
  const set = (name) => (value) => {
    state[name] = value;
    redraw();
  };
  const layered = panels.some((panel) => panel.views.some((view) => view.layers.length));
  const from = slider("From layer", [0, depth - 1, 1], state.from, String, "from-layer", (value) => {
    state.from = value;
    state.to = Math.max(state.to, value);
    redraw();
  });
  const to = slider("To layer", [0, depth - 1, 1], state.to, String, "to-layer", (value) => {
    state.to = value;
    state.from = Math.min(state.from, value);
    redraw();
  });
  const opacity = slider("Opacity", [0, 100, 5], 100 * state.opacity, (value) => `${value} %`, "opacity", (value) => {
    opacity.set(value);
    state.opacity = value / 100;
    redraw();
  });
  const raw = panels.every((panel) => panel.unit === panels[0].unit);
  const judged = panels.some((panel) => panel.words.some((word) => riskOf(word)));
  const switches = SWITCHES.filter(([, , fits]) => fits(panels)).map(([name, text]) =>
    toggle(text, state[name], set(name)),
  );
  const node = make(
    "section",
    { class: "controls", "aria-label": "Controls" },
    layered ? make("div", { class: "pair" }, from.node, to.node) : null,
    make(
      "div",
      { class: "pair" },
      choice("Heads", headChoices(panels), state.heads, set("heads")),
      opacity.node,
      choice("Values", [["raw", "as measured", !raw], ["even", "1 = an even look"]], state.values, set("values")),
      choice("Colour scale", [["words", "of all words"], ["word", "of this word"]], state.scale, set("scale")),
      choice("Colour words by", [["risk", "risk", !judged], ["share", "share of the picture"], ["none", "nothing"]], state.colour, set("colour")),
    ),
    make("div", { class: "switches", role: "group", "aria-label": "Show" }, ...switches),
  );
  const follow = () => {
    from.set(state.from);
    to.set(state.to);
  };
  return { node, follow };
}
