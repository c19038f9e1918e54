import type { ILabShell, JupyterFrontEnd } from '@jupyterlab/application';
import type { IDefaultFileBrowser } from '@jupyterlab/filebrowser';
import type { INotebookTracker } from '@jupyterlab/notebook';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { Host } from './host';
import { serviceIcon } from './icons';
import type { LazyPanel } from './lazy';
import type { PanelModel } from './model';
import { CommandIDs } from './tokens';

export interface ICommandsOptions {
  app: JupyterFrontEnd;
  model: PanelModel;
  host: Host;
  widget: LazyPanel;
  tracker: INotebookTracker;
  browser: IDefaultFileBrowser | null;
  labShell: ILabShell | null;
  trans: TranslationBundle;
}

const NO_ARGUMENTS = { type: 'object', properties: {}, additionalProperties: false } as const;

/** What menus, keys, the palette and the toolbar do. */
export function addCommands(options: ICommandsOptions): void {
  const { app, model, host, widget, tracker, browser, labShell, trans } = options;
  const { commands, shell } = app;

  const isTab = () => Array.from(shell.widgets('main')).includes(widget);
  const move = () =>
    isTab() ? shell.add(widget, 'right', { rank: 900 }) : shell.add(widget, 'main', { mode: 'split-right' });

  const open = async (path: string | null) => {
    const notebook = path === null ? tracker.currentWidget : host.panelOf(path);
    const shown = path ?? (notebook ? host.pathOf(notebook) : null);
    model.show(shown, notebook ? host.notebookOf(notebook) : null);
    if (model.settings.openIn === 'tab' && labShell && !isTab()) {
      move();
    }
    shell.activateById(widget.id);
    const panel = await widget.load();
    panel.focusFirst();
  };

  commands.addCommand(CommandIDs.open, {
    label: trans.__('Run as Service'),
    caption: trans.__('Run this notebook with parameters, and see how to call it'),
    icon: serviceIcon,
    isEnabled: args => args.path !== undefined || tracker.currentWidget !== null,
    execute: args => open((args.path as string | undefined) ?? null),
    describedBy: {
      args: {
        type: 'object',
        properties: { path: { type: 'string', description: trans.__('The path of a notebook') } }
      }
    }
  });
  commands.addCommand(CommandIDs.run, {
    label: trans.__('Run Service'),
    isEnabled: () => model.current !== null && !model.current.isBusy,
    execute: () => model.current?.start(),
    describedBy: { args: NO_ARGUMENTS }
  });
  commands.addCommand(CommandIDs.cancel, {
    label: trans.__('Cancel Service Run'),
    isEnabled: () => model.current !== null && model.current.isBusy,
    execute: async () => {
      const service = model.current;
      if (!service || (model.settings.confirmCancel && !(await host.confirmCancel(service.path)))) {
        return;
      }
      await service.cancel();
    },
    describedBy: { args: NO_ARGUMENTS }
  });
  commands.addCommand(CommandIDs.leave, {
    label: trans.__('Back to the Notebook'),
    isEnabled: () => model.current !== null,
    execute: () => host.leave(model.current!.path),
    describedBy: { args: NO_ARGUMENTS }
  });
  if (labShell) {
    commands.addCommand(CommandIDs.openInTab, {
      label: () => (isTab() ? trans.__('Move to the Side Bar') : trans.__('Open in a Tab')),
      isEnabled: () => model.current !== null,
      execute: () => {
        move();
        shell.activateById(widget.id);
      },
      describedBy: { args: NO_ARGUMENTS }
    });
  }
  if (browser) {
    const selected = () => Array.from(browser.selectedItems())[0];
    commands.addCommand(CommandIDs.openSelected, {
      label: trans.__('Run as Service'),
      icon: serviceIcon,
      isVisible: () => selected()?.type === 'notebook',
      execute: () => {
        const item = selected();
        return item ? open(app.serviceManager.contents.localPath(item.path)) : undefined;
      },
      describedBy: { args: NO_ARGUMENTS }
    });
  }
}
