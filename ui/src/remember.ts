const KEY = 'jupyter-nbexec:started';
const LIMIT = 500;

/** Ids of the runs that were started from this tab of the browser, also before it was reloaded. */
export function remembered(storage: Pick<Storage, 'getItem' | 'setItem'>): Set<string> {
  return new StoredSet(storage);
}

class StoredSet extends Set<string> {
  constructor(private readonly _storage: Pick<Storage, 'getItem' | 'setItem'>) {
    super();
    let stored: unknown = [];
    try {
      stored = JSON.parse(_storage.getItem(KEY) ?? '[]');
    } catch {
      // What was stored is none of ours, or there is no storage.
    }
    for (const id of Array.isArray(stored) ? stored : []) {
      super.add(String(id));
    }
  }

  add(id: string): this {
    super.add(id);
    try {
      this._storage.setItem(KEY, JSON.stringify([...this].slice(-LIMIT)));
    } catch {
      // Then it is forgotten with the page.
    }
    return this;
  }
}
