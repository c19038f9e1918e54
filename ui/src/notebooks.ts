import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import type { DocumentRegistry } from '@jupyterlab/docregistry';
import type { Host } from './host';
import type { PanelModel } from './model';

/** Have the panel show the notebook that one works in, under the name that it has, as it was saved last. */
export function follow(model: PanelModel, host: Host, tracker: INotebookTracker): void {
  const known = new WeakSet<NotebookPanel>();
  const show = (panel: NotebookPanel | null) => {
    if (!panel) {
      return;
    }
    void panel.context.ready.then(() => {
      if (tracker.currentWidget !== panel || panel.isDisposed) {
        return;
      }
      const path = host.pathOf(panel);
      if (!known.has(panel)) {
        known.add(panel);
        watch(panel, path);
      }
      model.show(path, host.notebookOf(panel));
    });
  };
  const watch = (panel: NotebookPanel, first: string) => {
    let path = first;
    panel.context.pathChanged.connect(() => {
      const renamed = host.pathOf(panel);
      model.rename(path, renamed);
      path = renamed;
      show(tracker.currentWidget);
    });
    panel.context.saveState.connect((_: unknown, state: DocumentRegistry.SaveState) => {
      if (state === 'completed') {
        for (const service of model.services) {
          if (service.path === path && service.description !== null && service.activity === null) {
            void service.describe();
          }
        }
      }
    });
    panel.context.model.stateChanged.connect((_: unknown, change: { name: string }) => {
      if (change.name === 'dirty') {
        model.touch(path);
      }
    });
    panel.content.activeCellChanged.connect(() => model.touch(path));
    panel.disposed.connect(() => {
      for (const service of model.services) {
        if (service.path === path) {
          service.notebook = null;
        }
      }
      model.touch(path);
    });
  };
  tracker.currentChanged.connect((_, panel) => show(panel));
  show(tracker.currentWidget);
}
