import { ServerConnection } from '@jupyterlab/services';
import { Signal } from '@lumino/signaling';
import { CommandRegistry } from '@lumino/commands';
import { Widget } from '@lumino/widgets';
import { addCommands } from '../commands';
import { Host } from '../host';
import { serviceIcon } from '../icons';
import plugins from '../index';
import { PanelModel } from '../model';
import { follow } from '../notebooks';
import { CommandIDs } from '../tokens';
import { aDescription, FakeServer, json, trans, until } from './fakes';

// Loading all of a notebook takes what no test environment has; only its name as a service is needed.
vi.mock('@jupyterlab/notebook', () => ({ INotebookTracker: { name: 'INotebookTracker' } }));

/** As much of an open notebook as is looked at. */
class PlayedNotebook extends Widget {
  tags: string[] = [];
  activeCellIndex = 0;
  scrolledTo = -1;
  cell = {
    id: 'c',
    type: 'code',
    getMetadata: () => this.tags,
    setMetadata: (_: string, tags: string[]) => void (this.tags = tags),
    sharedModel: { source: '\nx = 1', transact: (change: () => void) => change() }
  };
  content = {
    rendermime: {},
    node: document.createElement('div'),
    model: { cells: Object.assign([this.cell], { get: () => this.cell }) },
    activeCell: { model: this.cell, isDisposed: false },
    activeCellIndex: 0,
    activeCellChanged: new Signal<any, any>(this),
    scrollToItem: async (index: number) => void (this.scrolledTo = index),
    deselectAll: () => undefined
  };
  context = {
    path: 'RTC:a.ipynb',
    ready: Promise.resolve(),
    model: { dirty: true, stateChanged: new Signal<any, any>(this) },
    saved: 0,
    save: async () => {
      this.context.saved += 1;
      this.context.model.dirty = false;
    },
    pathChanged: new Signal<any, any>(this),
    saveState: new Signal<any, any>(this)
  };
}

function played() {
  const server = new FakeServer()
    .on(/^GET \/runs/, json({ runs: [], cursor: null }))
    .on(/ipynb$/, json(aDescription()))
    .on(/^POST/, json({ message: 'No.', code: 'stopping' }, 503));
  const panel = new PlayedNotebook();
  const activated: string[] = [];
  const commands = new CommandRegistry();
  const opened: unknown[] = [];
  commands.addCommand('docmanager:open', { execute: args => void opened.push(args.path) });
  const app = {
    commands,
    shell: {
      activateById: (id: string) => activated.push(id),
      add: () => activated.push('added'),
      widgets: () => []
    },
    serviceManager: {
      serverSettings: server.settings,
      contents: {
        localPath: (path: string) => path.replace('RTC:', ''),
        save: async (path: string) => void opened.push(`saved ${path}`)
      },
      kernelspecs: { specs: { kernelspecs: { ir: { name: 'ir', display_name: 'R' } } } }
    }
  };
  const tracker = {
    currentWidget: panel as PlayedNotebook | null,
    currentChanged: new Signal<any, any>({}),
    find: (test: (one: any) => boolean) => [panel].find(test)
  };
  const host = new Host({ app: app as any, tracker: tracker as any, rendermime: 'default' as any, trans });
  const model = new PanelModel({ api: server.api });
  return { server, panel, app, tracker, host, model, activated, opened, commands };
}

describe('Host', () => {
  it('knows notebooks by their path on the server', async () => {
    const { host, panel, activated, tracker } = played();
    expect(host.pathOf(panel as any)).toBe('a.ipynb');
    expect(host.panelOf('a.ipynb')).toBe(panel);
    tracker.currentWidget = null;
    expect(host.panelOf('a.ipynb')).toBe(panel);
    expect(host.panelOf('b.ipynb')).toBeNull();
    expect(host.rendermimeOf('b.ipynb')).toBe('default');
    expect(host.lineOf('a.ipynb', { cell: 0, cell_id: null })).toBe('x = 1');
    await host.goToCell('a.ipynb', { cell: 7, cell_id: 'c' });
    expect(panel.scrolledTo).toBe(0);
    await host.goToCell('a.ipynb', { cell: 7, cell_id: 'gone' });
    host.leave('a.ipynb');
    expect(activated).toEqual([panel.id, panel.id]);
  });

  it('tags the selected cell, and saves', async () => {
    const { host, panel } = played();
    expect(host.hasParametersCell('a.ipynb')).toBe(false);
    expect(host.canMakeParametersCell('a.ipynb')).toBe(true);
    await host.makeParametersCell('a.ipynb');
    expect(host.hasParametersCell('a.ipynb')).toBe(true);
    expect(host.hasParametersCell('b.ipynb')).toBeNull();
    expect(panel.context.saved).toBe(1);
    await host.makeParametersCell('b.ipynb');
    // As it is while a notebook is being closed.
    Object.assign(panel.content, { activeCell: { model: null, isDisposed: true } });
    expect(host.canMakeParametersCell('a.ipynb')).toBe(false);
    await host.makeParametersCell('a.ipynb');
    expect(panel.context.saved).toBe(1);
  });

  it('opens documents, saves notebooks, and lists kernels', async () => {
    const { host, panel, opened } = played();
    await host.open('x.ipynb');
    expect(opened).toEqual(['x.ipynb']);
    expect(host.kernels()).toEqual([{ name: 'ir', label: 'R' }]);
    expect(host.hasSettings).toBe(false);
    const notebook = host.notebookOf(panel as any);
    expect(notebook.isDirty).toBe(true);
    await notebook.save();
    expect(panel.context.saved).toBe(1);
  });
});

describe('Host.saveAs', () => {
  const dialog = () => document.querySelector('.jp-Dialog')!;
  const shown = (text: string) => until(() => dialog()?.textContent!.includes(text));
  const press = async (label: string) => {
    const gone = dialog();
    const buttons = Array.from(gone.querySelectorAll('button'));
    buttons.find(button => button.textContent === label)!.click();
    await until(() => !gone.isConnected);
  };

  it('saves under the name that is wanted, and replaces a file only if that is wanted, too', async () => {
    const { host, app, opened } = played();
    const missing = new ServerConnection.ResponseError(new Response(null, { status: 404 }));
    let isThere = true;
    (app.serviceManager.contents as any).get = async () => {
      if (!isThere) {
        throw missing;
      }
    };
    const saved = host.saveAs('{}', 'dir/a.ipynb', '0e3b2f6c-1');
    await shown('Save the executed notebook as');
    const input = dialog().querySelector('input')!;
    expect(input.value).toBe('dir/a-0e3b2f6c.ipynb');
    input.value = 'there.ipynb';
    await press('Save');
    await shown('there.ipynb exists already, and would be lost.');
    await press('Choose another name');
    await shown('Save the executed notebook as');
    expect(dialog().querySelector('input')!.value).toBe('there.ipynb');
    expect(opened).toEqual([]);
    await press('Save');
    await shown('exists already');
    await press('Replace');
    expect(await saved).toBe('there.ipynb');
    isThere = false;
    const other = host.saveAs('{}', 'a.ipynb', '0e3b2f6c-1');
    await shown('Save the executed notebook as');
    await press('Save');
    expect(await other).toBe('a-0e3b2f6c.ipynb');
    expect(opened).toEqual(['saved there.ipynb', 'saved a-0e3b2f6c.ipynb']);
  });

  it('says why that was not possible, and ends where nobody wants it', async () => {
    const { host, app } = played();
    (app.serviceManager.contents as any).get = () => Promise.reject(new Error('no such drive'));
    const saved = host.saveAs('{}', 'a.ipynb', '0e3b2f6c-1');
    await shown('Save the executed notebook as');
    await press('Save');
    await shown('no such drive');
    dialog().querySelector('button')!.click();
    await shown('Save the executed notebook as');
    await press('Cancel');
    expect(await saved).toBeNull();
  });

  it('asks before a run is cancelled', async () => {
    const { host } = played();
    const asked = host.confirmCancel('a.ipynb');
    await shown('Cancel this run?');
    await press('Let it run');
    expect(await asked).toBe(false);
  });
});

describe('follow', () => {
  it('shows the current notebook, as it was saved last, under its name', async () => {
    const { host, model, tracker, panel, server } = played();
    follow(model, host, tracker as any);
    await until(() => model.current?.history);
    const before = server.asked.length;
    panel.context.saveState.emit('completed');
    await until(() => server.asked.length > before);
    let touched = 0;
    model.changed.connect(() => (touched += 1));
    panel.context.model.stateChanged.emit({ name: 'readOnly' });
    expect(touched).toBe(0);
    panel.context.model.stateChanged.emit({ name: 'dirty' });
    expect(touched).toBe(1);
    panel.context.path = 'b.ipynb';
    panel.context.pathChanged.emit(undefined);
    expect(model.current!.path).toBe('b.ipynb');
    panel.content.activeCellChanged.emit(undefined);
    panel.dispose();
    expect(model.current!.notebook).toBeNull();
    tracker.currentChanged.emit(null);
    expect(model.current!.path).toBe('b.ipynb');
  });
});

describe('commands', () => {
  it('open, run, cancel, and go back', async () => {
    const { app, model, host, tracker, commands, activated, server } = played();
    let focused = 0;
    const widget = { id: 'nbexec-panel', load: async () => ({ focusFirst: () => (focused += 1) }) };
    const item = { type: 'notebook', path: 'RTC:c.ipynb' };
    const browser = { selectedItems: () => [item] };
    const options = { app, model, host, widget, tracker, browser, labShell: {}, trans };
    addCommands(options as any);
    expect(commands.isEnabled(CommandIDs.run)).toBe(false);
    await commands.execute(CommandIDs.open);
    expect(model.current!.path).toBe('a.ipynb');
    expect(focused).toBe(1);
    await commands.execute(CommandIDs.run);
    expect(server.asked.some(({ method }) => method === 'POST')).toBe(true);
    expect(commands.isEnabled(CommandIDs.cancel)).toBe(false);
    await commands.execute(CommandIDs.leave);
    await commands.execute(CommandIDs.openInTab);
    expect(activated).toContain('added');
    expect(commands.isVisible(CommandIDs.openSelected)).toBe(true);
    await commands.execute(CommandIDs.openSelected);
    expect(model.current!.path).toBe('c.ipynb');
    expect(model.current!.notebook).toBeNull();
  });
});

it('has plugins that need no more than Notebook 7 has, and an icon of its own', () => {
  expect(plugins.map(plugin => plugin.id)).toEqual(['jupyter-nbexec:plugin', 'jupyter-nbexec:running']);
  expect(plugins[0].requires).toHaveLength(2);
  expect(plugins[1].requires ?? []).toHaveLength(0);
  void plugins[1].activate({} as any, null, null);
  expect(serviceIcon.svgstr).toContain('jp-icon3');
});
