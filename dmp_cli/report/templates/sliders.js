for (const figure of document.querySelectorAll(".compare")) {
  const slider = figure.querySelector("input");
  slider.addEventListener("input", () => figure.style.setProperty("--cut", slider.value + "%"));
}
for (const figure of document.querySelectorAll(".frames")) {
  const slider = figure.querySelector("input"), frames = [...figure.querySelectorAll("img")];
  const names = frames.map((frame) => frame.dataset.name);
  const show = () => {
    frames.forEach((frame, place) => { frame.hidden = place !== Number(slider.value); });
    figure.querySelector("output").textContent = names[slider.value];
    slider.setAttribute("aria-valuetext", names[slider.value]);
  };
  figure.querySelector(".control").hidden = false;
  slider.addEventListener("input", show);
  show();
}
