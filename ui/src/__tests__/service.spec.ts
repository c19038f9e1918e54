import { ApiError } from '../api';
import { NotAnObject, NotCancelled, NotSaved, ServiceModel } from '../service';
import type { ISettings } from '../tokens';
import { DEFAULT_SETTINGS } from '../tokens';
import { own } from './cleanup';
import { aDescription, aRun, ENDED, events, FakeServer, json, RUNNING, until } from './fakes';

function served(server: FakeServer, settings: Partial<ISettings> = {}): ServiceModel {
  const started = new Set<string>();
  return own(
    new ServiceModel({
      path: 'a b.ipynb',
      api: server.api,
      started,
      settings: () => ({ ...DEFAULT_SETTINGS, ...settings })
    })
  );
}

function aServer(): FakeServer {
  return new FakeServer()
    .on(/^GET \/a%20b/, json(aDescription()))
    .on(/^GET \/runs\?/, json({ runs: [], cursor: null }))
    .on(/^HEAD/, new Response())
    .on(/events$/, events({ type: 'end', data: aRun(ENDED) } as any))
    .on(/^POST/, json(aRun(), 202));
}

describe('ServiceModel', () => {
  it('starts with the values of the notebook, and gives what differs', async () => {
    const model = served(aServer());
    await model.refresh();
    expect(model.values).toEqual({ n: 1 });
    model.setValues({ n: 1, who: 'me' });
    expect(model.given).toEqual({ who: 'me' });
    model.reset();
    expect(model.given).toEqual({});
    expect(served(aServer(), { sendAllParameters: true }).given).toEqual({});
  });

  it('saves, runs, and follows', async () => {
    const server = aServer();
    const model = served(server);
    await model.refresh();
    const notebook = { isDirty: true, save: async () => void (notebook.isDirty = false) };
    model.notebook = notebook;
    const activities = new Set<unknown>();
    model.changed.connect(() => activities.add(model.activity));
    model.setValues({ n: 3, who: 'me' });
    expect(await model.start()).toBe(true);
    expect(model.isBusy).toBe(true);
    expect(await model.start()).toBe(false);
    await until(() => model.run?.hasEnded);
    expect([...activities]).toEqual([null, 'saving', 'starting']);
    const posted = server.asked.find(({ method }) => method === 'POST')!;
    expect(JSON.parse(posted.body)).toEqual({ parameters: { n: 3, who: 'me' }, timeout: 600 });
    expect(model.run!.isTrusted).toBe(true);
    expect(model.history).toHaveLength(1);
    expect(model.history![0].status).toBe('succeeded');
  });

  it('does not run what could not be saved', async () => {
    const server = aServer();
    const model = served(server);
    model.notebook = { isDirty: true, save: async () => undefined };
    expect(await model.start()).toBe(false);
    expect(model.failure).toBeInstanceOf(NotSaved);
    expect(server.asked).toEqual([]);
  });

  it('runs what was saved last, if that is wanted', async () => {
    const model = served(aServer(), { saveBeforeRun: false, timeout: 0 });
    model.notebook = { isDirty: true, save: () => Promise.reject(new Error('not to be saved')) };
    expect(await model.start()).toBe(true);
  });

  it('keeps what the server finds wrong by parameter, until that is edited', async () => {
    const errors = [
      { parameter: 'n', message: 'too small' },
      { parameter: 'who', message: 'is required' }
    ];
    const server = aServer().on(/^POST/, json({ message: 'No.', code: 'invalid_parameter', errors }, 400));
    const model = served(server);
    await model.refresh();
    let refused = 0;
    model.refused.connect(() => refused++);
    await model.start();
    expect(model.refusals).toEqual({ n: ['too small'], who: ['is required'] });
    expect(refused).toBe(1);
    model.setValues({ ...model.values, n: 5 });
    expect(model.refusals).toEqual({ who: ['is required'] });
    expect(model.failure).toBeInstanceOf(ApiError);
    model.setValues({ ...model.values, who: 'me' });
    expect(model.failure).toBeNull();
    await model.start();
    model.dismiss();
    expect(model.failure).toBeNull();
  });

  it('keeps values by name when the notebook takes others', async () => {
    const server = aServer();
    const model = served(server);
    await model.refresh();
    model.setValues({ n: 7, who: 'me' });
    const other = aDescription({
      parameters: [{ name: 'who', type: 'string', default: 'x', required: false, description: '' }],
      schema: { properties: { who: { type: 'string' } }, additionalProperties: false }
    });
    server.on(/^GET \/a%20b/, json(other));
    await model.describe();
    expect(model.values).toEqual({ who: 'me' });
  });

  it('attaches to a run that is under way, which it does not trust', async () => {
    const server = aServer().on(/^GET \/runs\?/, json({ runs: [aRun(RUNNING)], cursor: null }));
    const model = served(server);
    await model.refresh();
    expect(model.run!.id).toBe(aRun().id);
    expect(model.run!.isTrusted).toBe(false);
    await until(() => model.run!.hasEnded);
    await model.loadHistory();
  });

  it('reads the history page by page', async () => {
    const page = (id: string, cursor: string | null) => json({ runs: [aRun({ ...ENDED, id })], cursor });
    const server = aServer()
      .on(/^GET \/runs\?/, page('one', 'next'))
      .on(/cursor=next/, page('two', null));
    const model = served(server);
    await model.refresh();
    expect(model.hasMoreHistory).toBe(true);
    await model.loadMore();
    expect(model.history!.map(run => run.id)).toEqual(['one', 'two']);
    expect(model.hasMoreHistory).toBe(false);
    await model.loadMore();
    await model.loadHistory();
    expect(model.history!.map(run => run.id)).toEqual(['one', 'two']);
  });

  it('shows, deletes, and takes the values of a run of the history', async () => {
    const run = aRun({ ...ENDED, parameters: { n: 9, gone: 1 }, outputs: [] });
    const server = aServer()
      .on(/^GET \/runs\?/, json({ runs: [run], cursor: null }))
      .on(/^GET \/runs\/0e3b/, json(run))
      .on(/^DELETE/, new Response(null, { status: 204 }));
    const model = served(server);
    await model.refresh();
    model.takeValues(run);
    expect(model.values).toEqual({ n: 9 });
    await model.show(run);
    expect(model.run!.phase).toBe('ok');
    await model.delete(run);
    expect(model.run).toBeNull();
    expect(model.history).toEqual([]);
  });

  it('tells how many runs go first', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const earlier = aRun({ id: 'other', created: '2026-11-20T09:00:00.000Z' });
    const server = aServer()
      .on(/^GET \/runs\?status=queued/, json({ runs: [earlier, aRun()], cursor: null }))
      .on(/events$/, () => new Promise(() => undefined));
    const model = served(server);
    await model.start();
    await vi.advanceTimersByTimeAsync(1100);
    vi.useRealTimers();
    expect(model.ahead).toBe(1);
  });

  it('cancels, uses another kernel, and moves with its notebook', async () => {
    const server = aServer().on(/events$/, () => new Promise(() => undefined));
    const model = served(server);
    model.kernelName = 'ir';
    await model.start();
    await model.cancel();
    expect(server.asked.some(({ url }) => url.endsWith('/cancel'))).toBe(true);
    expect(JSON.parse(server.asked[0].body).kernel_name).toBe('ir');
    server.on(/^GET \/c/, json(aDescription({ path: 'c.ipynb' })));
    model.rename('c.ipynb');
    await until(() => model.description?.path === 'c.ipynb');
  });

  it('uses a kernel that was chosen as long as the notebook has none', async () => {
    const none = { name: 'gone', language: null, available: false };
    const server = aServer().on(/^GET \/a%20b/, json(aDescription({ kernel: none })));
    const model = served(server);
    await model.refresh();
    model.kernelName = 'ir';
    await model.describe();
    expect(model.kernelName).toBe('ir');
    server.on(/^GET \/a%20b/, json(aDescription()));
    await model.describe();
    expect(model.kernelName).toBeNull();
  });

  it('has values typed as JSON, and runs only what can be read', async () => {
    const server = aServer();
    const model = served(server);
    await model.refresh();
    let refused = 0;
    model.refused.connect(() => refused++);
    model.setValues({ n: 1, who: 'me' });
    model.setRaw(true);
    expect(model.draft!.text).toBe('{\n  "who": "me"\n}');
    model.setDraft('{"n": 12345678901234567890, "other": 1}');
    expect(model.values).toEqual({ n: 12345678901234567890n, other: 1 });
    model.setDraft('[1]');
    expect(model.draft!.problem).toBeInstanceOf(NotAnObject);
    expect(model.isUnreadable).toBe(true);
    expect(await model.start()).toBe(false);
    model.setRaw(false);
    expect(model.draft!.text).toBe('[1]');
    expect(refused).toBe(2);
    expect(server.asked.some(({ method }) => method === 'POST')).toBe(false);
    model.reset();
    expect(model.draft).toEqual({ text: '{}', problem: null });
    // What is seen counts, whatever has become of the notebook.
    model.setDraft('{"n": 1}');
    const [n, who] = aDescription().parameters;
    server.on(/^GET \/a%20b/, json(aDescription({ parameters: [{ ...n, default: 2 }, who] })));
    await model.describe();
    expect(model.given).toEqual({ n: 1 });
    model.setRaw(false);
    expect(model.draft).toBeNull();
    model.isIncomplete = true;
    expect(await model.start()).toBe(false);
  });

  it('tells that a run was not cancelled, until it has ended; of the connection, until it is back', async () => {
    let release: (answer: Response) => void = () => undefined;
    const server = aServer()
      .on(/cancel$/, new TypeError('Failed to fetch'))
      .on(/events$/, () => new Promise<Response>(resolve => (release = resolve)));
    const model = served(server);
    await model.start();
    await model.cancel();
    expect(model.failure).toBeInstanceOf(NotCancelled);
    model.run!.apply({ id: 1, type: 'status', data: aRun(RUNNING) });
    expect(model.failure).toBeInstanceOf(NotCancelled);
    server.on(/^GET \/a%20b/, new TypeError('Failed to fetch'));
    await model.describe();
    expect(model.failure).not.toBeInstanceOf(NotCancelled);
    model.run!.apply({ id: 2, type: 'status', data: aRun(RUNNING) });
    expect(model.failure).toBeNull();
    await model.cancel();
    release(events({ type: 'end', data: aRun(ENDED) } as any));
    await until(() => model.run!.hasEnded);
    expect(model.failure).toBeNull();
  });

  it('asks nothing more of a run that it deletes, and goes on with it where that fails', async () => {
    const server = aServer()
      .on(/^DELETE/, json({ message: 'No.', code: '' }, 403))
      .on(/events$/, () => new Promise(() => undefined));
    const model = served(server);
    await model.start();
    const first = model.run!;
    await model.delete(first.run);
    expect(model.failure).toBeInstanceOf(ApiError);
    expect(model.run!.id).toBe(first.id);
    expect(model.run).not.toBe(first);
    server.on(/^DELETE/, new Response(null, { status: 204 }));
    await model.delete(first.run);
    expect(model.run).toBeNull();
    expect(server.asked.some(({ method }) => method === 'HEAD')).toBe(false);
  });

  it('cancels a run that is not shown', async () => {
    const server = aServer();
    const model = served(server);
    await model.cancel(aRun({ ...RUNNING, id: 'other' }));
    expect(server.asked.map(({ url }) => url)).toEqual(['/runs/other/cancel']);
  });

  it('keeps the runs that it knows when the notebook is renamed', async () => {
    const old = aRun({ ...ENDED, id: 'old' });
    const server = aServer().on(/^GET \/runs\?/, json({ runs: [old], cursor: null }));
    const model = served(server);
    await model.refresh();
    const fresh = aRun({ ...ENDED, id: 'new', created: '2026-11-20T11:00:00.000Z', path: 'c.ipynb' });
    server
      .on(/^GET \/c/, json(aDescription({ path: 'c.ipynb' })))
      .on(/^GET \/runs\?/, json({ runs: [fresh], cursor: null }));
    model.rename('c.ipynb');
    await until(() => model.history!.length === 2);
    await model.loadHistory();
    expect(model.history!.map(run => run.id)).toEqual(['new', 'old']);
  });

  it('keeps why a request has failed', async () => {
    const server = new FakeServer().on(/./, new TypeError('Failed to fetch'));
    const model = served(server);
    await model.refresh();
    expect(model.failure).not.toBeNull();
    expect(model.description).toBeNull();
    expect(model.history).toBeNull();
  });
});
