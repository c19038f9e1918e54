import { Signal } from '@lumino/signaling';
import type { ISignal } from '@lumino/signaling';
import type { NbExecAPI } from './api';
import { ServiceModel } from './service';
import type { INotebook } from './service';
import { DEFAULT_SETTINGS } from './tokens';
import type { ISettings } from './tokens';
import { VERSION } from './version';

/** The notebooks that this page has shown as services, and the one that is shown. */
export class PanelModel {
  constructor(options: { api: NbExecAPI; started?: Set<string> }) {
    this.api = options.api;
    this._started = options.started ?? new Set();
  }

  readonly api: NbExecAPI;

  /** What is to be shown has changed. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Another notebook is shown. */
  get currentChanged(): ISignal<this, ServiceModel | null> {
    return this._currentChanged;
  }

  /** A run of a notebook, shown or not, has changed. */
  get serviceChanged(): ISignal<this, ServiceModel> {
    return this._serviceChanged;
  }

  get current(): ServiceModel | null {
    return this._current;
  }

  get services(): Iterable<ServiceModel> {
    return this._services.values();
  }

  get settings(): ISettings {
    return this._settings;
  }

  set settings(settings: ISettings) {
    this._settings = settings;
    this._changed.emit();
  }

  /** The version of the server part, where it is another than ours. */
  get otherVersion(): string | null {
    return this._serverVersion === null || this._serverVersion === VERSION ? null : this._serverVersion;
  }

  /** Show a notebook; ask the server about it, where that was not done yet. */
  show(path: string | null, notebook: INotebook | null): void {
    const service = path === null ? null : this._service(path);
    if (service) {
      service.notebook = notebook;
    }
    if (service === this._current) {
      return;
    }
    this._current = service;
    this._currentChanged.emit(service);
    this._changed.emit();
    void service?.refresh();
  }

  /** Something about an open notebook has changed that the server does not know. */
  touch(path: string): void {
    if (this._current?.path === path) {
      this._changed.emit();
    }
  }

  /** A notebook has another path now. */
  rename(from: string, to: string): void {
    const service = this._services.get(from);
    if (service && !this._services.has(to)) {
      this._services.delete(from);
      this._services.set(to, service);
      service.rename(to);
    }
  }

  /** Compare the versions of the two parts, once. */
  async compareVersions(): Promise<void> {
    if (this._serverVersion !== null) {
      return;
    }
    try {
      this._serverVersion = await this.api.version();
      this._changed.emit();
    } catch {
      // Whoever asks for a notebook is told why nothing answers.
    }
  }

  dispose(): void {
    for (const service of this._services.values()) {
      service.dispose();
    }
    Signal.clearData(this);
  }

  private _service(path: string): ServiceModel {
    const known = this._services.get(path);
    if (known) {
      return known;
    }
    const { api, _started: started } = this;
    const made = new ServiceModel({ path, api, started, settings: () => this._settings });
    made.changed.connect(this._onServiceChanged, this);
    this._services.set(path, made);
    return made;
  }

  private _onServiceChanged(service: ServiceModel): void {
    this._serviceChanged.emit(service);
    if (service === this._current) {
      this._changed.emit();
    }
  }

  private readonly _services = new Map<string, ServiceModel>();
  private readonly _started: Set<string>;
  private readonly _changed = new Signal<this, void>(this);
  private readonly _currentChanged = new Signal<this, ServiceModel | null>(this);
  private readonly _serviceChanged = new Signal<this, ServiceModel>(this);
  private _current: ServiceModel | null = null;
  private _settings: ISettings = DEFAULT_SETTINGS;
  private _serverVersion: string | null = null;
}
