import type { IRunningSessions } from '@jupyterlab/running';
import type { TranslationBundle } from '@jupyterlab/translation';
import { Poll } from '@lumino/polling';
import { Signal } from '@lumino/signaling';
import type { ISignal } from '@lumino/signaling';
import type { NbExecAPI } from './api';
import { serviceIcon } from './icons';
import type { IRun, RunStatus } from './tokens';

export interface IRunningRunsOptions {
  api: NbExecAPI;
  open: (path: string) => void;
  trans: TranslationBundle;
}

/** The server's runs that have not ended, for JupyterLab's list of what is running. */
export class RunningRuns implements IRunningSessions.IManager {
  constructor(private readonly _options: IRunningRunsOptions) {
    const { trans } = _options;
    this.name = trans.__('Notebook services');
    this.shutdownLabel = trans.__('Cancel');
    this.shutdownAllLabel = trans.__('Cancel all');
    this.shutdownAllConfirmationText = trans.__('Are you sure you want to cancel all runs of notebooks?');
    this._poll = new Poll({
      name: 'jupyter-nbexec:running',
      factory: () => this._read(),
      frequency: { interval: 10_000, backoff: true, max: 300_000 },
      standby: 'when-hidden'
    });
  }

  readonly name: string;
  readonly shutdownLabel: string;
  readonly shutdownAllLabel: string;
  readonly shutdownAllConfirmationText: string;
  readonly supportsMultipleViews = false;

  get runningChanged(): ISignal<this, void> {
    return this._changed;
  }

  running(): IRunningSessions.IRunningItem[] {
    return this._runs.map(run => this._item(run));
  }

  refreshRunning(): void {
    void this._poll.refresh();
  }

  shutdownAll(): void {
    for (const run of this._runs) {
      void this._cancel(run);
    }
  }

  dispose(): void {
    this._poll.dispose();
    Signal.clearData(this);
  }

  private async _read(): Promise<void> {
    const { api } = this._options;
    // A page that is merely open is not to keep a server from being culled.
    const read = (status: RunStatus) => api.runs({ status, no_track_activity: 1 });
    const pages = [await read('running'), await read('queued')];
    const runs = pages.flatMap(page => page.runs);
    const key = (list: IRun[]) => list.map(run => `${run.id} ${run.status} ${run.progress.done}`).join();
    if (key(runs) !== key(this._runs)) {
      this._runs = runs;
      this._changed.emit();
    }
  }

  private _item(run: IRun): IRunningSessions.IRunningItem {
    const { open, trans } = this._options;
    const { path } = run;
    return {
      icon: () => serviceIcon,
      label: () => path ?? trans.__('a notebook sent by a client'),
      labelTitle: () => run.id,
      detail: () =>
        run.status === 'queued' ? trans.__('queued') : `${run.progress.done}/${run.progress.total}`,
      ...(path === null ? {} : { open: () => open(path) }),
      shutdown: () => void this._cancel(run)
    };
  }

  private async _cancel(run: IRun): Promise<void> {
    await this._options.api.cancel(run.id).catch(() => undefined);
    await this._poll.refresh();
  }

  private readonly _changed = new Signal<this, void>(this);
  private readonly _poll: Poll;
  private _runs: IRun[] = [];
}
