// Elements, and the text whose words can be looked at.

// Children that are text become text nodes: nothing of the payload is ever read as markup.
function make(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

const isolated = (text) => make("bdi", {}, text);

// Three significant digits, without trailing noise.
const number = (value) => (Number.isFinite(value) ? String(Number(value.toPrecision(3))) : "unknown");
const percent = (value) => (Number.isFinite(value) ? `${number(100 * value)} %` : "an unknown share");

// What a word is called in other panels.
const keyOf = (word) => [word.part, word.text.toLowerCase(), word.occurrence].join("\n");

const labelOf = (word) => (word.of > 1 ? `${word.text} (${word.part}, ${word.occurrence} of ${word.of})` : word.text);

// How a word's risk is shown: a class for the colour, a sign beside it, and words for those who hear the page.
function riskOf(word) {
  const told = [];
  if (word.risk !== null) told.push(`risk ${percent(word.risk)}`);
  if (word.verdict !== null) told.push(word.verdict);
  if (!told.length) return null;
  const verdicts = { supported: 0, unclear: 0.3, unsupported: 1 };
  const level = word.risk !== null ? word.risk : verdicts[word.verdict];
  if (level >= 0.5) return { level: "high", sign: "✗", told: told.join(", ") };
  if (level >= 0.25) return { level: "middle", sign: "?", told: told.join(", ") };
  return { level: "low", sign: "", told: told.join(", ") };
}

// The button of one word. `act` has what happens: shown, left, pinned, pressed.
function wordButton(word, index, act) {
  const sign = make("span", { class: "sign", "aria-hidden": "true" });
  const node = make("button", { type: "button", class: "word", "aria-pressed": "false", tabindex: "-1" }, word.text, sign);
  if (word.note) node.classList.add("without");
  node.addEventListener("mouseenter", () => act.shown(index));
  node.addEventListener("mouseleave", () => act.left(index));
  node.addEventListener("focus", () => act.shown(index));
  node.addEventListener("blur", () => act.left(index));
  node.addEventListener("click", () => act.pinned(index));
  node.addEventListener("keydown", (event) => act.pressed(event, index));
  return node;
}

// A line of text; the panel's `buttons` take the button of every word by its index.
function textLine(pieces, { words, buttons }, act, kind, name) {
  const line = make("p", { class: `text ${kind}`, dir: "auto", role: "group", "aria-label": name });
  for (const [text, index] of pieces) {
    if (index === null) {
      line.append(text);
      continue;
    }
    buttons[index] = wordButton(words[index], index, act);
    line.append(buttons[index]);
  }
  if (!pieces.length) line.append(make("em", {}, "(no text)"));
  return line;
}

// Colours the words of a panel by `how`: their risk, the picture's share of their attention, or nothing.
function colourWords(panel, how, shareOf) {
  panel.buttons.forEach((node, index) => {
    const word = panel.words[index];
    const risk = how === "risk" ? riskOf(word) : null;
    const share = how === "share" && !word.note ? shareOf(index) : NaN;
    for (const level of ["high", "middle", "low"]) node.classList.toggle(`risk-${level}`, risk !== null && risk.level === level);
    node.classList.toggle("shared", Number.isFinite(share));
    node.style.setProperty("--share", Number.isFinite(share) ? share.toFixed(4) : "0");
    node.querySelector(".sign").textContent = risk ? risk.sign : "";
    const told = [labelOf(word), risk && risk.told, Number.isFinite(share) && `${percent(share)} on the picture`, word.note && "no map"];
    node.setAttribute("aria-label", told.filter(Boolean).join(", "));
  });
}
