// Runs in every document before its own scripts: notes what a viewer would not like, for the tests to read.
window.noticed = { violations: [], shift: 0 };
addEventListener("securitypolicyviolation", (event) => {
  window.noticed.violations.push(`${event.effectiveDirective}: ${event.blockedURI} ${event.sample}`);
});
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.noticed.shift += entry.value;
}).observe({ type: "layout-shift", buffered: true });
