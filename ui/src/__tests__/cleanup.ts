import { Widget } from '@lumino/widgets';

const owned = new Set<{ dispose(): void }>();

/** Dispose of this when the test has ended. */
export function own<T extends { dispose(): void }>(thing: T): T {
  owned.add(thing);
  return thing;
}

/** Put a widget on the page, until the test has ended. */
export function attach(widget: Widget): void {
  Widget.attach(own(widget), document.body);
}

/** Dispose of all that a test had, so that what it has begun ends with it. */
export function cleanUp(): void {
  for (const thing of owned) {
    thing.dispose();
  }
  owned.clear();
  document.body.replaceChildren();
}
