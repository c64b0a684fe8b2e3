"use strict";
// The viewer of a page: two layers of one test image side by side of a movable border, with class toggles and zoom.
// All images lie in the page as data URIs; class ids come as gray PNG.
(() => {
  const UNKNOWN = 255, WRONG = [220, 40, 40];

  const decoded = (uri) => new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("an image of this page cannot be decoded"));
    image.src = uri;
  });

  const pixels = (image, width, height) => {
    const canvas = document.createElement("canvas");
    canvas.width = width; canvas.height = height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingEnabled = true;
    context.drawImage(image, 0, 0, width, height);
    return context.getImageData(0, 0, width, height).data;
  };

  // What a layer shows at a pixel: [r, g, b] to blend in, or null for the image alone.
  const shade = (layer, label, classes, enabled) => (index) => {
    if (layer === null) return null;
    const id = layer.ids[index];
    if (!layer.errors) return id < classes.length && enabled[id] ? classes[id].color : null;
    const truth = label[index];
    if (truth === UNKNOWN || id === truth) return null;
    return enabled[truth] || (id < classes.length && enabled[id]) ? WRONG : null;
  };

  const start = (root) => {
    const { classes, images } = JSON.parse(root.querySelector("script").textContent);
    const find = (name) => root.querySelector(`[data-part="${name}"]`);
    const canvas = root.querySelector("canvas"), context = canvas.getContext("2d");
    const boxes = [...root.querySelectorAll("fieldset input")];
    let photo = null, layers = {}, turn = 0;

    const draw = () => {
      if (!photo) return;
      const { width, height } = canvas, out = context.createImageData(width, height);
      const border = Math.round(width * find("split").value / 100), opacity = find("opacity").value / 100;
      const enabled = boxes.map((box) => box.checked), label = layers.label.ids;
      const sides = ["left", "right"].map((side) =>
        shade(layers[find(side).value] ?? null, label, classes, enabled));
      for (let index = 0; index < width * height; index++) {
        const color = sides[index % width < border ? 0 : 1](index);
        for (let channel = 0; channel < 3; channel++) {
          const base = photo[4 * index + channel];
          out.data[4 * index + channel] = color ? base + opacity * (color[channel] - base) : base;
        }
        out.data[4 * index + 3] = 255;
      }
      context.putImageData(out, 0, 0);
      context.fillStyle = "#ffffff";
      if (border > 0 && border < width) context.fillRect(border - 1, 0, 1, height);
      const zoom = Number(find("zoom").value);
      canvas.style.width = `${Math.round(width * zoom)}px`;
    };

    const choose = async () => {
      const chosen = images[find("image").value], mine = ++turn;
      const ids = {};
      let size = null;
      for (const [name, uri] of Object.entries(chosen.layers)) {
        const image = await decoded(uri);
        size ??= [image.naturalWidth, image.naturalHeight];
        ids[name] = pixels(image, ...size).filter((_, index) => index % 4 === 0);
      }
      const picture = await decoded(chosen.image);
      if (mine !== turn) return;  // another image was chosen meanwhile
      layers = {};
      for (const [name, values] of Object.entries(ids)) {
        layers[name] = { ids: values, errors: false };
        if (name !== "label") layers[`errors of ${name}`] = { ids: values, errors: true };
      }
      [canvas.width, canvas.height] = size;
      photo = pixels(picture, ...size);
      canvas.setAttribute("aria-label", `${chosen.name}, ${chosen.kind}: ${chosen.score}`);
      draw();
      root.dataset.shown = chosen.name;
    };

    find("image").addEventListener("change", choose);
    for (const name of ["left", "right", "split", "opacity", "zoom"]) find(name).addEventListener("input", draw);
    for (const box of boxes) box.addEventListener("change", draw);
    choose();
  };

  for (const root of document.querySelectorAll(".viewer")) start(root);
})();
