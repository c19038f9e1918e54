import { DockPanel, Panel } from '@lumino/widgets';
import type { Message } from '@lumino/messaging';
import { Signal } from '@lumino/signaling';
import type { ISignal } from '@lumino/signaling';
import { serviceIcon } from './icons';
import type { ServicePanel } from './panel';
import type { IPanelOptions } from './sections/options';
import { CommandIDs } from './tokens';

/** The place of the panel, which is loaded when it is first seen. */
export class LazyPanel extends Panel {
  constructor(private readonly _options: IPanelOptions) {
    super();
    this.id = 'nbexec-panel';
    this.addClass('jp-NbExec-place');
    this.title.icon = serviceIcon;
    this.title.caption = _options.trans.__('Run as service');
  }

  /** It is shown now, or hidden. */
  get visibilityChanged(): ISignal<this, boolean> {
    return this._visibilityChanged;
  }

  /** Load the panel, if that was not done yet. */
  load(): Promise<ServicePanel> {
    this._loading ??= this._load();
    return this._loading;
  }

  protected onAfterShow(message: Message): void {
    super.onAfterShow(message);
    void this._options.model.compareVersions();
    void this.load();
    this._visibilityChanged.emit(true);
  }

  protected onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    this.title.closable = this._isTab;
    // In the side bar the icon is enough.
    this.title.label = this._isTab ? this.title.caption : '';
    if (this.isVisible) {
      this.onAfterShow(message);
    }
  }

  protected onAfterHide(message: Message): void {
    super.onAfterHide(message);
    this._visibilityChanged.emit(false);
  }

  /** As a tab it is closed by going back to the side bar, where it has its place. */
  protected onCloseRequest(_: Message): void {
    if (this._isTab) {
      void this._options.commands.execute(CommandIDs.openInTab);
    }
  }

  private get _isTab(): boolean {
    return this.parent instanceof DockPanel;
  }

  private async _load(): Promise<ServicePanel> {
    const { ServicePanel: Loaded } = await import('./panel');
    const panel = new Loaded(this._options);
    this.addWidget(panel);
    return panel;
  }

  private readonly _visibilityChanged = new Signal<this, boolean>(this);
  private _loading: Promise<ServicePanel> | null = null;
}
