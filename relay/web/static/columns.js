// Which service's words stand in which column: services that listen at the same time stand side by side, one that took
// over from another goes on in its column.

export class Columns {
  constructor() {
    this.names = [];
    this.places = new Map();
    this.replaced = new Map();
  }

  get count() {
    return Math.max(1, this.names.length);
  }

  /** @param {string} service @param {string} by */
  replace(service, by) {
    this.replaced.set(by, service);
  }

  /** Services that listen to one stream: each has a column that no other of them has. @param {string[]} services */
  seat(services) {
    for (const service of services) {
      if (this.replaced.has(service) || this.places.has(service)) continue;
      const taken = services.map((one) => this.places.get(one));
      let column = 0;
      while (taken.includes(column)) column++;
      this.places.set(service, column);
      this.names[column] ??= service;
    }
  }

  /** @param {string|null|undefined} service @returns {number} */
  of(service) {
    const seen = new Set();
    while (!this.places.has(service) && this.replaced.has(service) && !seen.has(service)) {
      seen.add(service);
      service = this.replaced.get(service);
    }
    return this.places.get(service) ?? 0;
  }
}
