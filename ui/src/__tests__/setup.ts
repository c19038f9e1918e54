/**
 * What goes for every test: the page is empty after it, and no timer of ours goes off later, in another test or when there is
 * no page any more.
 */
import { cleanUp } from './cleanup';

/** Milliseconds; what is shorter is over in the same test, such as the next frame. */
const SHORT = 100;

const pending = new Map<unknown, Error>();
const { setTimeout: realTimeout, setInterval: realInterval } = globalThis;
const { clearTimeout: realClear } = globalThis;

function noted(timer: unknown, name: string, delay = 0): any {
  if (delay > SHORT) {
    pending.set(timer, new Error(`${name} of ${delay} ms was not cleared`));
  }
  return timer;
}

function isOfLibrary({ stack = '' }: Error): boolean {
  const caller = stack.split('\n').find(line => line.trim().startsWith('at ') && !line.includes('setup.ts'));
  return caller?.includes('node_modules') ?? false;
}

function cleared(timer: any): void {
  pending.delete(timer);
  realClear(timer);
}

Object.assign(globalThis, {
  setTimeout: (action: (...values: unknown[]) => void, delay?: number, ...values: unknown[]) => {
    const timer = realTimeout(() => {
      pending.delete(timer);
      action(...values);
    }, delay);
    return noted(timer, 'setTimeout', delay);
  },
  setInterval: (action: (...values: unknown[]) => void, delay?: number, ...values: unknown[]) =>
    noted(realInterval(action, delay, ...values), 'setInterval', delay),
  clearTimeout: cleared,
  clearInterval: cleared
});

afterEach(() => {
  cleanUp();
  // Those of libraries look first whether they are still wanted.
  const left = [...pending.values()].find(error => !isOfLibrary(error));
  for (const timer of pending.keys()) {
    cleared(timer);
  }
  if (left) {
    throw left;
  }
});

afterAll(() => {
  Object.assign(globalThis, {
    setTimeout: realTimeout,
    setInterval: realInterval,
    clearTimeout: realClear,
    clearInterval: realClear
  });
});
