import { nullTranslator } from '@jupyterlab/translation';
import { ServerConnection } from '@jupyterlab/services';
import { NbExecAPI } from '../api';
import type { IDescription, IRun, RunEvent } from '../tokens';

export const trans = nullTranslator.load('jupyter_nbexec');

/** What was asked of a server that is only played. */
export interface IAsked {
  method: string;
  url: string;
  body: string;
  headers: Headers;
}

export type Answer = Response | Error | ((asked: IAsked) => Response | Promise<Response>);

/** Without a signal, since that of jsdom is none for Node.js. */
class PlainRequest extends Request {
  constructor(url: string, init: RequestInit) {
    super(url, { ...init, signal: undefined });
  }
}

/** A server that answers as it is told: by method and path, the first that fits. */
export class FakeServer {
  readonly asked: IAsked[] = [];
  readonly answers: [RegExp, Answer][] = [];

  on(pattern: RegExp, answer: Answer): this {
    this.answers.unshift([pattern, answer]);
    return this;
  }

  get settings(): ServerConnection.ISettings {
    return ServerConnection.makeSettings({
      baseUrl: 'http://host:8888/base/',
      token: 'secret',
      Request: PlainRequest,
      fetch: (request: RequestInfo) => this._fetch(request as Request)
    } as any);
  }

  get api(): NbExecAPI {
    return new NbExecAPI({ serverSettings: this.settings });
  }

  private async _fetch(request: Request): Promise<Response> {
    const asked = {
      method: request.method,
      url: request.url.replace('http://host:8888/base/api/nbexec', ''),
      body: await request.text(),
      headers: request.headers
    };
    this.asked.push(asked);
    const found = this.answers.find(([pattern]) => pattern.test(`${asked.method} ${asked.url}`));
    if (!found) {
      throw new Error(`nothing answers ${asked.method} ${asked.url}`);
    }
    const answer = found[1];
    if (answer instanceof Error) {
      throw answer;
    }
    return typeof answer === 'function' ? answer(asked) : answer.clone();
  }
}

export function json(document: unknown, status = 200, headers: Record<string, string> = {}): Response {
  return new Response(JSON.stringify(document), { status, headers });
}

export function events(...list: Omit<RunEvent, 'id'>[]): Response {
  const text = list
    .map(({ type, data }, index) => `id: ${index + 1}\nevent: ${type}\ndata: ${JSON.stringify(data)}\n\n`)
    .join('');
  return new Response(text);
}

export function aRun(values: Partial<IRun> = {}): IRun {
  return {
    id: '0e3b2f6c-1111-4222-8333-444455556666',
    path: 'a b.ipynb',
    status: 'queued',
    created: '2026-11-20T10:00:00.000Z',
    started: null,
    ended: null,
    duration: null,
    parameters: {},
    user: null,
    kernel: null,
    progress: { done: 0, total: 2, cell: null },
    result: null,
    result_type: null,
    truncated: false,
    error: null,
    saved_as: null,
    warnings: [],
    ...values
  };
}

export const RUNNING: Partial<IRun> = {
  status: 'running',
  started: '2026-11-20T10:00:01.000Z',
  kernel: { name: 'python3', id: 'k', source: 'cold' }
};

export const ENDED: Partial<IRun> = {
  ...RUNNING,
  status: 'succeeded',
  ended: '2026-11-20T10:00:03.000Z',
  duration: 2,
  result: { a: 1 },
  result_type: 'application/json',
  progress: { done: 2, total: 2, cell: null }
};

export function aDescription(values: Partial<IDescription> = {}): IDescription {
  return {
    path: 'a b.ipynb',
    kernel: { name: 'python3', language: 'python', available: true },
    parameters: [
      { name: 'n', type: 'integer', default: 1, required: false, description: 'how many' },
      { name: 'who', type: 'string', default: null, required: true, description: '' }
    ],
    schema: {
      type: 'object',
      properties: {
        n: { type: 'integer', default: 1, description: 'how many', minimum: 0 },
        who: { type: 'string' }
      },
      required: ['who'],
      additionalProperties: false
    },
    endpoints: [],
    last_modified: null,
    links: { run: '', runs: '', openapi: '' },
    ...values
  };
}

/** Wait until something holds. */
export async function until(holds: () => unknown): Promise<void> {
  const deadline = Date.now() + 5000;
  while (!holds()) {
    if (Date.now() > deadline) {
      throw new Error('this did not come true in time');
    }
    await new Promise(resolve => setTimeout(resolve, 5));
  }
}
