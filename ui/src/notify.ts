import { Notification } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { PathExt } from '@jupyterlab/coreutils';
import { ofRun } from './messages';
import type { PanelModel } from './model';
import type { RunModel } from './run';
import type { ServiceModel } from './service';

export interface INotifierOptions {
  model: PanelModel;
  /** Whether the run of this notebook can be seen. */
  isShown: (service: ServiceModel) => boolean;
  show: (service: ServiceModel) => void;
  trans: TranslationBundle;
}

/** Tells of runs that nobody sees: how far they are, and how they have ended. */
export class Notifier {
  constructor(private readonly _options: INotifierOptions) {
    _options.model.serviceChanged.connect(this._onChanged, this);
  }

  /** A run may be out of sight, or back in it. */
  check(): void {
    for (const service of this._options.model.services) {
      this._onChanged(this._options.model, service);
    }
  }

  private _onChanged(_: PanelModel, service: ServiceModel): void {
    const run = service.run;
    if (!run) {
      return;
    }
    const { notify } = this._options.model.settings;
    const id = this._told.get(run);
    if (run.hasEnded) {
      if (id !== undefined) {
        this._told.delete(run);
        this._end(id, service, run);
      }
      return;
    }
    if (notify === 'never') {
      return;
    }
    if (notify === 'hidden' && this._options.isShown(service)) {
      if (id !== undefined) {
        this._told.delete(run);
        Notification.dismiss(id);
      }
      return;
    }
    this._tell(id, service, run);
  }

  private _tell(id: string | undefined, service: ServiceModel, run: RunModel): void {
    const { trans } = this._options;
    const { done, total } = run.run.progress;
    const name = PathExt.basename(service.path);
    const message = total
      ? trans.__('Running %1: %2 of %3 cells', name, done, total)
      : trans.__('Running %1', name);
    const progress = total ? done / total : 0;
    if (id !== undefined) {
      if (this._said.get(run) === message) {
        return;
      }
      this._said.set(run, message);
      Notification.update({ id, message, type: 'in-progress', progress, autoClose: false });
      return;
    }
    const actions: Notification.IAction[] = [
      this._show(service),
      { label: trans.__('Cancel'), callback: () => void service.cancel(run.run), displayType: 'warn' }
    ];
    this._said.set(run, message);
    this._told.set(run, Notification.emit(message, 'in-progress', { progress, actions, autoClose: false }));
  }

  private _end(id: string, service: ServiceModel, run: RunModel): void {
    const { trans } = this._options;
    const name = PathExt.basename(service.path);
    const isOk = run.phase === 'ok';
    const why = ofRun(run, trans)?.text ?? '';
    Notification.update({
      id,
      message: isOk ? trans.__('%1 has run.', name) : `${name}: ${why}`,
      type: isOk ? 'success' : run.phase === 'cancelled' ? 'warning' : 'error',
      actions: [this._show(service)],
      progress: undefined,
      autoClose: isOk ? 5000 : false
    });
  }

  private _show(service: ServiceModel): Notification.IAction {
    const { trans, show } = this._options;
    return { label: trans.__('Show'), callback: () => show(service), displayType: 'accent' };
  }

  private readonly _told = new Map<RunModel, string>();
  /** What was told last: outputs alone are no news. */
  private readonly _said = new WeakMap<RunModel, string>();
}
