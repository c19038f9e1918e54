import { Signal } from '@lumino/signaling';
import type { ISignal } from '@lumino/signaling';
import { ApiError } from './api';
import type { NbExecAPI } from './api';
import { RunModel } from './run';
import type { IDescription, IRun, ISettings, Values } from './tokens';
import { changed, defaults, fitting } from './values';

/** An open notebook, as far as its service is concerned. */
export interface INotebook {
  readonly isDirty: boolean;
  save(): Promise<void>;
}

/** What a service depends on. */
export interface IServiceOptions {
  path: string;
  api: NbExecAPI;
  settings: () => ISettings;
  /** Ids of the runs that were started from this page, which alone are trusted. */
  started: Set<string>;
}

/** What keeps a run from being started again. */
export type Activity = 'saving' | 'starting' | null;

/** A notebook as a service: its parameters, the values given to them, its runs. */
export class ServiceModel {
  constructor(options: IServiceOptions) {
    this.path = options.path;
    this._options = options;
    this._api = options.api;
  }

  /** Contents path of the notebook. */
  path: string;

  /** The open notebook; null where it is not open. */
  notebook: INotebook | null = null;

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Parameters are refused: the first should get the focus. */
  get refused(): ISignal<this, void> {
    return this._refused;
  }

  /** What the server says of the notebook; null while it has not answered. */
  get description(): IDescription | null {
    return this._description;
  }

  /** Values of the form: the notebook's own, and what was changed of them. */
  get values(): Values {
    return this._values;
  }

  /** The notebook's own values. */
  get defaults(): Values {
    return this._description ? defaults(this._description) : {};
  }

  /** The values that a call gives. */
  get given(): Values {
    return this._options.settings().sendAllParameters ? this._values : changed(this._values, this.defaults);
  }

  /** What the server finds wrong with values, by parameter. */
  get refusals(): { readonly [name: string]: string[] } {
    return this._refusals;
  }

  /** The last request that failed, and why. */
  get failure(): Error | null {
    return this._failure;
  }

  get activity(): Activity {
    return this._activity;
  }

  /** The run that is shown. */
  get run(): RunModel | null {
    return this._run;
  }

  /** Whether a run is under way. */
  get isBusy(): boolean {
    return this._activity !== null || (this._run !== null && !this._run.hasEnded && !this._run.failure);
  }

  /** Runs of this notebook, newest first, as far as they were asked for; null before the first answer. */
  get history(): IRun[] | null {
    return this._history;
  }

  get hasMoreHistory(): boolean {
    return this._cursor !== null;
  }

  /** How many runs go first, while the one that is shown is queued. */
  get ahead(): number | null {
    return this._run?.run.status === 'queued' ? this._ahead : null;
  }

  /** The kernel to use instead of the notebook's. */
  get kernelName(): string | null {
    return this._kernelName;
  }

  set kernelName(name: string | null) {
    this._kernelName = name;
    this._changed.emit();
  }

  setValues(values: Values): void {
    const edited = Object.keys(this._refusals).filter(name => values[name] !== this._values[name]);
    if (edited.length) {
      const rest = Object.entries(this._refusals).filter(([name]) => !edited.includes(name));
      this._refusals = Object.fromEntries(rest);
    }
    this._values = values;
    this._changed.emit();
  }

  /** Go back to the notebook's own values. */
  reset(): void {
    this._refusals = {};
    this._values = this.defaults;
    this._changed.emit();
  }

  /** Put the values of a run into the form. */
  takeValues(run: IRun): void {
    this._refusals = {};
    const schema = this._description?.schema ?? {};
    this._values = { ...this.defaults, ...fitting(run.parameters, schema) };
    this._changed.emit();
  }

  /** Ask the server what the notebook takes, and which runs there are; attach to one that is under way. */
  async refresh(): Promise<void> {
    await this.describe();
    await this.loadHistory();
  }

  /** Ask again what the notebook takes; values that were changed are kept by name. */
  async describe(): Promise<void> {
    const path = this.path;
    try {
      const description = await this._api.describe(path);
      if (path !== this.path) {
        return;
      }
      const kept = this._description ? changed(this._values, this.defaults) : this._values;
      this._description = description;
      this._values = { ...this.defaults, ...fitting(kept, description.schema) };
      this._failure = null;
    } catch (error) {
      this._failure = error as Error;
    }
    this._changed.emit();
  }

  /** Read the newest runs. */
  async loadHistory(): Promise<void> {
    try {
      const limit = this._options.settings().historySize;
      const page = await this._api.runs({ path: this.path, limit });
      const older = after(this._history ?? [], page.runs);
      this._history = [...page.runs, ...older];
      this._cursor = older.length ? this._cursor : page.cursor;
      const active = page.runs.find(run => run.status === 'queued' || run.status === 'running');
      if (active && this._run === null && this._activity === null) {
        this._attach(this._modelOf(active));
      }
    } catch (error) {
      this._failure ??= error as Error;
    }
    this._changed.emit();
  }

  /** Read older runs. */
  async loadMore(): Promise<void> {
    if (this._cursor === null) {
      return;
    }
    await this._try(async () => {
      const limit = this._options.settings().historySize;
      const page = await this._api.runs({ path: this.path, limit, cursor: this._cursor! });
      this._history = [...(this._history ?? []), ...page.runs];
      this._cursor = page.cursor;
    });
  }

  /** Save, where that is wanted, and start a run; false if none was started. */
  async start(options: { parameters?: Values; timeout?: number } = {}): Promise<boolean> {
    if (this.isBusy) {
      return false;
    }
    this._refusals = {};
    this._failure = null;
    try {
      await this._save();
      this._set('starting');
      const settings = this._options.settings();
      const timeout = options.timeout ?? settings.timeout;
      const run = await this._api.start(this.path, {
        parameters: options.parameters ?? this.given,
        ...(timeout > 0 ? { timeout } : {}),
        ...(this._kernelName ? { kernel_name: this._kernelName } : {})
      });
      this._options.started.add(run.id);
      this._activity = null;
      this._attach(this._modelOf(run, { isFresh: true }));
      return true;
    } catch (error) {
      this._failure = error as Error;
      this._takeRefusals(error);
      return false;
    } finally {
      this._set(null);
      if (Object.keys(this._refusals).length) {
        this._refused.emit();
      }
    }
  }

  async cancel(): Promise<void> {
    const run = this._run;
    if (run && !run.hasEnded) {
      await this._try(() => run.cancel());
    }
  }

  /** Show a run of the history. */
  async show(run: IRun): Promise<void> {
    await this._try(async () => {
      const whole = await this._api.run(run.id);
      this._attach(this._modelOf(whole));
    });
  }

  /** Have the server forget a run. */
  async delete(run: IRun): Promise<void> {
    await this._try(async () => {
      await this._api.delete(run.id);
      this._history = this._history?.filter(entry => entry.id !== run.id) ?? null;
      if (this._run?.id === run.id) {
        this._run.dispose();
        this._run = null;
      }
    });
  }

  /** The notebook has another path now. */
  rename(path: string): void {
    this.path = path;
    void this.refresh();
  }

  dismiss(): void {
    this._failure = null;
    this._changed.emit();
  }

  dispose(): void {
    this._run?.dispose();
    Signal.clearData(this);
  }

  private async _save(): Promise<void> {
    const { notebook } = this;
    if (!notebook?.isDirty || !this._options.settings().saveBeforeRun) {
      return;
    }
    this._set('saving');
    await notebook.save();
    if (notebook.isDirty) {
      throw new NotSaved();
    }
    // What it takes may have changed with the saving.
    await this.describe();
  }

  private _takeRefusals(error: unknown): void {
    if (error instanceof ApiError && error.parameters.length) {
      const refusals: { [name: string]: string[] } = {};
      for (const { parameter, message } of error.parameters) {
        (refusals[parameter] ??= []).push(message);
      }
      this._refusals = refusals;
    }
  }

  private _modelOf(run: IRun, options: { isFresh?: boolean } = {}): RunModel {
    return new RunModel({ api: this._api, run, isTrusted: this._options.started.has(run.id), ...options });
  }

  private _attach(run: RunModel): void {
    this._run?.dispose();
    this._run = run;
    this._ahead = null;
    run.changed.connect(this._onRunChanged, this);
    this._note(run);
    void run.follow();
    if (run.run.status === 'queued') {
      void this._countAhead(run);
    }
    this._changed.emit();
  }

  private _onRunChanged(run: RunModel): void {
    this._note(run);
    this._changed.emit();
  }

  /** The history tells of this run what is known of it here. */
  private _note(model: RunModel): void {
    const { outputs: _, ...run } = model.run;
    const history = this._history ?? [];
    const index = history.findIndex(entry => entry.id === run.id);
    if (index >= 0) {
      this._history = history.map(entry => (entry.id === run.id ? run : entry));
    } else if (model.id === this._run?.id && this._options.started.has(run.id)) {
      this._history = [run, ...history];
    }
  }

  /** Count the runs that go first, as long as this one waits. */
  private async _countAhead(run: RunModel): Promise<void> {
    while (run === this._run && run.run.status === 'queued' && !run.failure) {
      await new Promise(resolve => setTimeout(resolve, this._ahead === null ? 1000 : 4000));
      if (run !== this._run || run.run.status !== 'queued') {
        return;
      }
      try {
        const { runs } = await this._api.runs({ status: 'queued', limit: 500 });
        this._ahead = runs.filter(other => other.created < run.run.created && other.id !== run.id).length;
        this._changed.emit();
      } catch {
        return;
      }
    }
  }

  private async _try(action: () => Promise<void>): Promise<void> {
    this._failure = null;
    try {
      await action();
    } catch (error) {
      this._failure = error as Error;
    }
    this._changed.emit();
  }

  private _set(activity: Activity): void {
    this._activity = activity;
    this._changed.emit();
  }

  private readonly _options: IServiceOptions;
  private readonly _api: NbExecAPI;
  private readonly _changed = new Signal<this, void>(this);
  private readonly _refused = new Signal<this, void>(this);
  private _description: IDescription | null = null;
  private _values: Values = {};
  private _refusals: { readonly [name: string]: string[] } = {};
  private _failure: Error | null = null;
  private _activity: Activity = null;
  private _run: RunModel | null = null;
  private _history: IRun[] | null = null;
  private _cursor: string | null = null;
  private _ahead: number | null = null;
  private _kernelName: string | null = null;
}

/** The runs of a list that are older than all of a page of it. */
function after(runs: IRun[], page: IRun[]): IRun[] {
  const last = page[page.length - 1];
  const index = last ? runs.findIndex(run => run.id === last.id) : -1;
  return index < 0 ? [] : runs.slice(index + 1);
}

/** The notebook could not be saved, so it was not run. */
export class NotSaved extends Error {}
