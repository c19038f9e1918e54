import { ILabShell, ILayoutRestorer } from '@jupyterlab/application';
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { IDefaultFileBrowser } from '@jupyterlab/filebrowser';
import { INotebookTracker } from '@jupyterlab/notebook';
import { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import { IRunningSessionManagers } from '@jupyterlab/running';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';
import { NbExecAPI } from './api';
import { addCommands } from './commands';
import { Host } from './host';
import { LazyPanel } from './lazy';
import { PanelModel } from './model';
import { Notifier } from './notify';
import { follow } from './notebooks';
import { RunningRuns } from './running';
import { remembered } from './remember';
import { CommandIDs, DEFAULT_SETTINGS } from './tokens';
import type { ISettings } from './tokens';

const PLUGIN = 'jupyter-nbexec:plugin';

/** The panel, its commands, and what it tells while nobody looks. */
const panel: JupyterFrontEndPlugin<void> = {
  id: PLUGIN,
  description: 'Runs notebooks as services.',
  autoStart: true,
  requires: [INotebookTracker, IRenderMimeRegistry],
  optional: [ITranslator, ISettingRegistry, ICommandPalette, ILabShell, ILayoutRestorer, IDefaultFileBrowser],
  activate: (
    app: JupyterFrontEnd,
    tracker: INotebookTracker,
    rendermime: IRenderMimeRegistry,
    translator: ITranslator | null,
    settings: ISettingRegistry | null,
    palette: ICommandPalette | null,
    labShell: ILabShell | null,
    restorer: ILayoutRestorer | null,
    browser: IDefaultFileBrowser | null
  ) => {
    const trans = (translator ?? nullTranslator).load('jupyter_nbexec');
    const { serverSettings } = app.serviceManager;
    const model = new PanelModel({
      api: new NbExecAPI({ serverSettings }),
      started: remembered(window.sessionStorage)
    });
    const host = new Host({ app, tracker, rendermime, trans });
    const widget = new LazyPanel({ model, host, commands: app.commands, rendermime, trans });
    app.shell.add(widget, 'right', { rank: 900, type: 'Run as Service' });
    restorer?.add(widget, widget.id);
    follow(model, host, tracker);
    addCommands({ app, model, host, widget, tracker, browser, labShell, trans });
    palette?.addItem({ command: CommandIDs.open, category: trans.__('Notebook Operations') });
    const notifier = new Notifier({
      model,
      isShown: service => widget.isVisible && model.current === service,
      show: service => void app.commands.execute(CommandIDs.open, { path: service.path }),
      trans
    });
    widget.visibilityChanged.connect(() => notifier.check());
    model.currentChanged.connect(() => notifier.check());
    void settings?.load(PLUGIN).then(loaded => {
      const read = () => {
        model.settings = { ...DEFAULT_SETTINGS, ...(loaded.composite as unknown as Partial<ISettings>) };
      };
      loaded.changed.connect(read);
      read();
    });
  }
};

/** Runs among what is running. */
const running: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-nbexec:running',
  description: 'Lists runs of notebooks in the Running panel.',
  autoStart: true,
  // Notebook 7's page of a notebook has no such panel.
  optional: [IRunningSessionManagers, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    managers: IRunningSessionManagers | null,
    translator: ITranslator | null
  ) => {
    if (!managers) {
      return;
    }
    const trans = (translator ?? nullTranslator).load('jupyter_nbexec');
    const api = new NbExecAPI({ serverSettings: app.serviceManager.serverSettings });
    const open = (path: string) => void app.commands.execute(CommandIDs.open, { path });
    managers.add(new RunningRuns({ api, open, trans }));
  }
};

export default [panel, running];
