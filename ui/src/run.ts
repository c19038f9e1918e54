import { Signal } from '@lumino/signaling';
import type { ISignal } from '@lumino/signaling';
import type { IOutput } from '@jupyterlab/nbformat';
import { ApiError, ConnectionError } from './api';
import type { NbExecAPI } from './api';
import { append, asOutput, bare, sizeOf } from './nbformat';
import type { ICellOutput, ICellReference, IDisplayUpdate, IRun, ITiming, RunEvent } from './tokens';

/** Where a run stands, in one word. `gone`: the server has forgotten it. */
export type Phase =
  'queued' | 'starting' | 'running' | 'lost' | 'ok' | 'error' | 'timeout' | 'cancelled' | 'gone';

/** What is known of one cell; the cell with the parameters' values has no index. */
export interface ICellState extends ICellReference {
  key: string;
  outputs: IOutput[];
  state: 'started' | 'ended' | null;
  /** Seconds that it took; null where this page has not seen it. */
  seconds: number | null;
}

/** How the outputs of a cell have changed: outputs are told in the order in which they come. */
export type OutputChange =
  | { key: string; type: 'add'; output: IOutput }
  | { key: string; type: 'set'; index: number; output: IOutput }
  | { key: string; type: 'clear' }
  | { key: string; type: 'new' };

/** What a run depends on, so that tests can have their own. */
export interface IRunOptions {
  api: NbExecAPI;
  run: IRun;
  /** Whether its outputs may do whatever those of a notebook that one has run oneself may. */
  isTrusted: boolean;
  /** Whether it was started just now, so that all of it will be told as it happens. */
  isFresh?: boolean;
  now?: () => number;
  sleep?: (milliseconds: number) => Promise<void>;
}

/** Milliseconds without any byte after which a connection is held for lost; the server says something each 15 s. */
export const SILENCE = 40_000;
/** Milliseconds after connecting in which events of the past come: they do not tell how long a cell took. */
const CATCHING_UP = 1000;
const FIRST_DELAY = 500;
const LAST_DELAY = 15_000;

/** One run: what has happened in it, and what happens. It goes on whatever becomes of this object. */
export class RunModel {
  constructor(options: IRunOptions) {
    this._api = options.api;
    this._run = options.run;
    this.isTrusted = options.isTrusted;
    this._now = options.now ?? Date.now;
    this._sleep = options.sleep ?? (ms => new Promise(resolve => setTimeout(resolve, ms)));
    this._liveFrom = options.isFresh ? 0 : Infinity;
    if (options.run.outputs) {
      this._fill(options.run.outputs);
    }
  }

  readonly isTrusted: boolean;

  /** Something has changed. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Outputs have changed, as told. */
  get outputChanged(): ISignal<this, OutputChange> {
    return this._outputChanged;
  }

  get run(): IRun {
    return this._run;
  }

  get id(): string {
    return this._run.id;
  }

  get timing(): ITiming {
    return this._timing;
  }

  /** Why it is not followed any more, though it has not ended. */
  get failure(): Error | null {
    return this._failure;
  }

  get hasEnded(): boolean {
    return !['queued', 'running'].includes(this._run.status);
  }

  get phase(): Phase {
    const { status, error, kernel } = this._run;
    if (this._isGone) {
      return 'gone';
    }
    if (!this.hasEnded && this._isLost) {
      return 'lost';
    }
    switch (status) {
      case 'queued':
        return 'queued';
      case 'running':
        // The kernel has an id before it can do anything.
        return kernel?.id && this._hasBegun ? 'running' : 'starting';
      case 'succeeded':
        return 'ok';
      case 'cancelled':
        return 'cancelled';
      default:
        return error?.code === 'timeout' ? 'timeout' : 'error';
    }
  }

  /** Whether a cell has been at work. */
  private get _hasBegun(): boolean {
    const { done, cell } = this._run.progress;
    return done > 0 || cell !== null || this._cells.length > 0;
  }

  /** Seconds since it was started; as long as it took, when it has ended. */
  get seconds(): number | null {
    if (this._run.duration !== null) {
      return this._run.duration;
    }
    const since = this._run.started;
    return since === null || this.hasEnded ? null : Math.max(0, this._now() - Date.parse(since)) / 1000;
  }

  /** How many cells come after the one that ended the run. */
  get notRun(): number {
    const { progress, error, status } = this._run;
    if (!this.hasEnded || status === 'succeeded') {
      return 0;
    }
    // A cell that has been stopped has ended, but not one whose kernel has died.
    const isHanging = error?.code === 'kernel_died' || this._cells.some(cell => cell.state === 'started');
    return Math.max(0, progress.total - progress.done - (isHanging ? 1 : 0));
  }

  /** Cells that have been at work or have outputs, in the order of the notebook. */
  get cells(): readonly ICellState[] {
    return this._cells;
  }

  /** About how many characters the outputs have. */
  get size(): number {
    return this._size;
  }

  /** Follow it to its end, over lost connections. */
  async follow(): Promise<void> {
    let delay = 0;
    while (!this._isDisposed && !this.hasEnded) {
      try {
        await this._listen(() => {
          delay = 0;
        });
      } catch (error) {
        if (this._isDisposed) {
          return;
        }
        if (!mayPass(error)) {
          this._isGone = error instanceof ApiError && error.code === 'run_not_found';
          this._failure = error as Error;
          this._changed.emit();
          return;
        }
      }
      if (this._isDisposed || this.hasEnded) {
        break;
      }
      this._isLost = true;
      this._liveFrom = Infinity;
      this._startedAt.clear();
      this._changed.emit();
      delay = Math.min(Math.max(2 * delay, FIRST_DELAY), LAST_DELAY);
      await this._sleep(delay);
    }
    if (!this._isDisposed) {
      await this._takeTiming();
    }
  }

  /** Ask the server to end it. */
  async cancel(): Promise<void> {
    try {
      await this._api.cancel(this.id);
    } catch (error) {
      if (!(error instanceof ApiError && error.code === 'run_ended')) {
        throw error;
      }
    }
  }

  /** Note what has happened. */
  apply(event: RunEvent): void {
    switch (event.type) {
      case 'status':
        this._run = {
          ...event.data,
          outputs: this._run.outputs,
          progress: event.data.progress.total ? event.data.progress : this._run.progress
        };
        break;
      case 'cell':
        this._onCell(event.data);
        break;
      case 'output':
        this._onOutput(event.data);
        break;
      case 'clear':
        this._onClear(this._cell(event.data), event.data.wait);
        break;
      case 'update':
        this._onUpdate(event.data);
        break;
      case 'end':
        this._onEnd(event.data);
        break;
    }
    this._lastEvent = event.id || this._lastEvent;
    this._changed.emit();
  }

  /** Leave the run alone. */
  dispose(): void {
    this._isDisposed = true;
    clearTimeout(this._watch);
    this._connection?.abort();
    Signal.clearData(this);
  }

  private async _listen(onEvent: () => void): Promise<void> {
    const connection = new AbortController();
    this._connection = connection;
    const onActivity = () => {
      clearTimeout(this._watch);
      if (this._isDisposed) {
        return;
      }
      this._watch = setTimeout(() => connection.abort(), SILENCE);
      if (this._liveFrom === Infinity) {
        this._liveFrom = this._now() + CATCHING_UP;
      }
      if (this._isLost) {
        this._isLost = false;
        this._changed.emit();
      }
    };
    try {
      for await (const event of this._api.events(this.id, this._lastEvent, connection.signal, onActivity)) {
        onEvent();
        if (this._isDisposed) {
          return;
        }
        this.apply(event);
      }
    } finally {
      clearTimeout(this._watch);
    }
  }

  private async _takeTiming(): Promise<void> {
    try {
      this._timing = await this._api.timing(this.id);
      this._changed.emit();
    } catch {
      // It is not worth a message.
    }
  }

  private _onCell(data: ICellReference & { state: 'started' | 'ended' }): void {
    const cell = this._cell(data);
    cell.state = data.state;
    const { progress } = this._run;
    if (data.state === 'started') {
      if (this._now() >= this._liveFrom) {
        this._startedAt.set(cell.key, this._now());
      }
      this._run = { ...this._run, progress: { ...progress, cell: data.cell } };
      return;
    }
    const since = this._startedAt.get(cell.key);
    cell.seconds = since === undefined ? null : (this._now() - since) / 1000;
    const done = this._cells.filter(({ cell, state }) => cell !== null && state === 'ended').length;
    this._run = { ...this._run, progress: { ...progress, done, cell: null } };
  }

  private _onOutput(data: ICellOutput): void {
    const cell = this._cell(data);
    if (this._toClear.delete(cell.key)) {
      this._onClear(cell, false);
    }
    const output = bare(data);
    if (data.display_id) {
      this._displays.set(output, data.display_id);
    }
    append(cell.outputs, output);
    this._size += sizeOf(output);
    this._outputChanged.emit({ key: cell.key, type: 'add', output });
  }

  private _onClear(cell: ICellState, wait: boolean): void {
    if (wait) {
      this._toClear.add(cell.key);
      return;
    }
    cell.outputs = [];
    this._outputChanged.emit({ key: cell.key, type: 'clear' });
  }

  private _onUpdate(data: IDisplayUpdate): void {
    for (const cell of this._cells) {
      cell.outputs.forEach((old, index) => {
        if (this._displays.get(old) !== data.display_id) {
          return;
        }
        const output = { ...old, data: data.data, metadata: data.metadata } as IOutput;
        this._displays.set(output, data.display_id);
        cell.outputs[index] = output;
        this._outputChanged.emit({ key: cell.key, type: 'set', index, output });
      });
    }
  }

  private _onEnd(run: IRun): void {
    this._run = run;
    const error = run.error;
    // The traceback is among the outputs, but for a cell that failed without one.
    if (error && error.traceback.length && error.cell !== null) {
      const cell = this._cell(error);
      if (!cell.outputs.some(output => output.output_type === 'error')) {
        this._onOutput(asOutput(error));
      }
    }
  }

  private _fill(outputs: ICellOutput[]): void {
    for (const output of outputs) {
      const cell = this._cell(output);
      cell.state = 'ended';
      append(cell.outputs, bare(output));
      this._size += sizeOf(output);
    }
    if (this._run.error) {
      this._onEnd(this._run);
    }
  }

  private _cell(reference: ICellReference): ICellState {
    const key = `${reference.cell ?? 'parameters'}`;
    const known = this._cells.find(cell => cell.key === key);
    if (known) {
      return known;
    }
    const { cell, cell_id } = reference;
    const made: ICellState = { key, cell, cell_id, outputs: [], state: null, seconds: null };
    this._cells.push(made);
    this._cells.sort((one, other) => (one.cell ?? -1) - (other.cell ?? -1));
    this._outputChanged.emit({ key, type: 'new' });
    return made;
  }

  private readonly _api: NbExecAPI;
  private readonly _now: () => number;
  private readonly _sleep: (milliseconds: number) => Promise<void>;
  private readonly _changed = new Signal<this, void>(this);
  private readonly _outputChanged = new Signal<this, OutputChange>(this);
  private readonly _cells: ICellState[] = [];
  private readonly _startedAt = new Map<string, number>();
  private readonly _toClear = new Set<string>();
  private readonly _displays = new WeakMap<IOutput, string>();
  private _run: IRun;
  private _timing: ITiming = {};
  private _failure: Error | null = null;
  private _lastEvent = 0;
  private _size = 0;
  private _liveFrom: number;
  private _isLost = false;
  private _isGone = false;
  private _isDisposed = false;
  private _connection: AbortController | null = null;
  private _watch: ReturnType<typeof setTimeout> | undefined;
}

/** Whether it is worth trying again after this. */
function mayPass(error: unknown): boolean {
  if (error instanceof ApiError) {
    return error.status >= 500 || error.status === 429;
  }
  return error instanceof ConnectionError;
}
