// From the packed grids to the map of a word over a range of layers.

// Bytes of a packed array: base64 of a zlib stream.
async function unpack(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let at = 0; at < bytes.length; at++) bytes[at] = letters.charCodeAt(at);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function unpackView(view) {
  const [words, lines, cells] = view.grids.shape;
  const [levels, low, step] = await Promise.all([view.grids.levels, view.grids.low, view.grids.step].map(unpack));
  const bits = view.hidden === null ? null : await unpack(view.hidden);
  const hidden = bits && new Uint8Array(words * lines * cells);
  if (hidden) for (let at = 0; at < hidden.length; at++) hidden[at] = (bits[at >> 3] >> (7 - (at & 7))) & 1;
  return { ...view, words, lines, cells, levels, low: floats(low), step: floats(step), hidden };
}

const floats = (bytes) => {
  const reader = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => reader.getFloat32(4 * i, true));
};

// Lines of a view that lie in layers [from, to]; a method without layers has one line, always used.
function linesIn(view, from, to) {
  if (!view.layers.length) return [0];
  return [...view.layers.keys()].filter((line) => view.layers[line] >= from && view.layers[line] <= to);
}

// The share of a word's raw attention on each picture, mean over lines; NaN where that is not known.
function sharesOf(view, word, lines) {
  const total = lines.reduce((sum, line) => sum + view.weights[line], 0);
  const part = (line, n) => (view.share[word][line][n] === null ? NaN : view.share[word][line][n]);
  return view.share[word][0].map((_, n) => lines.reduce((sum, line) => sum + view.weights[line] * part(line, n), 0) / total);
}

// The weighted mean of a word's maps over lines.
function mapOf(view, word, lines) {
  const { cells } = view;
  const values = new Float64Array(cells);
  const hidden = view.hidden && new Uint8Array(cells).fill(1);
  let total = 0;
  for (const line of lines) {
    const map = word * view.lines + line;
    const weight = view.weights[line];
    total += weight;
    for (let cell = 0, at = map * cells; cell < cells; cell++, at++) {
      values[cell] += weight * (view.low[map] + view.step[map] * view.levels[at]);
      if (hidden) hidden[cell] &= view.hidden[at];
    }
  }
  if (total) for (let cell = 0; cell < cells; cell++) values[cell] /= total;
  return { values, hidden };
}

// The map with 1 for an even look, over all cells of a picture; null where that has no meaning.
function evened(map, first, count) {
  let [sum, seen] = [0, 0];
  for (let cell = first; cell < first + count; cell++) {
    if (map.hidden && map.hidden[cell]) continue;
    if (map.values[cell] < 0) return null;
    sum += map.values[cell];
    seen += 1;
  }
  if (!(sum > 0)) return null;
  return { ...map, values: map.values.map((value) => (value * seen) / sum) };
}
