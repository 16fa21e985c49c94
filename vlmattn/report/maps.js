// From the packed grids to the map of a word over a range of layers.

// Bytes of a packed array: base64 of a zlib stream.
async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function unpackView(view) {
  const [words, lines, cells] = view.grids.shape;
  const [levels, low, step] = await Promise.all([view.grids.levels, view.grids.low, view.grids.step].map(unpack));
  const bits = view.hidden === null ? null : await unpack(view.hidden);
  const hidden = bits && Uint8Array.from({ length: words * lines * cells }, (_, i) => (bits[i >> 3] >> (7 - (i & 7))) & 1);
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

// The weighted mean of a word's maps over lines, and the share of the word's raw attention on each picture.
function mapOf(view, word, lines) {
  const { cells } = view;
  const values = new Float64Array(cells);
  const hidden = view.hidden && new Uint8Array(cells).fill(1);
  let total = 0;
  const share = view.share[word][0].map(() => 0);
  for (const line of lines) {
    const map = word * view.lines + line;
    const weight = view.weights[line];
    total += weight;
    for (let cell = 0, at = map * cells; cell < cells; cell++, at++) {
      values[cell] += weight * (view.low[map] + view.step[map] * view.levels[at]);
      if (hidden) hidden[cell] &= view.hidden[at];
    }
    view.share[word][line].forEach((part, n) => (share[n] = part === null ? NaN : share[n] + weight * part));
  }
  if (total) for (let cell = 0; cell < cells; cell++) values[cell] /= total;
  return { values, hidden, share: share.map((part) => part / total) };
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
