import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';
import { parse, stringify } from './json';
import { readEvents } from './stream';
import type { IDescription, IRun, IRunRequest, ITiming, Json, RunEvent, RunStatus, Values } from './tokens';

/** The server has refused a request. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    /** The stable code of the refusal; empty where it is not our server part that has answered. */
    readonly code: string,
    message: string,
    readonly details: { [name: string]: Json } = {},
    readonly retryAfter: number | null = null
  ) {
    super(message);
  }

  /** What is wrong with which parameter. */
  get parameters(): { parameter: string; message: string }[] {
    return this.code === 'invalid_parameter'
      ? (this.details.errors as { parameter: string; message: string }[])
      : [];
  }

  /** The kernels that there are, where the one asked for is not among them. */
  get kernels(): string[] {
    return this.code === 'no_such_kernel' ? (this.details.kernels as string[]) : [];
  }
}

/** The server could not be reached, or not to the end. */
export class ConnectionError extends Error {}

/** All requests of this extension. */
export class NbExecAPI {
  constructor(options: { serverSettings?: ServerConnection.ISettings } = {}) {
    this.serverSettings = options.serverSettings ?? ServerConnection.makeSettings();
  }

  readonly serverSettings: ServerConnection.ISettings;

  /** The address of a notebook's service. */
  url(path: string): string {
    return Private.url(this.serverSettings, ...path.split('/'));
  }

  /** The address of the description of a notebook's service in OpenAPI; without a path, of all. */
  openApiUrl(path?: string): string {
    return Private.url(this.serverSettings, 'openapi.json') + (path ? query({ path }) : '');
  }

  /** The address of the page on a notebook's service, for people. */
  docsUrl(path: string): string {
    return Private.url(this.serverSettings, 'docs') + query({ path });
  }

  /** The address of the executed notebook of a run. */
  notebookUrl(id: string): string {
    return Private.url(this.serverSettings, 'runs', id, 'notebook');
  }

  async describe(path: string): Promise<IDescription> {
    return (await this._json(this.url(path))) as unknown as IDescription;
  }

  /** The version of the server part. */
  async version(): Promise<string> {
    const document = (await this._json(this.openApiUrl())) as { info: { version: string } };
    return document.info.version;
  }

  /** Start a run that goes on whatever becomes of this page. */
  async start(path: string, request: IRunRequest): Promise<IRun> {
    return this._run(this.url(path), {
      method: 'POST',
      body: stringify(request as unknown as Values),
      headers: { 'Content-Type': 'application/json', Prefer: 'respond-async' }
    });
  }

  async run(id: string): Promise<IRun> {
    return this._run(Private.url(this.serverSettings, 'runs', id));
  }

  /** How long the phases of a run took; nothing where the server does not say. */
  async timing(id: string): Promise<ITiming> {
    const response = await this._request(Private.url(this.serverSettings, 'runs', id), {
      method: 'HEAD'
    });
    const timing: { [phase: string]: number } = {};
    const header = response.headers.get('Server-Timing') ?? '';
    for (const [, phase, duration] of header.matchAll(/(\w+);dur=([\d.]+)/g)) {
      timing[phase] = Number(duration) / 1000;
    }
    return timing;
  }

  /** Runs, newest first, without their outputs. */
  async runs(options: {
    path?: string;
    status?: RunStatus;
    limit?: number;
    cursor?: string;
    /** If it is said, the server does not take the question for activity of a person. */
    no_track_activity?: 1;
  }): Promise<{ runs: IRun[]; cursor: string | null }> {
    const url = Private.url(this.serverSettings, 'runs') + query(options);
    return (await this._json(url)) as unknown as { runs: IRun[]; cursor: string | null };
  }

  async cancel(id: string): Promise<void> {
    await this._request(Private.url(this.serverSettings, 'runs', id, 'cancel'), { method: 'POST' });
  }

  async delete(id: string): Promise<void> {
    await this._request(Private.url(this.serverSettings, 'runs', id), { method: 'DELETE' });
  }

  /** The executed notebook, as far as it has come. */
  async notebook(id: string): Promise<string> {
    return (await this._request(this.notebookUrl(id))).text();
  }

  /** What happens in a run, from after the given event to its end, or to that of the connection. */
  async *events(
    id: string,
    after: number,
    signal: AbortSignal,
    onActivity: () => void = () => undefined
  ): AsyncGenerator<RunEvent> {
    const url = Private.url(this.serverSettings, 'runs', id, 'events');
    const response = await this._request(url, {
      headers: { Accept: 'text/event-stream', ...(after ? { 'Last-Event-ID': `${after}` } : {}) },
      signal
    });
    try {
      yield* readEvents(response.body!, onActivity);
    } catch (error) {
      // What comes is what the server has sent, or else nothing does.
      throw error instanceof SyntaxError ? error : new ConnectionError(String(error));
    }
  }

  private async _run(url: string, init: RequestInit = {}): Promise<IRun> {
    return (await this._json(url, init)) as unknown as IRun;
  }

  private async _json(url: string, init: RequestInit = {}): Promise<Json> {
    const response = await this._request(url, init);
    try {
      return parse(await response.text());
    } catch (error) {
      throw new ApiError(response.status, '', `This is no answer of jupyter_nbexec: ${url}`);
    }
  }

  private async _request(url: string, init: RequestInit = {}): Promise<Response> {
    let response: Response;
    try {
      // The default, `no-store`, would add the time to the URL, and our server takes nothing there that it
      // does not know; what it answers says itself that it is not to be stored.
      response = await ServerConnection.makeRequest(url, { cache: 'default', ...init }, this.serverSettings);
    } catch (error) {
      throw error instanceof ServerConnection.NetworkError ? new ConnectionError(String(error)) : error;
    }
    if (!response.ok) {
      throw await Private.refusal(response);
    }
    return response;
  }
}

function query(values: { [name: string]: string | number | undefined }): string {
  const pairs = Object.entries(values).filter(([, value]) => value !== undefined);
  return URLExt.objectToQueryString(Object.fromEntries(pairs) as { [name: string]: string });
}

namespace Private {
  /** Each segment is encoded; none can leave its place. */
  export function url(settings: ServerConnection.ISettings, ...segments: string[]): string {
    if (segments.some(segment => segment === '.' || segment === '..')) {
      throw new ApiError(404, 'notebook_not_found', `There is no notebook ${segments.join('/')}`);
    }
    return URLExt.join(settings.baseUrl, 'api/nbexec', ...segments.map(encodeURIComponent));
  }

  export async function refusal(response: Response): Promise<ApiError> {
    const retryAfter = Number(response.headers.get('Retry-After')) || null;
    let document: { [name: string]: Json } = {};
    try {
      document = parse(await response.text()) as { [name: string]: Json };
    } catch {
      // Something on the way has answered, in words of its own.
    }
    const { message, code, ...details } = document ?? {};
    return new ApiError(
      response.status,
      typeof code === 'string' ? code : '',
      typeof message === 'string' && message ? message : response.statusText,
      details,
      retryAfter
    );
  }
}
