"use strict";
for (const place of document.querySelectorAll(".plot")) {
  const spec = JSON.parse(document.getElementById(place.dataset.spec).textContent);
  vegaEmbed(place, spec, { renderer: "svg", actions: false, tooltip: { theme: "custom" } })
    .catch((error) => { place.textContent = `The plot cannot be drawn: ${error.message}`; });
}
