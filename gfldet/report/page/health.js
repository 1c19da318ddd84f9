// The filter of the page of a data check: by severity, kind and class.
"use strict";
const form = document.getElementById("filter");
const findings = [...document.querySelectorAll("[data-code]")];
const sections = [...document.querySelectorAll("section.kind")];

function wanted(finding, severities, code, label) {
  const { severity, code: own, label: ofClass } = finding.dataset;
  return severities.has(severity) && (code === "" || own === code) && (label === "" || ofClass === label);
}

function filter() {
  const severities = new Set([...form.querySelectorAll("input:checked")].map((input) => input.value));
  const code = document.getElementById("code").value;
  const label = document.getElementById("label").value;
  let shown = 0;
  for (const finding of findings) {
    finding.hidden = !wanted(finding, severities, code, label);
    shown += !finding.hidden;
  }
  for (const section of sections) {
    section.hidden = !section.querySelector("[data-code]:not([hidden])");
  }
  document.getElementById("shown").textContent = `${shown} of ${findings.length} findings on this page are shown`;
}

form.addEventListener("input", filter);
filter();
