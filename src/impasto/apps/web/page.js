// The parts of the page that show pictures: each gets its element from Gradio and fills it.
"use strict";
window.impasto ??= (() => {
  const POLL = 500; // milliseconds between two looks at a job

  // What is chosen and shown. The server answers each event with it, and the browser keeps it for
  // the next visit; but a choice is in this copy at once. Every event sends this copy, so none
  // forgets a choice that is not answered yet.
  let now = { turn: 0 };
  let loaded;
  const whenLoaded = new Promise((done) => (loaded = done)); // the server's first answer

  const choose = (trigger, fields) => {
    now = { ...now, ...fields, turn: now.turn + 1 };
    trigger("choose");
  };

  // What Gradio sends with an event: this copy in place of its own, then the controls' values.
  const withNow = async (_, ...values) => {
    await whenLoaded;
    return [now, ...values];
  };

  // Whether an answer knows the latest choice; if not, the answer to that choice is on its way.
  const isNew = (answer) => answer.turn >= now.turn;

  const ask = async (path, options) => {
    let answer;
    try {
      answer = await fetch(path, options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("The connection was lost. Try again.");
    }
    if (answer.ok) return answer;
    const told = await answer.json().catch(() => ({}));
    throw Object.assign(new Error(told.error || told.detail || "This did not work. Try again."), {
      status: answer.status,
    });
  };

  const send = async (file, most) => {
    if (file.size > most) {
      const allowed = Math.floor(most / 2 ** 20);
      throw new Error(`This file is larger than ${allowed}M; choose a smaller one.`);
    }
    const headers = {
      "Content-Type": "application/octet-stream",
      "X-Name": encodeURIComponent(file.name),
    };
    return (await (await ask("photos", { method: "POST", headers, body: file })).json()).id;
  };

  const receives = (element, selector, take) => {
    for (const input of element.querySelectorAll(selector)) {
      input.addEventListener("change", () => {
        if (input.files.length) take(input.files[0]);
        input.value = "";
      });
    }
  };

  const drops = (target, take) => {
    const over = (is) => (event) => {
      event.preventDefault();
      target.classList.toggle("is-over", is);
    };
    target.addEventListener("dragover", over(true));
    target.addEventListener("dragleave", over(false));
    target.addEventListener("drop", (event) => {
      over(false)(event);
      const file = event.dataTransfer.files[0];
      if (file) take(file);
    });
  };

  // Changes a picture when the new one is ready to be seen, so that nothing flickers; what was
  // asked for last stays.
  const coming = new WeakMap();
  const show = async (picture, source, alt) => {
    const next = new Image();
    coming.set(picture, next);
    next.src = source;
    try {
      await next.decode();
    } catch {
      return false;
    }
    if (coming.get(picture) !== next) return false;
    picture.src = source;
    picture.alt = alt;
    picture.hidden = false;
    return true;
  };
  const hide = (picture) => {
    coming.delete(picture);
    picture.hidden = true;
  };

  const stage = (element, trigger, props, watch) => {
    const root = element.querySelector(".stage");
    const part = (name) => root.querySelector(`.${name}`);
    const picture = part("picture");
    const film = part("film");
    let turn = 0; // counts what is shown, so that late answers are dropped
    let loading = null;
    let current = "";
    let shown = null; // source and alt of the picture, while the photo is seen in its place
    let viewed = {}; // what the latest answer shows here: a job, or a picture in one pass

    const says = (sentence) => (part("says").textContent = sentence);
    const words = (sentence) => {
      if (part("words").textContent !== sentence) part("words").textContent = sentence;
    };
    const busy = (sentence) => {
      part("busy").hidden = !sentence;
      part("busy").firstElementChild.textContent = sentence;
    };
    const offer = (...names) => {
      for (const each of part("actions").children) {
        each.hidden = !names.some((name) => each.classList.contains(name));
      }
    };
    const put = async (source, alt) => {
      shown = { source, alt };
      if (part("photo").getAttribute("aria-pressed") === "true") return true;
      return show(picture, source, alt);
    };
    const saves = (png, jpg, name) => {
      for (const [kind, path] of [["png", png], ["jpg", jpg]]) {
        const link = part(`save-${kind}`);
        link.href = path;
        link.download = `${name}.${kind}`;
      }
    };
    const named = (title) =>
      `impasto ${title}`.normalize("NFD").replace(/[^\w -]/g, "").replace(/ +/g, "-").toLowerCase();
    const flip = (toFilm) => {
      film.hidden = !toFilm;
      picture.hidden = toFilm;
      part("flip").textContent = toFilm ? "See the picture" : "See the film";
      if (!toFilm) film.pause();
    };
    const reset = () => {
      turn += 1;
      loading?.abort();
      busy("");
      words("");
      part("course").hidden = true;
      part("notices").hidden = true;
      film.pause();
      film.hidden = true;
      film.removeAttribute("src");
      part("photo").setAttribute("aria-pressed", "false");
      return turn;
    };

    const empty = () => {
      reset();
      root.classList.add("is-empty");
      hide(picture);
      offer();
    };

    const plain = async (photo, hint) => {
      reset();
      words(hint);
      root.classList.remove("is-empty");
      offer("another");
      await put(`photos/${photo}/preview.jpg`, "Your photo");
    };

    const quick = async (view) => {
      const mine = reset();
      root.classList.remove("is-empty");
      offer("another");
      busy("Painting…");
      loading = new AbortController();
      try {
        const path = `${view.base}.jpg?${view.query}`;
        const answer = await ask(path, { signal: loading.signal });
        const source = URL.createObjectURL(await answer.blob());
        if (mine !== turn) return;
        await put(source, `Your photo in the style of ${view.title}`);
        saves(`${view.base}.png?${view.query}`, path, named(view.title));
        offer("save-png", "save-jpg", "keep", "photo", "another");
      } catch (error) {
        if (error.name !== "AbortError" && mine === turn) says(error.message);
      } finally {
        if (mine === turn) busy("");
      }
    };

    const job = async (view, photo) => {
      const mine = reset();
      root.classList.remove("is-empty");
      offer("stop");
      words("Starting…");
      const base = `pictures/${view.id}`;
      let step = -1;
      if (photo) await put(`photos/${photo}/preview.jpg`, "Your photo, before it is painted");
      else hide(picture);
      while (mine === turn && element.isConnected) {
        let told;
        try {
          told = await (await ask(base)).json();
        } catch (error) {
          if (mine !== turn) return;
          if (error.status) {
            words("");
            says(error.message);
            offer(...(photo ? ["another"] : []));
            return;
          }
          words("The connection was lost. Waiting for it…");
          await new Promise((done) => setTimeout(done, 4 * POLL));
          continue;
        }
        if (mine !== turn) return;
        words(told.words);
        const list = part("notices");
        list.replaceChildren(
          ...told.notices.map((each) => Object.assign(document.createElement("li"), { textContent: each })),
        );
        list.hidden = !told.notices.length;
        if (told.isOver) return over(view, told, base, photo);
        part("course").hidden = false;
        const bar = root.querySelector("progress");
        if (told.state === "running" && told.step) bar.value = told.done;
        else bar.removeAttribute("value");
        if (told.hasPreview && told.step !== step) {
          const alt = `${view.title}, as far as it is painted`;
          if (await put(`${base}/preview.jpg?${told.step}`, alt)) step = told.step;
        }
        await new Promise((done) => setTimeout(done, POLL));
      }
    };

    const over = async (view, told, base, photo) => {
      part("course").hidden = true;
      if (told.failed) says(told.failed);
      const rest = photo ? ["photo", "another"] : [];
      if (!told.hasPicture) return offer(...rest);
      saves(`${base}/picture.png`, `${base}/picture.jpg`, named(view.title));
      offer("save-png", "save-jpg", ...(told.hasFilm ? ["flip"] : []), ...rest);
      await put(`${base}/picture.png`, `${view.title}, painted`);
      if (told.hasFilm) {
        film.src = `${base}/film.mp4`;
        film.poster = `${base}/picture.jpg?size=1280`;
        flip(true);
        if (!matchMedia("(prefers-reduced-motion: reduce)").matches) film.play().catch(() => {});
      }
    };

    const update = () => {
      const { now: answer, view, error, hint } = props.value;
      if (!answer || !isNew(answer)) return;
      now = answer;
      loaded();
      viewed = view;
      const { photo } = now;
      says(error);
      const key = JSON.stringify([photo, view, hint]);
      const isNews = error || (view.kind === "job" && current && key !== current);
      if (isNews) {
        const news = part(error ? "says" : "words");
        requestAnimationFrame(() => news.scrollIntoView({ block: "nearest" }));
      }
      if (key === current) return;
      current = key;
      if (view.kind === "job") job(view, photo);
      else if (view.kind === "quick") quick(view);
      else if (photo) plain(photo, hint);
      else empty();
    };

    const take = async (file) => {
      says("");
      root.classList.remove("is-empty");
      busy("Reading your photo…");
      try {
        choose(trigger, { photo: await send(file, props.most), view: {}, apart: {} });
      } catch (error) {
        says(error.message);
        if (!now.photo && !current.includes("kind")) root.classList.add("is-empty");
      } finally {
        busy("");
      }
    };
    receives(root, ".choose", take);
    drops(root, take);

    part("stop").addEventListener("click", async () => {
      words("Stopping…");
      try {
        await ask(`pictures/${viewed.id}/cancel`, { method: "POST" });
      } catch (error) {
        says(error.message);
      }
    });
    part("keep").addEventListener("click", () => {
      trigger("keep", viewed);
      part("keep").hidden = true;
      words("Kept in My pictures.");
    });
    part("flip").addEventListener("click", () => flip(film.hidden));
    part("photo").addEventListener("click", () => {
      const see = part("photo").getAttribute("aria-pressed") !== "true";
      part("photo").setAttribute("aria-pressed", String(see));
      if (!film.hidden) flip(false);
      if (see) show(picture, `photos/${now.photo}/preview.jpg`, "Your photo");
      else if (shown) show(picture, shown.source, shown.alt);
    });
    watch("value", update);
    update();
    whenLoaded.then(() => (root.inert = false));
  };

  const styles = (element, trigger, props, watch) => {
    const add = element.querySelector(".add");
    const own = element.querySelector(".own");
    const says = (sentence) => (element.querySelector(".says").textContent = sentence);
    let photo = "";

    const update = () => {
      const value = props.value;
      if (!isNew(value)) return;
      for (const input of element.querySelectorAll("input[type=radio]")) {
        input.checked = input.value === value.style;
      }
      own.hidden = !value.painting;
      add.querySelector("span").textContent = value.painting ? "Another painting" : "Your own painting";
      if (value.painting) own.querySelector("img").src = `photos/${value.painting}/preview.jpg`;
      if (value.photo === photo) return;
      photo = value.photo;
      for (const tile of element.querySelectorAll(".tile:not(.add, .own)")) {
        paint(tile, photo);
      }
    };

    const paint = async (tile, wanted) => {
      const image = tile.querySelector("img");
      const style = tile.querySelector("input").value;
      const name = tile.querySelector("span").textContent;
      if (!wanted) {
        image.src = `paintings/${style}.jpg`;
        image.alt = name;
        return;
      }
      tile.classList.add("is-busy");
      try {
        const answer = await ask(`photos/${wanted}/as/${style}.jpg`);
        const source = URL.createObjectURL(await answer.blob());
        if (wanted !== photo) return;
        await show(image, source, `Your photo as ${name}`);
        tile.dataset.photo = wanted;
      } catch (error) {
        if (wanted === photo) says(error.message);
      } finally {
        if (wanted === photo) tile.classList.remove("is-busy");
      }
    };

    const take = async (file) => {
      says("");
      add.classList.add("is-busy");
      try {
        choose(trigger, { painting: await send(file, props.most), style: "own" });
      } catch (error) {
        says(error.message);
      } finally {
        add.classList.remove("is-busy");
      }
    };
    receives(element, "input[type=file]", take);
    drops(add, take);
    element.addEventListener("change", (event) => {
      if (event.target.type === "radio") choose(trigger, { style: event.target.value });
    });
    watch("value", update);
    update();
    whenLoaded.then(() => (element.querySelector(".tiles").inert = false));
  };

  const cards = (element, trigger, props, watch) => {
    const list = element.querySelector(".cards");
    const made = (tag, fields, ...children) => {
      const each = Object.assign(document.createElement(tag), fields);
      each.append(...children);
      return each;
    };

    const card = (entry) => {
      const picture = made("img", { alt: entry.title, loading: "lazy" });
      const when = new Date(entry.at * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
      const words = made("small", { textContent: when });
      const open = made("button", { type: "button", className: "open" }, picture,
        made("b", { textContent: entry.title }), words);
      open.addEventListener("click", () => trigger("open", { picture: entry }));
      const forget = made("button", { type: "button", className: "button forget", textContent: "Remove" });
      forget.setAttribute("aria-label", `Remove ${entry.title}`);
      forget.addEventListener("click", () => trigger("forget", { picture: entry }));
      if (entry.kind === "quick") picture.src = `${entry.base}.jpg?${entry.query}`;
      else look(entry, picture, words, when);
      return made("li", {}, open, forget);
    };

    const look = async (entry, picture, words, when) => {
      const base = `pictures/${entry.id}`;
      for (;;) {
        let told;
        try {
          told = await (await ask(base)).json();
        } catch (error) {
          words.textContent = error.message;
          return;
        }
        if (!picture.isConnected) return;
        words.textContent = told.state === "done" ? when : told.words;
        if (told.isOver) {
          if (told.hasPicture) picture.src = `${base}/picture.jpg?size=480`;
          return;
        }
        if (told.hasPreview) show(picture, `${base}/preview.jpg?${told.step}`, entry.title);
        await new Promise((done) => setTimeout(done, 4 * POLL));
      }
    };

    const update = () => {
      const entries = props.value || [];
      element.querySelector(".none").hidden = entries.length > 0;
      list.hidden = !entries.length;
      list.replaceChildren(...entries.map(card));
    };
    watch("value", update);
    update();
  };

  // Gradio's groups of choices are fieldsets without a legend, its answers in lists have no name.
  const name = () => {
    for (const group of document.querySelectorAll("fieldset.block:not([aria-label])")) {
      const label = group.querySelector("[data-testid=block-info]");
      if (label) group.setAttribute("aria-label", label.textContent.trim());
    }
  };
  new MutationObserver(name).observe(document.documentElement, { childList: true, subtree: true });

  return { stage, styles, cards, withNow };
})();
