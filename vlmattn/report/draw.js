// Pixels and marks.

// Colours of the 256 levels with how much each covers, in the byte order of this machine.
function palette(table, opacity, solid) {
  const bytes = new Uint8ClampedArray(256 * 4);
  for (let level = 0; level < 256; level++) {
    bytes.set(table.subarray(3 * level, 3 * level + 3), 4 * level);
    bytes[4 * level + 3] = solid ? 255 : Math.round(255 * opacity * (level / 255) ** 0.6);
  }
  return new Uint32Array(bytes.buffer);
}

const levelOf = (value, [low, high]) => Math.max(0, Math.min(255, Math.round((255 * (value - low)) / (high - low))));

// For each of `count` pixels along a side, the interval of `edges` that holds its middle.
function pixelPlaces(edges, count) {
  const found = new Uint16Array(count);
  const size = edges[edges.length - 1];
  let place = 0;
  for (let pixel = 0; pixel < count; pixel++) {
    const middle = ((pixel + 0.5) * size) / count;
    while (place < edges.length - 2 && edges[place + 1] <= middle) place++;
    found[pixel] = place;
  }
  return found;
}

// Draws a field on a canvas. What was not seen, and everything where nothing stands out, stays clear.
function paint(canvas, field, scale, colours) {
  const { width, height } = canvas;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  if (!field.flat && scale[1] > scale[0]) {
    const pixels = new Uint32Array(image.data.buffer);
    const { nx } = field.mesh;
    const inks = Uint32Array.from(field.values, (value, at) => (field.count[at] ? colours[levelOf(value, scale)] : 0));
    const across = pixelPlaces(field.mesh.xs, width);
    const down = pixelPlaces(field.mesh.ys, height);
    for (let y = 0; y < height; y++) {
      const row = y * width;
      if (y && down[y] === down[y - 1]) {
        pixels.copyWithin(row, row - width, row);
        continue;
      }
      for (let x = 0; x < width; x++) pixels[row + x] = inks[down[y] * nx + across[x]];
    }
  }
  context.putImageData(image, 0, 0);
}

function svg(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const rectPath = (x0, y0, x1, y1) => `M${x0} ${y0}H${x1}V${y1}H${x0}Z`;

// One path of all places that no visible cell shows; runs in a row are one rectangle.
function unseenPath({ mesh, count }) {
  const { xs, ys, nx, ny } = mesh;
  let path = "";
  for (let y = 0; y < ny; y++) {
    for (let x = 0; x < nx; x++) {
      if (count[y * nx + x]) continue;
      const first = x;
      while (x + 1 < nx && !count[y * nx + x + 1]) x++;
      path += rectPath(xs[first], ys[y], xs[x + 1], ys[y + 1]);
    }
  }
  return path;
}

// A line in two colours, so that it is seen on any picture.
function outlined(path, kind) {
  return [svg("path", { d: path, class: `mark under ${kind}` }), svg("path", { d: path, class: `mark ${kind}` })];
}

function hatch(id, size) {
  const step = size / 45;
  return svg(
    "pattern",
    { id, width: step, height: step, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    svg("rect", { width: step, height: step, class: "hatch-back" }),
    svg("rect", { width: step / 2, height: step, class: "hatch-line" }),
  );
}

function ring(x, y, size) {
  const circle = (radius, kind) => svg("circle", { cx: x, cy: y, r: radius, class: `mark ${kind}` });
  return [circle(size / 40, "under peak"), circle(size / 40, "peak")];
}

// The label of a box, above its upper left corner, or below that where there is no room.
function tag(text, x, y, size) {
  const place = { x: Math.max(x, 0), y: y > size / 22 ? y - size / 110 : y + size / 26, "font-size": size / 30 };
  return [svg("text", { ...place, class: "tag under" }, text), svg("text", { ...place, class: "tag" }, text)];
}
