import { downloadIcon, launchIcon, notebookIcon, saveIcon } from '@jupyterlab/ui-components';
import type { Message as LuminoMessage } from '@lumino/messaging';
import type { TranslationBundle } from '@jupyterlab/translation';
import { Panel, Widget } from '@lumino/widgets';
import React from 'react';
import { Message } from '../components/message';
import { ResultActions } from '../components/result';
import type { IResultAction } from '../components/result';
import { Status } from '../components/status';
import { stringify } from '../json';
import { ofRun } from '../messages';
import type { ActionId } from '../messages';
import { printable } from '../nbformat';
import { RunOutputs } from '../outputs';
import type { RunModel } from '../run';
import type { ServiceModel } from '../service';
import { CommandIDs } from '../tokens';
import type { IRun } from '../tokens';
import { Rendered } from '../rendered';
import type { IPanelOptions } from './options';

/** The run that is shown: its state, its result, its outputs. */
export class ResultSection extends Panel {
  constructor(
    private readonly _options: IPanelOptions,
    private readonly _act: (action: ActionId) => void
  ) {
    super();
    this.addClass('jp-NbExec-result');
    this._status = new Rendered(() => this._renderStatus());
    this._value = new ValueView(_options);
    this._actions = new Rendered(() => this._renderActions());
    this.addWidget(this._status);
    this.addWidget(this._value);
    this.addWidget(this._actions);
  }

  refresh(): void {
    const run = this._run;
    if (run !== this._shown) {
      this._shown = run;
      this._outputs?.dispose();
      this._outputs = run ? this._draw(run) : null;
      if (this._outputs) {
        this.insertWidget(2, this._outputs);
      }
    }
    this._value.refresh(run);
    this._status.update();
    this._actions.update();
    const isTicking = run !== null && !run.hasEnded;
    if (isTicking && this._timer === undefined) {
      this._timer = setInterval(() => this._status.update(), 500);
    } else if (!isTicking) {
      this._stop();
    }
  }

  dispose(): void {
    this._stop();
    super.dispose();
  }

  /** Renderers such as that of JSON draw nothing any more once they were taken off the page. */
  protected onBeforeDetach(message: LuminoMessage): void {
    this._wasDetached = true;
    super.onBeforeDetach(message);
  }

  protected onAfterAttach(message: LuminoMessage): void {
    super.onAfterAttach(message);
    if (this._wasDetached) {
      this._wasDetached = false;
      this._shown = null;
      this._value.refresh(null);
      this.refresh();
    }
  }

  private get _run(): RunModel | null {
    return this._options.model.current?.run ?? null;
  }

  private _stop(): void {
    clearInterval(this._timer);
    this._timer = undefined;
  }

  private _draw(run: RunModel): RunOutputs {
    const { model, host, trans } = this._options;
    const service = model.current!;
    return new RunOutputs(run, {
      rendermime: host.rendermimeOf(service.path),
      maxOutputs: model.settings.maxOutputs,
      onGo: service.notebook ? cell => void host.goToCell(service.path, cell) : null,
      trans
    });
  }

  private _renderStatus(): JSX.Element {
    const { model, host, trans } = this._options;
    const run = this._run;
    const service = model.current;
    if (!run || !service) {
      return <p className="jp-NbExec-note">{trans.__('Not run yet.')}</p>;
    }
    const { cell } = run.run.progress;
    const message = ofRun(run, trans);
    return (
      <>
        <Status
          run={run.run}
          phase={run.phase}
          seconds={run.seconds}
          size={run.size}
          ahead={service.ahead}
          line={cell === null ? '' : host.lineOf(service.path, { cell, cell_id: null })}
          timing={run.timing}
          trans={trans}
        />
        {message && <Message message={message} onAction={this._act} trans={trans} />}
        {run.notRun > 0 && (
          <p className="jp-NbExec-note">
            {trans._n('%1 cell was not run.', '%1 cells were not run.', run.notRun)}
          </p>
        )}
        {run.run.warnings.map(warning => (
          <p key={warning} className="jp-NbExec-note">
            {warning}
          </p>
        ))}
      </>
    );
  }

  private _renderActions(): JSX.Element {
    const { model, host, trans } = this._options;
    const run = this._run;
    const service = model.current;
    if (!run?.hasEnded || !service) {
      return <></>;
    }
    const { run: document } = run;
    const actions: IResultAction[] = [
      {
        label: document.saved_as
          ? trans.__('Open executed notebook')
          : trans.__('Save executed notebook as…'),
        icon: document.saved_as ? notebookIcon : saveIcon,
        onClick: () => void openExecuted(this._options, service, document)
      },
      {
        label: trans.__('Download JSON'),
        icon: downloadIcon,
        onClick: async () => {
          const whole = await model.api.run(run.id);
          host.download(`${run.id}.json`, 'application/json', stringify(whole as any, 1));
        }
      }
    ];
    if (this._options.commands.hasCommand(CommandIDs.openInTab)) {
      actions.push({
        label: wordsOfMove(this, trans),
        icon: launchIcon,
        onClick: () => void this._options.commands.execute(CommandIDs.openInTab)
      });
    }
    return (
      <>
        {!run.isTrusted && run.cells.some(cell => cell.outputs.length) && (
          <p className="jp-NbExec-note">
            {trans.__('This run was not started from here: scripts in its outputs are left out.')}
          </p>
        )}
        <ResultActions actions={actions} />
      </>
    );
  }

  private readonly _status: Rendered;
  private readonly _value: ValueView;
  private readonly _actions: Rendered;
  private _outputs: RunOutputs | null = null;
  private _shown: RunModel | null = null;
  private _wasDetached = false;
  private _timer: ReturnType<typeof setInterval> | undefined;
}

/** The value that the notebook gives back, as JupyterLab shows JSON. */
class ValueView extends Panel {
  constructor(private readonly _options: IPanelOptions) {
    super();
    this.addClass('jp-NbExec-value');
    this._label.addClass('jp-NbExec-cellHeader');
    this._label.node.textContent = _options.trans.__('Result');
    this.addWidget(this._label);
    this.hide();
  }

  refresh(run: RunModel | null): void {
    const key = run?.phase === 'ok' && run.run.result_type !== null ? run.id : null;
    if (key === this._key) {
      return;
    }
    this._key = key;
    this._view?.dispose();
    this._view = null;
    this.setHidden(key === null);
    if (key !== null) {
      this._view = this._draw(run!.run);
      this.addWidget(this._view);
    }
  }

  private _draw(run: IRun): Widget {
    const { result } = run;
    if (typeof result === 'object' && result !== null) {
      const type = 'application/json';
      const output = printable({
        output_type: 'display_data',
        data: { [type]: result as any },
        metadata: {}
      });
      const data = output.data as { [type: string]: unknown };
      if (type in data && this._options.rendermime.mimeTypes.includes(type)) {
        const tree = this._render(type, data[type]);
        // Nobody searches in what can be seen as a whole.
        tree.toggleClass('jp-mod-small', stringify(result).length < SMALL);
        return tree;
      }
    }
    const isText = run.result_type === 'text/plain' && typeof result === 'string';
    return this._render('text/plain', isText ? result : stringify(result, 2));
  }

  /** Draw it as an output of a cell is drawn. */
  private _render(type: string, data: unknown): Widget {
    const { rendermime } = this._options;
    const renderer = rendermime.createRenderer(type);
    renderer.addClass('jp-OutputArea-output');
    const model = rendermime.createModel({ data: { [type]: data } } as any);
    void renderer.renderModel(model).then(() => {
      // Text that scrolls must be reachable by keys.
      for (const pre of renderer.node.querySelectorAll('pre')) {
        pre.tabIndex = 0;
      }
    });
    const frame = new Panel();
    frame.addClass('jp-OutputArea');
    frame.addWidget(renderer);
    return frame;
  }

  private readonly _label = new Widget();
  private _view: Widget | null = null;
  private _key: string | null = null;
}

/** What moves the panel: its own words are written as in sentences, those of JupyterLab's menus as in titles. */
export function wordsOfMove(widget: Widget, trans: TranslationBundle): string {
  return widget.node.closest('.lm-DockPanel') ? trans.__('Move to the side bar') : trans.__('Open in a tab');
}

/** Characters of JSON below which it is not searched. */
const SMALL = 2000;

/** Open the executed notebook: the copy that the service has kept, or one that is saved now. */
export async function openExecuted(options: IPanelOptions, service: ServiceModel, run: IRun): Promise<void> {
  const { model, host } = options;
  const path = run.saved_as ?? (await host.saveAs(await model.api.notebook(run.id), service.path, run.id));
  if (path !== null) {
    await host.open(path);
  }
}
