// Where cells lie. All coordinates are pixels of the original: x right, y down, box ends exclusive.

// The cells of all tiles of a picture cut it into rectangles in which one value holds. `frame` chooses a video's tiles.
function meshOf(layout, frame) {
  const [width, height] = layout.image_wh;
  const tiles = layout.tiles.filter((tile) => frame === null || tile.frames.includes(frame));
  const xs = cuts(tiles.flatMap((tile) => tile.cols), width);
  const ys = cuts(tiles.flatMap((tile) => tile.rows), height);
  const views = tiles.map((tile) => ({
    first: tile.first_cell,
    cols: tile.grid_hw[1],
    across: places(tile.cols, xs),
    down: places(tile.rows, ys),
  }));
  return { width, height, xs, ys, nx: xs.length - 1, ny: ys.length - 1, views };
}

// Edges of spans inside 0 to size, ascending, with both ends; edges closer than a millionth of a pixel are one.
function cuts(spans, size) {
  const inside = spans.flat().filter((edge) => edge > 0 && edge < size);
  const sorted = [0, ...inside, size].sort((a, b) => a - b);
  return sorted.filter((edge, index) => index === 0 || edge - sorted[index - 1] > 1e-6);
}

// For each interval between edges, the index of the span that holds its middle; -1 where none does.
function places(spans, edges) {
  const found = new Int32Array(edges.length - 1).fill(-1);
  for (let at = 0; at < found.length; at++) {
    const middle = (edges[at] + edges[at + 1]) / 2;
    found[at] = spans.findIndex(([low, high]) => low <= middle && middle < high);
  }
  return found;
}

// A map of cells on the mesh: the mean over the tiles that show a place, and whether any of them does.
function onMesh(mesh, map) {
  const { nx, ny } = mesh;
  const values = new Float64Array(nx * ny);
  const count = new Uint8Array(nx * ny);
  for (const view of mesh.views) {
    for (let y = 0; y < ny; y++) {
      if (view.down[y] < 0) continue;
      const row = view.first + view.down[y] * view.cols;
      for (let x = 0; x < nx; x++) {
        if (view.across[x] < 0) continue;
        const cell = row + view.across[x];
        if (map.hidden && map.hidden[cell]) continue;
        values[y * nx + x] += map.values[cell];
        count[y * nx + x] += 1;
      }
    }
  }
  for (let at = 0; at < values.length; at++) if (count[at] > 1) values[at] /= count[at];
  return { mesh, values, count, ...ends(values, count) };
}

// Lowest and highest seen value, and whether they are one.
function ends(values, count) {
  let low = Infinity;
  let high = -Infinity;
  for (let at = 0; at < values.length; at++) {
    if (!count[at]) continue;
    if (values[at] < low) low = values[at];
    if (values[at] > high) high = values[at];
  }
  const flat = !(high - low > 1e-6 * Math.max(Math.abs(low), Math.abs(high)));
  return { low, high, flat };
}

// The middle of the highest place; null for a flat map.
function peakOf(field) {
  if (field.flat) return null;
  const { xs, ys, nx, ny } = field.mesh;
  const floor = field.high - 1e-5 * (field.high - field.low);
  const top = field.values.findIndex((value, at) => field.count[at] && value >= floor);
  const [x, y] = [top % nx, Math.floor(top / nx)];
  const high = (column, row) => field.count[row * nx + column] && field.values[row * nx + column] >= floor;
  let [right, bottom] = [x, y];
  while (right + 1 < nx && high(right + 1, y)) right++;
  while (bottom + 1 < ny && high(x, bottom + 1)) bottom++;
  return { x: (xs[x] + xs[right + 1]) / 2, y: (ys[y] + ys[bottom + 1]) / 2, value: field.values[top] };
}

const areaAt = ({ xs, ys, nx }, at) => {
  const [x, y] = [at % nx, Math.floor(at / nx)];
  return (xs[x + 1] - xs[x]) * (ys[y + 1] - ys[y]);
};

// The box round the largest connected region of the highest tenth of the seen area, or of all that is above the lowest
// value where that fills nine tenths; null for a flat map.
function boxOf(field) {
  if (field.flat) return null;
  const { mesh, values, count } = field;
  const seen = [...values.keys()].filter((at) => count[at]).sort((a, b) => values[a] - values[b]);
  const whole = seen.reduce((sum, at) => sum + areaAt(mesh, at), 0);
  let below = 0;
  const cut = seen.find((at) => (below += areaAt(mesh, at)) > 0.9 * whole);
  const low = values[seen[0]];
  const level = values[values[cut] > low ? cut : seen.find((at) => values[at] > low)];
  const inside = values.map((value, at) => (count[at] && value >= level ? 1 : 0));
  let best = null;
  for (let at = 0; at < inside.length; at++) {
    if (!inside[at]) continue;
    const region = regionAt(mesh, inside, at);
    if (!best || region.area > best.area + 1e-9) best = region;
  }
  return best && best.box;
}

// The region that holds a place, corners counting as neighbours; its places are struck from `inside`.
function regionAt(mesh, inside, start) {
  const { nx, ny, xs, ys } = mesh;
  const open = [start];
  inside[start] = 0;
  let area = 0;
  let [left, top, right, bottom] = [nx, ny, 0, 0];
  while (open.length) {
    const at = open.pop();
    const [x, y] = [at % nx, Math.floor(at / nx)];
    area += areaAt(mesh, at);
    [left, top] = [Math.min(left, x), Math.min(top, y)];
    [right, bottom] = [Math.max(right, x + 1), Math.max(bottom, y + 1)];
    for (let row = Math.max(y - 1, 0); row <= Math.min(y + 1, ny - 1); row++) {
      for (let column = Math.max(x - 1, 0); column <= Math.min(x + 1, nx - 1); column++) {
        const next = row * nx + column;
        if (inside[next]) open.push(next);
        inside[next] = 0;
      }
    }
  }
  return { area, box: [xs[left], ys[top], xs[right], ys[bottom]] };
}
