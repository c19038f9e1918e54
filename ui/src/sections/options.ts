import type { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { CommandRegistry } from '@lumino/commands';
import type { Host } from '../host';
import type { PanelModel } from '../model';

/** What the panel and its sections depend on. */
export interface IPanelOptions {
  model: PanelModel;
  host: Host;
  commands: CommandRegistry;
  rendermime: IRenderMimeRegistry;
  trans: TranslationBundle;
}
