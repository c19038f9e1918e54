import { ApiError, ConnectionError } from '../api';
import { aRun, events, FakeServer, json } from './fakes';

describe('NbExecAPI', () => {
  it('encodes paths, and lets none leave its place', async () => {
    const { api } = new FakeServer();
    expect(api.url('été 1/100% #1?.ipynb')).toBe(
      'http://host:8888/base/api/nbexec/%C3%A9t%C3%A9%201/100%25%20%231%3F.ipynb'
    );
    expect(() => api.url('../../secret.ipynb')).toThrow(ApiError);
    expect(api.openApiUrl('a&b.ipynb')).toBe(
      'http://host:8888/base/api/nbexec/openapi.json?path=a%26b.ipynb'
    );
  });

  it('starts runs that go on by themselves, with nothing in the URL', async () => {
    const server = new FakeServer().on(/^POST/, json(aRun(), 202));
    await server.api.start('a.ipynb', { parameters: { n: 12345678901234567890n }, timeout: 5 });
    const [asked] = server.asked;
    expect(asked.url).toBe('/a.ipynb');
    expect(asked.body).toBe('{"parameters":{"n":12345678901234567890},"timeout":5}');
    expect(asked.headers.get('Prefer')).toBe('respond-async');
    expect(asked.headers.get('Authorization')).toBe('token secret');
  });

  it('asks for pages of runs', async () => {
    const server = new FakeServer().on(/^GET/, json({ runs: [], cursor: null }));
    await server.api.runs({ path: 'a b.ipynb', limit: 20, cursor: 'x' });
    expect(server.asked[0].url).toBe('/runs?path=a%20b.ipynb&limit=20&cursor=x');
  });

  it('reads what is wrong with parameters', async () => {
    const errors = [{ parameter: 'n', message: 'must be a number' }];
    const server = new FakeServer().on(/./, json({ message: 'No.', code: 'invalid_parameter', errors }, 400));
    const error = await server.api.start('a.ipynb', { parameters: {} }).catch(found => found);
    expect(error).toBeInstanceOf(ApiError);
    expect(error.parameters).toEqual(errors);
    expect(error.kernels).toEqual([]);
  });

  it('reads which kernels there are, and when to come again', async () => {
    const server = new FakeServer().on(
      /./,
      json({ message: 'No.', code: 'no_such_kernel', kernels: ['ir'] }, 422, { 'Retry-After': '7' })
    );
    const error = await server.api.describe('a.ipynb').catch(found => found);
    expect(error.kernels).toEqual(['ir']);
    expect(error.retryAfter).toBe(7);
  });

  it.each([
    ['a page of HTML', new Response('<html>', { status: 404, statusText: 'Not Found' })],
    ['a page of HTML that says 200', new Response('<html>')]
  ])('has no code for %s', async (_, response) => {
    const error = await new FakeServer()
      .on(/./, response)
      .api.describe('a.ipynb')
      .catch(found => found);
    expect(error).toBeInstanceOf(ApiError);
    expect(error.code).toBe('');
  });

  it('tells that there is no connection', async () => {
    const { api } = new FakeServer().on(/./, new TypeError('Failed to fetch'));
    await expect(api.describe('a.ipynb')).rejects.toBeInstanceOf(ConnectionError);
  });

  it('follows events from where it was', async () => {
    const server = new FakeServer().on(/events$/, events({ type: 'end', data: aRun() } as any));
    const found = [];
    for await (const event of server.api.events('id', 5, new AbortController().signal)) {
      found.push(event.type);
    }
    expect(found).toEqual(['end']);
    expect(server.asked[0].headers.get('Last-Event-ID')).toBe('5');
  });

  it('reads the time of each phase', async () => {
    const timing = { 'Server-Timing': 'queue;dur=1.5, kernel;dur=1000, total;dur=2000.25' };
    const server = new FakeServer().on(/^HEAD/, new Response(null, { headers: timing }));
    expect(await server.api.timing('id')).toEqual({ queue: 0.0015, kernel: 1, total: 2.00025 });
  });

  it('cancels, deletes, and reads notebooks and the version', async () => {
    const server = new FakeServer()
      .on(/^POST/, json(aRun()))
      .on(/^DELETE/, new Response(null, { status: 204 }))
      .on(/notebook$/, new Response('{}'))
      .on(/openapi/, json({ info: { version: '1.2' } }));
    await server.api.cancel('id');
    await server.api.delete('id');
    expect(await server.api.notebook('id')).toBe('{}');
    expect(await server.api.version()).toBe('1.2');
    expect(server.asked.map(({ method, url }) => `${method} ${url}`)).toEqual([
      'POST /runs/id/cancel',
      'DELETE /runs/id',
      'GET /runs/id/notebook',
      'GET /openapi.json'
    ]);
  });
});
