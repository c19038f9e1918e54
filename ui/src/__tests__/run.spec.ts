import { ofRun } from '../messages';
import { append, textOf } from '../nbformat';
import { RunModel } from '../run';
import type { IRun } from '../tokens';
import { aRun, ENDED, events, FakeServer, json, RUNNING, trans } from './fakes';

const AT = { cell: 3, cell_id: 'c' };

function modelOf(run: IRun, server = new FakeServer(), options = {}): RunModel {
  return new RunModel({ api: server.api, run, isTrusted: true, sleep: () => Promise.resolve(), ...options });
}

describe('RunModel', () => {
  it.each([
    [aRun(), 'queued'],
    [aRun({ status: 'running', started: '2026-11-20T10:00:00Z' }), 'starting'],
    [aRun(RUNNING), 'starting'],
    [aRun({ ...RUNNING, progress: { done: 0, total: 2, cell: 1 } }), 'running'],
    [aRun({ ...RUNNING, progress: { done: 1, total: 2, cell: null } }), 'running'],
    [aRun(ENDED), 'ok'],
    [aRun({ ...ENDED, status: 'cancelled' }), 'cancelled'],
    [aRun({ ...ENDED, status: 'failed', error: { code: 'cell_error' } as any }), 'error'],
    [aRun({ ...ENDED, status: 'failed', error: { code: 'timeout' } as any }), 'timeout']
  ])('says in a word where a run stands', (run, phase) => {
    expect(modelOf({ ...run, error: run.error && { ...run.error, traceback: [], cell: null } }).phase).toBe(
      phase
    );
  });

  it('follows a run from its first event to its last', async () => {
    const server = new FakeServer().on(
      /events$/,
      events(
        { type: 'status', data: aRun() } as any,
        { type: 'status', data: aRun(RUNNING) } as any,
        { type: 'cell', data: { ...AT, state: 'started', execution_count: null } } as any,
        { type: 'output', data: { ...AT, output_type: 'stream', name: 'stdout', text: 'a' } } as any,
        { type: 'output', data: { ...AT, output_type: 'stream', name: 'stdout', text: 'b' } } as any,
        { type: 'cell', data: { ...AT, state: 'ended', execution_count: 1 } } as any,
        { type: 'end', data: aRun(ENDED) } as any
      )
    );
    server.on(/^HEAD/, new Response(null, { headers: { 'Server-Timing': 'kernel;dur=500' } }));
    let clock = 1000;
    const model = modelOf(aRun(), server, { isFresh: true, now: () => (clock += 100) });
    const told: string[] = [];
    model.outputChanged.connect((_, change) => told.push(change.type));
    await model.follow();
    expect(model.phase).toBe('ok');
    expect(told).toEqual(['new', 'add', 'add']);
    expect(model.cells).toHaveLength(1);
    expect(model.cells[0].outputs).toEqual([{ output_type: 'stream', name: 'stdout', text: 'ab' }]);
    expect(model.cells[0].seconds).toBeGreaterThan(0);
    expect(model.timing).toEqual({ kernel: 0.5 });
    expect(model.seconds).toBe(2);
    expect(model.size).toBe(2);
  });

  it('goes on where it was after a connection was lost', async () => {
    let connections = 0;
    const server = new FakeServer().on(/^HEAD/, new Response());
    server.on(/events$/, () => {
      connections += 1;
      if (connections === 1) {
        return events({ type: 'status', data: aRun(RUNNING) } as any);
      }
      if (connections === 2) {
        throw new TypeError('Failed to fetch');
      }
      return events({ type: 'end', data: aRun(ENDED) } as any);
    });
    const model = modelOf(aRun(), server);
    const phases = new Set<string>();
    model.changed.connect(() => phases.add(model.phase));
    await model.follow();
    expect([...phases]).toEqual(['starting', 'lost', 'ok']);
    const after = server.asked
      .filter(({ url }) => url.endsWith('events'))
      .map(a => a.headers.get('Last-Event-ID'));
    expect(after).toEqual([null, '1', '1']);
  });

  it('ends with a run that the server has forgotten', async () => {
    const server = new FakeServer().on(/./, json({ message: 'No.', code: 'run_not_found' }, 404));
    const model = modelOf(aRun(RUNNING), server);
    await model.follow();
    expect(model.phase).toBe('gone');
    expect(model.failure).not.toBeNull();
  });

  it('does not tell of a run that nobody wants any more', async () => {
    const server = new FakeServer().on(/events$/, events({ type: 'end', data: aRun(ENDED) } as any));
    const model = modelOf(aRun(), server);
    const following = model.follow();
    model.dispose();
    await following;
    expect(model.phase).toBe('queued');
  });

  it('clears at once, or with the next output', () => {
    const model = modelOf(aRun(RUNNING));
    const text = (value: string) =>
      model.apply({
        id: 1,
        type: 'output',
        data: { ...AT, output_type: 'stream', name: 'stdout', text: value } as any
      });
    text('one');
    model.apply({ id: 2, type: 'clear', data: { ...AT, wait: true } });
    expect(model.cells[0].outputs).toHaveLength(1);
    text('two');
    expect(model.cells[0].outputs).toEqual([{ output_type: 'stream', name: 'stdout', text: 'two' }]);
    model.apply({ id: 3, type: 'clear', data: { ...AT, wait: false } });
    expect(model.cells[0].outputs).toEqual([]);
  });

  it('updates what was displayed, in whatever cell', () => {
    const model = modelOf(aRun(RUNNING));
    const data = { 'text/plain': 'old' };
    model.apply({
      id: 1,
      type: 'output',
      data: { ...AT, output_type: 'display_data', data, metadata: {}, display_id: 'd' } as any
    });
    const changes: unknown[] = [];
    model.outputChanged.connect((_, change) => changes.push(change));
    const update = { cell: 9, cell_id: 'x', display_id: 'd', data: { 'text/plain': 'new' }, metadata: {} };
    model.apply({ id: 2, type: 'update', data: update as any });
    model.apply({ id: 3, type: 'update', data: update as any });
    expect(model.cells[0].outputs[0].data).toEqual({ 'text/plain': 'new' });
    expect(changes).toHaveLength(2);
  });

  it('says why it is not followed any more', async () => {
    const server = new FakeServer().on(/events$/, json({ message: 'You may not.', code: '' }, 403));
    const refused = modelOf(aRun(RUNNING), server);
    await refused.follow();
    expect(ofRun(refused, trans)).toMatchObject({ kind: 'error', detail: 'You may not.' });
    server.on(/events$/, new Response('event: status\ndata: {no JSON\n\n'));
    const broken = modelOf(aRun(RUNNING), server);
    await broken.follow();
    expect(broken.failure).toBeInstanceOf(SyntaxError);
  });

  it('counts the cells', () => {
    const model = modelOf(aRun());
    const running = { ...RUNNING, progress: { done: 0, total: 4, cell: null } };
    model.apply({ id: 1, type: 'status', data: aRun(running) });
    model.apply({ id: 2, type: 'cell', data: { ...AT, state: 'started', execution_count: null } });
    expect(model.run.progress).toEqual({ done: 0, total: 4, cell: 3 });
    expect(model.phase).toBe('running');
    model.apply({ id: 3, type: 'cell', data: { ...AT, state: 'ended', execution_count: 1 } });
    expect(model.run.progress).toEqual({ done: 1, total: 4, cell: null });
    expect(model.notRun).toBe(0);
    const cancelled = aRun({ ...ENDED, status: 'cancelled', progress: { done: 1, total: 4, cell: null } });
    model.apply({ id: 4, type: 'end', data: cancelled });
    expect(model.notRun).toBe(3);
  });

  it('shows the outputs of a run that has ended, and an error that is not among them', () => {
    const error = {
      code: 'cell_error',
      message: 'm',
      ename: 'E',
      evalue: 'v',
      traceback: ['t'],
      cell: 5,
      cell_id: 'e'
    };
    const outputs = [{ ...AT, output_type: 'stream', name: 'stdout', text: 'a' } as any];
    const model = modelOf(aRun({ ...ENDED, status: 'failed', error, outputs }));
    expect(model.cells.map(cell => cell.cell)).toEqual([3, 5]);
    expect(model.cells[1].outputs[0].ename).toBe('E');
  });

  it('takes a run that has ended meanwhile for cancelled', async () => {
    const server = new FakeServer().on(/cancel$/, json({ message: 'No.', code: 'run_ended' }, 409));
    await modelOf(aRun(RUNNING), server).cancel();
    const refusing = new FakeServer().on(/cancel$/, json({ message: 'No.', code: 'forbidden' }, 403));
    await expect(modelOf(aRun(RUNNING), refusing).cancel()).rejects.toThrow('No.');
  });
});

it('joins text that goes on, and nothing else', () => {
  const outputs: any[] = [];
  append(outputs, { output_type: 'stream', name: 'stdout', text: ['a', 'b'] } as any);
  append(outputs, { output_type: 'stream', name: 'stdout', text: 'c' } as any);
  append(outputs, { output_type: 'stream', name: 'stderr', text: 'd' } as any);
  expect(outputs.map(output => textOf(output.text))).toEqual(['abc', 'd']);
});
