"use strict";
// Point clouds in the OpenCV camera frame (x right, y down, z forward): WebGL, or a software z-buffer without it.
(() => {
  const VERTEX = `
    attribute vec3 place; attribute vec3 colour;
    uniform mat4 view; uniform vec3 low, extent; uniform float size, largest, usual, by_depth;
    varying vec3 shade;
    void main() {
      vec3 point = low + place * extent;
      gl_Position = view * vec4(point, 1.0);
      gl_PointSize = clamp(size * mix(usual, point.z, by_depth) / gl_Position.w, 1.0, largest);
      shade = colour;
    }`;
  const FRAGMENT = `
    precision mediump float; varying vec3 shade;
    void main() {
      vec2 from = gl_PointCoord - 0.5;
      if (dot(from, from) > 0.25) discard;
      gl_FragColor = vec4(shade, 1.0);
    }`;

  function decode(text, count) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return { places: new Uint16Array(bytes.buffer, 0, 3 * count), colours: bytes.subarray(6 * count) };
  }

  // Column-major world-to-clip matrix of an eye that looks at `target` from `distance`, and the size in pixels of a
  // point seen from its first distance, chosen so that the points about fill the view.
  function camera(state, view, width, height) {
    const [cy, sy, cp, sp] = [Math.cos(state.yaw), Math.sin(state.yaw), Math.cos(state.pitch), Math.sin(state.pitch)];
    const right = [cy, 0, -sy], forward = [sy * cp, sp, cy * cp], down = [-sy * sp, cp, -cy * sp];
    const eye = state.target.map((t, i) => t - forward[i] * state.distance);
    const tall = 1.12 * Math.max(view.tangents[1], view.tangents[0] * height / width);
    const wide = tall * width / height;
    const near = 0.02 * state.distance, far = 500 * state.distance;
    const dot = (a) => a[0] * eye[0] + a[1] * eye[1] + a[2] * eye[2];
    const rows = [
      [...right.map((v) => v / wide), -dot(right) / wide],
      [...down.map((v) => -v / tall), dot(down) / tall],
      [...forward.map((v) => v * (far + near) / (far - near)),
        -dot(forward) * (far + near) / (far - near) - 2 * far * near / (far - near)],
      [...forward, -dot(forward)],
    ];
    const spread = 4 * view.tangents[0] * view.tangents[1] / (4 * wide * tall);
    const size = 2.1 * Math.sqrt(spread * width * height / view.count);
    return { matrix: Float32Array.from({ length: 16 }, (_, i) => rows[i % 4][i >> 2]), size };
  }

  function webgl(canvas, view, data) {
    const gl = canvas.getContext("webgl", { antialias: false, alpha: true });
    if (!gl) return null;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return null;
    gl.useProgram(program);
    for (const [name, values, kind] of [["place", data.places, gl.UNSIGNED_SHORT], ["colour", data.colours, gl.UNSIGNED_BYTE]]) {
      gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
      const where = gl.getAttribLocation(program, name);
      gl.enableVertexAttribArray(where);
      gl.vertexAttribPointer(where, 3, kind, true, 0, 0);
    }
    const uniform = (name) => gl.getUniformLocation(program, name);
    gl.uniform3fv(uniform("low"), view.low);
    gl.uniform3fv(uniform("extent"), view.extent);
    gl.uniform1f(uniform("usual"), view.distance);
    gl.uniform1f(uniform("by_depth"), view.by_depth ? 1 : 0);
    gl.enable(gl.DEPTH_TEST);
    return ({ matrix, size }) => {
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      gl.uniformMatrix4fv(uniform("view"), false, matrix);
      gl.uniform1f(uniform("size"), size);
      gl.uniform1f(uniform("largest"), canvas.height / 24);
      gl.drawArrays(gl.POINTS, 0, view.count);
    };
  }

  function software(canvas, view, data) {
    const context = canvas.getContext("2d");
    return ({ matrix: m, size }) => {
      const { width, height } = canvas;
      const picture = context.createImageData(width, height);
      const pixels = new Uint32Array(picture.data.buffer);
      const nearest = new Float32Array(width * height).fill(Infinity);
      for (let i = 0; i < view.count; i++) {
        const x = view.low[0] + data.places[3 * i] / 65535 * view.extent[0];
        const y = view.low[1] + data.places[3 * i + 1] / 65535 * view.extent[1];
        const z = view.low[2] + data.places[3 * i + 2] / 65535 * view.extent[2];
        const w = m[3] * x + m[7] * y + m[11] * z + m[15];
        if (w <= 0) continue;
        const half = Math.min(Math.max(size * (view.by_depth ? z : view.distance) / w, 1), height / 24) / 2;
        const u = (1 + (m[0] * x + m[4] * y + m[8] * z + m[12]) / w) * width / 2;
        const v = (1 - (m[1] * x + m[5] * y + m[9] * z + m[13]) / w) * height / 2;
        const colour = 0xff000000 | data.colours[3 * i + 2] << 16 | data.colours[3 * i + 1] << 8 | data.colours[3 * i];
        for (let row = Math.max(0, Math.round(v - half)); row < Math.min(height, Math.round(v + half)); row++) {
          for (let column = Math.max(0, Math.round(u - half)); column < Math.min(width, Math.round(u + half)); column++) {
            const at = row * width + column;
            if (w < nearest[at]) { nearest[at] = w; pixels[at] = colour; }
          }
        }
      }
      context.putImageData(picture, 0, 0);
    };
  }

  function start(figure) {
    const stage = figure.querySelector(".stage");
    const view = JSON.parse(stage.dataset.view);
    const data = decode(figure.querySelector("script").textContent, view.count);
    let canvas = stage.querySelector("canvas");
    let paint = webgl(canvas, view, data);
    const withoutWebgl = () => {
      const fresh = canvas.cloneNode();  // a canvas that had one kind of context cannot get another
      canvas.replaceWith(fresh);
      canvas = fresh;
      paint = software(canvas, view, data);
    };
    if (paint) canvas.addEventListener("webglcontextlost", () => { withoutWebgl(); request(); });
    else withoutWebgl();

    const first = () => ({ yaw: 0, pitch: 0, distance: view.distance, target: [...view.target] });
    let state = first(), swaying = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    let visible = true, requested = false, began = null;
    const request = () => { if (visible && !requested) { requested = true; requestAnimationFrame(draw); } };
    function draw(now) {
      requested = false;
      if (swaying) {
        began ??= now;
        const t = (now - began) / 1000;
        state.yaw = 0.3 * Math.sin(0.55 * t);
        state.pitch = -0.06 * (1 - Math.cos(0.55 * t));
      }
      const scale = Math.min(devicePixelRatio || 1, 2);
      const width = Math.max(1, Math.round(stage.clientWidth * scale));
      const height = Math.max(1, Math.round(stage.clientHeight * scale));
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
      paint(camera(state, view, width, height));
      if (swaying) request();
    }
    new IntersectionObserver(([entry]) => { visible = entry.isIntersecting; request(); }).observe(stage);
    new ResizeObserver(request).observe(stage);
    steer(stage, () => state, () => { swaying = false; stage.classList.add("touched"); }, request, view);
    stage.querySelector(".reset").addEventListener("click", () => { swaying = false; state = first(); request(); });
    request();
  }

  // One pointer turns (with the right button or Shift: moves), two move and zoom; the wheel zooms once the cloud was
  // touched, so that it does not catch the scrolling of the page.
  function steer(stage, current, touched, request, view) {
    const pointers = new Map();
    let active = false;
    const move = (dx, dy) => {
      const state = current();
      const step = 2 * state.distance * view.tangents[1] / stage.clientHeight;
      const [cy, sy, cp, sp] = [Math.cos(state.yaw), Math.sin(state.yaw), Math.cos(state.pitch), Math.sin(state.pitch)];
      const right = [cy, 0, -sy], down = [-sy * sp, cp, -cy * sp];
      state.target = state.target.map((t, i) => t - step * (dx * right[i] + dy * down[i]));
    };
    const turn = (dx, dy) => {
      const state = current();
      state.yaw += 5 * dx / stage.clientWidth;
      state.pitch = Math.max(-1.5, Math.min(1.5, state.pitch - 4 * dy / stage.clientHeight));
    };
    const zoom = (factor) => {
      const state = current();
      state.distance = Math.max(0.02, Math.min(20, state.distance * factor / view.distance)) * view.distance;
    };
    stage.addEventListener("pointerdown", (event) => {
      if (event.target.closest("button")) return;
      stage.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, event);
      active = true;
      touched();
    });
    stage.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const dx = event.clientX - before.clientX, dy = event.clientY - before.clientY;
      if (pointers.size === 2) {
        const [other] = [...pointers.values()].filter((p) => p.pointerId !== event.pointerId);
        const apart = (p) => Math.hypot(p.clientX - other.clientX, p.clientY - other.clientY);
        zoom(Math.max(apart(before), 1) / Math.max(apart(event), 1));
        move(dx / 2, dy / 2);
      } else if (event.buttons & 2 || event.shiftKey) move(dx, dy);
      else turn(dx, dy);
      pointers.set(event.pointerId, event);
      request();
    });
    for (const name of ["pointerup", "pointercancel"]) {
      stage.addEventListener(name, (event) => pointers.delete(event.pointerId));
    }
    stage.addEventListener("pointerleave", () => { active = pointers.size > 0; });
    stage.addEventListener("contextmenu", (event) => event.preventDefault());
    stage.addEventListener("wheel", (event) => {
      if (!active) return;
      event.preventDefault();
      zoom(Math.exp(Math.sign(event.deltaY) * Math.min(Math.abs(event.deltaY), 60) * 0.003));
      request();
    }, { passive: false });
  }

  // Each cloud is unpacked when it comes near the window.
  const near = new IntersectionObserver((entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
    near.unobserve(entry.target);
    start(entry.target);
  }), { rootMargin: "400px" });
  document.querySelectorAll(".cloud").forEach((figure) => { if (figure.querySelector(".stage")) near.observe(figure); });
})();
