// What a browser made of a report: sizes in CSS pixels, and which texts cover each other.
addEventListener("load", () => {
  const inside = box => box.width > 0 && box.height > 0 &&
    box.left >= 0 && box.right <= document.documentElement.clientWidth + 1;
  const found = {
    width: innerWidth,
    page: document.documentElement.scrollWidth,
    pictures: [...document.images].map(image => ({
      inside: inside(image.closest("figure").getBoundingClientRect()),
      pixels: image.naturalWidth,
    })),
    figures: [...document.querySelectorAll("svg")].map(svg => {
      const frame = svg.getBoundingClientRect();
      const scale = frame.width / svg.viewBox.baseVal.width;
      const texts = [...svg.querySelectorAll("text")].filter(text => text.textContent.trim());
      const boxes = texts.map(text => text.getBoundingClientRect());
      const covered = [];
      boxes.forEach((one, i) => boxes.slice(i + 1).forEach((other, j) => {
        const across = Math.min(one.right, other.right) - Math.max(one.left, other.left);
        const down = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
        if (across > 1 && down > 4)
          covered.push([texts[i].textContent, texts[i + 1 + j].textContent]);
      }));
      return {
        name: svg.getAttribute("aria-label"),
        inside: inside(frame),
        width: frame.width,
        smallest: scale * Math.min(...texts.map(t => parseFloat(getComputedStyle(t).fontSize))),
        outside: texts.filter((text, i) =>
          boxes[i].left < frame.left - 2 || boxes[i].right > frame.right + 2 ||
          boxes[i].top < frame.top - 2 || boxes[i].bottom > frame.bottom + 2
        ).map(text => text.textContent),
        covered,
      };
    }),
    tables: [...document.querySelectorAll("table")].map(table =>
      inside(table.parentElement.getBoundingClientRect())),
  };
  parent.postMessage(JSON.stringify(found), "*");
});
