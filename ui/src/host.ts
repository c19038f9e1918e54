import type { JupyterFrontEnd } from '@jupyterlab/application';
import { Clipboard, Dialog, InputDialog, showDialog, showErrorMessage } from '@jupyterlab/apputils';
import { PathExt } from '@jupyterlab/coreutils';
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import type { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import { ServerConnection } from '@jupyterlab/services';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { IKernelChoice } from './components/parameters';
import type { INotebook } from './service';
import type { ICellReference } from './tokens';

/** The tag of the cell that declares parameters. */
const TAG = 'parameters';

export interface IHostOptions {
  app: JupyterFrontEnd;
  tracker: INotebookTracker;
  rendermime: IRenderMimeRegistry;
  trans: TranslationBundle;
}

/** What the application around the panel does for it: notebooks, documents, kernels, the clipboard. */
export class Host {
  constructor(options: IHostOptions) {
    this._app = options.app;
    this._tracker = options.tracker;
    this._rendermime = options.rendermime;
    this._trans = options.trans;
  }

  /** The path of a notebook on the server; a collaborative drive has a prefix of its own. */
  pathOf(panel: NotebookPanel): string {
    return this._app.serviceManager.contents.localPath(panel.context.path);
  }

  /** The open notebook of a path. */
  panelOf(path: string): NotebookPanel | null {
    const { currentWidget } = this._tracker;
    if (currentWidget && this.pathOf(currentWidget) === path) {
      return currentWidget;
    }
    return this._tracker.find(panel => this.pathOf(panel) === path) ?? null;
  }

  notebookOf(panel: NotebookPanel): INotebook {
    const { context } = panel;
    return {
      get isDirty() {
        return context.model.dirty;
      },
      save: () => context.save()
    };
  }

  rendermimeOf(path: string): IRenderMimeRegistry {
    return this.panelOf(path)?.content.rendermime ?? this._rendermime;
  }

  /** Show a cell of the notebook, and make it the active one. */
  async goToCell(path: string, reference: ICellReference): Promise<void> {
    const panel = this.panelOf(path);
    const index = panel ? this._indexOf(panel, reference) : null;
    if (!panel || index === null) {
      return;
    }
    this._app.shell.activateById(panel.id);
    panel.content.activeCellIndex = index;
    await panel.content.scrollToItem(index, 'center');
    panel.content.deselectAll();
  }

  /** The first line of a cell that says anything. */
  lineOf(path: string, reference: ICellReference): string {
    const panel = this.panelOf(path);
    const index = panel ? this._indexOf(panel, reference) : null;
    const source = index === null ? '' : (panel!.content.model?.cells.get(index).sharedModel.source ?? '');
    return source.split('\n').find(line => line.trim()) ?? '';
  }

  /** Whether the notebook has a cell for parameters; null where it is not open. */
  hasParametersCell(path: string): boolean | null {
    const cells = this.panelOf(path)?.content.model?.cells;
    if (!cells) {
      return null;
    }
    return Array.from(cells).some(
      cell => cell.type === 'code' && ((cell.getMetadata('tags') ?? []) as string[]).includes(TAG)
    );
  }

  /** Whether a code cell is selected, which could declare parameters. */
  canMakeParametersCell(path: string): boolean {
    return this._selectedCodeCell(path) !== null;
  }

  /** Tag the selected cell; undoing takes the tag away again. */
  async makeParametersCell(path: string): Promise<void> {
    const panel = this.panelOf(path);
    const cell = this._selectedCodeCell(path);
    if (!panel || !cell) {
      return;
    }
    const tags = (cell.model.getMetadata('tags') ?? []) as string[];
    cell.model.sharedModel.transact(() => {
      cell.model.setMetadata('tags', [...tags, TAG]);
    }, true);
    await panel.context.save();
  }

  /** The kernels that the server has. */
  kernels(): IKernelChoice[] {
    const specs = this._app.serviceManager.kernelspecs.specs?.kernelspecs ?? {};
    return Object.values(specs).flatMap(spec =>
      spec ? [{ name: spec.name, label: spec.display_name }] : []
    );
  }

  copy(text: string): void {
    Clipboard.copyToSystem(text);
  }

  download(name: string, type: string, text: string): void {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    URL.revokeObjectURL(link.href);
  }

  async open(path: string): Promise<void> {
    await this._app.commands.execute('docmanager:open', { path });
  }

  /** Ask for a path, and save a notebook there; null if nobody wants that after all. */
  async saveAs(notebook: string, source: string, id: string): Promise<string | null> {
    const name = `${PathExt.basename(source, '.ipynb')}-${id.slice(0, 8)}.ipynb`;
    let proposed = PathExt.join(PathExt.dirname(source), name);
    for (;;) {
      const asked = await InputDialog.getText({
        title: this._trans.__('Save the executed notebook as'),
        text: proposed,
        okLabel: this._trans.__('Save')
      });
      const path = asked.value?.trim();
      if (!asked.button.accept || !path) {
        return null;
      }
      try {
        if (await this._mayWrite(path)) {
          await this._app.serviceManager.contents.save(path, {
            type: 'notebook',
            format: 'json',
            content: JSON.parse(notebook)
          });
          return path;
        }
      } catch (error) {
        await showErrorMessage(this._trans.__('The notebook could not be saved'), error as Error);
      }
      proposed = path;
    }
  }

  /** Ask whether to end a run. */
  confirmCancel(path: string): Promise<boolean> {
    return confirm({
      title: this._trans.__('Cancel this run?'),
      body: path,
      yes: this._trans.__('Cancel the run'),
      no: this._trans.__('Let it run')
    });
  }

  /** Go back to the notebook. */
  leave(path: string): void {
    const panel = this.panelOf(path);
    if (panel) {
      this._app.shell.activateById(panel.id);
      panel.content.node.focus();
    }
  }

  openSettings(): void {
    void this._app.commands.execute('settingeditor:open', { query: 'Run as service' });
  }

  get hasSettings(): boolean {
    return this._app.commands.hasCommand('settingeditor:open');
  }

  /** Whether nothing is at a path, or somebody wants it replaced. */
  private async _mayWrite(path: string): Promise<boolean> {
    try {
      await this._app.serviceManager.contents.get(path, { content: false });
    } catch (error) {
      if (error instanceof ServerConnection.ResponseError && error.response.status === 404) {
        return true;
      }
      throw error;
    }
    return confirm({
      title: this._trans.__('Replace this file?'),
      body: this._trans.__('%1 exists already, and would be lost.', path),
      yes: this._trans.__('Replace'),
      no: this._trans.__('Choose another name')
    });
  }

  private _selectedCodeCell(path: string): NotebookPanel['content']['activeCell'] {
    const cell = this.panelOf(path)?.content.activeCell;
    // A notebook that is being closed still has the cell that was active, without its model.
    return cell && !cell.isDisposed && cell.model.type === 'code' ? cell : null;
  }

  private _indexOf(panel: NotebookPanel, reference: ICellReference): number | null {
    const cells = Array.from(panel.content.model?.cells ?? []);
    const byId = cells.findIndex(cell => cell.id === reference.cell_id);
    const index = byId >= 0 ? byId : (reference.cell ?? -1);
    return index >= 0 && index < cells.length ? index : null;
  }

  private readonly _app: JupyterFrontEnd;
  private readonly _tracker: INotebookTracker;
  private readonly _rendermime: IRenderMimeRegistry;
  private readonly _trans: TranslationBundle;
}

/** Ask whether to do what cannot be undone. */
async function confirm(question: { title: string; body: string; yes: string; no: string }): Promise<boolean> {
  const { title, body, yes, no } = question;
  const buttons = [Dialog.cancelButton({ label: no }), Dialog.warnButton({ label: yes })];
  // Whoever presses Enter once too often loses nothing.
  return (await showDialog({ title, body, buttons, defaultButton: 0 })).button.accept;
}
