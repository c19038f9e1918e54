import { Signal } from '@lumino/signaling';
import type { ISignal } from '@lumino/signaling';
import { ApiError, ConnectionError } from './api';
import type { NbExecAPI } from './api';
import { RunModel } from './run';
import type { IDescription, IRun, ISettings, Values } from './tokens';
import { equal, parse, stringify } from './json';
import { changed, defaults, fitting, takesAny } from './values';

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

/** Values as they are typed as JSON. */
export interface IDraft {
  readonly text: string;
  /** Why these are no values; null if they are. */
  readonly problem: Error | null;
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

  /** Values are refused, or cannot be read: the first should get the focus. */
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

  /** The values as JSON, while they are typed so. */
  get draft(): IDraft | null {
    return this._draft;
  }

  /** Whether what is typed is no values, so that nothing can be run with it. */
  get isUnreadable(): boolean {
    return this._draft ? this._draft.problem !== null : this._isIncomplete;
  }

  /** How often the values have come from elsewhere than the form. */
  get generation(): number {
    return this._generation;
  }

  /** Values by name lack a name, or share one. */
  set isIncomplete(isIncomplete: boolean) {
    if (isIncomplete !== this._isIncomplete) {
      this._isIncomplete = isIncomplete;
      this._changed.emit();
    }
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
    const edited = Object.keys(this._refusals).filter(name => !equal(values[name], this._values[name]));
    if (edited.length) {
      const rest = Object.entries(this._refusals).filter(([name]) => !edited.includes(name));
      this._refusals = Object.fromEntries(rest);
      if (!rest.length && this._failure instanceof ApiError && this._failure.parameters.length) {
        this._failure = null;
      }
    }
    this._values = values;
    this._changed.emit();
  }

  /** Have the values typed as JSON, or by the form again, as soon as they are values. */
  setRaw(isRaw: boolean): void {
    if (this.isUnreadable) {
      // It would be lost.
      this._refused.emit();
      return;
    }
    this._draft = isRaw ? this._written() : null;
    this._changed.emit();
  }

  /** Take values as JSON; text that is none leaves the values as they were. */
  setDraft(text: string): void {
    const { given, problem } = read(text);
    this._draft = { text, problem };
    if (given === null) {
      this._changed.emit();
    } else {
      this.setValues({ ...this.defaults, ...given });
    }
  }

  /** Go back to the notebook's own values. */
  reset(): void {
    this._put(this.defaults);
  }

  /** Put the values of a run into the form. */
  takeValues(run: IRun): void {
    const schema = this._description?.schema ?? {};
    this._put({ ...this.defaults, ...fitting(run.parameters, schema) });
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
      const given = this._draft === null ? null : read(this._draft.text).given;
      this._values = { ...this.defaults, ...(given ?? fitting(kept, description.schema)) };
      if (description.kernel.available) {
        // It was chosen for want of the notebook's own.
        this._kernelName = null;
      }
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
      const known = this._history ?? [];
      const older = after(known.filter(this._isOfNow, this), page.runs);
      this._history = this._withFormer([...page.runs, ...older], known);
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
      const known = this._history ?? [];
      this._history = this._withFormer([...known.filter(this._isOfNow, this), ...page.runs], known);
      this._cursor = page.cursor;
    });
  }

  /** Save, where that is wanted, and start a run; false if none was started. */
  async start(options: { parameters?: Values; timeout?: number } = {}): Promise<boolean> {
    if (this.isBusy) {
      return false;
    }
    if (this.isUnreadable) {
      this._refused.emit();
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

  /** Cancel the run that is shown, or another of the history. */
  async cancel(other?: IRun): Promise<void> {
    const isShown = other === undefined || other.id === this._run?.id;
    const run = isShown ? this._run : this._modelOf(other);
    if (run && !run.hasEnded) {
      await this._try(() =>
        run.cancel().catch(error => {
          if (!run.hasEnded) {
            throw isShown ? new NotCancelled(error as Error) : error;
          }
        })
      );
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
    const isShown = this._run?.id === run.id;
    if (isShown) {
      // It ends with this, and nothing more is to be asked of it.
      this._run!.dispose();
    }
    await this._try(async () => {
      try {
        await this._api.delete(run.id);
      } catch (error) {
        if (isShown) {
          this._attach(this._modelOf(run));
        }
        throw error;
      }
      this._history = this._history?.filter(entry => entry.id !== run.id) ?? null;
      if (this._run?.id === run.id) {
        this._run = null;
      }
    });
  }

  /** The notebook has another path now. */
  rename(path: string): void {
    this.path = path;
    // The server lists runs by the name that they were started under.
    this._history?.forEach(run => this._former.add(run.id));
    void this.refresh();
  }

  dismiss(): void {
    this._failure = null;
    this._changed.emit();
  }

  dispose(): void {
    clearTimeout(this._counting);
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
    if (this._failure) {
      throw this._failure;
    }
  }

  /** Have other values than those that are typed. */
  private _put(values: Values): void {
    this._refusals = {};
    this._values = values;
    this._isIncomplete = false;
    this._generation += 1;
    if (this._draft) {
      this._draft = this._written();
    }
    this._changed.emit();
  }

  private _written(): IDraft {
    const isFree = this._description !== null && takesAny(this._description.schema);
    const values = isFree ? this._values : changed(this._values, this.defaults);
    return { text: stringify(values, 2), problem: null };
  }

  private _isOfNow(run: IRun): boolean {
    return !this._former.has(run.id);
  }

  /** Runs of now, and those that are known from when the notebook had another name. */
  private _withFormer(runs: IRun[], known: IRun[]): IRun[] {
    if (!this._former.size) {
      return runs;
    }
    const ids = new Set(runs.map(run => run.id));
    const former = known.filter(run => !this._isOfNow(run) && !ids.has(run.id));
    return [...runs, ...former].sort((one, other) => other.created.localeCompare(one.created));
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
    clearTimeout(this._counting);
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
    const isOver =
      this._failure instanceof NotCancelled
        ? run.hasEnded
        : this._failure instanceof ConnectionError && run.phase !== 'lost' && !run.failure;
    if (isOver) {
      this._failure = null;
    }
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
      await new Promise(resolve => {
        this._counting = setTimeout(resolve, this._ahead === null ? 1000 : 4000);
      });
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
  private _draft: IDraft | null = null;
  private _isIncomplete = false;
  private _generation = 0;
  /** Ids of runs from before the notebook was renamed. */
  private readonly _former = new Set<string>();
  private _refusals: { readonly [name: string]: string[] } = {};
  private _failure: Error | null = null;
  private _activity: Activity = null;
  private _run: RunModel | null = null;
  private _history: IRun[] | null = null;
  private _cursor: string | null = null;
  private _ahead: number | null = null;
  private _counting: ReturnType<typeof setTimeout> | undefined;
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

/** The run that was to be cancelled goes on. */
export class NotCancelled extends Error {
  constructor(readonly reason: Error) {
    super(reason.message);
  }
}

/** JSON, but no values by name. */
export class NotAnObject extends Error {}

/** Read values by name, or why they are none. */
function read(text: string): { given: Values | null; problem: Error | null } {
  try {
    const given = text.trim() ? parse(text) : {};
    return typeof given !== 'object' || given === null || Array.isArray(given)
      ? { given: null, problem: new NotAnObject() }
      : { given, problem: null };
  } catch (error) {
    return { given: null, problem: error as Error };
  }
}
