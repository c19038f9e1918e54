import { parse } from './json';
import type { RunEvent } from './tokens';

/**
 * The events of a body of Server-Sent Events.
 *
 * `EventSource` would do this, but cannot send the `Authorization` header. `onActivity` is called for whatever
 * comes, comments included.
 */
export async function* readEvents(
  body: ReadableStream<Uint8Array>,
  onActivity: () => void = () => undefined
): AsyncGenerator<RunEvent> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const pieces: string[] = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) {
        return;
      }
      onActivity();
      // A large event comes in many pieces: they are joined only when its end is there.
      const text = decoder.decode(value, { stream: true });
      pieces.push(text);
      if (!text.includes('\n')) {
        continue;
      }
      const blocks = pieces.splice(0).join('').split('\n\n');
      pieces.push(blocks.pop()!);
      for (const block of blocks) {
        const event = parseEvent(block);
        if (event) {
          yield event;
        }
      }
    }
  } finally {
    // What becomes of the connection is nobody's concern any more.
    void reader.cancel().catch(() => undefined);
  }
}

/** Read one event; null for a comment. */
export function parseEvent(block: string): RunEvent | null {
  const fields: { [name: string]: string } = {};
  for (const line of block.split('\n')) {
    const colon = line.indexOf(':');
    if (colon > 0) {
      const value = line.slice(colon + 1).replace(/^ /, '');
      const name = line.slice(0, colon);
      fields[name] = name in fields ? `${fields[name]}\n${value}` : value;
    }
  }
  if (fields.data === undefined) {
    return null;
  }
  return { id: Number(fields.id), type: fields.event, data: parse(fields.data) } as unknown as RunEvent;
}
