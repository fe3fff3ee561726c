// Runs in every document before its own scripts: notes what a viewer would not like, for the tests to read.
window.noticed = { violations: [], shift: 0 };
addEventListener("securitypolicyviolation", (event) => {
  window.noticed.violations.push(`${event.effectiveDirective}: ${event.blockedURI} ${event.sample}`);
});
const note = (entries) => {
  for (const entry of entries) window.noticed.shift += entry.value;
};
const shifts = new PerformanceObserver((list) => note(list.getEntries()));
shifts.observe({ type: "layout-shift", buffered: true });
window.noticed.take = () => note(shifts.takeRecords()); // what is not told yet
