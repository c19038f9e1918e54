import { parseEvent, readEvents } from '../stream';

const TEXT =
  ': keep-alive\n\nid: 1\nevent: status\ndata: {"status":"queued"}\n\n' +
  'id: 7\nevent: output\ndata: {"text":"é 漢 😀"}\n\nid: 8\nevent: end\ndata: {}\n\n';

function body(pieces: Uint8Array[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      pieces.forEach(piece => controller.enqueue(piece));
      controller.close();
    }
  });
}

describe('readEvents', () => {
  it.each([1, 2, 3, 7, 1000])('reads events in pieces of %i bytes', async length => {
    const bytes = new TextEncoder().encode(TEXT);
    const pieces = [];
    for (let start = 0; start < bytes.length; start += length) {
      pieces.push(bytes.slice(start, start + length));
    }
    let active = 0;
    const found = [];
    for await (const event of readEvents(body(pieces), () => active++)) {
      found.push(event);
    }
    expect(found).toEqual([
      { id: 1, type: 'status', data: { status: 'queued' } },
      { id: 7, type: 'output', data: { text: 'é 漢 😀' } },
      { id: 8, type: 'end', data: {} }
    ]);
    expect(active).toBe(pieces.length);
  });

  it('leaves out what the end of the connection has cut off', async () => {
    const found = [];
    for await (const event of readEvents(
      body([new TextEncoder().encode('id: 1\ndata: {}\n\nid: 2\ndata: {')])
    )) {
      found.push(event.id);
    }
    expect(found).toEqual([1]);
  });
});

it('joins lines of data', () => {
  expect(parseEvent('id: 1\nevent: x\ndata: [1,\ndata: 2]')).toEqual({ id: 1, type: 'x', data: [1, 2] });
});
